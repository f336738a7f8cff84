"""True depth that comes with RGB-D sets, for evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import array_indices
from nasrecon.ingest.text import is_number, read_intrinsics, rows
from nasrecon.types import Camera, View

MILLIMETRE = 0.001
TUM_UNIT_M = 1 / 5000
WITHIN_S = 0.02


def read_true_depth(view: View) -> np.ndarray | None:
    """Return the true depth of a view, (H, W) float32 at its camera's size [scene units, 0 = invalid]; None without.

    Known are, by the names beside the image: 7-Scenes (``.depth.png``, mm, 65535 invalid; the depth camera's pixels
    are moved into the colour camera by their focal lengths, the 25 mm between the two are left), TUM (``depth.txt``,
    1/5000 m), DeMoN (``.npy`` beside the image), and ``depth/`` beside the folder of images (``.npy`` in scene units,
    or ``.png`` in the ``depth_unit_m`` of ``camera.json``, else mm). Depth is never interpolated: each pixel takes
    its nearest.

    Raises:
        InputError: if there is a depth map, but it cannot be read.
    """
    for read in (_seven_scenes, _tum, _beside, _depth_folder):
        depth = read(view)
        if depth is not None:
            depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
            return _at_size(depth, view)
    return None


def _read_png(path: Path, unit: float, invalid: int | None = None) -> np.ndarray:
    import imageio.v3 as iio

    try:
        stored = np.asarray(iio.imread(path, plugin="pillow"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a depth image ({error})") from error
    if stored.ndim != 2 or not np.issubdtype(stored.dtype, np.integer):
        raise InputError(f"{path}: expected a 16-bit grey depth image, found {stored.dtype} of shape {stored.shape}")
    return np.where(stored == invalid, 0, stored * unit)


def _read_npy(path: Path) -> np.ndarray:
    try:
        stored = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a numpy array ({error})") from error
    if stored.ndim != 2:
        raise InputError(f"{path}: expected a depth map (H, W), found shape {stored.shape}")
    return stored


def _seven_scenes(view: View) -> np.ndarray | None:
    stem, is_color, _ = view.image.path.name.partition(".color.")
    path = view.image.path.with_name(f"{stem}.depth.png")
    if not is_color or not path.is_file():
        return None
    depth = _read_png(path, MILLIMETRE, invalid=65535)
    depth_intrinsics = view.image.path.with_name("camera-intrinsics.txt")
    if not depth_intrinsics.is_file() or not view.image.path.with_name("camera-intrinsics-color.txt").is_file():
        return depth
    height, width = depth.shape
    depth_camera = read_intrinsics(depth_intrinsics).camera((width, height), first_center=0.5)
    return _moved(depth, depth_camera, view.camera.resized(width, height))


def _moved(depth: np.ndarray, camera: Camera, target: Camera) -> np.ndarray:
    """Move a depth map to another camera at the same place; where pixels fall on one, the nearest depth stays."""
    pixels = target.project(camera.unproject_depth(depth))
    row, column, inside = array_indices(pixels, target.width, target.height)
    out = np.full((target.height, target.width), np.inf)
    np.minimum.at(out, (row[inside], column[inside]), depth[inside])
    return np.where(np.isfinite(out), out, 0)


def _tum(view: View) -> np.ndarray | None:
    root = view.image.path.parent.parent
    listed = root / "depth.txt"
    if not listed.is_file() or not is_number(view.image.path.stem):
        return None
    time = float(view.image.path.stem)
    known = [(abs(float(row[0]) - time), root / row[1]) for row in rows(listed) if len(row) == 2 and is_number(row[0])]
    lag, path = min(known, default=(np.inf, root))
    return _read_png(path, TUM_UNIT_M) if lag <= WITHIN_S else None


def _beside(view: View) -> np.ndarray | None:
    path = view.image.path.with_suffix(".npy")
    return _read_npy(path) if path.is_file() else None


def _depth_folder(view: View) -> np.ndarray | None:
    root = view.image.path.parent.parent
    base = root / "depth" / view.image.path.stem
    if base.with_suffix(".npy").is_file():
        return _read_npy(base.with_suffix(".npy"))
    if not base.with_suffix(".png").is_file():
        return None
    unit = MILLIMETRE
    if (root / "camera.json").is_file():
        unit = json.loads((root / "camera.json").read_text(encoding="utf-8")).get("depth_unit_m", unit)
    return _read_png(base.with_suffix(".png"), unit)


def _at_size(depth: np.ndarray, view: View) -> np.ndarray:
    """Take, for each pixel of the view's camera, the depth of the file's pixel that its centre falls in."""
    camera = view.camera
    height, width = depth.shape
    if view.image.lens is not None:
        from nasrecon.ingest.undistort import file_pixels

        pixels = file_pixels(view.image.lens, camera) * (width / view.image.lens.width, height / view.image.lens.height)
    else:
        pixels = camera.pixel_centers() * (width / camera.width, height / camera.height)
    row, column, inside = array_indices(pixels, width, height)
    return np.where(inside, depth[row, column], 0).astype(np.float32)
