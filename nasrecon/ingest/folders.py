"""Folders with one transform file per image, or one per pair: 7-Scenes and DeMoN.

7-Scenes. ``frame-N.color.png|jpg``, ``frame-N.pose.txt`` (4x4 world_from_cam, metres). K of the colour camera from
``camera-intrinsics-color.txt`` where there is one, else from ``camera-intrinsics.txt``. Pixel centres: half-pixel; the
nominal principal point (320, 240) of 640x480 is then the middle of the image. (The files do not say; the nominal focal
length is off by more than that.)

DeMoN and DPSNet. ``0000.jpg ...``, ``cam.txt`` (3x3 K), ``poses.txt`` (a 3x4 cam_from_world a row), unit unknown.
Pixel
centres: half-pixel. Warping the true depths between the two views says so: on the pairs with exact depth
(scenes11, mvs) the depths agree best, to 0.02-0.04 %, with the centre of the first pixel at 0.5, not at 0 or 1.
"""

from __future__ import annotations

from pathlib import Path

from nasrecon.errors import InputError
from nasrecon.ingest.images import direct_images
from nasrecon.ingest.layout import Frame, Layout, Request, choose_convention, one_camera, posed_views
from nasrecon.ingest.textfiles import is_number, numbers, read_intrinsics, read_transform, rows
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
    intrinsics = read_intrinsics(request.intrinsics or _seven_scenes_intrinsics(request, poses))
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
    views, lost = posed_views(frames, one_camera(intrinsics, first_center=0.5), convention)
    source = f"7-Scenes folder: {len(views)} images with .pose.txt ({words}), K of {intrinsics.path.name}"
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


def _find_demon(request: Request) -> Path | None:
    poses = request.place / "poses.txt"
    has_K = request.intrinsics is not None or (request.place / "cam.txt").is_file()
    if not (poses.is_file() and has_K and request.images.is_dir() and direct_images(request.images)):
        return None
    first = rows(poses)[:1]
    return request.place if first and len(first[0]) == 12 and all(map(is_number, first[0])) else None


def _read_demon(request: Request, folder: Path) -> Scene:
    intrinsics = read_intrinsics(request.intrinsics or folder / "cam.txt")
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
    views, lost = posed_views(frames, one_camera(intrinsics, first_center=0.5), convention)
    source = f"DeMoN folder: {len(views)} images, poses.txt ({words}), K of {intrinsics.path.name}"
    return Scene(root=request.images, views=views, source=source, dropped=lost)


SEVEN_SCENES = Layout(
    name="7-Scenes folder",
    looks_for="frame-*.color.png|jpg with frame-*.pose.txt",
    find=_find_seven_scenes,
    read=_read_seven_scenes,
)
DEMON = Layout(
    name="DeMoN folder",
    looks_for="images with cam.txt (3x3 K) and poses.txt (a 3x4 a row)",
    find=_find_demon,
    read=_read_demon,
)
