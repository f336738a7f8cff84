"""Folders with one transform file per image, or one per pair: 7-Scenes, ScanNet and DeMoN.

7-Scenes. ``frame-N.color.png|jpg``, ``frame-N.pose.txt`` (4x4 world_from_cam, metres). K of the colour camera from
``camera-intrinsics-color.txt`` where there is one, else from ``camera-intrinsics.txt``. Pixel centres: half-pixel; the
nominal principal point (320, 240) of 640x480 is then the middle of the image. (The files do not say; the nominal focal
length is off by more than that.)

ScanNet, as its exporter writes a scan: ``color/0.jpg``, ``pose/0.txt`` (4x4 world_from_cam, metres; -inf where the
tracker was lost), ``intrinsic/intrinsic_color.txt`` (a 4x4 with K in its corner). Pixel centres: integer; the depth
camera's nominal principal point (319.5, 239.5) is then the middle of 640x480, and that of the colour camera (647.75,
483.75) within a quarter of a pixel of the middle of 1296x968.

DeMoN and DPSNet. ``0000.jpg ...``, ``cam.txt`` (3x3 K), ``poses.txt`` (a 3x4 cam_from_world a row), unit unknown.
Pixel centres: half-pixel. Warping the true depths between the two views says so: on the pairs with exact depth
(scenes11, mvs) the depths agree best, to 0.02-0.04 %, with the centre of the first pixel at 0.5, not at 0 or 1.
"""

from __future__ import annotations

from pathlib import Path

from nasrecon.errors import InputError
from nasrecon.ingest.images import direct_images
from nasrecon.ingest.layout import Frame, Layout, Request, cameras_of, choose_convention, posed_views
from nasrecon.ingest.textfiles import is_number, numbers, read_transform, rows
from nasrecon.types import Scene

SEVEN_SCENES_K = ("camera-intrinsics-color.txt", "camera-intrinsics.txt", "intrinsics.txt")


def _stems(folder: Path, ending: str) -> set[str]:
    return {path.name[: -len(ending)] for path in folder.glob(f"*{ending}")}


def _find_seven_scenes(request: Request) -> Path | None:
    if not request.place.is_dir() or not request.images.is_dir():
        return None
    colors = {name.split(".color.")[0] for name in direct_images(request.images) if ".color." in name}
    return request.place if colors and _stems(request.place, ".pose.txt") else None


def _read_seven_scenes(request: Request, poses: Path) -> Scene:
    camera_of, which = cameras_of(request.intrinsics or _seven_scenes_intrinsics(request, poses), first_center=0.5)
    stems = _stems(poses, ".pose.txt")
    frames, dropped = [], []
    for name in direct_images(request.images):
        stem, is_color, _ = name.partition(".color.")
        path = poses / f"{stem}.pose.txt"
        if is_color and stem in stems:
            matrix = read_transform(path)
            frames.append(Frame(name=name, image_path=request.images / name, matrix=matrix, origin=str(path)))
        elif is_color:
            dropped.append((name, f"there is no {path.name}"))
    with_image = {frame.name.split(".color.")[0] for frame in frames}
    dropped += [(f"{stem}.pose.txt", "there is no colour image of that name") for stem in sorted(stems - with_image)]
    convention, words = choose_convention(request, "world-from-cam")
    views, lost = posed_views(frames, camera_of, convention)
    source = f"7-Scenes folder: {len(views)} images with .pose.txt ({words}), {which}"
    return Scene(root=request.images, views=views, unit="m", source=source, dropped=(*dropped, *lost))


def _seven_scenes_intrinsics(request: Request, poses: Path) -> Path:
    for folder in (poses, request.images, poses.parent):
        for name in SEVEN_SCENES_K:
            if (folder / name).is_file():
                return folder / name
    raise InputError(
        f"{poses}: a 7-Scenes folder, but none of {', '.join(SEVEN_SCENES_K)} is in it. Pass the intrinsics of the "
        "colour camera (a text file with a 3x3 K or fx fy cx cy). 7-Scenes comes without; its Kinect's colour camera "
        "is near 525 525 320 240, its depth camera 585 585 320 240."
    )


def _scannet_folder(request: Request) -> Path | None:
    """Return the folder of the scan, which holds color/ and pose/, or None: IMAGES or its parent."""
    for folder in (request.images, request.images.parent if request.images.name == "color" else request.images):
        named = request.poses is None or request.poses in (folder, folder / "pose")
        if named and (folder / "color").is_dir() and (folder / "pose").is_dir():
            return folder
    return None


def _find_scannet(request: Request) -> Path | None:
    folder = _scannet_folder(request)
    return folder / "pose" if folder is not None and direct_images(folder / "color") else None


def _read_scannet(request: Request, poses: Path) -> Scene:
    folder = poses.parent
    color = folder / "color"
    camera_of, which = cameras_of(request.intrinsics or _scannet_intrinsics(folder), first_center=0.0)
    names = sorted(direct_images(color), key=lambda name: (len(Path(name).stem), name))
    stems = _stems(poses, ".txt")
    with_transform = [name for name in names if Path(name).stem in stems]
    frames = []
    for name in with_transform:
        path = poses / f"{Path(name).stem}.txt"
        frames.append(Frame(name=name, image_path=color / name, matrix=read_transform(path), origin=str(path)))
    dropped = [(name, f"there is no {Path(name).stem}.txt in pose/") for name in names if Path(name).stem not in stems]
    alone = sorted(stems - {Path(name).stem for name in names})
    dropped += [(f"pose/{stem}.txt", "there is no image of that name in color/") for stem in alone]
    convention, words = choose_convention(request, "world-from-cam")
    views, lost = posed_views(frames, camera_of, convention)
    source = f"ScanNet folder: {len(views)} images, pose/ ({words}), {which}"
    return Scene(root=color, views=views, unit="m", source=source, dropped=(*dropped, *lost))


def _scannet_intrinsics(folder: Path) -> Path:
    names = ("intrinsic/intrinsic_color.txt", "intrinsics/intrinsic_color.txt", "intrinsic_color.txt")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder}: a ScanNet folder, but there is none of {', '.join(names)} in it. Pass the intrinsics of the colour "
        "camera (a text file with a 4x4, a 3x3 K, or fx fy cx cy; integer pixel centres)."
    )


def _find_demon(request: Request) -> Path | None:
    poses = request.place / "poses.txt"
    # Rows of 3x4 with another K are a DeMoN folder only if that is said: they may be anything's.
    has_K = (request.place / "cam.txt").is_file() or (request.intrinsics is not None and request.layout == "demon")
    if not (poses.is_file() and has_K and request.images.is_dir() and direct_images(request.images)):
        return None
    first = rows(poses)[:1]
    return request.place if first and len(first[0]) == 12 and all(map(is_number, first[0])) else None


def _read_demon(request: Request, folder: Path) -> Scene:
    camera_of, which = cameras_of(request.intrinsics or folder / "cam.txt", first_center=0.5)
    path = folder / "poses.txt"
    names, values = direct_images(request.images), numbers(path)
    if values.size != 12 * len(names):
        raise InputError(
            f"{path}: expected one 3x4 matrix (12 numbers) for each of the {len(names)} images in {request.images}, "
            f"found {values.size} numbers"
        )
    matrices = values.reshape(-1, 3, 4)
    frames = [
        Frame(name=name, image_path=request.images / name, matrix=matrices[i], origin=f"{path}, row {i + 1}")
        for i, name in enumerate(names)
    ]
    convention, words = choose_convention(request, "cam-from-world")
    views, lost = posed_views(frames, camera_of, convention)
    source = f"DeMoN folder: {len(views)} images, poses.txt ({words}), {which}"
    return Scene(root=request.images, views=views, source=source, dropped=lost)


SEVEN_SCENES = Layout(
    key="7scenes",
    name="7-Scenes folder",
    looks_for="frame-*.color.png|jpg with frame-*.pose.txt",
    find=_find_seven_scenes,
    read=_read_seven_scenes,
)
SCANNET = Layout(
    key="scannet",
    name="ScanNet folder",
    looks_for="color/ and pose/ (a 4x4 for each image) with intrinsic/intrinsic_color.txt",
    find=_find_scannet,
    read=_read_scannet,
)
DEMON = Layout(
    key="demon",
    name="DeMoN folder",
    looks_for="images with cam.txt (3x3 K) and poses.txt (a 3x4 a row)",
    find=_find_demon,
    read=_read_demon,
)
