"""Estimates become a cloud and a mesh, in two passes over the views, holding only a few of them in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.fuse.calibrate import PlaneSamples, view_scales
from nasrecon.fuse.consistency import THREADS
from nasrecon.fuse.filter import average_view, filter_view, min_consistent_views
from nasrecon.fuse.maps import COLOR_BYTES, PlaneMap, Store, confident_depth
from nasrecon.fuse.mesh import MeshBuilder, Voxel, choose_voxel
from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.fuse.overlap import CoarseDepth, median_footprint, neighbors
from nasrecon.fuse.points import PointMerger
from nasrecon.progress import LogProgress, Progress
from nasrecon.types import Estimate, Mesh, PointCloud, Unit

_CELL_PIXELS = 2.0
_MIN_COMPARISONS = 1000


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
        estimates: one per view. Of a sequence, each view is taken once, by index, so one that reads from disk on
            ``[i]`` keeps memory bounded; an iterator is read into a list first.
        options: see ``FuseOptions``.
        cloud, mesh: whether to make the one and the other.
        unit: the scene's unit, handed on to the results.
        progress: receives the reports: a step after every view of the passes "survey", "average" and "fuse".

    Raises:
        InputError: if there is no estimate, or two are of one view.
        EmptyResultError: if a stage drops everything; names the stage, the counts and the option that loosens it.
    """
    options, progress = options or FuseOptions(), progress or LogProgress()
    if not (hasattr(estimates, "__getitem__") and hasattr(estimates, "__len__")):
        estimates = list(estimates)
    seconds: dict[str, float] = {}
    clock, stats = _Clock(seconds), FilterStats(views=len(estimates))
    survey = _survey(estimates, options, stats, progress)
    sketches = survey.sketches
    chosen = neighbors(sketches, options.max_neighbors)
    origin = np.median(np.concatenate([s.points_in_world for s in sketches]), axis=0)
    cell = options.cell or _CELL_PIXELS * median_footprint(sketches)
    voxel = choose_voxel(sketches, options) if mesh else None
    required = [min_consistent_views(options, len(estimates), len(sources)) for sources in chosen]
    _note_survey(survey, chosen, required, stats)
    clock.lap("survey")
    with ThreadPoolExecutor(THREADS) as pool:
        averaged = _average_views(survey, chosen, required, options, stats, pool, progress)
        clock.lap("average")
        merger = PointMerger(cell, origin) if cloud else None
        builder = MeshBuilder(voxel, origin) if voxel else None
        for i, sources in enumerate(chosen):
            ref, *near = (PlaneMap(view=sketches[j].view, plane=averaged[j]) for j in (i, *sources))
            filtered = filter_view(ref, near, survey.colors[i], required[i], options, stats, pool)
            clock.lap("filter")
            for sink, name in ((merger, "points"), (builder, "mesh")):
                if sink:
                    sink.add(filtered)
                    clock.lap(name)
            progress.update("fuse", i + 1, len(estimates))
    if stats.supported == stats.lone:
        raise EmptyResultError(_nothing_agrees(stats, options))
    points = merger.cloud(unit) if merger else None
    stats.merged = len(points) if points else None
    clock.lap("points")
    surface = builder.mesh(options.min_component_faces, min(stats.min_support, 2), unit) if builder else None
    clock.lap("mesh")
    return Fusion(cloud=points, mesh=surface, stats=stats, cell=cell, voxel=voxel, seconds=seconds)


def _note_survey(survey: _Survey, chosen: Sequence[Sequence[int]], required: Sequence[int], stats: FilterStats) -> None:
    """Find the scales of the views; note these, the support required, and the views without a neighbour."""
    names = [sketch.view.name for sketch in survey.sketches]
    stats.min_support = max(required)
    if len(names) > 1:
        stats.isolated_views = [name for name, sources in zip(names, chosen, strict=True) if not sources]
    survey.scales = view_scales(survey.samples, chosen)
    stats.scales = {name: float(scale) for name, scale in zip(names, survey.scales, strict=True) if scale != 1}


def _average_views(
    survey: _Survey,
    chosen: Sequence[Sequence[int]],
    required: Sequence[int],
    options: FuseOptions,
    stats: FilterStats,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> Store:
    """Return the planes of every view averaged with its sources ``chosen``; the survey's own are freed."""
    averaged = Store()
    for i, sources in enumerate(chosen):
        near, before = [survey.maps(j) for j in sources], (stats.comparisons, stats.near)
        averaged.put(i, average_view(survey.maps(i), near, required[i], options, stats, pool).plane)
        if (comparisons := stats.comparisons - before[0]) > _MIN_COMPARISONS:
            stats.agreement[survey.sketches[i].view.name] = (stats.near - before[1]) / comparisons
        progress.update("average", i + 1, len(chosen))
    survey.forget_planes()
    return averaged


class _Survey:
    """What one visit to every view leaves: a sketch, the planes, the colours; and the scales found from these."""

    def __init__(self) -> None:
        self.sketches: list[CoarseDepth] = []
        self.samples: list[PlaneSamples] = []
        self.colors = Store(COLOR_BYTES)
        self.scales = np.zeros(0)
        self._planes = Store()

    def add(self, estimate: Estimate, depth: np.ndarray, options: FuseOptions) -> None:
        """Add the next view; depth (H, W) is 0 where it is not confident."""
        number = len(self.sketches)
        self.sketches.append(CoarseDepth.of(estimate.view, depth))
        maps = PlaneMap.of(estimate, options)
        self.samples.append(PlaneSamples.of(maps))
        self._planes.put(number, maps.plane)
        self.colors.put(number, estimate.rgb)

    def maps(self, number: int) -> PlaneMap:
        """Return the planes of a view."""
        scale = float(1 / self.scales[number])
        return PlaneMap(view=self.sketches[number].view, plane=self._planes[number], scale=scale)

    def forget_planes(self) -> None:
        """Free the memory of the planes."""
        self._planes = Store()


def _survey(estimates: Sequence[Estimate], options: FuseOptions, stats: FilterStats, progress: Progress) -> _Survey:
    """Visit every view once and count its pixels into ``stats``."""
    if not len(estimates):
        raise InputError(
            "there are no estimates to fuse; an iterator that was used before is empty: pass a list instead"
        )
    survey, names = _Survey(), set()
    for i in range(len(estimates)):
        estimate = estimates[i]
        if estimate.view.name in names:
            raise InputError(
                f"two estimates are of the view {estimate.view.name!r}: they would confirm each other; pass one"
            )
        names.add(estimate.view.name)
        depth = confident_depth(estimate, options)
        with np.errstate(invalid="ignore"):
            stats.with_depth += int(((estimate.depth > 0) & np.isfinite(estimate.depth)).sum())
        stats.pixels += depth.size
        stats.confident += int(np.count_nonzero(depth))
        survey.add(estimate, depth, options)
        progress.update("survey", i + 1, len(estimates))
    if not stats.with_depth:
        raise EmptyResultError(f"nothing to fuse: none of the {stats.pixels} pixels of {stats.views} views has a depth")
    if not any(len(s.points_in_world) for s in survey.sketches):
        raise EmptyResultError(
            f"the confidence filter dropped everything: {stats.with_depth} pixels have a depth, {stats.confident} of "
            f"them a confidence of min_confidence {options.min_confidence:g} or more. Lower min_confidence"
        )
    return survey


def _nothing_agrees(stats: FilterStats, options: FuseOptions) -> str:
    """Say why the check between views left nothing, and what loosens it."""
    counts = (
        f"the check between views dropped everything: {stats.confident} confident pixels, none on which "
        f"{stats.min_support} of {stats.views} views agree. "
    )
    if not stats.comparisons:
        return counts + (
            "No view sees what another sees. Look at the cameras (are they cam_from_world, is their unit that of the "
            "depths?), or set min_support to 1 to fuse without the check"
        )
    if stats.near < 0.1 * stats.comparisons:
        option = f"max_relative_depth_error ({options.max_relative_depth_error:g})"
    elif stats.consistent < 0.1 * stats.near:
        option = f"max_normal_angle_deg ({options.max_normal_angle_deg:g})"
    else:
        option = f"max_relative_depth_error ({options.max_relative_depth_error:g})"
        option += f", or lower min_support ({stats.min_support})"
    return counts + (
        f"Of {stats.comparisons} comparisons with another view {stats.near} agree in position, {stats.consistent} in "
        f"their normals too: raise {option}"
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
