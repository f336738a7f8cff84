"""Which views see the same surface, and how large a pixel is on it: coarse samples of every depth map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nasrecon.fuse.ahead import ahead
from nasrecon.geometry import transform
from nasrecon.types import View

_GRID = (60, 80)
_SAME_SURFACE = 0.2
_MIN_OVERLAP = 0.03
_SPHERE_MARGIN = 0.5
_GOOD_ANGLE_DEG = (4.0, 45.0, 90.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class CoarseDepth:
    """A view's depth at 60 x 80 places: enough for overlaps, the extent of the scene and the pixel's size.

    Attributes:
        view: the view.
        depth: (60, 80) float32, taken from the pixel nearest to each cell's centre; 0 = no confident depth there.
        points_in_world: (n, 3) float64, the same, lifted.
    """

    view: View
    depth: np.ndarray
    points_in_world: np.ndarray

    @property
    def pixels_per_sample(self) -> float:
        """The gap between samples [px]."""
        return max(self.view.camera.height / _GRID[0], self.view.camera.width / _GRID[1])

    @staticmethod
    def of(view: View, depth: np.ndarray) -> CoarseDepth:
        """Sample the depth map (H, W) of a view (0 = to be ignored)."""
        height, width = depth.shape
        rows = ((np.arange(_GRID[0]) + 0.5) * height / _GRID[0]).astype(int)
        columns = ((np.arange(_GRID[1]) + 0.5) * width / _GRID[1]).astype(int)
        coarse = depth[np.ix_(rows, columns)]
        i, j = np.nonzero(coarse)
        y, x = rows[i], columns[j]
        if not len(y):
            # A few scattered pixels may all fall between the samples: take them all.
            y, x = np.nonzero(depth)
            coarse[y * _GRID[0] // height, x * _GRID[1] // width] = depth[y, x]
        points_in_cam = view.camera.unproject(np.stack([x, y], axis=-1) + 0.5, depth[y, x])
        return CoarseDepth(view=view, depth=coarse, points_in_world=transform(view.world_from_cam, points_in_cam))


def median_footprint(sketches: Sequence[CoarseDepth]) -> float:
    """Return the median size [scene units] of a pixel on the surface it sees, taken over all views."""
    sizes = [s.depth[s.depth > 0] / np.sqrt(s.view.camera.K[0, 0] * s.view.camera.K[1, 1]) for s in sketches]
    return float(np.median(np.concatenate(sizes)))


def neighbors(sketches: Sequence[CoarseDepth], count: int) -> list[list[int]]:
    """Return for each view the indices of up to ``count`` others worth comparing it with, the best first.

    A view scores by the part of the reference's surface that it sees (the depths agree roughly, so what is hidden does
    not count), less where the angle between the rays is so small that agreeing proves little or so large that nothing
    looks alike, and less where its pixels are much coarser or finer. Views that share under 3 % of the surface are left
    out.
    """
    cameras = [s.view.camera for s in sketches]
    P = np.stack([c.K @ s.view.cam_from_world[:3] for c, s in zip(cameras, sketches, strict=True)])
    size = np.array([(c.width, c.height) for c in cameras], dtype=np.float64)
    centers = np.stack([s.view.center_in_world for s in sketches])
    focal = np.array([np.sqrt(c.K[0, 0] * c.K[1, 1]) for c in cameras])
    coarse = np.stack([s.depth for s in sketches])
    middle, reach = _surface_spheres(sketches, centers)

    def choose(ref: int) -> list[int]:
        points = sketches[ref].points_in_world
        points = points[:: max(1, len(points) // 400)]
        if not len(points):
            return []
        near = np.flatnonzero(np.linalg.norm(middle - middle[ref], axis=1) <= reach + reach[ref])
        itself = int(np.searchsorted(near, ref))
        score = _overlap_scores(points, P[near], size[near], centers[near], focal[near], coarse[near], itself)
        score[itself] = 0
        best = np.argsort(-score, kind="stable")[:count]
        return [int(near[src]) for src in best if score[src] > 0]

    return list(ahead(partial(choose, ref) for ref in range(len(sketches))))


def _surface_spheres(sketches: Sequence[CoarseDepth], centers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each view the middle (V, 3) and radius (V,) of a ball with all places at which it shares a surface.

    Two views share a place where their depths differ by less than ``_SAME_SURFACE``, beside a sample of both.
    """
    middle, reach = centers.copy(), np.full(len(sketches), -np.inf)
    for i, sketch in enumerate(sketches):
        if len(sketch.points_in_world):
            middle[i] = sketch.points_in_world.mean(axis=0)
            farthest = np.linalg.norm(sketch.points_in_world - centers[i], axis=1).max()
            reach[i] = np.linalg.norm(sketch.points_in_world - middle[i], axis=1).max() + _SPHERE_MARGIN * farthest
    return middle, reach


def _overlap_scores(
    points: np.ndarray,
    P: np.ndarray,
    size: np.ndarray,
    centers: np.ndarray,
    focal: np.ndarray,
    coarse: np.ndarray,
    ref: int,
) -> np.ndarray:
    """Return the score (V,) of every view for points (n, 3) of view ``ref``.

    P (V, 3, 4) projects, size (V, 2) is width and height, coarse (V, h, w) the sketches' depth.
    """
    from nasrecon.fuse.pair_kernel import overlaps

    shared, angle, finer = np.empty((3, len(P)))
    overlaps(points, P, size, centers, focal, coarse, ref, _SAME_SURFACE, shared, angle, finer)
    overlap = shared / len(points)
    low, good, high = _GOOD_ANGLE_DEG
    by_angle = np.clip(angle / low, 0.05, 1) * np.clip((high - angle) / (high - good), 0, 1)
    finer = np.exp(finer)
    by_scale = np.minimum(1, 2 * np.minimum(finer, 1 / finer))
    return np.where(overlap >= _MIN_OVERLAP, overlap * by_angle * by_scale, 0)
