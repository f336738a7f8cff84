"""Strecha's benchmark: one file with K, rotation and position of the camera for each image.

``0000.jpg.camera``: K (9 numbers), three zeros, R (9), the camera's place (3), width and height. R is world_from_cam:
x_in_cam = R^T (x_in_world - place). Pixel centres: half-pixel; on fountain-P11 matches triangulated from the surveyed
cameras reproject best (0.346 px, against 0.359 half a pixel off) with K as it stands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.formats.base import (
    Format,
    Frame,
    Request,
    cameras_by_name,
    image_folder,
    posed_views,
    refuse_own_cameras,
)
from nasrecon.ingest.images import direct_images
from nasrecon.ingest.text import Intrinsics, numbers
from nasrecon.types import ImageSource, Scene, SceneOrigin

STRECHA_PLACES = ("", "cameras", "gt_dense_cameras", "images", "image")


def _find_strecha(request: Request) -> Path | None:
    if not request.place.is_dir():
        return None
    places = (request.place / name for name in STRECHA_PLACES)
    return next((place for place in places if place.is_dir() and any(place.glob("*.camera"))), None)


def _read_strecha(request: Request, folder: Path) -> Scene:
    refuse_own_cameras(request, folder, "world-from-cam")
    root = image_folder(request.images)
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.camera")):
        by_stem.setdefault(_image_stem(path), []).append(path)
    frames, intrinsics, dropped, taken = [], {}, [], set()
    for name in direct_images(root):
        exact = folder / f"{name}.camera"
        candidates = [exact] if exact.is_file() else by_stem.get(Path(name).stem, [])
        if len(candidates) != 1:
            problem = "there is no" if not candidates else f"{', '.join(p.name for p in candidates)}, but no"
            dropped.append((name, f"{problem} {exact.name}"))
            continue
        path = candidates[0]
        taken.add(path)
        intrinsics[name], matrix = _read_strecha_camera(path)
        frames.append(Frame(name=name, image=ImageSource(path=root / name), matrix=matrix, origin=str(path)))
    unused = sorted(path for paths in by_stem.values() for path in paths if path not in taken)
    dropped += [(path.name, "there is no image of that name") for path in unused]
    views, lost = posed_views(frames, cameras_by_name(intrinsics), "world-from-cam")
    origin = SceneOrigin(
        format="Strecha cameras",
        images=f"{len(views)} images",
        poses=".camera files",
        pose_convention="world-from-cam",
        intrinsics=".camera files",
    )
    return Scene(root=root, views=views, origin=origin, dropped=(*dropped, *lost))


def _image_stem(path: Path) -> str:
    """Return the stem of the image that a .camera file is for: of 0000.jpg.camera and of 0000.camera it is 0000."""
    return Path(path.name.removesuffix(".camera")).stem


def _read_strecha_camera(path: Path) -> tuple[Intrinsics, np.ndarray]:
    """Return K and world_from_cam (3, 4).

    Raises:
        InputError: if the file is not 24 or 26 finite numbers, or has lens distortion.
    """
    values = numbers(path)
    if values.size not in (24, 26):
        raise InputError(
            f"{path}: expected K (9 numbers), three zeros, R (9), the camera's place (3), width and height; found "
            f"{values.size} numbers"
        )
    if not np.isfinite(values).all():
        first = int(np.flatnonzero(~np.isfinite(values))[0])
        raise InputError(f"{path}: number {first + 1} is {values[first]}, expected a finite number")
    if values[9:12].any():
        raise InputError(
            f"{path}: the three numbers after K should be zeros, found {values[9:12]}. Lens distortion is not "
            "read from "
            "these files; undistort the images first."
        )
    size = (int(values[24]), int(values[25])) if values.size == 26 else None
    matrix = np.hstack([values[12:21].reshape(3, 3), values[21:24, None]])
    return Intrinsics(path=path, K=values[:9].reshape(3, 3), size=size), matrix


STRECHA = Format(
    key="strecha",
    name="Strecha cameras",
    looks_for="0000.jpg.camera for each image",
    find=_find_strecha,
    read=_read_strecha,
)
