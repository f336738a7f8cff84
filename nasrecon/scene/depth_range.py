"""How near and how far the surfaces of a view are.

The networks sweep planes at near * D / i, i = 1 ... D - 1: evenly spaced in inverse depth, the nearest of them at
about ``near``. Too small a ``near`` wastes planes on empty space, too large a one cuts surfaces off. So near is a low
percentile of the depths of the points in the view, with a margin: points sit on texture, surfaces between them may be
nearer. Most of all in the part of an image that no other view sees, where no point can be found: the larger that part,
the wider the margin.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import transform
from nasrecon.scene.source_views import guess_depth_range, lifted_pixels, sees, triangulation_angle_deg
from nasrecon.scene.sweep import swept_points, thumbnail
from nasrecon.types import Scene, View

# near is MARGIN times the percentile NEAR of the depths, but no less than FLOOR of that times the percentile SURE: so
# a few wrong points before the camera cannot draw it in. The points of a pair (or of PAIR views) are few, so it gets
# a wider margin; a sweep that settles fewer than WEAK_SHARE of a thumbnail's pixels is half guesswork and gets
# WEAK_MARGIN again. UNSEEN_MARGIN times the share of the image that no other view would see, were the surface at near,
# is taken off. Chosen on the sets with true depth (tests/ingest/test_real_sets.py): near covers the nearest 2 % of the
# pixels, and a network's errors do not depend on it between about 0.5 and 1 of the true value.
NEAR, SURE, FAR = 1.0, 5.0, 98.0
MARGIN, PAIR_MARGIN, FLOOR, FAR_MARGIN = 0.75, 0.5, 0.67, 1.3
WEAK_SHARE, WEAK_MARGIN = 0.04, 0.7
UNSEEN_MARGIN, MAX_UNSEEN, SEEN_ANGLES_DEG = 0.6, 0.7, (0.5, 60.0)
MIN_POINTS = 20
PAIR = 3
SWEPT_VIEWS = 24
PLANES = 64


def with_depth_ranges(scene: Scene, min_depth: float | None = None) -> Scene:
    """Return the scene with a depth range (near, far) [scene units] for every view; views that have one keep it.

    From the sparse points where a view has enough of them; else from the points of a coarse sweep over thumbnails of
    the images; else guessed from where the cameras look. ``depth_range_source`` says which. Works in any unit.

    Args:
        scene: as ``open_scene`` made it (images are read only if sparse points do not suffice).
        min_depth: near for all views, in place of all this; far is then the last plane of a 64-plane sweep.

    Raises:
        InputError: if ``min_depth`` is not positive.
    """
    if min_depth is not None:
        if not (np.isfinite(min_depth) and min_depth > 0):
            raise InputError(f"min_depth must be positive [scene units], found {min_depth}")
        given = (float(min_depth), float(min_depth) * PLANES)
        origin = f"min_depth as given ({min_depth:g})"
        views = [replace(view, depth_range=given, depth_range_from=origin) for view in scene.views]
        return scene.replace_views(views)
    hints = scene.hints
    ranges = [view.depth_range or hints.depth_ranges.get(view.name) for view in scene.views]
    known_from = [view.depth_range_from or hints.depth_ranges_from or "as read" for view in scene.views]
    origins = [origin if depth_range else "" for origin, depth_range in zip(known_from, ranges, strict=True)]
    if None in ranges and scene.points_in_world is not None and scene.visible is not None:
        margin = PAIR_MARGIN if len(scene.views) <= PAIR else MARGIN
        points_of_view = zip(scene.views, scene.visible, strict=True)
        points = scene.points_in_world
        from_points = [range_from_points(view, points, indices, margin) for view, indices in points_of_view]
        _fill(ranges, origins, _widened(scene, from_points), "sparse points")
    if None in ranges and len(scene.views) > 1:
        _sweep_and_fill(ranges, origins, scene)
    for i, depth_range in enumerate(ranges):
        if depth_range is None:
            ranges[i], origins[i] = guess_depth_range(scene, i), "camera geometry alone (a guess)"
    known = zip(scene.views, ranges, origins, strict=True)
    return scene.replace_views([replace(v, depth_range=r, depth_range_from=origin) for v, r, origin in known])


def depth_range_source(scene: Scene) -> str:
    """Say where the depth ranges of a scene come from, one line for people."""
    counts = Counter(view.depth_range_from for view in scene.views if view.depth_range is not None)
    return "; ".join(f"{origin} ({count} of {len(scene.views)} views)" for origin, count in counts.items()) or (
        "not known yet"
    )


def _fill(ranges: list, origins: list[str], new_ranges: list[tuple[float, float] | None], origin: str) -> None:
    """Set the ranges that are still None and were found, in place."""
    for i, new in enumerate(new_ranges):
        if ranges[i] is None and new is not None:
            ranges[i], origins[i] = new, origin


def _sweep_and_fill(ranges: list, origins: list[str], scene: Scene) -> None:
    """Sweep some views evenly through the set, then those that the points do not reach, and set the ranges in place.

    Views whose image cannot be read take no part; ``estimate`` is the one to report them.
    """
    thumbnails, at = [], {}
    for i, view in enumerate(scene.views):
        with suppress(InputError):
            thumbnails.append(thumbnail(view))
            at[i] = len(thumbnails) - 1
    count = len(thumbnails)
    refs = set(np.linspace(0, count - 1, min(count, SWEPT_VIEWS)).round().astype(int).tolist())
    nothing = np.empty(0, dtype=np.int64)
    for _ in range(2 if count > 1 else 0):
        points, visible = swept_points(thumbnails, sorted(refs))
        indices_of_view = [visible[at[i]] if i in at else nothing for i in range(len(scene.views))]
        weak = WEAK_SHARE * thumbnails[0].grey.size
        points_of_view = zip(scene.views, indices_of_view, strict=True)
        swept = [_swept_range(view, points, indices, weak, pair=count <= PAIR) for view, indices in points_of_view]
        _fill(ranges, origins, _widened(scene, swept), "coarse sweep of the images")
        more = refs | {at[i] for i, known in enumerate(ranges) if known is None and i in at}
        if more == refs:
            return
        refs = more


def _swept_range(
    view: View, points: np.ndarray, indices: np.ndarray, weak: float, pair: bool
) -> tuple[float, float] | None:
    """Return a view's range from the points of a sweep, or None; the margin is wider if fewer than ``weak`` lie
    there."""
    margin = PAIR_MARGIN if pair else MARGIN
    return range_from_points(
        view, points, indices, margin if sees(view, points).sum() >= weak else WEAK_MARGIN * margin
    )


def _widened(scene: Scene, ranges: list[tuple[float, float] | None]) -> list[tuple[float, float] | None]:
    """Return ranges whose near leaves room for surfaces in the part of each image that no other view sees."""
    out = []
    for i, depth_range in enumerate(ranges):
        if depth_range is not None:
            unseen = min(unseen_share(scene, i, depth_range[0]), MAX_UNSEEN)
            depth_range = depth_range[0] * (1 - UNSEEN_MARGIN * unseen), depth_range[1]
        out.append(depth_range)
    return out


def unseen_share(scene: Scene, ref: int, depth: float) -> float:
    """Return the share of a view's image in which no other view would see a surface at this depth [scene units].

    Seen is what falls into another image under a triangulation angle within ``SEEN_ANGLES_DEG``.
    """
    points = lifted_pixels(scene.views[ref], np.array([depth]))[0]
    covered = np.zeros(len(points), dtype=bool)
    for i, view in enumerate(scene.views):
        if i != ref and not covered.all():
            angles = triangulation_angle_deg(points, scene.views[ref], view)
            covered |= (angles >= SEEN_ANGLES_DEG[0]) & (angles <= SEEN_ANGLES_DEG[1]) & sees(view, points)
    return float(1 - covered.mean())


def range_from_points(
    view: View, points_in_world: np.ndarray, indices: np.ndarray, margin: float = MARGIN
) -> tuple[float, float] | None:
    """Return (near, far) [scene units] of a view from points, or None if too few lie in it.

    Looks at the view's own points and at all points within its image: a point that others saw before the view's
    surfaces is a surface too (one behind them does no harm to near), and in a large scene its own few weigh as much.

    Args:
        view: the view.
        points_in_world: (P, 3).
        indices: (n,) of the points that the view sees.
        margin: near is this share of the near percentile.
    """
    depths = transform(view.cam_from_world, points_in_world)[:, 2]
    within = depths[sees(view, points_in_world)]
    own_depths = depths[indices]
    own_depths = own_depths[own_depths > 0]
    groups = [group for group in (own_depths, within) if len(group) >= MIN_POINTS]
    if not groups:
        return None
    near = min(margin * np.percentile(group, NEAR) for group in groups)
    floor = min(FLOOR * margin * np.percentile(group, SURE) for group in groups)
    near = max(near, floor)
    far = FAR_MARGIN * np.percentile(groups[0], FAR)
    return float(near), float(max(far, 2 * near))
