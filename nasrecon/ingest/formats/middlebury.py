"""Middlebury's multi-view sets: one file with K, rotation and translation of each camera.

``NAME_par.txt``: the number of images, then for each its file name, K (9 numbers, row by row), R (9) and t (3):
cam_from_world is [R t]. Pixel centres: half-pixel; the files do not say.
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
from nasrecon.ingest.text import Intrinsics, is_number, rows
from nasrecon.types import ImageSource, Scene, SceneOrigin


def _find_middlebury(request: Request) -> Path | None:
    if request.place.is_file():
        return request.place if request.place.name.endswith("_par.txt") else None
    files = sorted(request.place.glob("*_par.txt"))
    return files[0] if files else None


def _read_middlebury(request: Request, path: Path) -> Scene:
    several = sorted(p.name for p in request.place.glob("*_par.txt")) if request.place.is_dir() else []
    if len(several) > 1:
        raise InputError(f"{request.place}: there are {', '.join(several)}; pass the one to read as the poses")
    refuse_own_cameras(request, path, "cam-from-world")
    root = image_folder(request.images)
    table = rows(path)
    whole = bool(table) and len(table[0]) == 1 and table[0][0] == str(len(table) - 1)
    for i, row in enumerate(table[1:], start=2):
        if len(row) != 22 or not all(map(is_number, row[1:])):
            raise InputError(
                f"{path}, row {i}: expected an image's name and 21 numbers (K, R, t), found {len(row)} words"
            )
    if not whole:
        raise InputError(
            f"{path}: expected the number of images, then a row for each; found "
            f"{' '.join(table[0]) if table else ''!r} "
            f"and {max(0, len(table) - 1)} rows"
        )
    frames, intrinsics, dropped = [], {}, []
    for name, *words in sorted(table[1:]):
        values = np.array([float(word) for word in words])
        if not (root / name).is_file():
            dropped.append((name, f"named by {path.name}, but no such image file"))
            continue
        intrinsics[name] = Intrinsics(path=path, K=values[:9].reshape(3, 3))
        matrix = np.hstack([values[9:18].reshape(3, 3), values[18:, None]])
        frames.append(Frame(name=name, image=ImageSource(path=root / name), matrix=matrix, origin=f"{path}, {name}"))
    listed = {row[0] for row in table[1:]}
    dropped += [(name, f"not named by {path.name}") for name in direct_images(root) if name not in listed]
    views, lost = posed_views(frames, cameras_by_name(intrinsics), "cam-from-world")
    origin = SceneOrigin(
        format="Middlebury cameras",
        images=f"{len(views)} of {len(table) - 1} images",
        poses=path.name,
        intrinsics=path.name,
    )
    return Scene(root=root, views=views, origin=origin, dropped=(*dropped, *lost))


MIDDLEBURY = Format(
    key="middlebury",
    name="Middlebury cameras",
    looks_for="NAME_par.txt (a row with name, K, R, t for each image) beside the images",
    find=_find_middlebury,
    read=_read_middlebury,
)
