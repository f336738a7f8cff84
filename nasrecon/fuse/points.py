"""Filtered views become one point cloud, a point for each element of the surface.

What falls into one cell of a grid is one point. Where the depth is less certain than a cell is large, the points of
several views of one place lie in layers. There the cells are longer along the axis that is the nearest to the surface's
normal: about two standard deviations of the depth.
"""

from __future__ import annotations

import numpy as np

from nasrecon.fuse.filter import FilteredView
from nasrecon.fuse.maps import dot
from nasrecon.types import PointCloud, Unit

_BUFFER_POINTS = 1_000_000
_MAX_STEP = 16
_SIGMAS_IN_CELL = 2.0
LONGEST_CELL = 16.0
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
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._waiting_points = 0

    def add(self, filtered: FilteredView) -> None:
        """Add the kept pixels of a view, of those that are smaller than half a cell a part: 1 to 4 in each cell."""
        rows = self.rows(filtered)
        if rows is not None:
            self.add_rows(rows)

    def add_rows(self, rows: tuple[np.ndarray, ...]) -> None:
        """Add rows of ``rows``."""
        self._waiting.append(rows)
        self._waiting_points += len(rows[0])
        if self._waiting_points >= self._buffer_points:
            self._merge()

    def rows(self, filtered: FilteredView) -> tuple[np.ndarray, ...] | None:
        """Return the columns of the points of a view, ``place`` (n, 3) [cells from the origin] at 3; None without."""
        y, x = np.nonzero(filtered.depth)
        camera, world_from_cam = filtered.view.camera, filtered.view.world_from_cam
        depth = filtered.depth[y, x]
        pixels_in_cell = self.cell * np.float32(np.sqrt(camera.K[0, 0] * camera.K[1, 1])) / np.maximum(depth, 1e-30)
        step = np.exp2(np.floor(np.log2(np.clip(1.1 * pixels_in_cell, 1, _MAX_STEP)))).astype(np.int32)
        taken = ((x & (step - 1)) == 0) & ((y & (step - 1)) == 0)
        y, x, depth = y[taken], x[taken], depth[taken]
        if not len(y):
            return None
        pixel = (x + 0.5) * depth, (y + 0.5) * depth, depth.astype(np.float64)
        to_cells = world_from_cam[:3, :3] @ np.linalg.inv(camera.K) / self.cell
        shift = (world_from_cam[:3, 3] - self._origin) / self.cell
        place = np.stack([dot(to_cells[k], pixel) + shift[k] for k in range(3)], axis=-1)
        in_cam = np.moveaxis(filtered.normal[y, x], -1, 0)
        R = world_from_cam[:3, :3].astype(np.float32)
        normal = np.stack([dot(R[k], in_cam) for k in range(3)], axis=-1)
        sigma = filtered.sigma[y, x].astype(np.float64) / self.cell
        return (
            _keys(place, normal, sigma),
            np.square(1 / np.maximum(sigma, 1e-9)),
            np.ones(len(y), np.float32),
            place.astype(np.float32),
            normal,
            filtered.rgb[y, x].astype(np.float32),
            filtered.support[y, x].astype(np.int32),
        )

    def cloud(self, unit: Unit = "unknown") -> PointCloud:
        """Return the points so far."""
        self._merge()
        _, weight, count, place, normal, rgb, support = self._merged
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return PointCloud(
            xyz=place * self.cell + self._origin,
            normal=np.divide(normal, length, out=np.zeros_like(normal), where=length > 0),
            rgb=np.rint(rgb).clip(0, 255).astype(np.uint8),
            support=support,
            # The pixels of one point share their neighbours, and so their errors: many are no surer than one.
            sigma=(self.cell * np.sqrt(count / np.maximum(weight, 1e-300))).astype(np.float32),
            unit=unit,
        )

    def _merge(self) -> None:
        if not self._waiting:
            return
        columns = [np.concatenate(column) for column in zip(self._merged, *self._waiting, strict=True)]
        self._waiting, self._waiting_points = [], 0
        self._merged = _merge_equal_keys(*columns)


def _empty() -> tuple[np.ndarray, ...]:
    three = np.zeros((0, 3), np.float32)
    return np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.float32), three, three, three, np.zeros(0, np.int32)


def _keys(place: np.ndarray, normal: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Return one int64 for each position (n, 3) [cells], equal for positions in one cell.

    Where sigma (n,) [cells] is large, the cell is 2, 4, 8 or 16 times as long along the axis that is the nearest to the
    normal (n, 3), and surfaces that face opposite ways have different cells.
    """
    level = np.rint(np.log2(np.clip(_SIGMAS_IN_CELL * sigma, 1, LONGEST_CELL))).astype(np.int64)
    row, axis = np.arange(len(place)), np.abs(normal).argmax(axis=1)
    direction = 2 * axis + (normal[row, axis] > 0)
    cell = place.copy()
    cell[row, axis] *= np.exp2(-level)
    with np.errstate(over="ignore"):
        kind = np.where(level > 0, 8 * level + direction, 0)
        return (np.floor(cell).astype(np.int64) * _HASH[:3]).sum(axis=1) + kind * _HASH[3]


def _merge_equal_keys(
    key: np.ndarray,
    weight: np.ndarray,
    count: np.ndarray,
    place: np.ndarray,
    normal: np.ndarray,
    rgb: np.ndarray,
    support: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Merge rows of one key: weighted means, summed weights and counts, the largest support.

    A sheet thinner than a cell may be seen from both sides; its opposite normals would cancel. There the first view's
    is kept.
    """
    order = np.argsort(key, kind="stable")
    key, weight = key[order], weight[order]
    place, normal, rgb = (values.take(order, axis=0) for values in (place, normal, rgb))
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]]))
    total = np.add.reduceat(weight, first)
    share = weight / np.repeat(total, np.diff(np.append(first, len(key))))
    mean_normal = _means(normal, share, first)
    cancelled = (np.linalg.norm(mean_normal, axis=-1) < 0.5) & normal[first].any(axis=-1)
    mean_normal[cancelled] = normal[first[cancelled]]
    support = np.maximum.reduceat(support[order], first)
    count = np.add.reduceat(count[order], first)
    return key[first], total, count, _means(place, share, first), mean_normal, _means(rgb, share, first), support


def _means(values: np.ndarray, share: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the weighted means of the runs of values (n, 3) that begin at ``first``; shares of a run add up to 1."""
    return np.add.reduceat(values * share[:, None], first).astype(np.float32)
