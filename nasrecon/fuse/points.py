"""Filtered views become one point cloud, a point for each element of the surface.

What falls into one cell of a grid is one point. Where the depth is less certain than a cell is large, the points of
several views of one place lie in layers. There the cells are longer along the axis that is the nearest to the surface's
normal: about 1.5 standard deviations of the depth.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nasrecon.fuse.filter import FilteredView
from nasrecon.types import PointCloud, Unit

_MAX_STEP = 16
_SIGMAS_IN_CELL = 1.5
LONGEST_CELL = 16.0
PLACE, _NORMAL, _RGB, _WEIGHT, _COUNT, _SUPPORT, _FIRST = (
    slice(0, 3),
    slice(3, 6),
    slice(6, 9),
    9,
    10,
    11,
    slice(12, 15),
)
"""The columns of points: the place [cells from the origin], and what is averaged with it (``point_kernel``)."""

_CANCELLED = 0.25
"""A mean of unit normals shorter than the root of this is of a sheet thinner than a cell, seen from both sides."""

Rows = tuple[np.ndarray, np.ndarray]
"""Points: keys (n,) int64 of their cells, and rows (n, 12) float32."""

# Odd 64-bit constants without a pattern: a linear hash of the cell whose collisions lie millions of cells apart. The
# last is for the cell's direction and length.
_HASH = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], dtype=np.uint64
).view(np.int64)


class PointMerger:
    """Collect points view by view; those in one cell become their weighted mean: memory follows the surface.

    Args:
        cell: edge of a cell [scene units].
        origin: (3,) a world point near the scene's middle; positions are kept in float32 in cells from it.
    """

    def __init__(self, cell: float, origin: np.ndarray) -> None:
        self.cell = cell
        self._origin = np.asarray(origin, dtype=np.float64)
        self._count = 0
        self._keys, self._merged = np.empty(0, np.int64), np.empty((0, _FIRST.stop), np.float32)
        self._table = np.full(1024, -1, np.int32)

    def add(self, filtered: FilteredView) -> None:
        """Add the kept pixels of a view, of those that are smaller than half a cell a part: 1 to 4 in each cell."""
        rows = self.rows(filtered)
        if rows is not None:
            self.add_rows(rows)

    def add_rows(self, rows: Rows) -> None:
        """Add rows of ``rows``."""
        from nasrecon.fuse import point_kernel as kernel

        needed = self._count + len(rows[0])
        if needed > len(self._keys):
            room = needed + self._count // 2
            self._keys, self._merged = (_enlarged(each, self._count, room) for each in (self._keys, self._merged))
        if 2 * needed > len(self._table):
            self._table = np.full(1 << (2 * needed).bit_length(), -1, np.int32)
            kernel.rehash(self._keys, self._count, self._table)
        self._count = kernel.merge(*rows, self._keys, self._merged, self._count, self._table)

    def rows(self, filtered: FilteredView) -> Rows | None:
        """Return the points of a view; None without."""
        camera, world_from_cam = filtered.view.camera, filtered.view.world_from_cam
        depths_in_cell = 1.1 * self.cell * np.sqrt(camera.K[0, 0] * camera.K[1, 1])
        # At this depth and beyond it the steps between the pixels that are taken are shorter than the pixel's own.
        taken = _least_steps(camera.width, camera.height) * filtered.depth > np.float32(depths_in_cell)
        index = np.flatnonzero(taken)
        if not len(index):
            return None
        from nasrecon.fuse import point_kernel as kernel

        flat = [each.reshape(taken.size, -1) for each in (filtered.normal, filtered.rgb)]
        maps = filtered.depth.ravel(), flat[0], filtered.sigma.ravel(), filtered.support.ravel(), flat[1]
        to_cells = world_from_cam[:3, :3] @ np.linalg.inv(camera.K) / self.cell
        shift = (world_from_cam[:3, 3] - self._origin) / self.cell
        R = world_from_cam[:3, :3].astype(np.float32)
        points, keys = np.empty((len(index), kernel.COLUMNS), np.float32), np.empty(len(index), np.int64)
        kernel.lift(index, *maps, camera.width, to_cells, shift, R, float(self.cell), points)
        kernel.find_keys(points, _SIGMAS_IN_CELL, LONGEST_CELL, _HASH, keys)
        return keys, points

    def cloud(self, unit: Unit = "unknown") -> PointCloud:
        """Return the points so far."""
        merged = self._merged[np.argsort(self._keys[: self._count])]
        normal, weight = merged[:, _NORMAL], merged[:, _WEIGHT]
        cancelled = (np.square(normal).sum(axis=1) < _CANCELLED) & merged[:, _FIRST].any(axis=1)
        normal[cancelled] = merged[cancelled, _FIRST]
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return PointCloud(
            xyz=merged[:, PLACE] * self.cell + self._origin,
            normal=np.divide(normal, length, out=np.zeros_like(normal), where=length > 0),
            rgb=np.rint(merged[:, _RGB]).clip(0, 255).astype(np.uint8),
            support=merged[:, _SUPPORT].astype(np.int32),
            # The pixels of one point share their neighbours, and so their errors: many are no surer than one.
            sigma=self.cell * np.sqrt(merged[:, _COUNT] / np.maximum(weight, np.float32(1e-30))),
            unit=unit,
        )


def _enlarged(array: np.ndarray, used: int, room: int) -> np.ndarray:
    """Return the first rows of an array in one with ``room`` rows."""
    out = np.empty((room, *array.shape[1:]), array.dtype)
    out[:used] = array[:used]
    return out


@lru_cache(maxsize=2)  # most sets have one size
def _least_steps(width: int, height: int) -> np.ndarray:
    """Return for each pixel (H, W) float32 the least step between pixels, 2, 4, 8 or 16, that leaves it out; 1e30
    for those that are in every step."""
    place = np.arange(width)[None] | np.arange(height)[:, None]
    steps = (2 * (place & -place)).astype(np.float32)
    steps[place & (_MAX_STEP - 1) == 0] = 1e30
    steps.flags.writeable = False
    return steps
