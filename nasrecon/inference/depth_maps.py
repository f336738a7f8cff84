"""Depth and normal maps of other programs, one for each view of a scene: npz, COLMAP's dense maps, PFM, 16-bit PNG.

A map covers the whole undistorted image at any size; depth is z in the camera, 0, NaN and infinity are no value.
Normals are those of the camera frame (x right, y down, z forward); they are turned to face the camera.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError, in_words
from nasrecon.results.view_file import file_name
from nasrecon.types import View

MILLIMETRE = 0.001
ENDINGS = (".npz", ".npy", ".pfm", ".png")
COLMAP_KINDS = ("geometric", "photometric")


class DepthMaps:
    """The depth maps of a folder, by the names of views.

    Args:
        folder: with ``NAME.npz`` (``depth`` (H, W), and ``normal`` (H, W, 3) where it is known), ``NAME.npy``,
            ``NAME.pfm`` or 16-bit ``NAME.png``; NAME is the image's name, with or without its ending, or its name
            without folders. Or COLMAP's dense workspace (``stereo/depth_maps``). ``depth/`` or ``depth_est/`` below
            the folder is looked into, too; MVSNet's numbered files go by ``names.txt``.
        scale: scene units in one step of a PNG; None: what ``cameras.json`` states (``depth_units_per_step``), else a
            millimetre.

    Raises:
        InputError: if there is no such folder, or the scale is not positive.
    """

    def __init__(self, folder: Path | str, scale: float | None = None) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{self.folder}: no such folder of depth maps")
        if scale is not None and not 0 < scale < float("inf"):
            raise InputError(f"the scale of depth images must be positive (scene units a step), found {scale}")
        self.scale = scale if scale is not None else _stated_scale(self.folder)
        self._numbers = _numbered(self.folder)

    def path(self, view: View) -> Path | None:
        """Return the file of a view's depth map, None without one."""
        for kind in COLMAP_KINDS:
            path = self.folder / "stereo" / "depth_maps" / f"{view.name}.{kind}.bin"
            if path.is_file():
                return path
        bare = Path(view.name)
        names = [view.name, bare.with_suffix("").as_posix(), bare.name, bare.stem, file_name(view.name)]
        if view.name in self._numbers:
            names.insert(0, self._numbers[view.name])
        for place in ("", "depth", "depth_est", "views"):
            for name in names:
                for ending in ENDINGS:
                    path = self.folder / place / f"{name}{ending}"
                    if path.is_file():
                        return path
        return None

    def read(self, view: View) -> tuple[np.ndarray, np.ndarray | None] | None:
        """Return depth (H, W) float32 [scene units, 0 = no value] and normals (H, W, 3) or None; None without a map.

        Raises:
            InputError: if the file cannot be read as a depth map.
        """
        path = self.path(view)
        if path is None:
            return None
        normal = None
        if path.suffix == ".npz":
            depth, normal = _read_npz(path)
        else:
            depth = _READERS[path.suffix](path)
            depth = depth * self.scale if path.suffix == ".png" else depth
        if path.suffix == ".bin":
            beside = self.folder / "stereo" / "normal_maps" / path.name
            normal = read_colmap_map(beside) if beside.is_file() else None
        if depth.ndim != 2 or not depth.size:
            raise InputError(f"{path}: expected a depth map (H, W), found shape {depth.shape}")
        if normal is not None and normal.shape != (*depth.shape, 3):
            raise InputError(f"{path}: expected normals of shape {(*depth.shape, 3)}, found {normal.shape}")
        with np.errstate(invalid="ignore"):
            depth = np.where(np.isfinite(depth) & (depth > 0), depth, 0).astype(np.float32)
        return depth, None if normal is None else np.nan_to_num(normal.astype(np.float32), posinf=0, neginf=0)

    def digest(self, views: tuple[View, ...]) -> str:
        """Return a hash of the files of views."""
        out = hashlib.sha256(f"{self.scale}".encode())
        for path in (self.path(view) for view in views):
            out.update(b"none" if path is None else hashlib.sha256(path.read_bytes()).digest())
        return out.hexdigest()


def _stated_scale(folder: Path) -> float:
    path = folder / "cameras.json"
    if not path.is_file():
        return MILLIMETRE
    try:
        return float(json.loads(path.read_text(encoding="utf-8")).get("depth_units_per_step", MILLIMETRE))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: expected JSON with depth_units_per_step, but {in_words(error)}") from error


def _numbered(folder: Path) -> dict[str, str]:
    """Return the numbered name of each view that names.txt (number, view) lists."""
    path = folder / "names.txt"
    if not path.is_file():
        return {}
    try:
        lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {name: f"{int(number):08d}" for number, name in lines}
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a number and the name of a view a line, but {in_words(error)}") from error


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "depth" not in arrays:
                raise InputError(f"{path}: expected an array named depth, found {', '.join(arrays) or 'none'}")
            return arrays["depth"], arrays.get("normal")
    except InputError:
        raise
    except Exception as error:  # zipfile and numpy raise of every kind
        raise InputError(f"{path}: cannot be read as arrays ({in_words(error)})") from error


def _read_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as opened:
            return np.lib.format.read_array(opened, allow_pickle=False)
    except Exception as error:  # numpy raises of every kind
        raise InputError(f"{path}: cannot be read as an array ({in_words(error)})") from error


def _read_png(path: Path) -> np.ndarray:
    """Return the steps of a depth image, in float64."""
    import imageio.v3 as iio

    try:
        steps = np.asarray(iio.imread(path, plugin="pillow"))
    except Exception as error:  # decoders raise of every kind
        raise InputError(f"{path}: cannot be read as a depth image ({in_words(error)})") from error
    if steps.ndim != 2 or not np.issubdtype(steps.dtype, np.integer) or steps.dtype == np.uint8:
        raise InputError(f"{path}: expected a 16-bit grey depth image, found {steps.dtype} of shape {steps.shape}")
    return np.where(steps == 65535, 0, steps).astype(np.float64)


def read_pfm(path: Path) -> np.ndarray:
    """Return a PFM image of one channel, (H, W) float32, its first row on top.

    Raises:
        InputError: if it is not one.
    """
    try:
        head, size, scale, values = path.read_bytes().split(b"\n", 3)
        width, height = map(int, size.split())
        if head.strip() != b"Pf" or min(width, height) < 1:
            raise ValueError("the head is not Pf and two sizes")
        kind = "<f4" if float(scale) < 0 else ">f4"
        if len(values) != 4 * width * height:
            raise ValueError(f"{len(values)} bytes of values, {4 * width * height} for {width}x{height}")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected a PFM image of one channel, but {in_words(error)}") from error
    return np.flipud(np.frombuffer(values, kind).reshape(height, width)).astype(np.float32)


def read_colmap_map(path: Path) -> np.ndarray:
    """Return a dense map of COLMAP, (H, W) or (H, W, channels) float32.

    Raises:
        InputError: if it is not one.
    """
    try:
        width, height, channels, values = path.read_bytes().split(b"&", 3)
        shape = int(channels), int(height), int(width)
        if min(shape) < 1 or len(values) != 4 * int(np.prod([float(n) for n in shape])):
            raise ValueError(f"{len(values)} bytes do not hold {shape[2]}x{shape[1]} values of {shape[0]} channels")
        planes = np.frombuffer(values, "<f4").reshape(shape)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: expected a dense map of COLMAP, but {in_words(error)}") from error
    return planes[0] if shape[0] == 1 else np.moveaxis(planes, 0, -1)


_READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".npy": _read_npy,
    ".pfm": read_pfm,
    ".png": _read_png,
    ".bin": read_colmap_map,
}
