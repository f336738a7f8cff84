"""The first visit to every view: its planes, its colours, a coarse depth; and what follows from these for each view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.fuse.ahead import LARGE_VIEW, VIEWS_AT_ONCE, ahead
from nasrecon.fuse.blocks import Box
from nasrecon.fuse.calibrate import PlaneSamples, pair_offsets, sigma_scales, view_scales
from nasrecon.fuse.color import Photos, focus_of
from nasrecon.fuse.exposure import coarse_rgb, view_gains
from nasrecon.fuse.filter import min_consistent_views
from nasrecon.fuse.maps import COLOR_BYTES, PlaneMap, Store, confident_depth
from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.fuse.overlap import CoarseDepth, median_footprint, neighbors
from nasrecon.fuse.portion import Reach
from nasrecon.progress import Progress
from nasrecon.ranks import current
from nasrecon.types import Estimate, View


@dataclass(frozen=True, kw_only=True, eq=False)
class Visit:
    """What a visit to a view leaves beside its planes and its colours.

    Attributes:
        sketch: its coarse depth.
        reach: bounds of its surface.
        samples: some of its planes.
        rgb: (h, w, 3), coarse colours. focus: how sharp it is.
        replaced: the part of its depths whose normals were replaced.
        pixels, with_depth, confident: numbers of its pixels.
    """

    sketch: CoarseDepth
    reach: Reach
    samples: PlaneSamples
    rgb: np.ndarray
    focus: float
    replaced: float
    pixels: int
    with_depth: int
    confident: int


class Survey:
    """What one visit to every view leaves.

    Attributes:
        visits: of every view, in order.
        neighbors: for each view the views that it is compared with.
        required: for each view the number of views that must agree on a pixel.
        footprint: the median size of a pixel on the surface [scene units].
    """

    def __init__(self) -> None:
        self.visits: list[Visit] = []
        self.neighbors: list[list[int]] = []
        self.required: list[int] = []
        self.footprint = 0.0
        self._colors, self._planes = Store(COLOR_BYTES), Store()
        self._read: set[int] = set()
        self._scales, self._sigma_scales, self._gains = np.zeros(0), np.zeros(0), np.zeros(0)

    @property
    def sketches(self) -> list[CoarseDepth]:
        """The coarse depths of all views."""
        return [visit.sketch for visit in self.visits]

    @property
    def names(self) -> list[str]:
        """The names of all views."""
        return [visit.sketch.view.name for visit in self.visits]

    @property
    def at_once(self) -> int:
        """The number of views that are worked on at the same time."""
        return VIEWS_AT_ONCE if max(visit.pixels for visit in self.visits) < LARGE_VIEW else 1

    def view(self, number: int) -> View:
        """Return a view."""
        return self.visits[number].sketch.view

    def take(self, number: int, maps: PlaneMap, rgb: np.ndarray) -> None:
        """Take in the planes and colours of a view."""
        self._planes.put(number, maps.plane)
        self._colors.put(number, rgb)
        self._read.add(number)

    def read(self, estimates: Sequence[Estimate], numbers: Iterable[int], options: FuseOptions) -> None:
        """Take in the planes and colours of further views, which another process has visited."""
        missing = [number for number in numbers if number not in self._read]
        for number, taken in zip(missing, ahead(partial(_maps, estimates, i, options) for i in missing), strict=True):
            self.take(number, *taken)

    def boxes(self, options: FuseOptions) -> list[Box]:
        """Return bounds of the surface of each view in the world."""
        pairs = zip(self.visits, self._scales, strict=True)
        return [visit.reach.boxes(float(scale), options) for visit, scale in pairs]

    def maps(self, number: int) -> PlaneMap:
        """Return the planes of a view."""
        return PlaneMap(
            view=self.view(number),
            plane=self._planes[number],
            scale=float(1 / self._scales[number]),
            sigma_scale=float(self._sigma_scales[number]),
        )

    def conclude(self, options: FuseOptions, stats: FilterStats) -> None:
        """Choose neighbours, find the scales and gains of the views, on the first rank for all; note the scales, and
        the views without a neighbour."""
        names = self.names
        compared = current().from_first(lambda: self._compared(options))
        self.footprint, self.neighbors, self._scales, self._sigma_scales, self._gains = compared
        self.required = [min_consistent_views(options, len(names), len(near)) for near in self.neighbors]
        stats.min_views = max(self.required)
        if len(names) > 1:
            pairs = zip(names, self.neighbors, strict=True)
            stats.isolated_views = [n for n, near in pairs if not near and n not in stats.views_without_depth]
        for factors, scales in ((stats.scales, self._scales), (stats.sigma_scales, self._sigma_scales)):
            factors.update({name: float(scale) for name, scale in zip(names, scales, strict=True) if scale != 1})

    def _compared(self, options: FuseOptions) -> tuple[float, list[list[int]], np.ndarray, np.ndarray, np.ndarray]:
        """Return the footprint, the neighbours, and of each view its scale, that of its sigma and its gains."""
        sketches, views = self.sketches, len(self.visits)
        near = neighbors(sketches, options.max_neighbors)
        offsets = pair_offsets([visit.samples for visit in self.visits], near)
        pairs = [(i, j) for i, those in enumerate(near) for j in those]
        gains = view_gains(sketches, [visit.rgb for visit in self.visits], pairs)
        return median_footprint(sketches), near, view_scales(offsets, views), sigma_scales(offsets, views), gains

    def photos(self, averaged: Store) -> Photos:
        """Return the photographs, equally exposed, with the depth of the averaged planes."""
        views, focus = [sketch.view for sketch in self.sketches], np.array([visit.focus for visit in self.visits])
        return Photos(views, averaged, self._colors, self._gains, focus, self.footprint)

    def forget_planes(self, numbers: Iterable[int]) -> None:
        """Free the memory of the planes of some views."""
        for number in numbers:
            self._planes.forget(number)


def survey_views(estimates: Sequence[Estimate], options: FuseOptions, stats: FilterStats, progress: Progress) -> Survey:
    """Visit every view once and count its pixels into ``stats``; the ranks of a job share the visits."""
    if not len(estimates):
        raise InputError(
            "there are no estimates to fuse; an iterator that was used before is empty: pass a list instead"
        )
    survey, ranks = Survey(), current()
    numbers, visits = ranks.share(range(len(estimates))), {}
    calls = (partial(_visit, estimates, i, options) for i in numbers)
    for i, (visit, maps, rgb) in zip(numbers, ahead(calls), strict=True):
        visits[i] = visit
        survey.take(i, maps, rgb)
        progress.update("survey", len(visits), len(numbers))
    for part in ranks.exchanged(visits):
        visits |= part
    survey.visits = [visits[i] for i in range(len(estimates))]
    _count(survey, stats)
    if not stats.with_depth:
        raise EmptyResultError(f"nothing to fuse: none of the {stats.pixels} pixels of {stats.views} views has a depth")
    if not any(len(s.points_in_world) for s in survey.sketches):
        raise EmptyResultError(
            f"the confidence filter dropped everything: {stats.with_depth} pixels have a depth, {stats.confident} of "
            f"them a confidence of min_confidence {options.min_confidence:g} or more. Lower min_confidence"
        )
    survey.conclude(options, stats)
    return survey


def _count(survey: Survey, stats: FilterStats) -> None:
    """Count the pixels of all views.

    Raises:
        InputError: if two are of one view.
    """
    for visit in survey.visits:
        name = visit.sketch.view.name
        if name in stats.replaced_normals:
            raise InputError(f"two estimates are of the view {name!r}: they would confirm each other; pass one")
        stats.replaced_normals[name] = visit.replaced
        stats.pixels += visit.pixels
        stats.with_depth += visit.with_depth
        stats.confident += visit.confident
        if not visit.confident:
            stats.views_without_depth.append(name)


def _maps(estimates: Sequence[Estimate], number: int, options: FuseOptions) -> tuple[PlaneMap, np.ndarray]:
    """Read a view; returns its planes and its colours."""
    estimate = estimates[number]
    return PlaneMap.of(estimate, options), estimate.rgb


def _visit(estimates: Sequence[Estimate], number: int, options: FuseOptions) -> tuple[Visit, PlaneMap, np.ndarray]:
    """Read a view; returns what the visit leaves, its planes and its colours."""
    estimate = estimates[number]
    depth, maps = confident_depth(estimate, options), PlaneMap.of(estimate, options)
    sketch = CoarseDepth.of(estimate.view, depth)
    with np.errstate(invalid="ignore"):
        with_depth = int(((estimate.depth > 0) & np.isfinite(estimate.depth)).sum())
    visit = Visit(
        sketch=sketch,
        reach=Reach.of(estimate.view, depth),
        samples=PlaneSamples.of(maps),
        rgb=coarse_rgb(estimate.rgb, sketch.depth.shape),
        focus=focus_of(estimate.rgb),
        replaced=maps.replaced,
        pixels=depth.size,
        with_depth=with_depth,
        confident=int(np.count_nonzero(depth)),
    )
    return visit, maps, estimate.rgb
