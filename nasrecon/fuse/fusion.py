"""Estimates become a cloud and a mesh, in two passes over the views, holding only a few of them in memory at a time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from nasrecon.errors import EmptyResultError
from nasrecon.fuse import o3d
from nasrecon.fuse.blocks import BlockMesh, BlockPoints, Split, choose_blocks
from nasrecon.fuse.color import Photos, vertex_colors
from nasrecon.fuse.consistency import THREADS
from nasrecon.fuse.filter import average_view, filter_view
from nasrecon.fuse.maps import PlaneMap, Store
from nasrecon.fuse.mesh import MeshBuilder, Voxel, choose_voxel, clean_faces, poisson_mesh
from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.fuse.points import PointMerger
from nasrecon.fuse.survey import Survey, survey_views
from nasrecon.fuse.texture import texture_mesh
from nasrecon.progress import LogProgress, Progress, under_way
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
    options, progress = options or FuseOptions(), progress or LogProgress()
    if not isinstance(estimates, Sequence):
        estimates = list(estimates)
    seconds: dict[str, float] = {}
    clock, stats = _Clock(seconds), FilterStats(views=len(estimates))
    survey = survey_views(estimates, options, stats, progress)
    origin = np.median(np.concatenate([s.points_in_world for s in survey.sketches]), axis=0)
    cell = options.cell or _CELL_PIXELS * survey.footprint
    voxel = choose_voxel(survey.sketches, options) if mesh else None
    clock.lap("read")
    with ThreadPoolExecutor(THREADS) as pool:
        averaged = _average_views(survey, options, stats, pool, progress)
        photos = survey.photos(averaged)
        clock.lap("average")
        split = _split(survey, voxel, options, progress)
        merger = builder = None
        if cloud or (voxel and options.method == "poisson"):
            merger = BlockPoints(cell, origin, split) if split else PointMerger(cell, origin)
        if voxel and options.method == "tsdf":
            builder = BlockMesh(voxel, origin, split) if split else MeshBuilder(voxel, origin)
        _filter_views(survey, averaged, photos, [s for s in (merger, builder) if s], options, stats, pool, progress)
        clock.lap("filter")
        if stats.supported == stats.lone:
            raise EmptyResultError(_nothing_agrees(stats, options))
        with under_way(progress, "surface"):
            points = merger.cloud(unit) if merger else None
            stats.merged = len(points) if cloud and points else None
            clock.lap("points")
            fusion = Fusion(cloud=points if cloud else None, stats=stats, cell=cell, voxel=voxel, seconds=seconds)
            if voxel is None:
                return fusion
            shape = builder.surface(min(stats.min_views, 2)) if builder else poisson_mesh(points, voxel.size)  # pyright: ignore[reportArgumentType]
            vertices, faces = _finished(*shape, voxel.size, options)
            clock.lap("mesh")
            return replace(fusion, **_colored(vertices, faces, photos, options, unit, pool, clock))


def _split(survey: Survey, voxel: Voxel | None, options: FuseOptions, progress: Progress) -> Split | None:
    """Return how the scene is cut into blocks; None where it stays whole."""
    count = choose_blocks(voxel, options)
    if count == 1:
        return None
    split = Split.of(np.concatenate([s.points_in_world for s in survey.sketches]), count)
    progress.note(f"the scene is fused in {split.count} blocks")
    return split


def _filter_views(
    survey: Survey,
    averaged: Store,
    photos: Photos,
    sinks: Sequence[Sink],
    options: FuseOptions,
    stats: FilterStats,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> None:
    """Filter every view and add it to the sinks; these take one in while the next is filtered."""
    added: list[Future[None]] = []
    for i, sources in enumerate(survey.neighbors):
        ref, *near = (PlaneMap(view=survey.sketches[j].view, plane=averaged[j]) for j in (i, *sources))
        filtered = filter_view(ref, near, photos.rgb(i), survey.required[i], options, stats, pool)
        stats.confirmed[ref.view.name] = float((filtered.depth > 0).mean())
        for waiting in added:
            waiting.result()
        added = [pool.submit(sink.add, filtered) for sink in sinks]
        progress.update("fuse", i + 1, len(survey.neighbors))
    for waiting in added:
        waiting.result()


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
    photos: Photos,
    options: FuseOptions,
    unit: Unit,
    pool: ThreadPoolExecutor,
    clock: _Clock,
) -> dict[str, Mesh | TexturedMesh]:
    """Return the "mesh" of a surface (V, 3), (F, 3) with colours, and the "textured" one where it is asked for."""
    normal = o3d.vertex_normals(vertices, faces)
    rgb = vertex_colors(vertices, normal, faces, photos, pool, THREADS)
    mesh = Mesh(vertices=vertices, faces=faces, normal=normal, rgb=rgb, unit=unit)
    clock.lap("colors")
    if options.texture is None:
        return {"mesh": mesh}
    textured = texture_mesh(mesh, photos, options.texture)
    clock.lap("texture")
    return {"mesh": mesh, "textured": textured}


def _average_views(
    survey: Survey,
    options: FuseOptions,
    stats: FilterStats,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> Store:
    """Return the planes of every view averaged with its neighbours; the survey's own are freed."""
    averaged = Store()
    for i, sources in enumerate(survey.neighbors):
        near, before = [survey.maps(j) for j in sources], (stats.comparisons, stats.near, stats.consistent)
        averaged.put(i, average_view(survey.maps(i), near, survey.required[i], options, stats, pool).plane)
        if (comparisons := stats.comparisons - before[0]) > _MIN_COMPARISONS:
            name, near_ones = survey.sketches[i].view.name, stats.near - before[1]
            stats.agreement[name] = near_ones / comparisons
            if near_ones > _MIN_COMPARISONS:
                stats.normal_agreement[name] = (stats.consistent - before[2]) / near_ones
        progress.update("average", i + 1, len(survey.neighbors))
    survey.forget_planes()
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
