"""A coarse plane sweep on thumbnails: rough points of a scene from posed images alone, in any unit.

Nothing is known of the depths but the cameras, so the planes span every depth that the baselines can tell apart,
evenly in the logarithm. Each plane is tried with the sources whose baseline is right for it (a few degrees of
triangulation angle): so one sweep serves a video with steps of millimetres and a building seen from all sides. A
pixel counts only where one depth clearly wins by normalised cross-correlation, where its neighbours say the same, and
where the sweep of another view agrees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nasrecon.geometry import array_indices, in_image, inverse, relative_pose, transform
from nasrecon.ingest.images import read_view
from nasrecon.types import Camera, View

THUMBNAIL_PX = 80
# Planes: ratio of neighbouring depths, and the most of them (they span a factor of 1.1^96 = 9400).
RATIO = 1.1
MAX_PLANES = 96
# Triangulation angles tried, and the one preferred; sources a plane; share of the image that a source must see.
ANGLES_DEG = (0.5, 45.0)
BEST_ANGLE_DEG = 7.0
SOURCES = 3
MIN_OVERLAP = 0.5
# A winner: correlation of a window [px], lead over planes more than APART steps away, contrast [grey levels].
WINDOW = 5
MIN_SCORE = 0.8
MIN_LEAD = 0.08
APART = 3
MIN_CONTRAST = 3.0
_NOISE = 0.5  # deviations count as no less
# Agreement: of at least so many of the 8 neighbours, and of another view's sweep, to this share of the depth.
MIN_NEIGHBORS = 4
SAME_DEPTH = 0.15


@dataclass(frozen=True, kw_only=True, eq=False)
class Thumbnail:
    """A small grey image (h, w) float32 and its camera and transform."""

    grey: np.ndarray
    camera: Camera
    cam_from_world: np.ndarray

    @property
    def center_in_world(self) -> np.ndarray:
        """The camera centre (3,) in the world frame."""
        return -self.cam_from_world[:3, :3].T @ self.cam_from_world[:3, 3]


def thumbnail(view: View) -> Thumbnail:
    """Read a view as a thumbnail; its longer side is ``THUMBNAIL_PX``."""
    scale = THUMBNAIL_PX / max(view.camera.width, view.camera.height)
    width, height = (max(WINDOW, round(side * scale)) for side in (view.camera.width, view.camera.height))
    rgb, small = read_view(view, width, height)
    grey = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return Thumbnail(grey=grey, camera=small.camera, cam_from_world=view.cam_from_world)


def swept_points(thumbnails: Sequence[Thumbnail], refs: Sequence[int]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Sweep some views of a set and keep the points on which two sweeps agree.

    Args:
        thumbnails: all views of the set; each sweep chooses its sources among them.
        refs: indices of the views to sweep.

    Returns:
        points (P, 3) in the world, rough (10 % or so along the ray), and for each thumbnail the indices of the points
        that its own sweep gave (empty if it was not swept).
    """
    depths = {i: sweep(thumbnails[i], [other for j, other in enumerate(thumbnails) if j != i]) for i in refs}
    points, visible, total = [], [np.empty(0, dtype=np.int64)] * len(thumbnails), 0
    for i, depth in depths.items():
        in_world = transform(inverse(thumbnails[i].cam_from_world), thumbnails[i].camera.unproject_depth(depth))
        others = [(thumbnails[j], other) for j, other in depths.items() if j != i]
        keep = (depth > 0) & (_like_neighbors(depth) >= MIN_NEIGHBORS) & _confirmed(in_world, others)
        visible[i] = total + np.arange(keep.sum())
        total += len(visible[i])
        points.append(in_world[keep])
    return np.concatenate(points) if points else np.empty((0, 3)), tuple(visible)


def _like_neighbors(depth: np.ndarray) -> np.ndarray:
    """Count, per pixel of a depth map (h, w), those of the 8 neighbours that have about its depth."""
    height, width = depth.shape
    padded = np.pad(depth, 1)
    count = np.zeros(depth.shape, dtype=int)
    for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2)):
        neighbor = padded[row : row + height, column : column + width]
        count += (neighbor > 0) & (np.abs(neighbor - depth) <= SAME_DEPTH * depth)
    return count


def _confirmed(points_in_world: np.ndarray, swept: Sequence[tuple[Thumbnail, np.ndarray]]) -> np.ndarray:
    """Say which points (h, w, 3) the sweep of at least one other view (its thumbnail, its depths) has too."""
    confirmed = np.zeros(points_in_world.shape[:2], dtype=bool)
    for view, depth in swept:
        in_cam = transform(view.cam_from_world, points_in_world)
        row, column, inside = array_indices(view.camera.project(in_cam), view.camera.width, view.camera.height)
        other_depth = depth[row, column]
        confirmed |= inside & (other_depth > 0) & (np.abs(other_depth - in_cam[..., 2]) <= SAME_DEPTH * in_cam[..., 2])
    return confirmed


def sweep(ref: Thumbnail, others: Sequence[Thumbnail]) -> np.ndarray:
    """Return rough depths (h, w) [scene units] of a thumbnail; 0 where no depth clearly wins.

    Args:
        ref: the view.
        others: the rest of the set (views that do not overlap are found out here).
    """
    plan = _plan(ref, others)
    if len(plan) < 2 * APART + 2:
        return np.zeros_like(ref.grey)
    depths = np.array([depth for depth, _ in plan])
    ref_patches = _Patches(ref.grey)
    scores = np.stack([_plane_score(ref, ref_patches, [others[i] for i in chosen], depth) for depth, chosen in plan])
    return _clear_winners(scores, depths, ref_patches.contrast)


def _plan(ref: Thumbnail, others: Sequence[Thumbnail]) -> list[tuple[float, list[int]]]:
    """Choose the planes: (depth, indices of its sources), near to far."""
    baselines = np.array([np.linalg.norm(other.center_in_world - ref.center_in_world) for other in others])
    moved = baselines > 1e-9 * max(baselines.max(initial=0), 1e-300)
    if not moved.any():
        return []
    reach = 1 / np.radians(ANGLES_DEG)
    farthest = baselines[moved].max() * reach[0]
    nearest = max(baselines[moved].min() * reach[1], farthest * RATIO**-MAX_PLANES)
    count = int(np.ceil(np.log(farthest / nearest) / np.log(RATIO))) + 1
    depths = np.geomspace(nearest, farthest, max(count, 2))
    fits = [_fit(ref, other, depths) if moved[i] else np.zeros(len(depths)) for i, other in enumerate(others)]
    plan = []
    for depth, weight in zip(depths, np.array(fits).T, strict=True):
        best = [int(i) for i in np.argsort(-weight, kind="stable")[:SOURCES] if weight[i] > 0]
        if best:
            plan.append((float(depth), best))
    return plan


def _fit(ref: Thumbnail, src: Thumbnail, depths: np.ndarray) -> np.ndarray:
    """Return how well a source serves each plane (D,), by its angle amid the image; 0 with too little overlap."""
    camera = ref.camera.resized(5, 4)
    pixels = camera.pixel_centers().reshape(-1, 2)
    rays = camera.unproject(pixels, np.ones(len(pixels)))
    src_from_ref = relative_pose(src.cam_from_world, ref.cam_from_world)
    in_src = transform(src_from_ref, depths[:, None, None] * rays)
    at = src.camera.project(in_src)
    inside = in_image(at, src.camera.width, src.camera.height)
    to_src = -src_from_ref[:3, :3].T @ src_from_ref[:3, 3]
    across = np.linalg.norm(np.cross(rays, to_src), axis=-1) / np.linalg.norm(rays, axis=-1)
    angles_deg = np.degrees(np.arctan(np.median(across) / depths))
    weight = np.exp(-(np.log(np.maximum(angles_deg, 1e-9) / BEST_ANGLE_DEG) ** 2))
    usable = (angles_deg >= ANGLES_DEG[0]) & (angles_deg <= ANGLES_DEG[1]) & (inside.mean(axis=-1) >= MIN_OVERLAP)
    return np.where(usable, weight, 0.0)


class _Patches:
    """An image's patches, ready for normalised cross-correlation: mean and deviation over the window."""

    def __init__(self, grey: np.ndarray) -> None:
        self.grey = grey.astype(np.float64)
        self.mean = _box(self.grey)
        self.contrast = np.sqrt(np.maximum(_box(self.grey**2) - self.mean**2, 0))


def _box(image: np.ndarray) -> np.ndarray:
    """Return the mean over the window around each pixel (h, w); at the border the outermost pixels repeat."""
    from nasrecon.scene.sweep_kernel import box

    out = np.empty_like(image)
    box(image, WINDOW, out)
    return out


def _plane_score(ref: Thumbnail, patches: _Patches, sources: Sequence[Thumbnail], depth: float) -> np.ndarray:
    """Return the mean correlation (h, w) of the sources warped by one plane; NaN where no source sees the pixel."""
    from nasrecon.scene.sweep_kernel import add_correlation

    total, count = np.zeros(ref.grey.shape), np.zeros(ref.grey.shape)
    for src in sources:
        src_from_ref = relative_pose(src.cam_from_world, ref.cam_from_world)
        in_src = src_from_ref[:3, :3] @ np.linalg.inv(ref.camera.K)
        in_src[:, 2] += src_from_ref[:3, 3] / depth
        of_ref = patches.grey, patches.mean, patches.contrast
        add_correlation(*of_ref, src.grey.astype(np.float64), src.camera.K @ in_src, WINDOW, _NOISE, total, count)
    with np.errstate(invalid="ignore"):
        return np.where(count > 0, total / count, np.nan)


def _clear_winners(scores: np.ndarray, depths: np.ndarray, contrast: np.ndarray) -> np.ndarray:
    """Return per pixel the depth of the best plane (h, w), 0 unless it leads clearly; scores (D, h, w)."""
    scores = np.where(np.isnan(scores), -1.0, scores)
    best = scores.argmax(axis=0)
    top = np.take_along_axis(scores, best[None], axis=0)[0]
    steps = np.abs(np.arange(len(depths))[:, None, None] - best)
    second = np.where(steps > APART, scores, -1.0).max(axis=0)
    inner = (best > 0) & (best < len(depths) - 1)
    clear = inner & (top >= MIN_SCORE) & (top - second >= MIN_LEAD) & (contrast >= MIN_CONTRAST)
    return np.where(clear, depths[best], 0.0)
