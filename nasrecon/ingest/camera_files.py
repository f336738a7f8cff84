"""K, rotation and place of each camera in the files of two benchmarks: Middlebury's multi-view sets and Strecha's.

Middlebury. ``NAME_par.txt``: the number of images, then for each its file name, K (9 numbers, row by row), R (9) and t
(3): cam_from_world is [R t]. Pixel centres: half-pixel; the files do not say.

Strecha. ``0000.jpg.camera`` for each image: K (9 numbers), three zeros, R (9), the camera's place (3), width and
height. R is world_from_cam: x_in_cam = R^T (x_in_world - place). Pixel centres: half-pixel; on fountain-P11 matches
triangulated from the surveyed cameras reproject best (0.346 px, against 0.359 half a pixel off) with K as it stands.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.images import direct_images, image_size
from nasrecon.ingest.layout import CameraOf, Frame, Layout, Request, image_folder, posed_views
from nasrecon.ingest.textfiles import Intrinsics, is_number, numbers, rows
from nasrecon.types import Scene

STRECHA_PLACES = ("", "cameras", "gt_dense_cameras", "images", "image")


def _refuse_what_they_have(request: Request, mark: Path, convention: str) -> None:
    """Refuse intrinsics and a convention that the files leave no room for."""
    if request.intrinsics is not None:
        raise InputError(f"{mark}: these cameras have their own intrinsics; leave {request.intrinsics} out")
    if request.convention not in (None, convention):
        raise InputError(f"{mark}: these cameras are {convention} by definition; leave the convention out")


def _cameras(intrinsics: dict[str, Intrinsics]) -> CameraOf:
    """Return the function from a frame to its camera, for K by the image's name."""
    return lambda frame: (intrinsics[frame.name].camera(image_size(frame.image_path), first_center=0.5), None)


def _find_middlebury(request: Request) -> Path | None:
    if request.place.is_file():
        return request.place if request.place.name.endswith("_par.txt") else None
    found = sorted(request.place.glob("*_par.txt"))
    return found[0] if found else None


def _read_middlebury(request: Request, path: Path) -> Scene:
    several = sorted(p.name for p in request.place.glob("*_par.txt")) if request.place.is_dir() else []
    if len(several) > 1:
        raise InputError(f"{request.place}: there are {', '.join(several)}; pass the one to read as the poses")
    _refuse_what_they_have(request, path, "cam-from-world")
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
            f"{path}: expected the number of images, then a row for each; found {' '.join(table[0]) if table else ''!r} "
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
        frames.append(Frame(name=name, image_path=root / name, matrix=matrix, origin=f"{path}, {name}"))
    listed = {row[0] for row in table[1:]}
    dropped += [(name, f"not named by {path.name}") for name in direct_images(root) if name not in listed]
    views, lost = posed_views(frames, _cameras(intrinsics), "cam-from-world")
    source = f"Middlebury cameras: {len(views)} of {len(table) - 1} images, {path.name} (cam_from_world)"
    return Scene(root=root, views=views, source=source, dropped=(*dropped, *lost))


def _find_strecha(request: Request) -> Path | None:
    if not request.place.is_dir():
        return None
    places = (request.place / name for name in STRECHA_PLACES)
    return next((place for place in places if place.is_dir() and any(place.glob("*.camera"))), None)


def _read_strecha(request: Request, folder: Path) -> Scene:
    _refuse_what_they_have(request, folder, "world-from-cam")
    root = image_folder(request.images)
    by_stem: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.camera")):
        by_stem.setdefault(_image_stem(path), []).append(path)
    frames, intrinsics, dropped, taken = [], {}, [], set()
    for name in direct_images(root):
        exact = folder / f"{name}.camera"
        candidates = [exact] if exact.is_file() else by_stem.get(Path(name).stem, [])
        if len(candidates) != 1:
            found = "there is no" if not candidates else f"{', '.join(p.name for p in candidates)}, but no"
            dropped.append((name, f"{found} {exact.name}"))
            continue
        path = candidates[0]
        taken.add(path)
        intrinsics[name], matrix = _read_strecha_camera(path)
        frames.append(Frame(name=name, image_path=root / name, matrix=matrix, origin=str(path)))
    unused = sorted(path for paths in by_stem.values() for path in paths if path not in taken)
    dropped += [(path.name, "there is no image of that name") for path in unused]
    views, lost = posed_views(frames, _cameras(intrinsics), "world-from-cam")
    source = f"Strecha cameras: {len(views)} images, .camera files (world_from_cam)"
    return Scene(root=root, views=views, source=source, dropped=(*dropped, *lost))


def _image_stem(path: Path) -> str:
    """Return the stem of the image that a .camera file is for: of 0000.jpg.camera and of 0000.camera it is 0000."""
    return Path(path.name.removesuffix(".camera")).stem


def _read_strecha_camera(path: Path) -> tuple[Intrinsics, np.ndarray]:
    """Return K and world_from_cam (3, 4).

    Raises:
        InputError: if the file is not 24 or 26 numbers, or has lens distortion.
    """
    values = numbers(path)
    if values.size not in (24, 26):
        raise InputError(
            f"{path}: expected K (9 numbers), three zeros, R (9), the camera's place (3), width and height; found "
            f"{values.size} numbers"
        )
    if values[9:12].any():
        raise InputError(
            f"{path}: the three numbers after K should be zeros, found {values[9:12]}. Lens distortion is not read from "
            "these files; undistort the images first."
        )
    size = (int(values[24]), int(values[25])) if values.size == 26 else None
    matrix = np.hstack([values[12:21].reshape(3, 3), values[21:24, None]])
    return Intrinsics(path=path, K=values[:9].reshape(3, 3), size=size), matrix


MIDDLEBURY = Layout(
    key="middlebury",
    name="Middlebury cameras",
    looks_for="NAME_par.txt (a row with name, K, R, t for each image) beside the images",
    find=_find_middlebury,
    read=_read_middlebury,
)
STRECHA = Layout(
    key="strecha",
    name="Strecha cameras",
    looks_for="0000.jpg.camera for each image",
    find=_find_strecha,
    read=_read_strecha,
)
