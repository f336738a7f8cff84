"""DeMoN and DPSNet: a folder with one file of transforms per pair.

``0000.jpg ...``, ``cam.txt`` (3x3 K), ``poses.txt`` (a 3x4 cam_from_world a row), unit unknown. Pixel centres:
half-pixel. Warping the true depths between the two views says so: on the pairs with exact depth (scenes11, mvs) the
depths agree best, to 0.02-0.04 %, with the centre of the first pixel at 0.5, not at 0 or 1.
"""

from __future__ import annotations

from pathlib import Path

from nasrecon.errors import InputError
from nasrecon.ingest.formats.base import Format, Frame, Request, cameras_of, convention_of, posed_views
from nasrecon.ingest.images import direct_images
from nasrecon.ingest.text import is_number, numbers, rows
from nasrecon.types import ImageSource, Scene, SceneOrigin


def _find_demon(request: Request) -> Path | None:
    poses = request.place / "poses.txt"
    # Rows of 3x4 with another K are a DeMoN folder only if that is said: they may be anything's.
    has_K = (request.place / "cam.txt").is_file() or (request.intrinsics is not None and request.format == "demon")
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
        Frame(
            name=name, image=ImageSource(path=request.images / name), matrix=matrices[i], origin=f"{path}, row {i + 1}"
        )
        for i, name in enumerate(names)
    ]
    convention = convention_of(request, "cam-from-world")
    views, lost = posed_views(frames, camera_of, convention["pose_convention"])
    origin = SceneOrigin(
        format="DeMoN folder",
        images=f"{len(views)} images",
        poses="poses.txt",
        intrinsics=which,
        **convention,
    )
    return Scene(root=request.images, views=views, origin=origin, dropped=lost)


DEMON = Format(
    key="demon",
    name="DeMoN folder",
    looks_for="images with cam.txt (3x3 K) and poses.txt (a 3x4 a row)",
    find=_find_demon,
    read=_read_demon,
)
