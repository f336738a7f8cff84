"""ScanNet, as its exporter writes a scan.

``color/0.jpg``, ``pose/0.txt`` (4x4 world_from_cam, metres; -inf where the tracker was lost),
``intrinsic/intrinsic_color.txt`` (a 4x4 with K in its corner). Pixel centres: integer; the depth camera's nominal
principal point (319.5, 239.5) is then the middle of 640x480, and that of the colour camera (647.75, 483.75) within a
quarter of a pixel of the middle of 1296x968.
"""

from __future__ import annotations

from pathlib import Path

from nasrecon.errors import InputError
from nasrecon.ingest.formats.base import Format, Frame, Request, cameras_of, convention_of, posed_views, stems
from nasrecon.ingest.images import direct_images
from nasrecon.ingest.text import read_transform
from nasrecon.types import ImageSource, Scene, SceneOrigin


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
    with_pose = stems(poses, ".txt")
    with_transform = [name for name in names if Path(name).stem in with_pose]
    frames = []
    for name in with_transform:
        path = poses / f"{Path(name).stem}.txt"
        frames.append(
            Frame(name=name, image=ImageSource(path=color / name), matrix=read_transform(path), origin=str(path))
        )
    dropped = [
        (name, f"there is no {Path(name).stem}.txt in pose/") for name in names if Path(name).stem not in with_pose
    ]
    unmatched = sorted(with_pose - {Path(name).stem for name in names})
    dropped += [(f"pose/{stem}.txt", "there is no image of that name in color/") for stem in unmatched]
    convention = convention_of(request, "world-from-cam")
    views, lost = posed_views(frames, camera_of, convention["pose_convention"])
    origin = SceneOrigin(
        format="ScanNet folder",
        images=f"{len(views)} images",
        poses="pose/",
        intrinsics=which,
        **convention,
    )
    return Scene(root=color, views=views, unit="m", origin=origin, dropped=(*dropped, *lost))


def _scannet_intrinsics(folder: Path) -> Path:
    names = ("intrinsic/intrinsic_color.txt", "intrinsics/intrinsic_color.txt", "intrinsic_color.txt")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder}: a ScanNet folder, but there is none of {', '.join(names)} in it. Pass the intrinsics of the colour "
        "camera (a text file with a 4x4, a 3x3 K, or fx fy cx cy; integer pixel centres)."
    )


SCANNET = Format(
    key="scannet",
    name="ScanNet folder",
    looks_for="color/ and pose/ (a 4x4 for each image) with intrinsic/intrinsic_color.txt",
    find=_find_scannet,
    read=_read_scannet,
)
