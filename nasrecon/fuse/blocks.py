"""Fusion in spatial blocks: the scene's box is cut along its axes, and one block is in memory at a time.

Blocks meet at planes of the grid of voxels (for the mesh) and of the grid of cells (for the cloud), which are those of
the whole scene. A block's grid holds the voxels of the block and of a margin, filled by the views that touch them, so
each voxel has the value that it has in one grid over the whole, and neighbouring blocks have equal vertices on the
plane between them. The processes of a job share the blocks (``fuse.portion``): each has a run of their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nasrecon.fuse import o3d
from nasrecon.fuse.filter import FilteredView
from nasrecon.fuse.maps import Store
from nasrecon.fuse.mesh import BAND, TRUNCATION, Parts, Voxel, no_surface
from nasrecon.fuse.options import FuseOptions
from nasrecon.fuse.points import LONGEST_CELL, PLACE, PointMerger
from nasrecon.machine import free_memory
from nasrecon.ranks import Ranks, current
from nasrecon.types import PointCloud, Unit, View

Box = tuple[np.ndarray, np.ndarray]
"""The first steps of a grid in a block and the first beyond it, (3,) int each."""

MARGIN = 1
"""Blocks of the grid of voxels around a block; its outermost faces need the first voxels beyond it."""
FREE_SHARE = 0.25
"""The part of the free memory that a grid of voxels may take."""
_DEPTH_BYTES = 100_000_000
_OUTSIDE = 2**40


@dataclass(frozen=True)
class Split:
    """Planes across the world's axes that cut space into blocks.

    Attributes:
        planes: for each axis the places [scene units] of its planes, rising.
    """

    planes: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, points_in_world: np.ndarray, count: int) -> Split:
        """Cut the box of points (N, 3) into ``count`` blocks or a few more, with about equally many points each.

        The axis whose parts are the longest is cut next.
        """
        parts = np.ones(3, int)
        extent = np.ptp(points_in_world, axis=0)
        while parts.prod() < count:
            parts[np.argmax(extent / parts)] += 1
        quantiles = [np.arange(1, n) / n for n in parts]
        x, y, z = (np.quantile(points_in_world[:, axis], quantiles[axis]) for axis in range(3))
        return cls((x, y, z))

    @property
    def count(self) -> int:
        """The number of blocks."""
        return math.prod(len(planes) + 1 for planes in self.planes)

    def on_grid(self, step: float, origin: np.ndarray) -> GridSplit:
        """Return the split with its planes moved to the nearest ones of a grid of ``step`` [scene units]."""
        x, y, z = (
            np.unique(np.rint((planes - start) / step).astype(np.int64))
            for planes, start in zip(self.planes, origin, strict=True)
        )
        return GridSplit((x, y, z))


@dataclass(frozen=True)
class GridSplit:
    """A split at planes of a grid, in its steps."""

    planes: tuple[np.ndarray, np.ndarray, np.ndarray]

    def of_steps(self, steps: np.ndarray) -> np.ndarray:
        """Return the number (n,) of the block that steps (n, 3) int of the grid lie in."""
        x, y, z = (np.searchsorted(self.planes[axis], steps[:, axis], side="right") for axis in range(3))
        return (x * (len(self.planes[1]) + 1) + y) * (len(self.planes[2]) + 1) + z

    def boxes(self) -> Iterator[Box]:
        """Yield the blocks in the order of their numbers; the outermost reach to infinity."""
        bounds = [np.concatenate([[-_OUTSIDE], planes, [_OUTSIDE]]) for planes in self.planes]
        for index in np.ndindex(*(len(each) - 1 for each in bounds)):
            yield tuple(np.array([bounds[k][index[k] + d] for k in range(3)]) for d in (0, 1))  # type: ignore[misc]

    def share(self, ranks: Ranks) -> range:
        """Return the numbers of the blocks of a rank: a run, as neighbouring blocks share views."""
        count = math.prod(len(planes) + 1 for planes in self.planes)
        return range(ranks.rank * count // ranks.size, (ranks.rank + 1) * count // ranks.size)

    def boxes_in_world(self, numbers: range, step: float, origin: np.ndarray, margin: float) -> list[Box]:
        """Return some blocks in scene units, larger by a margin [steps] on each side."""
        every = list(self.boxes())
        return [((every[k][0] - margin) * step + origin, (every[k][1] + margin) * step + origin) for k in numbers]


def choose_blocks(voxel: Voxel | None, options: FuseOptions) -> int:
    """Return how many blocks the fusion takes: those that are asked for, else as many as memory asks for; one at least
    for each process of a job, which share the memory."""
    size = current().size
    if options.blocks != "auto":
        return max(size, options.blocks)
    free = free_memory()
    if voxel is None or free is None or options.method != "tsdf":
        return size
    return max(size, math.ceil(voxel.blocks * o3d.BLOCK_BYTES * size / (FREE_SHARE * free)))


class BlockPoints:
    """Collect points view by view, each block in a ``PointMerger`` of its own; their cells are those of the whole."""

    def __init__(self, cell: float, origin: np.ndarray, split: Split, ranks: Ranks) -> None:
        self._split, self._step, self._origin = split.on_grid(cell * LONGEST_CELL, origin), cell * LONGEST_CELL, origin
        self._numbers = self._split.share(ranks)
        self._all = PointMerger(cell, origin)
        self._mergers = {number: PointMerger(cell, origin) for number in self._numbers}

    def boxes_in_world(self) -> list[Box]:
        """Return the blocks of this rank and what lies a step around."""
        return self._split.boxes_in_world(self._numbers, self._step, self._origin, 1)

    def add(self, filtered: FilteredView) -> None:
        """Add the kept pixels of a view that lie in the blocks of this rank."""
        rows = self._all.rows(filtered)
        if rows is None:
            return
        keys, points = rows
        block = self._split.of_steps(np.floor(points[:, PLACE] / LONGEST_CELL).astype(np.int64))
        for number in np.unique(block):
            if number in self._mergers:
                self._mergers[number].add_rows((keys[block == number], points[block == number]))

    def cloud(self, unit: Unit = "unknown") -> PointCloud:
        """Return the points of the blocks of this rank."""
        joint = join_clouds([merger.cloud(unit) for merger in self._mergers.values()])
        return joint or self._all.cloud(unit)


def join_clouds(parts: Sequence[PointCloud]) -> PointCloud | None:
    """Return the points of all clouds of one scene; None without a cloud."""
    if not parts:
        return None
    columns = ("xyz", "normal", "rgb", "support", "sigma")
    joint = {name: np.concatenate([getattr(part, name) for part in parts]) for name in columns}
    return PointCloud(**joint, unit=parts[0].unit)


class BlockMesh:
    """Keep the depth of filtered views and which voxels they touch; make the surface block by block at the end."""

    def __init__(self, voxel: Voxel, origin: np.ndarray, split: Split, ranks: Ranks) -> None:
        self._voxel, self._origin, self._step, self._ranks = voxel, origin, voxel.size * o3d.BLOCK, ranks
        self._split = split.on_grid(self._step, origin)
        self._numbers = self._split.share(ranks)
        self._expected = 2 * voxel.blocks // split.count
        self._depth, self._touched = Store(_DEPTH_BYTES), Store(_DEPTH_BYTES)
        self._views: list[View] = []
        self._extent: list[Box] = []
        self._scout = self._grid(1)

    def boxes_in_world(self) -> list[Box]:
        """Return the blocks of this rank and what lies so near that it touches their voxels."""
        margin = MARGIN + 1 + 2 * BAND / o3d.BLOCK
        return self._split.boxes_in_world(self._numbers, self._step, self._origin, margin)

    def inside(self, vertices: np.ndarray) -> np.ndarray:
        """Return which vertices (V, 3) in the world lie in the blocks of this rank."""
        number = self._split.of_steps(np.floor((vertices - self._origin) / self._step).astype(np.int64))
        return (number >= self._numbers.start) & (number < self._numbers.stop)

    def add(self, filtered: FilteredView) -> None:
        """Take in the kept pixels of a view."""
        touched = self._scout.touched(filtered.depth, filtered.view.camera, filtered.view.cam_from_world)
        if not len(touched):
            return
        number = len(self._views)
        self._depth.put(number, filtered.depth)
        self._touched.put(number, touched)
        self._extent.append((touched.min(axis=0), touched.max(axis=0)))
        self._views.append(filtered.view)

    def parts(self, min_weight: int) -> Parts:
        """Return the surfaces of all blocks where ``min_weight`` views or more touched it, on the first rank; none on
        the others."""
        parts, every = [], list(self._split.boxes())
        for number in self._numbers:
            grid, used = self._filled(every[number])
            if used:
                parts.append((*_inside(*grid.extract_in_voxels(min_weight), every[number]), used))
        return [part for theirs in self._ranks.gathered(parts) for part in theirs]

    def surface(self, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
        """Return the vertices (V, 3) and faces (F, 3) of the surface of all blocks.

        Raises:
            EmptyResultError: if the field has no surface.
        """
        vertices, faces = join([(vertices, faces) for vertices, faces, _ in parts])
        if not len(faces):
            raise no_surface(sum(used for _, _, used in parts), self._voxel)
        return vertices.astype(np.float64) * self._voxel.size + self._origin, faces

    def _filled(self, box: Box) -> tuple[o3d.TsdfGrid, int]:
        """Return the grid of a block, filled by the views that touch it, and how many blocks of voxels it uses."""
        low, high = box[0] - MARGIN, box[1] + MARGIN
        grid = self._grid(self._expected)
        for number, (first, last) in enumerate(self._extent):
            if (last < low).any() or (first >= high).any():
                continue
            touched = self._touched[number]
            touched = touched[((touched >= low) & (touched < high)).all(axis=1)]
            if len(touched):
                view = self._views[number]
                grid.integrate(self._depth[number], view.camera, view.cam_from_world, touched)
        return grid, grid.blocks

    def _grid(self, blocks: int) -> o3d.TsdfGrid:
        return o3d.TsdfGrid(
            voxel=self._voxel.size, origin=self._origin, truncation=TRUNCATION, band=BAND, block_count=blocks
        )


def _inside(vertices: np.ndarray, faces: np.ndarray, box: Box) -> tuple[np.ndarray, np.ndarray]:
    """Return a surface without the faces outside of a block, and without their vertices; vertices in voxels.

    A face lies in one voxel, and the planes between blocks are planes between voxels: its middle is on one side.
    """
    middle = vertices[faces].astype(np.float64).mean(axis=1)
    keep = ((middle >= box[0] * o3d.BLOCK) & (middle < box[1] * o3d.BLOCK)).all(axis=1)
    used, index = np.unique(faces[keep], return_inverse=True)
    return vertices[used], index.reshape(-1, 3).astype(np.int32)


def join(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Join surfaces (V, 3), (F, 3) whose vertices are in voxels; equal ones on planes between blocks become one."""
    if not parts:
        return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    vertices = np.concatenate([vertices for vertices, _ in parts])
    faces = np.concatenate([part + start for (_, part), start in zip(parts, starts, strict=False)]).astype(np.int32)
    on_plane = np.flatnonzero((vertices % o3d.BLOCK == 0).any(axis=1))
    unique, index = np.unique(vertices[on_plane], axis=0, return_index=True, return_inverse=True)[1:]
    target = np.arange(len(vertices))
    target[on_plane] = on_plane[unique][index.ravel()]
    used, compact = np.unique(target, return_inverse=True)
    return vertices[used], compact.astype(np.int32)[faces]
