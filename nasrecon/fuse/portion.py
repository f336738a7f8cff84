"""Which part of a fusion a process does: some of the blocks, and the views whose surface may lie in them.

The filter moves the depth of a pixel by no more than its tolerances allow. So a view's surface lies within bounds that
its own depths give (``Reach``), and a process finds its views before any of them is filtered. A view whose bounds meet
the blocks of several processes is filtered by each of them; the first of these counts its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nasrecon.fuse.blocks import Box
from nasrecon.fuse.color import TOLERANCE
from nasrecon.fuse.filter import first_tolerance, second_tolerance
from nasrecon.fuse.options import FuseOptions
from nasrecon.geometry import transform
from nasrecon.types import View

_GRID = (30, 40)
_LEAST = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """The range of depths in each part of a view that has any.

    Attributes:
        view: the view.
        corners: (n, 2, 2) the first and the last corner of each part [px].
        depths: (n, 2) the nearest and the farthest depth in it.
    """

    view: View
    corners: np.ndarray
    depths: np.ndarray

    @staticmethod
    def of(view: View, depth: np.ndarray) -> Reach:
        """Divide a depth map (H, W), 0 = none, into 30 x 40 parts or fewer."""
        from nasrecon.fuse.plane_kernel import depth_ranges

        rows, columns = (np.unique(np.arange(n) * size // n) for n, size in zip(_GRID, depth.shape, strict=True))
        row_of, column_of = (
            np.searchsorted(starts, np.arange(size), side="right") - 1
            for starts, size in zip((rows, columns), depth.shape, strict=True)
        )
        nearest = np.full((len(rows), len(columns)), np.inf, np.float32)
        farthest = np.zeros_like(nearest)
        depth_ranges(depth, row_of, column_of, nearest, farthest)
        i, j = np.nonzero(farthest)
        last_row, last_column = np.append(rows[1:], depth.shape[0]), np.append(columns[1:], depth.shape[1])
        # One more pixel around: the grid of voxels takes a pixel's depth half a pixel aside.
        first = np.stack([columns[j], rows[i]], axis=-1) - 1.0
        last = np.stack([last_column[j], last_row[i]], axis=-1) + 1.0
        depths = np.stack([nearest[i, j], farthest[i, j]], axis=-1)
        return Reach(view=view, corners=np.stack([first, last], axis=1), depths=depths)

    def boxes(self, scale: float, options: FuseOptions) -> Box:
        """Return the lowest and the highest corners (n, 3) of boxes in the world that hold all that the filter may make
        of the view, and all that its photograph may colour.

        Args:
            scale: the depths are multiplied by it (``Survey``).
        """
        slack = (first_tolerance(options).high, second_tolerance(options).high, 2 * TOLERANCE[1])
        nearest = scale * self.depths[:, 0] / math.prod(1 + part for part in slack)
        farthest = scale * self.depths[:, 1] / math.prod(max(_LEAST, 1 - part) for part in slack)
        x, y = self.corners[:, [0, 1, 0, 1], 0], self.corners[:, [0, 0, 1, 1], 1]
        pixels = np.stack([x, y], axis=-1)
        depth = [np.broadcast_to(z[:, None], x.shape) for z in (nearest, farthest)]
        points = np.concatenate([self.view.camera.unproject(pixels, z) for z in depth], axis=1)
        in_world = transform(self.view.world_from_cam, points)
        return in_world.min(axis=1), in_world.max(axis=1)


@dataclass(frozen=True, kw_only=True)
class Portion:
    """What one process does.

    Attributes:
        views: the numbers of the views that it filters, rising.
        counted: those of them whose pixels it counts.
        averaged: the views whose planes it averages: its own and their neighbours.
        read: the views whose planes it needs for that.
    """

    views: tuple[int, ...]
    counted: frozenset[int]
    averaged: tuple[int, ...]
    read: tuple[int, ...]

    @classmethod
    def of(
        cls, touched: Sequence[Sequence[int]], rank: int, neighbors: Sequence[Sequence[int]], every: bool
    ) -> Portion:
        """Return the portion of a rank.

        Args:
            touched: for each rank the views that may touch its blocks.
            neighbors: for each view the views that it is compared with.
            every: whether it averages every view.
        """
        owner = {view: number for number in reversed(range(len(touched))) for view in touched[number]}
        counted = {i for i in range(len(neighbors)) if owner.get(i, i % len(touched)) == rank}
        views = sorted(counted | set(touched[rank]))
        averaged = range(len(neighbors)) if every else _with_neighbors(views, neighbors)
        return cls(
            views=tuple(views),
            counted=frozenset(counted),
            averaged=tuple(averaged),
            read=tuple(_with_neighbors(averaged, neighbors)),
        )


def _with_neighbors(views: Sequence[int], neighbors: Sequence[Sequence[int]]) -> list[int]:
    return sorted({*views, *(j for i in views for j in neighbors[i])})


def touching(boxes: Sequence[Box], blocks: Sequence[Box]) -> list[int]:
    """Return the views whose boxes in the world (``Reach.boxes``) meet one of the blocks in the world."""
    return [i for i, (low, high) in enumerate(boxes) if any(_meet(low, high, block) for block in blocks)]


def _meet(low: np.ndarray, high: np.ndarray, block: Box) -> bool:
    return bool(((low <= block[1]) & (high >= block[0])).all(axis=1).any())
