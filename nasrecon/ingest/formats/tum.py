"""TUM RGB-D: one file with the transforms of a whole video at their times.

``rgb.txt``, ``groundtruth.txt`` (timestamp tx ty tz qx qy qz qw, world_from_cam, metres). An image gets the transform
at its time, between the two nearest of the trajectory, which must lie within 20 ms. K as given, else the published
calibration of the freiburg 1, 2 or 3 camera, recognised by the trajectory's header or the folder's name; 1 and 2 with
their lens distortion (on fr1 it takes the reprojection error of matches lifted by the depth from 6.7 to 6.1 px). Pixel
centres: that calibration was made with OpenCV, so the centre of the top-left pixel is at 0; a K file likewise.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import rotation_from_quaternion
from nasrecon.ingest.formats.base import (
    CameraOf,
    Format,
    Frame,
    Request,
    cameras_of,
    convention_of,
    first_rows,
    posed_views,
)
from nasrecon.ingest.images import direct_images
from nasrecon.ingest.text import is_number, numbers, rows
from nasrecon.types import Camera, ImageSource, Lens, Scene, SceneOrigin

WITHIN_S = 0.02


# fx fy cx cy, then k1 k2 p1 p2 k3 (OpenCV's order), integer pixel centres, 640x480.
FREIBURG = {
    1: ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    2: ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    3: ((535.4, 539.2, 320.1, 247.6), None),
}


def _find_tum(request: Request) -> Path | None:
    place = request.place
    path = place / "groundtruth.txt" if place.is_dir() else place
    first = first_rows(path, 2) if path.is_file() else []
    is_trajectory = bool(first) and all(len(row) == 8 and all(map(is_number, row)) for row in first)
    return path if is_trajectory and request.images.is_dir() and _timed_images(request.images) else None


def _timed_images(folder: Path) -> list[tuple[float, Path]]:
    """Return (time [s], path) of the images: from rgb.txt in the folder or above it, else from names that are times."""
    for root in (folder, folder.parent):
        listed = root / "rgb.txt"
        if listed.is_file():
            return [(float(row[0]), root / row[1]) for row in rows(listed) if len(row) == 2 and is_number(row[0])]
    paths = [folder / name for name in direct_images(folder)]
    return [(float(path.stem), path) for path in paths] if all(is_number(path.stem) for path in paths) else []


def _read_tum(request: Request, trajectory: Path) -> Scene:
    values = numbers(trajectory)
    if values.size % 8:
        raise InputError(
            f"{trajectory}: expected rows of 8 numbers (timestamp tx ty tz qx qy qz qw), found {values.size} numbers"
        )
    table = values.reshape(-1, 8)
    table = table[np.argsort(table[:, 0], kind="stable")]
    largest = np.abs(table[:, 4:]).max(axis=1, initial=0)
    sound = (largest > 0.1) & (largest < 2) & np.isfinite(table).all(axis=1)
    table[~sound, 1:] = np.nan  # no unit quaternion or no position; such frames are left out
    root = request.images
    frames, dropped = [], []
    for time, path in _timed_images(request.images):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        matrix = _at_time(table, time)
        if not path.is_file():
            dropped.append((name, "named by rgb.txt, but no such image file"))
        elif matrix is None:
            dropped.append((name, f"no transform within {WITHIN_S * 1000:.0f} ms of its time in {trajectory.name}"))
        else:
            frames.append(
                Frame(name=name, image=ImageSource(path=path), matrix=matrix, origin=f"{trajectory}, at {time:.6f} s")
            )
    if not frames:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in dropped[:3])
        raise InputError(f"{trajectory}: no image has both a file and a transform at its time ({reasons})")
    camera_of, which = _tum_camera(request, trajectory)
    convention = convention_of(request, "world-from-cam")
    views, lost = posed_views(frames, camera_of, convention["pose_convention"])
    origin = SceneOrigin(
        format="TUM trajectory",
        images=f"{len(views)} images",
        poses=trajectory.name,
        intrinsics=which,
        **convention,
    )
    return Scene(root=root, views=views, unit="m", origin=origin, dropped=(*dropped, *lost))


def _at_time(table: np.ndarray, time: float) -> np.ndarray | None:
    """Return the transform (4, 4) of a trajectory (N, 8) sorted by time, at a time [s]; None if it has none near it."""
    after = int(np.searchsorted(table[:, 0], time))
    near = [i for i in (after - 1, after) if 0 <= i < len(table) and abs(table[i, 0] - time) <= WITHIN_S]
    if not near:
        return None
    first, last = table[near[0]], table[near[-1]]
    span = last[0] - first[0]
    share = (time - first[0]) / span if span > 0 else 0.0
    sign = 1.0 if first[4:] @ last[4:] >= 0 else -1.0  # q and -q are the same rotation
    row = (1 - share) * first + share * np.concatenate([last[:4], sign * last[4:]])
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_from_quaternion(row[[7, 4, 5, 6]])
    matrix[:3, 3] = row[1:4]
    return matrix


def _tum_camera(request: Request, trajectory: Path) -> tuple[CameraOf, str]:
    """Return the function from a frame to (camera, lens), and the words that say which K it is."""
    folders, names = (trajectory.parent, request.images), ("K.txt", "camera.txt", "intrinsics.txt")
    beside = (folder / name for folder in folders for name in names)
    given = request.intrinsics or next((path for path in beside if path.is_file()), None)
    if given is not None:
        return cameras_of(given, first_center=0.0)
    which = _freiburg_number(trajectory)
    if which is None:
        raise InputError(
            f"{trajectory}: a TUM trajectory, but neither its header nor the folder's name says freiburg1, 2 or 3. "
            "Pass the intrinsics (a text file with a 3x3 K or fx fy cx cy, integer pixel centres)."
        )
    camera, lens = _freiburg_camera(which)
    words = f"the published calibration of freiburg{which}"
    return lambda frame: (camera, lens), f"{words}, undistorted" if lens else words


def _freiburg_number(trajectory: Path) -> int | None:
    header = trajectory.read_text(encoding="utf-8")[:500]
    for text in (header, trajectory.parent.resolve().name):
        match = re.search(r"(?:freiburg|fr)([123])(?!\d)", text)
        if match:
            return int(match.group(1))
    return None


def _freiburg_camera(which: int) -> tuple[Camera, Lens | None]:
    from nasrecon.ingest.undistort import pinhole_camera

    (fx, fy, cx, cy), distortion = FREIBURG[which]
    cx, cy = cx + 0.5, cy + 0.5
    if distortion is None:
        return Camera(width=640, height=480, K=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])), None
    lens = Lens(model="FULL_OPENCV", width=640, height=480, params=(fx, fy, cx, cy, *distortion, 0.0, 0.0, 0.0))
    return pinhole_camera(lens), lens


TUM = Format(
    key="tum",
    name="TUM trajectory",
    looks_for="groundtruth.txt (timestamp tx ty tz qx qy qz qw) with rgb.txt, or images named by their time",
    find=_find_tum,
    read=_read_tum,
)
