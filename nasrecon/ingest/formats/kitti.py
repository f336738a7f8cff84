"""KITTI odometry: ``sequences/00`` with ``image_0`` ... ``image_3`` and ``calib.txt``, and ``poses/00.txt``.

A row of the poses is a 3x4 world_from_cam of camera 0 (metres); row i is image ``00000i.png``. ``calib.txt`` has a 3x4
projection for each camera, ``P2: ...``: K, and where the camera sits beside camera 0. All images are rectified
pinholes. Pixel centres: integer (the set's own development kit counts pixels from 0).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import inverse
from nasrecon.ingest.formats.base import Format, Frame, Request, convention_of, posed_views, rigid
from nasrecon.ingest.images import direct_images, image_size
from nasrecon.ingest.text import Intrinsics, is_number, rows
from nasrecon.types import ImageSource, Scene, SceneOrigin

CAMERA = re.compile(r"image_(\d+)")


def _find(request: Request) -> Path | None:
    sequence = _sequence(request)
    return None if sequence is None else _poses(request, sequence)


def _sequence(request: Request) -> Path | None:
    """Return the folder with calib.txt and image_*/: IMAGES, or its parent where IMAGES is one of these."""
    one_camera = CAMERA.fullmatch(request.images.name) is not None
    folder = request.images.parent if one_camera else request.images
    return folder if (folder / "calib.txt").is_file() and _folders(request) else None


def _folders(request: Request) -> dict[int, Path]:
    """Return the folders of images to read, by the camera's number."""
    candidates = [request.images, *sorted(request.images.iterdir())]
    numbered = {path: CAMERA.fullmatch(path.name) for path in candidates if path.is_dir()}
    return {int(match.group(1)): path for path, match in numbered.items() if match and direct_images(path)}


def _poses(request: Request, sequence: Path) -> Path | None:
    """Return the file of the poses: as given, else poses.txt in the sequence, else poses/00.txt beside sequences/."""
    whole = sequence.resolve()
    name = f"{whole.name}.txt"
    of_set = whole.parent.parent / "poses" / name
    beside = [sequence / "poses.txt", of_set if sequence.is_absolute() else Path(os.path.relpath(of_set))]
    given = request.poses
    candidates = beside if given in (None, sequence, request.images) else [given / name, given / "poses.txt", given]
    return next((path for path in candidates if path.is_file() and _is_poses(path)), None)


def _is_poses(path: Path) -> bool:
    try:
        first = rows(path)[:1]
    except InputError:
        return False
    return bool(first) and len(first[0]) == 12 and all(map(is_number, first[0]))


def _read(request: Request, path: Path) -> Scene:
    sequence = _sequence(request) or request.images
    if request.intrinsics is not None:
        raise InputError(
            f"{sequence / 'calib.txt'}: a KITTI sequence has its own intrinsics; leave {request.intrinsics} out"
        )
    convention = convention_of(request, "world-from-cam")
    table = _table(path)
    calibration = _read_calibration(sequence / "calib.txt")
    folders = _folders(request)
    frames, cameras, dropped, used = [], {}, [], set()
    for number, folder in folders.items():
        if number not in calibration:
            raise InputError(f"{sequence / 'calib.txt'}: there is no P{number}, but {folder.name}/ has images")
        K, cam_from_cam0 = calibration[number]
        intrinsics = Intrinsics(path=sequence / "calib.txt", K=K)
        for file in direct_images(folder):
            name = file if folder == request.images else f"{folder.name}/{file}"
            i = int(Path(file).stem) if Path(file).stem.isdigit() else -1
            if not 0 <= i < len(table):
                dropped.append((name, f"{path.name} has no row of its number"))
                continue
            used.add(i)
            cameras[name] = intrinsics
            matrix = _cam0_from_world(table[i], convention["pose_convention"], f"{path}, row {i + 1}")
            frames.append(
                Frame(
                    name=name,
                    image=ImageSource(path=folder / file),
                    matrix=cam_from_cam0 @ matrix,
                    origin=f"{path}, row {i + 1}",
                )
            )
    unused = [str(i + 1) for i in range(len(table)) if i not in used]
    if unused:
        more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
        dropped.append((f"{path.name} row {', '.join(unused[:5])}{more}", "there is no image of that number"))

    def camera_of(frame):
        return (cameras[frame.name].camera(image_size(frame.image.path), first_center=0.0), None)

    views, lost = posed_views(sorted(frames, key=lambda frame: frame.name), camera_of, "cam-from-world")
    which = ", ".join(folder.name for folder in folders.values())
    origin = SceneOrigin(
        format="KITTI sequence",
        images=f"{len(views)} images of {which}",
        poses=path.name,
        intrinsics="calib.txt",
        **convention,
    )
    return Scene(root=request.images, views=views, unit="m", origin=origin, dropped=(*dropped, *lost))


def _table(path: Path) -> np.ndarray:
    """Return the rows of a file of poses (N, 3, 4)."""
    table = rows(path)
    for i, row in enumerate(table):
        if len(row) != 12 or not all(map(is_number, row)):
            raise InputError(f"{path}, row {i + 1}: expected 12 numbers (a 3x4), found {len(row)} words")
    return np.array(table, dtype=np.float64).reshape(-1, 3, 4)


def _cam0_from_world(matrix: np.ndarray, convention: str, origin: str) -> np.ndarray:
    """Return cam0_from_world (4, 4); one that is not finite stays so."""
    if not np.isfinite(matrix).all():
        return np.full((4, 4), np.nan)
    transform = rigid(matrix, origin)
    return inverse(transform) if convention == "world-from-cam" else transform


_LARGEST = 1e12
"""Numbers of a projection are pixels, or pixels times metres; larger ones overflow in what follows."""


def _read_calibration(path: Path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return K (3, 3) and cam_from_cam0 (4, 4) of each camera of a calib.txt, by its number."""
    out = {}
    for name, *words in rows(path):
        match = re.fullmatch(r"P(\d+):", name)
        if not match:
            continue
        if len(words) != 12 or not all(map(is_number, words)):
            raise InputError(f"{path}, {name} expected 12 numbers (a 3x4 projection), found {len(words)} words")
        projection = np.array([float(word) for word in words]).reshape(3, 4)
        if not np.abs(projection).max() < _LARGEST:
            raise InputError(f"{path}, {name} expected numbers below {_LARGEST:g} [px], found\n{projection}")
        K, cam_from_cam0 = projection[:, :3], np.eye(4)
        if abs(np.linalg.det(K)) < 1e-9:
            raise InputError(f"{path}, {name} the left 3x3 of the projection is no K, found\n{K}")
        cam_from_cam0[:3, 3] = np.linalg.solve(K, projection[:, 3])
        out[int(match.group(1))] = K, cam_from_cam0
    if not out:
        raise InputError(f"{path}: expected rows P0: ... P3: with 12 numbers each, found none")
    return out


FORMAT = Format(
    key="kitti",
    name="KITTI sequence",
    looks_for="calib.txt (P0: ...), image_0/ ..., and poses.txt, or ../../poses/SEQUENCE.txt (12 numbers a row)",
    find=_find,
    read=_read,
)
