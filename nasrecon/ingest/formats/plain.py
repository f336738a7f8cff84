"""Plain text: one 4x4 (or 3x4) per image, in a file each or in one file for all; one K for all images, or one for each.

The images may be the frames of a video: transforms in one file are then those of all its frames in order, files with
one each are named by the frame's number (``000012.txt``, counted from 0). Nothing in bare matrices says whether they
are cam_from_world or world_from_cam, so the convention must be given. K is taken with half-pixel centres (the centre of
the top-left pixel at (0.5, 0.5)): add 0.5 to cx and cy of a K that has integer ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.formats.base import Format, Frame, Request, cameras_of, posed_views
from nasrecon.ingest.images import image_files, pictures
from nasrecon.ingest.text import file_of, is_number, numbers, read_transform, rows
from nasrecon.types import Scene, SceneOrigin

K_NAMES = ("K.txt", "intrinsics.txt", "intrinsic.txt", "camera.txt", "cam.txt", "camera.json", "intrinsics.json")
K_FOLDERS = ("intrinsics", "intrinsic")
POSES_NAMES = ("poses.txt", "extrinsics.txt")


def _transform_file(folder: Path, name: str) -> Path | None:
    """Return the text file that goes with an image ("left/1.png"), by its name, in a folder; None if there is none."""
    named = file_of(folder, name, (".txt", ".pose.txt"))
    beside = folder / f"{Path(name).stem}.txt"
    return named or (beside if beside.is_file() else None)


def _find(request: Request) -> Path | None:
    if request.place.is_file():
        return request.place if _looks_like_matrices(request.place) else None
    if request.images.is_dir():
        names = image_files(request.images)
    else:
        names = tuple(path.stem for path in request.place.glob("*.txt") if path.stem.isdigit())
    if any(_transform_file(request.place, name) for name in names):
        return request.place
    listed = (request.place / name for name in POSES_NAMES)
    any_images = bool(names) or request.images.is_file()
    return next((path for path in listed if any_images and path.is_file() and _looks_like_matrices(path)), None)


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
    images = pictures(request.images)
    names = tuple(images)
    pairs, dropped = _one_file(names, place) if place.is_file() else _file_each(names, place)
    frames = [Frame(name=name, image=images[name], matrix=matrix, origin=origin) for name, matrix, origin in pairs]
    intrinsics = request.intrinsics or _intrinsics(request, place, names)
    camera_of, which = cameras_of(intrinsics, first_center=0.5)
    views, lost = posed_views(frames, camera_of, request.convention)
    what = "images" if request.images.is_dir() else f"frames of {request.images.name}"
    origin = SceneOrigin(
        format="plain matrices",
        images=f"{len(views)} of {len(names)} {what}",
        poses=place.name,
        pose_convention=request.convention,
        convention_given=True,
        intrinsics=which,
    )
    root = request.images if request.images.is_dir() else request.images.parent
    return Scene(root=root, views=views, origin=origin, dropped=(*dropped, *lost))


PosedImages = list[tuple[str, np.ndarray, str]]
Dropped = list[tuple[str, str]]


def _file_each(names: tuple[str, ...], folder: Path) -> tuple[PosedImages, Dropped]:
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


def _one_file(names: tuple[str, ...], path: Path) -> tuple[PosedImages, Dropped]:
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


def _named_rows(names: tuple[str, ...], table: list[list[str]], path: Path) -> tuple[PosedImages, Dropped]:
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
            f"{path}: names no image of the folder (its first is {table[0][0]}, the folder's first {names[0]})"
        )
    return sorted(posed, key=lambda item: item[0]), dropped


def _intrinsics(request: Request, place: Path, names: tuple[str, ...]) -> Path:
    """Return the file with K, or the folder with a K for each image, among or beside the transforms and the images."""
    near = (place if place.is_dir() else place.parent, request.images, request.images.parent)
    folders = [folder for folder in dict.fromkeys(near) if folder.is_dir()]
    for folder in folders:
        for name in K_NAMES:
            if (folder / name).is_file():
                return folder / name
    for folder in (folder / name for folder in (*folders, folders[0].parent) for name in K_FOLDERS):
        if folder.is_dir() and any(file_of(folder, name, (".txt", ".json")) for name in names):
            return folder
    where = ", ".join(str(folder) for folder in folders)
    raise InputError(
        f"{place}: camera poses, but no intrinsics: none of {', '.join(K_NAMES)} in {where}, and no folder "
        f"{' or '.join(f'{name}/' for name in K_FOLDERS)} with a file for each image. Pass a text file with a 3x3 K or "
        "fx fy cx cy, one with an image's name before each, or a folder with a file for each image."
    )


FORMAT = Format(
    key="matrices",
    name="plain matrices",
    looks_for="a .txt with a 4x4 or 3x4 for each image (named after it), or one file with all, and K.txt",
    find=_find,
    read=_read,
    takes_video=True,
    is_fallback=True,
)
