"""Estimates become a cloud and a mesh, in two passes over the views, holding only a few of them in memory at a time.

The processes of a job (``nasrecon.ranks``) share the visits to the views, then the spatial blocks of the scene, each
with its own views (``fuse.portion``). What they make goes to the first one: what one process makes in as many blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.fuse import o3d
from nasrecon.fuse.ahead import THREADS, ahead
from nasrecon.fuse.blocks import BlockMesh, BlockPoints, Split, choose_blocks, join_clouds
from nasrecon.fuse.color import Photos, color_sums, mean_colors
from nasrecon.fuse.filter import FilteredView, average_view, filter_view
from nasrecon.fuse.maps import PlaneMap, Store
from nasrecon.fuse.mesh import MeshBuilder, Voxel, choose_voxel, clean_faces, poisson_mesh
from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.fuse.points import PointMerger
from nasrecon.fuse.portion import Portion, touching
from nasrecon.fuse.survey import Survey, survey_views
from nasrecon.fuse.texture import texture_mesh
from nasrecon.progress import LogProgress, Progress, under_way
from nasrecon.ranks import Ranks, current
from nasrecon.types import Estimate, Mesh, PointCloud, TexturedMesh, Unit

Sink = PointMerger | BlockPoints | MeshBuilder | BlockMesh

_CELL_PIXELS = 2.0
_MIN_COMPARISONS = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Fusion:
    """The result of a fusion.

    Attributes:
        cloud: the points, or None if they were not asked for.
        mesh: the mesh, or None if it was not asked for.
        textured: the mesh with a texture atlas, or None if that was not asked for.
        stats: what each stage of the filter let through.
        cell: edge of the cells in which points were merged [scene units].
        voxel: the mesh's voxel and the reason for it; None without a mesh.
        seconds: time taken by each step.
    """

    cloud: PointCloud | None
    mesh: Mesh | None = None
    textured: TexturedMesh | None = None
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
    options, progress, ranks = options or FuseOptions(), progress or LogProgress(), current()
    if not isinstance(estimates, Sequence):
        estimates = list(estimates)
    seconds: dict[str, float] = {}
    clock, stats = _Clock(seconds), FilterStats(views=len(estimates))
    survey = survey_views(estimates, options, stats, progress)
    origin, cell, voxel, split = ranks.from_first(lambda: _grids(survey, options, mesh, progress))
    merger = builder = None
    if cloud or (voxel and options.method == "poisson"):
        merger = BlockPoints(cell, origin, split, ranks) if split else PointMerger(cell, origin)
    if voxel and options.method == "tsdf":
        builder = BlockMesh(voxel, origin, split, ranks) if split else MeshBuilder(voxel, origin)
    sinks = [sink for sink in (merger, builder) if sink]
    portion = _portion(survey, sinks, options, ranks)
    survey.read(estimates, portion.read, options)
    clock.lap("read")
    with ThreadPoolExecutor(THREADS) as pool:
        filtered = FilterStats()
        averaged = _average_views(survey, portion, options, filtered, pool, progress)
        photos = survey.photos(averaged)
        clock.lap("average")
        _filter_views(survey, portion, averaged, photos, sinks, options, filtered, pool, progress)
        for part in ranks.exchanged(filtered):
            stats.add(part, survey.names)
        clock.lap("filter")
        if stats.supported == stats.lone:
            raise EmptyResultError(_nothing_agrees(stats, options))
        with under_way(progress, "surface"):
            points = join_clouds(ranks.gathered(merger.cloud(unit))) if merger else None
            clock.lap("points")
            stats.merged = len(points) if cloud and points else None
            fusion = Fusion(cloud=points if cloud else None, stats=stats, cell=cell, voxel=voxel, seconds=seconds)
            if voxel is None:
                return fusion
            shape = _shape(builder, points, voxel, options, stats, ranks)
            clock.lap("mesh")
            return replace(fusion, **_colored(*shape, photos, portion, builder, options, unit, ranks, clock))


def _grids(
    survey: Survey, options: FuseOptions, mesh: bool, progress: Progress
) -> tuple[np.ndarray, float, Voxel | None, Split | None]:
    """Return the origin of the grids, the cell of the cloud, the voxel of the mesh, and how the scene is cut into
    blocks; None where it stays whole.

    Raises:
        InputError: if several processes are to make one Poisson surface; as ``choose_voxel``.
    """
    if options.method == "poisson" and current().size > 1:
        raise InputError("the Poisson surface is one for the whole scene; run it in one process, without torchrun")
    points_in_world = np.concatenate([sketch.points_in_world for sketch in survey.sketches])
    cell = options.cell or _CELL_PIXELS * survey.footprint
    voxel = choose_voxel(survey.sketches, options) if mesh else None
    count, split = choose_blocks(voxel, options), None
    if count > 1:
        split = Split.of(points_in_world, count)
        progress.note(f"the scene is fused in {split.count} blocks")
    return np.median(points_in_world, axis=0), cell, voxel, split


def _portion(survey: Survey, sinks: Sequence[Sink], options: FuseOptions, ranks: Ranks) -> Portion:
    """Return which views this process averages, filters and counts: those that reach its blocks; alone all."""
    every = range(len(survey.visits))
    mine = list(every)
    if ranks.size > 1:
        blocks = [box for sink in sinks if isinstance(sink, BlockPoints | BlockMesh) for box in sink.boxes_in_world()]
        mine = touching(survey.boxes(options), blocks)
    return Portion.of(
        ranks.exchanged(mine), ranks.rank, survey.neighbors, every=options.texture is not None and ranks.is_first
    )


def _filter_views(
    survey: Survey,
    portion: Portion,
    averaged: Store,
    photos: Photos,
    sinks: Sequence[Sink],
    options: FuseOptions,
    stats: FilterStats,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> None:
    """Filter the views of a portion and add them to the sinks; these take one in while the next is filtered."""
    added: list[Future[None]] = []

    def call(i: int) -> Callable[[], tuple[FilteredView, FilterStats]]:
        ref, *near = (PlaneMap(view=survey.view(j), plane=averaged[j]) for j in (i, *survey.neighbors[i]))
        rgb = photos.rgb(i)

        def work() -> tuple[FilteredView, FilterStats]:
            counts = FilterStats()
            return filter_view(ref, near, rgb, survey.required[i], options, counts, pool), counts

        return work

    calls = (call(i) for i in portion.views)
    for done, (i, (filtered, counts)) in enumerate(zip(portion.views, ahead(calls, survey.at_once), strict=True), 1):
        counts.confirmed[filtered.view.name] = float((filtered.depth > 0).mean())
        if i in portion.counted:
            stats.add(counts, survey.names)
        for waiting in added:
            waiting.result()
        added = [pool.submit(sink.add, filtered) for sink in sinks]
        progress.update("fuse", done, len(portion.views))
    for waiting in added:
        waiting.result()


def _shape(
    builder: MeshBuilder | BlockMesh | None,
    points: PointCloud | None,
    voxel: Voxel,
    options: FuseOptions,
    stats: FilterStats,
    ranks: Ranks,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the vertices (V, 3), faces (F, 3) and normals (V, 3) of the cleaned surface, the same on all ranks."""
    parts = builder.parts(min(stats.min_views, 2)) if builder else []

    def finished() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        surface = builder.surface(parts) if builder else poisson_mesh(points, voxel.size)  # pyright: ignore[reportArgumentType]
        vertices, faces = _finished(*surface, voxel.size, options)
        return vertices, faces, o3d.vertex_normals(vertices, faces)

    return ranks.from_first(finished)


def _finished(
    vertices: np.ndarray, faces: np.ndarray, edge: float, options: FuseOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Return a surface (V, 3), (F, 3) without loose parts, decimated as asked for; ``edge``: of the voxels."""
    vertices, faces = clean_faces(vertices, faces, edge, options.min_component_faces)
    if options.target_faces is None or options.target_faces >= len(faces):
        return vertices, faces
    return clean_faces(*o3d.decimate(vertices, faces, options.target_faces), edge, 0)


def _colored(
    vertices: np.ndarray,
    faces: np.ndarray,
    normal: np.ndarray,
    photos: Photos,
    portion: Portion,
    builder: MeshBuilder | BlockMesh | None,
    options: FuseOptions,
    unit: Unit,
    ranks: Ranks,
    clock: _Clock,
) -> dict[str, Mesh | TexturedMesh]:
    """Return the "mesh" with colours, of which each rank looks up those in its blocks, and the "textured" one where it
    is asked for; nothing on ranks but the first."""
    mine = builder.inside(vertices) if isinstance(builder, BlockMesh) else np.ones(len(vertices), bool)
    parts = ranks.gathered((mine, *color_sums(vertices[mine], normal[mine], photos, portion.views)))
    if not ranks.is_first:
        return {}
    total, weight = np.zeros((len(vertices), 3), np.float32), np.zeros(len(vertices), np.float32)
    for where, colors, weights in parts:
        total[where], weight[where] = colors, weights
    rgb = mean_colors(total, weight, faces)
    mesh = Mesh(vertices=vertices, faces=faces, normal=normal, rgb=rgb, unit=unit)
    clock.lap("colors")
    if options.texture is None:
        return {"mesh": mesh}
    textured = texture_mesh(mesh, photos, options.texture)
    clock.lap("texture")
    return {"mesh": mesh, "textured": textured}


def _average_views(
    survey: Survey,
    portion: Portion,
    options: FuseOptions,
    stats: FilterStats,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> Store:
    """Return the planes of every view of a portion averaged with its neighbours; the survey's own are freed once
    they are no longer needed."""
    averaged, names = Store(), survey.names
    last_use = {j: i for i in portion.averaged for j in (i, *survey.neighbors[i])}
    unused: dict[int, list[int]] = {i: [] for i in portion.averaged}
    for j, i in last_use.items():
        unused[i].append(j)
    survey.forget_planes(set(range(len(names))) - last_use.keys())

    def call(i: int) -> Callable[[], tuple[PlaneMap, FilterStats]]:
        ref, *near = (survey.maps(j) for j in (i, *survey.neighbors[i]))

        def work() -> tuple[PlaneMap, FilterStats]:
            counts = FilterStats()
            return average_view(ref, near, survey.required[i], options, counts, pool), counts

        return work

    calls = (call(i) for i in portion.averaged)
    for done, (i, (maps, counts)) in enumerate(zip(portion.averaged, ahead(calls, survey.at_once), strict=True), 1):
        averaged.put(i, maps.plane)
        survey.forget_planes(unused[i])
        if counts.comparisons > _MIN_COMPARISONS:
            counts.agreement[names[i]] = counts.near / counts.comparisons
            if counts.near > _MIN_COMPARISONS:
                counts.normal_agreement[names[i]] = counts.consistent / counts.near
        if i in portion.counted:
            stats.add(counts, names)
        progress.update("average", done, len(portion.averaged))
    return averaged


def _nothing_agrees(stats: FilterStats, options: FuseOptions) -> str:
    """Say why the check between views left nothing, and what loosens it."""
    counts = (
        f"the check between views dropped everything: {stats.confident} confident pixels, none on which "
        f"{stats.min_views} of {stats.views} views agree. "
    )
    if not stats.comparisons:
        return counts + (
            "No view sees what another sees. Look at the cameras (are they cam_from_world, is their unit that of the "
            "depths?), or set min_views to 1 to fuse without the check"
        )
    if stats.near < 0.1 * stats.comparisons:
        option = f"max_relative_depth_error ({options.max_relative_depth_error:g})"
    elif stats.consistent < 0.1 * stats.near:
        option = f"max_normal_angle_deg ({options.max_normal_angle_deg:g})"
    else:
        option = f"max_relative_depth_error ({options.max_relative_depth_error:g})"
        option += f", or lower min_views ({stats.min_views})"
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
