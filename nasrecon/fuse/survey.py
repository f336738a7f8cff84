"""The first visit to every view: its planes, its colours, a coarse depth; and what follows from these for each view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.fuse.calibrate import PlaneSamples, pair_offsets, sigma_scales, view_scales
from nasrecon.fuse.color import Photos, focus_of
from nasrecon.fuse.exposure import coarse_rgb, view_gains
from nasrecon.fuse.filter import min_consistent_views
from nasrecon.fuse.maps import COLOR_BYTES, PlaneMap, Store, confident_depth
from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.fuse.overlap import CoarseDepth, median_footprint, neighbors
from nasrecon.progress import Progress
from nasrecon.types import Estimate


class Survey:
    """What one visit to every view leaves.

    Attributes:
        sketches: the views' coarse depths.
        neighbors: for each view the views that it is compared with.
        required: for each view the number of views that must agree on a pixel.
        footprint: the median size of a pixel on the surface [scene units].
    """

    def __init__(self) -> None:
        self.sketches: list[CoarseDepth] = []
        self.samples: list[PlaneSamples] = []
        self.neighbors: list[list[int]] = []
        self.required: list[int] = []
        self.footprint = 0.0
        self._colors, self._planes = Store(COLOR_BYTES), Store()
        self._coarse_rgb: list[np.ndarray] = []
        self._focus: list[float] = []
        self._scales, self._sigma_scales = np.zeros(0), np.zeros(0)

    def add(self, estimate: Estimate, depth: np.ndarray, options: FuseOptions, stats: FilterStats) -> None:
        """Add the next view; depth (H, W) is 0 where it is not confident."""
        number = len(self.sketches)
        self.sketches.append(CoarseDepth.of(estimate.view, depth))
        maps = PlaneMap.of(estimate, options)
        stats.replaced_normals[estimate.view.name] = maps.replaced
        if not depth.any():
            stats.views_without_depth.append(estimate.view.name)
        self.samples.append(PlaneSamples.of(maps))
        self._planes.put(number, maps.plane)
        self._colors.put(number, estimate.rgb)
        self._coarse_rgb.append(coarse_rgb(estimate.rgb, self.sketches[number].depth.shape))
        self._focus.append(focus_of(estimate.rgb))

    def maps(self, number: int) -> PlaneMap:
        """Return the planes of a view."""
        return PlaneMap(
            view=self.sketches[number].view,
            plane=self._planes[number],
            scale=float(1 / self._scales[number]),
            sigma_scale=float(self._sigma_scales[number]),
        )

    def conclude(self, options: FuseOptions, stats: FilterStats) -> None:
        """Choose neighbours, find the scales of the views; note these, and the views without a neighbour."""
        names = [sketch.view.name for sketch in self.sketches]
        self.footprint = median_footprint(self.sketches)
        self.neighbors = neighbors(self.sketches, options.max_neighbors)
        self.required = [min_consistent_views(options, len(names), len(near)) for near in self.neighbors]
        stats.min_views = max(self.required)
        if len(names) > 1:
            pairs = zip(names, self.neighbors, strict=True)
            stats.isolated_views = [n for n, near in pairs if not near and n not in stats.views_without_depth]
        offsets = pair_offsets(self.samples, self.neighbors)
        self._scales, self._sigma_scales = view_scales(offsets, len(names)), sigma_scales(offsets, len(names))
        for factors, scales in ((stats.scales, self._scales), (stats.sigma_scales, self._sigma_scales)):
            factors.update({name: float(scale) for name, scale in zip(names, scales, strict=True) if scale != 1})

    def photos(self, averaged: Store) -> Photos:
        """Return the photographs, equally exposed, with the depth of the averaged planes."""
        pairs = [(i, j) for i, near in enumerate(self.neighbors) for j in near]
        gains = view_gains(self.sketches, self._coarse_rgb, pairs)
        views = [sketch.view for sketch in self.sketches]
        return Photos(views, averaged, self._colors, gains, np.array(self._focus), self.footprint)

    def forget_planes(self) -> None:
        """Free the memory of the planes."""
        self._planes = Store()


def survey_views(estimates: Sequence[Estimate], options: FuseOptions, stats: FilterStats, progress: Progress) -> Survey:
    """Visit every view once and count its pixels into ``stats``."""
    if not len(estimates):
        raise InputError(
            "there are no estimates to fuse; an iterator that was used before is empty: pass a list instead"
        )
    survey, names = Survey(), set()
    for i, estimate in enumerate(_read_ahead(estimates)):
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
        survey.add(estimate, depth, options, stats)
        progress.update("survey", i + 1, len(estimates))
    if not stats.with_depth:
        raise EmptyResultError(f"nothing to fuse: none of the {stats.pixels} pixels of {stats.views} views has a depth")
    if not any(len(s.points_in_world) for s in survey.sketches):
        raise EmptyResultError(
            f"the confidence filter dropped everything: {stats.with_depth} pixels have a depth, {stats.confident} of "
            f"them a confidence of min_confidence {options.min_confidence:g} or more. Lower min_confidence"
        )
    survey.conclude(options, stats)
    return survey


def _read_ahead(estimates: Sequence[Estimate]) -> Iterator[Estimate]:
    """Yield the estimates in order, each read while the one before it is used."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(estimates.__getitem__, 0)
        for i in range(len(estimates)):
            estimate = waiting.result()
            if i + 1 < len(estimates):
                waiting = pool.submit(estimates.__getitem__, i + 1)
            yield estimate
