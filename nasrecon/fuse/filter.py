"""The two passes of the filter: average what agrees, then keep what agrees with the averages of the other views."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nasrecon.fuse.consistency import Comparison, Tolerance, compare
from nasrecon.fuse.maps import SIGMA_FLOOR, PlaneMap
from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.types import View

_SECOND = 1 / 3
_TRUSTED = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class FilteredView:
    """What is left of a view, averaged with the views that agree.

    Attributes:
        view: the view.
        depth: (H, W) float32; 0 = dropped.
        normal: (H, W, 3) float32, unit, camera frame, facing the camera; 0 = dropped.
        sigma: (H, W) float32, one standard deviation of the depth [scene units].
        support: (H, W) int16, views that agree, own included; counted where the pixel is confident, 0 elsewhere.
        rgb: (H, W, 3) uint8.
    """

    view: View
    depth: np.ndarray
    normal: np.ndarray
    sigma: np.ndarray
    support: np.ndarray
    rgb: np.ndarray


def min_consistent_views(options: FuseOptions, views: int, neighbor_count: int) -> int:
    """Return how many views must agree on a pixel of a view with so many neighbours.

    Without an option: 3, but 2 if there is one neighbour only; a view beside no other in a set of several cannot be
    checked and keeps nothing (2 are asked of it); a single view is taken as it is.
    """
    if options.min_views is not None:
        return options.min_views
    return 1 if views == 1 else max(2, min(3, 1 + neighbor_count))


def first_tolerance(options: FuseOptions) -> Tolerance:
    """Return what counts as agreement between the maps as they were estimated."""
    high = options.max_relative_depth_error
    return Tolerance(sigmas=2.0, low=high / 3, high=high, normal_angle_deg=options.max_normal_angle_deg)


def second_tolerance(options: FuseOptions) -> Tolerance:
    """Return what counts as agreement between averaged maps: a third."""
    high = options.max_relative_depth_error * _SECOND
    return Tolerance(sigmas=2.0, low=high / 3, high=high, normal_angle_deg=options.max_normal_angle_deg)


def average_view(
    ref: PlaneMap,
    sources: Sequence[PlaneMap],
    required: int,
    options: FuseOptions,
    stats: FilterStats,
    pool: ThreadPoolExecutor,
) -> PlaneMap:
    """Return a view's planes averaged with those that agree; empty where nothing agrees and the pixel is not sure."""
    from nasrecon.fuse import plane_kernel as kernel

    comparison = compare(ref, sources, first_tolerance(options), stats, pool)
    keep, _ = _supported(ref, comparison, min(required, 2), options)
    stats.contradicted += int(((comparison.support >= required) & ~keep).sum())
    camera, plane = ref.view.camera, np.empty_like(ref.plane)
    averages = comparison.inv_depth, comparison.normal, comparison.weight, comparison.support
    variances = ref.plane, np.float32(ref.sigma_scale**2), np.float32(SIGMA_FLOOR)
    K_inv = np.linalg.inv(camera.K).astype(np.float32)
    kernel.averaged_planes(keep, *averages, *variances, camera.width, K_inv, plane)
    return PlaneMap(view=ref.view, plane=plane)


def filter_view(
    ref: PlaneMap,
    sources: Sequence[PlaneMap],
    rgb: np.ndarray,
    required: int,
    options: FuseOptions,
    stats: FilterStats,
    pool: ThreadPoolExecutor,
) -> FilteredView:
    """Keep the pixels of an averaged view that enough views agree on; counts are added to ``stats``."""
    from nasrecon.fuse import plane_kernel as kernel

    comparison = compare(ref, sources, second_tolerance(options), stats, pool)
    keep, lone = _supported(ref, comparison, required, options)
    stats.contradicted += int(((comparison.support >= required) & ~keep).sum())
    stats.supported += int(keep.sum())
    stats.lone += lone
    size = (ref.view.camera.height, ref.view.camera.width)
    depth, sigma, normal = np.empty(len(keep), np.float32), np.empty(len(keep), np.float32), comparison.normal
    averages = comparison.inv_depth, comparison.weight, comparison.support
    kernel.filtered_maps(keep, *averages, np.float32(SIGMA_FLOOR), normal, depth, sigma)
    return FilteredView(
        view=ref.view,
        depth=depth.reshape(size),
        normal=normal.reshape(*size, 3),
        sigma=sigma.reshape(size),
        support=comparison.support.reshape(size),
        rgb=rgb,
    )


def _supported(ref: PlaneMap, comparison: Comparison, required: int, options: FuseOptions) -> tuple[np.ndarray, int]:
    """Return which pixels (n,) stay, and how many of them by the second rule.

    Enough views agree, more agree than contradict, and they are surer than those (by the sums of inverse variances).
    Where no number of views is asked for, fewer will do for a pixel that is sure of its depth (to the part by which
    depths may differ), that no view contradicts, and whose view agrees with others on most of the pixels that these
    see.
    """
    if required <= 1:
        return comparison.support >= 1, 0
    keep = (comparison.support >= required) & (2 * comparison.support > comparison.visible + 1)
    keep &= comparison.weight > comparison.against
    if options.min_views is not None:
        return keep, 0
    checked = (comparison.visible > 0) & (comparison.support > 0)
    if np.count_nonzero(checked & (comparison.support > 1)) <= _TRUSTED * np.count_nonzero(checked):
        return keep, 0
    variance = ref.plane[:-1, 3] * np.float32(ref.sigma_scale**2)
    sure = (variance > 0) & (variance <= np.float32(options.max_relative_depth_error**2))
    lone = sure & (comparison.visible < comparison.support) & ~keep
    return keep | lone, int(np.count_nonzero(lone))
