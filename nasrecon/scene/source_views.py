"""Which source views serve a reference.

A source is worth what it shows of the reference's points under a useful triangulation angle: too small an angle and
the depth is soft, too large and the patches look different. Points come from the sparse model where there is one;
else a grid of pixels is lifted to depths that are plausible for the view, and "seen" means inside the source's image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasrecon.geometry import angle_between_deg, in_image, transform
from nasrecon.types import Scene, View

# Weight of an angle: log-normal, 1 at the best, 0.6 at half and at double of it, 0.07 at a fifth and at five times.
BEST_ANGLE_DEG = 6.0
ANGLE_SPREAD = 0.7
# Below this the images are one image (a still camera, a duplicate, a pure rotation): no depth in it.
MIN_ANGLE_DEG = 0.1
# A source must show this many of the reference's sparse points and this share of them, or this share of the lifted
# pixels.
MIN_POINTS = 8
MIN_SHARE = 0.02
MIN_LIFTED_SHARE = 0.15
GRID = (8, 6)
DEPTHS = 5


def angle_weight(angle_deg: np.ndarray) -> np.ndarray:
    """Return how useful triangulation angles [degrees] are, in [0, 1]; 0 below ``MIN_ANGLE_DEG``."""
    log_ratio = np.log(np.maximum(angle_deg, 1e-9) / BEST_ANGLE_DEG)
    return np.where(angle_deg < MIN_ANGLE_DEG, 0.0, np.exp(-0.5 * (log_ratio / ANGLE_SPREAD) ** 2))


def select_source_views(scene: Scene, ref: int, count: int) -> tuple[int, ...]:
    """Return the best source views for a reference, best first.

    Greedy selection; a view beside a chosen one has its score halved. Views that share nothing useful with the
    reference (no overlap, the same place) are not returned. Where the
    set lists the reference's sources (``Scene.hints``) and any of them is in the scene, these are taken as they stand.

    Args:
        scene: with sparse points, or with depth ranges (``depth_range.with_depth_ranges``); with neither, the depths
            are guessed from where the cameras look.
        ref: index of the reference view.
        count: how many at most.

    Returns:
        Indices of up to ``count`` views; none if nothing overlaps.
    """
    listed = listed_sources(scene, ref)
    if listed:
        return listed[:count]
    scores = source_scores(scene, ref)
    centers = np.array([view.center_in_world for view in scene.views])
    from_ref = np.linalg.norm(centers - centers[ref], axis=-1)
    chosen: list[int] = []
    factor = np.ones(len(scores))
    while len(chosen) < count:
        best = int(np.argmax(scores * factor))
        if scores[best] * factor[best] <= 0:
            break
        chosen.append(best)
        apart = np.linalg.norm(centers - centers[best], axis=-1) / np.maximum(from_ref, 1e-12)
        factor = np.minimum(factor, 1 - 0.5 * np.exp(-((apart / 0.5) ** 2)))
        factor[best] = 0
    return tuple(chosen)


def listed_sources(scene: Scene, ref: int) -> tuple[int, ...]:
    """Return the sources that the set lists for a reference, as far as they are in the scene, best first."""
    names = scene.hints.sources.get(scene.views[ref].name, ())
    index = {view.name: i for i, view in enumerate(scene.views)}
    return tuple(index[name] for name in names if name in index and index[name] != ref)


def sources_origin(scene: Scene) -> str:
    """Say where the source views of a scene come from, one line for people and for the manifest."""
    listed = sum(bool(listed_sources(scene, i)) for i in range(len(scene.views)))
    if not listed:
        return "overlap and angle"
    others = "" if listed == len(scene.views) else "; else overlap and angle"
    return f"{scene.hints.sources_from or 'as read'} ({listed} of {len(scene.views)} views){others}"


def source_scores(scene: Scene, ref: int) -> np.ndarray:
    """Return, for each view, the mean angle weight over the reference's points (0 for points unseen): (N,) in [0, 1].

    0 for the reference itself and for views that share too little with it.
    """
    points, visible = scene.points_in_world, scene.visible
    if points is not None and visible is not None and len(visible[ref]) >= MIN_POINTS:
        scores = _sparse_scores(scene, points, visible, ref)
    else:
        scores = _lifted_scores(scene, ref)
    scores[ref] = 0
    return scores


def _sparse_scores(scene: Scene, points: np.ndarray, visible: Sequence[np.ndarray], ref: int) -> np.ndarray:
    of_ref = np.zeros(len(points), dtype=bool)
    of_ref[visible[ref]] = True
    total = int(of_ref.sum())
    scores = np.zeros(len(scene.views))
    for i, indices in enumerate(visible):
        shared = indices[of_ref[indices]]
        if i != ref and len(shared) >= max(MIN_POINTS, MIN_SHARE * total):
            angles = triangulation_angle_deg(points[shared], scene.views[ref], scene.views[i])
            scores[i] = angle_weight(angles).sum() / total
    return scores


def triangulation_angle_deg(points_in_world: np.ndarray, ref: View, src: View) -> np.ndarray:
    """Return the angle [degrees] at points (P, 3) between the rays from two views."""
    return angle_between_deg(points_in_world - ref.center_in_world, points_in_world - src.center_in_world)


def _lifted_scores(scene: Scene, ref: int) -> np.ndarray:
    view = scene.views[ref]
    near, far = view.depth_range or guess_depth_range(scene, ref)
    points_in_world = lifted_pixels(view, depths_between(near, far, DEPTHS)).reshape(-1, 3)
    scores = np.zeros(len(scene.views))
    for i, src in enumerate(scene.views):
        inside = sees(src, points_in_world)
        if i != ref and inside.mean() >= MIN_LIFTED_SHARE:
            angles = triangulation_angle_deg(points_in_world[inside], view, src)
            scores[i] = angle_weight(angles).sum() / len(points_in_world)
    return scores


def depths_between(near: float, far: float, count: int) -> np.ndarray:
    """Return depths (count,), near to far, evenly spaced in the logarithm; far is cut at 8 x near.

    Most of what a photograph shows lies within a few times its nearest depth.
    """
    return np.geomspace(near, min(far, 8 * near), count)


def lifted_pixels(view: View, depths: np.ndarray) -> np.ndarray:
    """Lift a coarse grid of a view's pixels to depths (D,): points (D, G, 3) in the world."""
    camera = view.camera.resized(*GRID)
    pixels = camera.pixel_centers().reshape(-1, 2)
    rays = camera.unproject(pixels, np.ones(len(pixels)))
    return transform(view.world_from_cam, depths[:, None, None] * rays)


def sees(view: View, points_in_world: np.ndarray) -> np.ndarray:
    """Say which points (..., 3) lie in front of a view and inside its image (what hides them is not known)."""
    pixels = view.camera.project(transform(view.cam_from_world, points_in_world))
    return in_image(pixels, view.camera.width, view.camera.height)


def guess_depth_range(scene: Scene, ref: int) -> tuple[float, float]:
    """Guess (near, far) [scene units] of a view from the cameras alone.

    Walk along the optical axis: the depth from which on most of the views that ever see the axis do see it is about
    what the cameras were pointed at (the middle of an orbit; for parallel cameras, where their images begin to
    overlap). Near is a half of it, and not below 0.75 of the distance to the nearest other camera: nobody takes
    stereo pairs from closer. A guess, good to a factor of a few; it scales with the scene's unit.
    """
    view = scene.views[ref]
    others = [other for i, other in enumerate(scene.views) if i != ref]
    baselines = np.array([np.linalg.norm(other.center_in_world - view.center_in_world) for other in others])
    baselines = baselines[baselines > 0]
    if len(baselines) == 0:
        return 1.0, 1e3
    depths = np.geomspace(np.median(baselines) / 4, 60 * baselines.max(), 64)
    axis_in_world = view.world_from_cam[:3, 2]
    points_in_world = view.center_in_world + depths[:, None] * axis_in_world
    seen_by = np.sum([sees(other, points_in_world) for other in others], axis=0)
    if seen_by.max() == 0:
        return float(2 * np.median(baselines)), float(200 * np.median(baselines))
    focus = depths[np.argmax(seen_by >= 0.8 * seen_by.max())]
    near = max(0.5 * focus, 0.75 * baselines.min())
    return float(near), float(40 * near)
