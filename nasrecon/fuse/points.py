"""Filtered views become one point cloud, a point for each element of the surface.

What falls into one cell of a grid is one point. Where the depth is less certain than a cell is large, the points of
several views of one place lie in layers. There the cells are longer along the axis that is the nearest to the surface's
normal: about 1.5 standard deviations of the depth.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from nasrecon.fuse.filter import FilteredView
from nasrecon.fuse.maps import dot
from nasrecon.types import PointCloud, Unit

_BUFFER_POINTS = 700_000
_MAX_STEP = 16
_SIGMAS_IN_CELL = 1.5
LONGEST_CELL = 16.0
PLACE, _NORMAL, _RGB, _WEIGHT, _COUNT, _SUPPORT = slice(0, 3), slice(3, 6), slice(6, 9), 9, 10, 11
"""The columns of points that wait: the place [cells from the origin], and what is averaged with it."""

_COLUMNS = 12

Rows = tuple[np.ndarray, np.ndarray]
"""Points: keys (n,) int64 of their cells, and columns (12, n) float32."""

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
        share: the part of the usual memory for points that are not merged yet.
    """

    def __init__(self, cell: float, origin: np.ndarray, share: float = 1.0) -> None:
        self.cell = cell
        self._buffer_points = max(1, int(share * _BUFFER_POINTS))
        self._origin = np.asarray(origin, dtype=np.float64)
        self._merged = _empty()
        self._waiting: list[Rows] = []
        self._waiting_points = 0

    def add(self, filtered: FilteredView) -> None:
        """Add the kept pixels of a view, of those that are smaller than half a cell a part: 1 to 4 in each cell."""
        rows = self.rows(filtered)
        if rows is not None:
            self.add_rows(rows)

    def add_rows(self, rows: Rows) -> None:
        """Add rows of ``rows``."""
        self._waiting.append(rows)
        self._waiting_points += len(rows[0])
        if self._waiting_points >= self._buffer_points:
            self._merge()

    def rows(self, filtered: FilteredView) -> Rows | None:
        """Return the points of a view; None without."""
        camera, world_from_cam = filtered.view.camera, filtered.view.world_from_cam
        depths_in_cell = 1.1 * self.cell * np.sqrt(camera.K[0, 0] * camera.K[1, 1])
        # At this depth and beyond it the steps between the pixels that are taken are shorter than the pixel's own.
        taken = _least_steps(camera.width, camera.height) * filtered.depth > np.float32(depths_in_cell)
        index = np.flatnonzero(taken)
        if not len(index):
            return None
        depth = filtered.depth.ravel()[index].astype(np.float64)
        y, x = np.divmod(index, camera.width)
        pixel = (x + 0.5) * depth, (y + 0.5) * depth, depth
        to_cells = world_from_cam[:3, :3] @ np.linalg.inv(camera.K) / self.cell
        shift = (world_from_cam[:3, 3] - self._origin) / self.cell
        place = np.stack([dot(to_cells[k], pixel) + shift[k] for k in range(3)])
        in_cam = [filtered.normal[..., k].ravel()[index] for k in range(3)]
        R = world_from_cam[:3, :3].astype(np.float32)
        normal = np.stack([dot(R[k], in_cam) for k in range(3)])
        sigma = filtered.sigma.ravel()[index].astype(np.float64) / self.cell
        columns = np.empty((_COLUMNS, len(index)), np.float32)
        columns[PLACE], columns[_NORMAL] = place, normal
        columns[_RGB] = filtered.rgb.reshape(-1, 3).take(index, axis=0).T
        columns[_WEIGHT] = np.square(1 / np.maximum(sigma, 1e-9))
        columns[_COUNT] = 1
        columns[_SUPPORT] = filtered.support.ravel()[index]
        return _keys(place.T, normal.T, sigma), columns

    def cloud(self, unit: Unit = "unknown") -> PointCloud:
        """Return the points so far."""
        self._merge()
        columns = self._merged[1]
        normal, weight = columns[_NORMAL].T, columns[_WEIGHT]
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return PointCloud(
            xyz=columns[PLACE].T * self.cell + self._origin,
            normal=np.divide(normal, length, out=np.zeros_like(normal), where=length > 0),
            rgb=np.rint(columns[_RGB].T).clip(0, 255).astype(np.uint8),
            support=columns[_SUPPORT].astype(np.int32),
            # The pixels of one point share their neighbours, and so their errors: many are no surer than one.
            sigma=self.cell * np.sqrt(columns[_COUNT] / np.maximum(weight, np.float32(1e-30))),
            unit=unit,
        )

    def _merge(self) -> None:
        if not self._waiting:
            return
        parts = [self._merged, *self._waiting]
        self._merged, self._waiting, self._waiting_points = _empty(), [], 0
        key, columns = (np.concatenate([part[k] for part in parts], axis=-1) for k in (0, 1))
        parts.clear()
        self._merged = _merge_equal_keys(key, columns)


def _empty() -> Rows:
    return np.zeros(0, np.int64), np.zeros((_COLUMNS, 0), np.float32)


@lru_cache(maxsize=2)  # most sets have one size
def _least_steps(width: int, height: int) -> np.ndarray:
    """Return for each pixel (H, W) float32 the least step between pixels, 2, 4, 8 or 16, that leaves it out; 1e30
    for those that are in every step."""
    place = np.arange(width)[None] | np.arange(height)[:, None]
    steps = (2 * (place & -place)).astype(np.float32)
    steps[place & (_MAX_STEP - 1) == 0] = 1e30
    steps.flags.writeable = False
    return steps


def _keys(place: np.ndarray, normal: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return one int64 for each position (n, 3) [cells], equal for positions in one cell.

    Where sigma (n,) [cells] is large, the cell is 2, 4, 8 or 16 times as long along the axis that is the nearest to the
    normal (n, 3), and surfaces that face opposite ways have different cells.
    """
    level = np.rint(np.log2(np.clip(_SIGMAS_IN_CELL * sigma, 1, LONGEST_CELL))).astype(np.int64)
    length = np.abs(normal)
    axis = np.where(length[:, 1] > length[:, 0], 1, 0)
    axis[length[:, 2] > np.maximum(length[:, 0], length[:, 1])] = 2
    faces = np.choose(axis, normal.T) > 0
    kind = np.where(level > 0, 8 * level + 2 * axis + faces, 0)
    shorter = np.exp2(-level)
    with np.errstate(over="ignore"):
        key = kind * _HASH[3]
        for k in range(3):
            key += np.floor(place[:, k] * np.where(axis == k, shorter, 1)).astype(np.int64) * _HASH[k]
    return key


def _merge_equal_keys(key: np.ndarray, columns: np.ndarray) -> Rows:
    """Merge rows of one key: weighted means, summed weights and counts, the largest support.

    A sheet thinner than a cell may be seen from both sides; its opposite normals would cancel. There the first view's
    is kept.
    """
    order = _stable_order(key)
    key = key[order]
    starts = np.concatenate([[True], key[1:] != key[:-1]])
    first, of_run = np.flatnonzero(starts), np.cumsum(starts) - 1
    merged = np.empty((_COLUMNS, len(first)), np.float32)
    weight = columns[_WEIGHT].take(order)
    merged[_WEIGHT] = np.add.reduceat(weight, first)
    for k in range(_WEIGHT):
        values = columns[k].take(order)
        # From the first row of a cell: sums of small numbers are exact enough in float32.
        base = values[first]
        values -= base.take(of_run)
        values *= weight
        merged[k] = base + np.add.reduceat(values, first) / merged[_WEIGHT]
    merged[_COUNT] = np.add.reduceat(columns[_COUNT].take(order), first)
    merged[_SUPPORT] = np.maximum.reduceat(columns[_SUPPORT].take(order), first)
    normal = columns[_NORMAL].take(order[first], axis=1)
    cancelled = (dot(merged[_NORMAL], merged[_NORMAL]) < 0.25) & normal.any(axis=0)
    merged[_NORMAL, cancelled] = normal[:, cancelled]
    return key[first], merged


def _stable_order(key: np.ndarray) -> np.ndarray:
    """Return ``np.argsort(key, kind="stable")``, in a third of its time: the order of equal keys is put right after."""
    order = np.argsort(key)
    ordered = key[order]
    runs = np.cumsum(np.concatenate([[False], ordered[1:] != ordered[:-1]]))
    return np.sort((runs << 32) | order) & 0xFFFFFFFF
