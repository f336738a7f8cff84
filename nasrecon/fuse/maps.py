"""The views' maps as the fusion compares them: one plane for each pixel, in memory up to a bound, else in a file.

A pixel's plane is the vector m whose product m . (x, y, 1) is the inverse depth at the image place (x, y) [px], at the
pixel's centre and beside it. It holds depth and normal at once: K^T m points along the normal, away from the camera.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import numpy as np

from nasrecon.fuse.options import FuseOptions
from nasrecon.geometry import normals_from_depth
from nasrecon.types import Camera, Estimate, View

STORE_BYTES = 250_000_000
"""Memory for the maps of one pass: about 50 views of 640x480; further ones wait in a temporary file."""

COLOR_BYTES = 100_000_000
"""Memory for the colours: about 110 views of 640x480."""

_MANY = 0.02
"""From this part of the depths on, missing normals are taken from the whole depth map at once."""

SIGMA_FLOOR = 0.004
"""Relative depth errors are not believed to be smaller."""

NO_SIGMA = 0.02
"""Relative depth error of pixels without sigma."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PlaneMap:
    """A view's planes, n = H * W pixels in row order and one more, empty, for places outside of the image.

    Attributes:
        view: the view.
        plane: (n + 1, 4) float32: the plane m [1 / scene unit] and the relative variance of the depth; all 0 where
            there is no depth.
        scale: all planes are to be multiplied by it.
        sigma_scale: the depths' standard deviations are to be multiplied by it.
        replaced: the part of the depths whose normals were missing or pointed away from the camera.
    """

    view: View
    plane: np.ndarray
    scale: float = 1.0
    sigma_scale: float = 1.0
    replaced: float = 0.0

    @staticmethod
    def of(estimate: Estimate, options: FuseOptions) -> PlaneMap:
        """Make it from an estimate; pixels below the asked confidence are empty.

        Normals that are missing or point away from the camera are taken from the depth. Where the network is not
        confident, the variance is taken as larger: divided by the confidence.
        """
        from nasrecon.fuse import plane_kernel as kernel

        camera, depth = estimate.view.camera, confident_depth(estimate, options)
        normal = np.ascontiguousarray(estimate.normal, np.float32).reshape(-1, 3)
        pixels = camera.width, np.linalg.inv(camera.K).astype(np.float32)
        missing = np.empty(depth.size, bool)
        known = kernel.find_lacking(depth.ravel(), normal, *pixels, missing)
        index = np.flatnonzero(missing)
        if len(index):
            normal = normal.copy()
            if len(index) > _MANY * known:
                normal[index] = normals_from_depth(depth, camera).reshape(-1, 3)[index]
            else:
                normal[index] = normals_at(depth, camera, index)
        sigma, confidence = (
            np.ascontiguousarray(each, np.float32).ravel() for each in (estimate.sigma, estimate.confidence)
        )
        errors = sigma, confidence, np.float32(NO_SIGMA), np.float32(SIGMA_FLOOR)
        plane = np.empty((depth.size + 1, 4), np.float32)
        kernel.estimated_planes(depth.ravel(), normal, *errors, *pixels, plane)
        return PlaneMap(view=estimate.view, plane=plane, replaced=len(index) / max(known, 1))

    @property
    def nbytes(self) -> int:
        """Memory of the planes [bytes]."""
        return self.plane.nbytes


def confident_depth(estimate: Estimate, options: FuseOptions) -> np.ndarray:
    """Return the depth (H, W) float32 with 0 where there is none or its confidence is too low."""
    depth = estimate.depth.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):
        keep = (depth > 0) & np.isfinite(depth) & (estimate.confidence >= options.min_confidence)
    return np.where(keep, depth, np.float32(0))


def normals_at(depth: np.ndarray, camera: Camera, index: np.ndarray) -> np.ndarray:
    """Return ``normals_from_depth`` (n, 3) of some pixels only, by their index in row order."""
    row, column = np.divmod(index, camera.width)

    def lifted(down: int, right: int) -> tuple[np.ndarray, np.ndarray]:
        y, x = row + down, column + right
        inside = (y >= 0) & (y < camera.height) & (x >= 0) & (x < camera.width)
        z = np.where(inside, depth[y.clip(0, camera.height - 1), x.clip(0, camera.width - 1)], 0)
        inv_depth = np.where(z > 0, 1 / np.where(z > 0, z, 1), np.nan)
        return camera.unproject(np.stack([x + 0.5, y + 0.5], axis=-1), z), inv_depth

    middle, inv_depth = lifted(0, 0)
    steps = []
    for down, right in ((1, 0), (0, 1)):
        (before, back), (after, fore) = lifted(-down, -right), lifted(down, right)
        back, fore = (np.nan_to_num(np.abs(inv_depth - other), nan=np.inf) for other in (back, fore))
        step = np.where((fore <= back)[:, None], after - middle, middle - before)
        steps.append(np.where(np.isfinite(np.minimum(back, fore))[:, None], step, 0))
    normal = np.cross(*steps)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return (normal / np.where(length > 0, length, 1)).astype(np.float32)


def dot(a, b) -> np.ndarray:
    """Return the scalar products (...) of vectors whose three components come first."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


class Store:
    """Arrays by number; the first that fit ``max_bytes`` stay in memory, the others go to a temporary file.

    Of those in the file, the most recently used ones are held as well, a quarter of the memory. Several threads may use
    it.
    """

    def __init__(self, max_bytes: int = STORE_BYTES) -> None:
        self._memory: dict[int, np.ndarray] = {}
        self._recent: OrderedDict[int, np.ndarray] = OrderedDict()
        self._places: dict[int, tuple[int, tuple[int, ...], np.dtype]] = {}
        self._file = None
        self._max_bytes, self._bytes = max_bytes, 0
        self._lock = Lock()

    def put(self, number: int, array: np.ndarray) -> None:
        """Take in an array; it must not be changed afterwards."""
        if self._bytes + array.nbytes <= 0.75 * self._max_bytes:
            self._memory[number] = array
            self._bytes += array.nbytes
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, prefix="nasrecon")  # noqa: SIM115
        self._places[number] = (self._file.seek(0, 2), array.shape, array.dtype)
        self._file.write(np.ascontiguousarray(array).data)

    def forget(self, number: int) -> None:
        """Free the memory of an array that is no longer needed."""
        with self._lock:
            self._recent.pop(number, None)
            array = self._memory.pop(number, None)
            self._bytes -= 0 if array is None else array.nbytes

    def __getitem__(self, number: int) -> np.ndarray:
        if number in self._memory:
            return self._memory[number]
        with self._lock:
            return self._from_file(number)

    def _from_file(self, number: int) -> np.ndarray:
        if number in self._recent:
            self._recent.move_to_end(number)
            return self._recent[number]
        offset, shape, dtype = self._places[number]
        assert self._file is not None
        self._file.seek(offset)
        array = np.fromfile(self._file, dtype=dtype, count=int(np.prod(shape))).reshape(shape)
        self._recent[number] = array
        while len(self._recent) > 1 and sum(a.nbytes for a in self._recent.values()) > 0.25 * self._max_bytes:
            self._recent.popitem(last=False)
        return array
