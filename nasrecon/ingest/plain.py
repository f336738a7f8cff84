"""Plain text: one K for all images, and one 4x4 (or 3x4) per image, in a file each or in one file for all.

Nothing in bare matrices says whether they are cam_from_world or world_from_cam, so the convention must be given. K is
taken with half-pixel centres (the centre of the top-left pixel at (0.5, 0.5)): add 0.5 to cx and cy of a K that has
integer ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.images import image_files
from nasrecon.ingest.layout import Frame, Layout, Request, one_camera, posed_views
from nasrecon.ingest.textfiles import is_number, numbers, read_intrinsics, read_transform, rows
from nasrecon.types import Scene

K_NAMES = ("K.txt", "intrinsics.txt", "intrinsic.txt", "camera.txt", "cam.txt", "camera.json", "intrinsics.json")
POSES_NAMES = ("poses.txt", "extrinsics.txt")


def _transform_file(folder: Path, name: str) -> Path | None:
    """Return the text file that goes with an image ("left/1.png"), by its name, in a folder; None if there is none."""
    stem = Path(name).with_suffix("")
    for candidate in (folder / f"{stem}.txt", folder / f"{stem}.pose.txt", folder / f"{stem.name}.txt"):
        if candidate.is_file():
            return candidate
    return None


def _find(request: Request) -> Path | None:
    if not request.images.is_dir():
        return None
    if request.place.is_file():
        return request.place if _looks_like_matrices(request.place) else None
    names = image_files(request.images)
    if any(_transform_file(request.place, name) for name in names):
        return request.place
    listed = (request.place / name for name in POSES_NAMES)
    return next((path for path in listed if names and path.is_file() and _looks_like_matrices(path)), None)


def _looks_like_matrices(path: Path) -> bool:
    """Say whether the first row of a file is a row of 4, 12 or 16 numbers, with or without a name before it."""
    try:
        first = rows(path)[:1]
    except InputError:
        return False
    return bool(first) and len(first[0]) in (4, 5, 12, 13, 16, 17) and all(map(is_number, first[0][1:]))


def _read(request: Request, place: Path) -> Scene:
    if request.convention is None:
        raise InputError(
            f"{place}: plain 4x4 matrices do not say which way they go; give the convention. "
            "cam-from-world: the matrix takes a world point into the camera (COLMAP, MVSNet, OpenCV's R|t). "
            "world-from-cam: it takes a camera point into the world, its last column is the camera's position "
            "(7-Scenes, ScanNet, TUM, most SLAM systems)."
        )
    names = image_files(request.images)
    pairs, dropped = _one_file(names, place) if place.is_file() else _file_each(names, place)
    frames = [
        Frame(name=name, image_path=request.images / name, matrix=matrix, origin=origin)
        for name, matrix, origin in pairs
    ]
    intrinsics = read_intrinsics(request.intrinsics or _intrinsics(request, place))
    views, lost = posed_views(frames, one_camera(intrinsics, first_center=0.5), request.convention)
    source = (
        f"plain matrices: {len(views)} of {len(names)} images, {place.name} "
        f"({request.convention.replace('-', '_')}, as given), K of {intrinsics.path.name}"
    )
    return Scene(root=request.images, views=views, source=source, dropped=(*dropped, *lost))


Posed = list[tuple[str, np.ndarray, str]]
Dropped = list[tuple[str, str]]


def _file_each(names: tuple[str, ...], folder: Path) -> tuple[Posed, Dropped]:
    """Return (name, matrix, where it stood) of the images with a text file, and (name, reason) of those without."""
    posed, dropped = [], []
    taken = set()
    for name in names:
        path = _transform_file(folder, name)
        if path is None:
            dropped.append((name, f"there is no {Path(name).stem}.txt in {folder.name}"))
            continue
        if path in taken:
            raise InputError(f"{path}: two images ask for this file; name the files after the images, subfolders too")
        taken.add(path)
        posed.append((name, read_transform(path), str(path)))
    others = sorted(path for path in folder.glob("*.txt") if path not in taken and path.name not in K_NAMES)
    dropped += [(path.name, "there is no image of that name") for path in others]
    return posed, dropped


def _one_file(names: tuple[str, ...], path: Path) -> tuple[Posed, Dropped]:
    """Return (name, matrix, where it stood) of the images: by the names in the rows, else in the order of the names."""
    table = rows(path)
    if any(not is_number(row[0]) for row in table):
        return _named_rows(names, table, path)
    values = numbers(path)
    size = next((size for size in (16, 12) if values.size == size * len(names)), None)
    if size is None:
        raise InputError(
            f"{path}: expected one 4x4 or 3x4 matrix for each of the {len(names)} images (sorted by name), "
            f"{16 * len(names)} or {12 * len(names)} numbers; found {values.size}"
        )
    matrices = values.reshape(len(names), -1, 4)
    return [(name, matrices[i], f"{path}, matrix {i + 1}") for i, name in enumerate(names)], []


def _named_rows(names: tuple[str, ...], table: list[list[str]], path: Path) -> tuple[Posed, Dropped]:
    posed, dropped, listed = [], [], set()
    for i, row in enumerate(table):
        if len(row) not in (13, 17) or not all(map(is_number, row[1:])):
            raise InputError(
                f"{path}, row {i + 1}: expected an image's name and 16 or 12 numbers, found {' '.join(row)[:80]}"
            )
        if row[0] in listed:
            raise InputError(f"{path}, row {i + 1}: {row[0]} is there twice")
        listed.add(row[0])
        if row[0] in names:
            posed.append((row[0], np.array([float(word) for word in row[1:]]).reshape(-1, 4), f"{path}, row {i + 1}"))
        else:
            dropped.append((row[0], f"named by {path.name}, but no such image file"))
    dropped += [(name, f"not named by {path.name}") for name in names if name not in listed]
    if not posed:
        raise InputError(
            f"{path}: names no image of the folder ({table[0][0]!r} first; the folder's first: {names[:1]})"
        )
    return sorted(posed, key=lambda item: item[0]), dropped


def _intrinsics(request: Request, place: Path) -> Path:
    folders = dict.fromkeys((place if place.is_dir() else place.parent, request.images, request.images.parent))
    for folder in folders:
        for name in K_NAMES:
            if (folder / name).is_file():
                return folder / name
    where = ", ".join(str(folder) for folder in folders)
    raise InputError(
        f"{place}: transforms, but no intrinsics: none of {', '.join(K_NAMES)} in {where}. "
        "Pass a text file with a 3x3 K or fx fy cx cy."
    )


LAYOUT = Layout(
    name="plain matrices",
    looks_for="a .txt with a 4x4 or 3x4 for each image (named after it), or one file with all, and K.txt",
    find=_find,
    read=_read,
)
