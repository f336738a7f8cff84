"""The views' maps as the fusion compares them: one plane for each pixel, in memory up to a bound, else in a file.

A pixel's plane is the vector m whose product m . (x, y, 1) is the inverse depth at the image place (x, y) [px], at the
pixel's centre and beside it. It holds depth and normal at once: K^T m points along the normal, away from the camera.
"""

from __future__ import annotations

import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np

from nasrecon.fuse.options import FuseOptions
from nasrecon.geometry import normals_from_depth
from nasrecon.types import Camera, Estimate, View

STORE_BYTES = 300_000_000
"""Memory for the maps of one pass: about 60 views of 640x480; further ones wait in a temporary file."""

COLOR_BYTES = 100_000_000
"""Memory for the colours: about 110 views of 640x480."""

MIN_FACING = 0.15
"""The cosine between a normal and the ray to the camera is taken as this where it is smaller: beyond 81 degrees a
normal's error moves the plane by more than the plane adds."""

_MANY = 0.02
"""From this part of the depths on, missing normals are taken from the whole depth map at once."""

_AWAY = 0.1
"""A normal whose cosine with the ray from the camera is larger points away from it."""

SIGMA_FLOOR = 0.004
"""Relative depth errors are not believed to be smaller."""

_CHUNK = 12_000
"""Pixels whose planes are made at once: the arrays stay in the processor's cache."""

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
        camera, depth = estimate.view.camera, confident_depth(estimate, options)
        normal = np.array(np.moveaxis(estimate.normal, -1, 0), dtype=np.float32, order="C")
        np.nan_to_num(normal, copy=False)
        missing = (depth > 0) & ~facing_camera(camera, normal)
        replaced = np.count_nonzero(missing) / max(np.count_nonzero(depth), 1)
        if replaced > _MANY:
            normal = np.where(missing, np.moveaxis(normals_from_depth(depth, camera), -1, 0), normal)
        elif replaced:
            index = np.flatnonzero(missing)
            normal.reshape(3, -1)[:, index] = normals_at(depth, camera, index).T
        sigma = np.nan_to_num(estimate.sigma.astype(np.float32, copy=False), nan=0, posinf=0)
        sigma /= np.where(depth > 0, depth, np.float32(1))
        sigma[sigma <= 0] = NO_SIGMA
        confidence = np.nan_to_num(estimate.confidence.astype(np.float32, copy=False))
        variance = np.square(np.maximum(sigma, np.float32(SIGMA_FLOOR)))
        variance /= np.maximum(confidence, np.float32(0.05))
        return PlaneMap(view=estimate.view, plane=planes(camera, depth, normal, variance), replaced=replaced)

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


def pixel_rays(camera: Camera) -> np.ndarray:
    """Return the directions (3, H, W) float32 of the pixels' centres in the camera frame, z = 1; not to be changed."""
    return _rays(camera.width, camera.height, np.asarray(camera.K, dtype=np.float64).tobytes())[0]


def _ray_lengths(camera: Camera) -> np.ndarray:
    """Return the lengths (H, W) float32 of ``pixel_rays``."""
    return _rays(camera.width, camera.height, np.asarray(camera.K, dtype=np.float64).tobytes())[1]


@lru_cache(maxsize=2)  # most sets have one camera
def _rays(width: int, height: int, K: bytes) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    K_inv = np.linalg.inv(np.frombuffer(K).reshape(3, 3))
    rays = K_inv[:, :1, None] * x + K_inv[:, 1:2, None] * y[:, None] + K_inv[:, 2:, None]
    rays = rays.astype(np.float32)
    lengths = np.sqrt(rays[0] * rays[0] + rays[1] * rays[1] + 1)
    rays.flags.writeable = lengths.flags.writeable = False
    return rays, lengths


def planes(camera: Camera, depth: np.ndarray, normal: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Return the planes (H * W + 1, 4) of a depth map (H, W), normals (3, H, W), 0 = unknown, and relative
    variances."""
    rays, lengths = pixel_rays(camera), _ray_lengths(camera)
    K_inv = np.linalg.inv(camera.K).astype(np.float32)
    out = np.empty((depth.size + 1, 4), np.float32)
    out[-1] = 0
    rows = max(1, _CHUNK // camera.width)
    for top in range(0, camera.height, rows):
        part = slice(top, top + rows)
        values = _planes(rays[:, part], lengths[part], K_inv, depth[part], normal[:, part], variance[part])
        out[top * camera.width : (top + rows) * camera.width][: values.shape[1]] = values.T
    return out


def _planes(
    rays: np.ndarray,
    lengths: np.ndarray,
    K_inv: np.ndarray,
    depth: np.ndarray,
    normal: np.ndarray,
    variance: np.ndarray,
) -> np.ndarray:
    """Return the planes (4, n) of some rows of ``planes``."""
    # A normal that is turned too far is tilted towards the camera; an unknown one (0) becomes the ray itself.
    lacking = np.maximum(np.float32(MIN_FACING) + dot(normal, rays) / lengths, 0) / lengths
    n = normal - lacking * rays
    along = dot(n, rays) * depth
    valid = (depth > 0) & (along < 0)
    along[~valid] = 1
    scale = valid / along
    out = np.empty((4, *depth.shape), np.float32)
    for k in range(3):
        np.multiply(dot(K_inv[:, k], n), scale, out=out[k])
    np.multiply(variance, valid, out=out[3])
    return out.reshape(4, -1)


def facing_camera(camera: Camera, normal: np.ndarray) -> np.ndarray:
    """Return where normals (3, H, W) are known and do not point away from the camera, as a mask (H, W)."""
    away = dot(normal, pixel_rays(camera))
    return normal.any(axis=0) & (away < _AWAY * _ray_lengths(camera))


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
