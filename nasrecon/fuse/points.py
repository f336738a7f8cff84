"""Filtered views become one point cloud: what falls into one cell of a grid is one point."""

from __future__ import annotations

import numpy as np

from nasrecon.fuse.consistency import FilteredView
from nasrecon.geometry import transform
from nasrecon.types import PointCloud, Unit

_BUFFER_POINTS = 4_000_000
# Odd 64-bit constants without a pattern: a linear hash of the cell whose collisions lie millions of cells apart.
_HASH = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64).view(np.int64)


class PointMerger:
    """Collect points view by view; those in one cell become their weighted mean: memory follows the surface.

    Args:
        cell: edge of a cell [scene units].
        origin: (3,) a world point near the scene's middle; positions are kept in float32 in cells from it.
    """

    def __init__(self, cell: float, origin: np.ndarray) -> None:
        self.cell = cell
        self._origin = np.asarray(origin, dtype=np.float64)
        self._merged = _empty()
        self._waiting: list[tuple[np.ndarray, ...]] = []
        self._waiting_points = 0

    def add(self, filtered: FilteredView) -> None:
        """Add the kept pixels of a view."""
        y, x = np.nonzero(filtered.depth)
        if not len(y):
            return
        depth = filtered.depth[y, x].astype(np.float64)
        points_in_cam = filtered.view.camera.unproject(np.stack([x, y], axis=-1) + 0.5, depth)
        world_from_cam = filtered.view.world_from_cam
        place = (transform(world_from_cam, points_in_cam) - self._origin) / self.cell
        normal = filtered.normal[y, x] @ world_from_cam[:3, :3].T.astype(np.float32)
        # Weights are inverse variances relative to the depth; across views they count in scene units (here: cells).
        weight = filtered.weight[y, x] / np.square(depth / self.cell)
        self._waiting.append(
            (
                _keys(place),
                weight,
                place.astype(np.float32),
                normal.astype(np.float32),
                filtered.rgb[y, x].astype(np.float32),
                filtered.support[y, x].astype(np.int32),
            )
        )
        self._waiting_points += len(y)
        if self._waiting_points >= _BUFFER_POINTS:
            self._merge()

    def cloud(self, unit: Unit = "unknown") -> PointCloud:
        """Return the points so far."""
        self._merge()
        _, _, place, normal, rgb, support = self._merged
        length = np.linalg.norm(normal, axis=-1, keepdims=True)
        return PointCloud(
            xyz=place * self.cell + self._origin,
            normal=np.divide(normal, length, out=np.zeros_like(normal), where=length > 0),
            rgb=np.rint(rgb).clip(0, 255).astype(np.uint8),
            support=support,
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
    return np.zeros(0, np.int64), np.zeros(0), three, three, three, np.zeros(0, np.int32)


def _keys(place: np.ndarray) -> np.ndarray:
    """Return one int64 for each position (n, 3) [cells], equal for positions in one cell."""
    with np.errstate(over="ignore"):
        return (np.floor(place).astype(np.int64) * _HASH).sum(axis=1)


def _merge_equal_keys(
    key: np.ndarray, weight: np.ndarray, place: np.ndarray, normal: np.ndarray, rgb: np.ndarray, support: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Merge rows of one key: weighted means, summed weights, the largest support.

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
    return key[first], total, _means(place, share, first), mean_normal, _means(rgb, share, first), support


def _means(values: np.ndarray, share: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Return the weighted means of the runs of values (n, 3) that begin at ``first``; shares of a run add up to 1."""
    return np.add.reduceat(values * share[:, None], first).astype(np.float32)
