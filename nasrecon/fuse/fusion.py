"""Estimates become a cloud and a mesh, in two passes over the views, holding only a few of them in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.fuse.consistency import CACHE_BYTES, MapCache, confident_depth, filter_view, required_support
from nasrecon.fuse.mesh import MeshBuilder, Voxel, choose_voxel
from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.fuse.overlap import Sketch, median_footprint, neighbors
from nasrecon.fuse.points import PointMerger
from nasrecon.progress import LogProgress, Progress
from nasrecon.types import Estimate, Mesh, PointCloud, Unit


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion:
    """The result of a fusion.

    Attributes:
        cloud: the points, or None if they were not asked for.
        mesh: the mesh, or None if it was not asked for.
        stats: what each stage of the filter let through.
        cell: edge of the cells in which points were merged [scene units].
        voxel: the mesh's voxel and the reason for it; None without a mesh.
        seconds: time taken by each step.
    """

    cloud: PointCloud | None
    mesh: Mesh | None
    stats: FilterStats
    cell: float
    voxel: Voxel | None
    seconds: dict[str, float]


def fuse_estimates(
    estimates: Iterable[Estimate],
    options: FuseOptions | None = None,
    *,
    cloud: bool = True,
    mesh: bool = True,
    unit: Unit = "unknown",
    progress: Progress | None = None,
) -> Fusion:
    """Filter estimates against each other and fuse what is left into a point cloud, a mesh, or both.

    Args:
        estimates: one per view. Of a sequence, views are taken by index, each two times or a few more (memory for about
            1.5 GB of maps is kept), so one that reads from disk on ``[i]`` keeps memory bounded; an iterator is read
            into a list first.
        options: see ``FuseOptions``.
        cloud: whether to make the point cloud.
        mesh: whether to make the mesh.
        unit: the scene's unit, handed on to the results.
        progress: receives the reports: a step after every view of the two passes "survey" and "fuse".

    Raises:
        InputError: if there is no estimate, or two are of one view.
        EmptyResultError: if a stage drops everything; names the stage, the counts and the option that loosens it.
    """
    options, progress = options or FuseOptions(), progress or LogProgress()
    if not (hasattr(estimates, "__getitem__") and hasattr(estimates, "__len__")):
        estimates = list(estimates)
    seconds: dict[str, float] = {}
    clock = _Clock(seconds)
    cache = MapCache(estimates, options, CACHE_BYTES)
    stats = FilterStats(views=len(estimates))
    sketches = _look(estimates, cache, options, stats, progress)
    chosen = neighbors(sketches, options.max_neighbors)
    origin = np.median(np.concatenate([s.points_in_world for s in sketches]), axis=0)
    cell = options.voxel or median_footprint(sketches)
    voxel = choose_voxel(sketches, options) if mesh else None
    merger = PointMerger(cell, origin) if cloud else None
    builder = MeshBuilder(voxel, origin) if voxel else None
    clock.lap("look")

    stats.min_support = max(required_support(options, len(estimates), len(sources)) for sources in chosen)
    for i, sources in enumerate(chosen):
        required = required_support(options, len(estimates), len(sources))
        if not sources and len(estimates) > 1:
            stats.alone.append(sketches[i].view.name)
        filtered = filter_view(estimates[i], [cache[j] for j in sources], required, options, stats)
        clock.lap("filter")
        if merger:
            merger.add(filtered)
            clock.lap("points")
        if builder:
            builder.add(filtered)
            clock.lap("mesh")
        progress.update("fuse", i + 1, len(estimates))
    if not stats.supported:
        raise EmptyResultError(_nothing_agrees(stats, options))
    points = merger.cloud(unit) if merger else None
    stats.merged = len(points) if points else None
    clock.lap("points")
    surface = builder.mesh(options.min_component_faces, unit) if builder else None
    clock.lap("mesh")
    return Fusion(cloud=points, mesh=surface, stats=stats, cell=cell, voxel=voxel, seconds=seconds)


def _look(
    estimates: Sequence[Estimate], cache: MapCache, options: FuseOptions, stats: FilterStats, progress: Progress
) -> list[Sketch]:
    """Visit every view once: sketch it, count its pixels into ``stats`` and put its maps into the cache."""
    if not len(estimates):
        raise InputError(
            "there are no estimates to fuse; an iterator that was used before is empty: pass a list instead"
        )
    sketches: list[Sketch] = []
    for i in range(len(estimates)):
        estimate = estimates[i]
        if any(estimate.view.name == s.view.name for s in sketches):
            raise InputError(
                f"two estimates are of the view {estimate.view.name!r}: they would confirm each other; pass one"
            )
        depth = confident_depth(estimate, options)
        with np.errstate(invalid="ignore"):
            stats.with_depth += int(((estimate.depth > 0) & np.isfinite(estimate.depth)).sum())
        stats.pixels += depth.size
        stats.confident += int(np.count_nonzero(depth))
        sketches.append(Sketch.of(estimate.view, depth))
        cache.put(i, estimate)
        progress.update("survey", i + 1, len(estimates))
    if not stats.with_depth:
        raise EmptyResultError(f"nothing to fuse: none of the {stats.pixels} pixels of {stats.views} views has a depth")
    if not any(len(s.points_in_world) for s in sketches):
        raise EmptyResultError(
            f"the confidence filter dropped everything: {stats.with_depth} pixels have a depth, {stats.confident} of "
            f"them a confidence of min_confidence {options.min_confidence:g} or more. Lower min_confidence"
        )
    return sketches


def _nothing_agrees(stats: FilterStats, options: FuseOptions) -> str:
    """Say why the check between views left nothing, and what loosens it."""
    counts = (
        f"the check between views dropped everything: {stats.confident} confident pixels, none on which "
        f"{stats.min_support} of {stats.views} views agree. "
    )
    if not stats.seen:
        return counts + (
            "No view sees what another sees. Look at the cameras (are they cam_from_world, is their unit that of the "
            "depths?), or set min_support to 1 to fuse without the check"
        )
    if stats.near < 0.1 * stats.seen:
        option = (
            f"max_relative_depth_error ({options.max_relative_depth_error:g}) and max_reprojection_px "
            f"({options.max_reprojection_px:g})"
        )
    elif stats.agreed < 0.1 * stats.near:
        option = f"max_normal_angle_deg ({options.max_normal_angle_deg:g})"
    else:
        option = f"max_relative_depth_error ({options.max_relative_depth_error:g})"
        option += f", or lower min_support ({stats.min_support})"
    return counts + (
        f"Of {stats.seen} comparisons with another view {stats.near} agree in position and {stats.agreed} in their "
        f"normals too: raise {option}"
    )


class _Clock:
    """Add the time since the last lap to a named sum."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self._seconds = seconds
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._last
        self._last = now
