"""The points of a page: from the fused cloud, or from the depth maps while there is none; and their colours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from nasrecon.geometry import array_indices, transform
from nasrecon.results.preview import color_normal, color_scalar
from nasrecon.types import Estimate, PointCloud

Coloring = Literal["image", "normal", "depth", "confidence", "agreeing views"]
COLORINGS: tuple[Coloring, ...] = get_args(Coloring)

SAME_SURFACE = 0.03
"""A view sees a point where its depth there differs by no more than this part, as in the fusion."""


@dataclass(kw_only=True, eq=False)
class Points:
    """Points in no particular order, so that the first n of them are a fair sample.

    Attributes:
        points_in_world: (N, 3) float64.
        normal: (N, 3) float32, world frame, 0 = unknown.
        rgb: (N, 3) uint8.
        depth: (N,) float32, from the nearest view that sees the point [scene units], 0 = unknown.
        confidence: (N,) float32, the highest of the views that see it, NaN = unknown.
        support: (N,) int32, the number of views that agreed when they were fused, 0 = unknown.
    """

    points_in_world: np.ndarray
    normal: np.ndarray
    rgb: np.ndarray
    depth: np.ndarray
    confidence: np.ndarray
    support: np.ndarray

    def __len__(self) -> int:
        return len(self.points_in_world)

    def observe(self, estimate: Estimate) -> None:
        """Let a view say its depth and confidence of the points that it sees."""
        camera = estimate.view.camera
        in_cam = transform(estimate.view.cam_from_world, self.points_in_world)
        z = in_cam[:, 2]
        ahead = np.flatnonzero(z > 0)
        rows, columns, inside = array_indices(camera.project(in_cam[ahead]), camera.width, camera.height)
        ahead, rows, columns = ahead[inside], rows[inside], columns[inside]
        near = np.abs(estimate.depth[rows, columns] - z[ahead]) < SAME_SURFACE * z[ahead]
        visible = ahead[near]
        self.confidence[visible] = np.fmax(self.confidence[visible], estimate.confidence[rows[near], columns[near]])
        before = self.depth[visible]
        self.depth[visible] = np.where(before > 0, np.minimum(before, z[visible]), z[visible])

    def confident(self, min_confidence: float) -> np.ndarray:
        """Return which points (N,) have the confidence, or none that is known."""
        return ~(self.confidence < min_confidence)

    def colors(self, coloring: Coloring, near: float, far: float) -> np.ndarray:
        """Return colours (N, 3) uint8; grey where the value is unknown. ``near`` and ``far`` as in ``color_depth``.

        The normals' colours are those of the maps of a view: the page hands over normals in the frame of its camera.
        """
        if coloring == "image":
            return self.rgb
        if coloring == "normal":
            known = np.any(self.normal != 0, axis=-1, keepdims=True)
            return np.where(known, color_normal(self.normal), np.uint8(96))
        if coloring == "depth":
            known = self.depth > 0
            return color_scalar(1 / np.where(known, self.depth, 1), 1 / far, 1 / near, known)
        if coloring == "confidence":
            return color_scalar(self.confidence, 0, 1)
        return color_scalar(self.support, 1, max(2, support_limit(self.support)), self.support > 0)


def support_limit(support: np.ndarray) -> int:
    """Return the support (of (N,)) at the upper end of its colours: what 98 % of the points have at most."""
    return int(np.quantile(support, 0.98)) if len(support) else 0


def points_of_cloud(cloud: PointCloud, count: int) -> Points:
    """Take at most ``count`` points of a fused cloud; what single views know of them is still to be observed."""
    chosen = np.random.default_rng(0).permutation(len(cloud))[:count]
    return Points(
        points_in_world=cloud.xyz[chosen],
        normal=cloud.normal[chosen],
        rgb=cloud.rgb[chosen],
        depth=np.zeros(len(chosen), np.float32),
        confidence=np.full(len(chosen), np.nan, np.float32),
        support=cloud.support[chosen],
    )


def points_of_view(estimate: Estimate, count: int) -> Points:
    """Take at most ``count`` points of a view's depth map."""
    pixels = np.flatnonzero(estimate.depth > 0)
    chosen = np.random.default_rng(0).permutation(pixels)[:count]
    view, depth = estimate.view, estimate.depth.ravel()[chosen]
    centers = view.camera.pixel_centers().reshape(-1, 2)[chosen]
    return Points(
        points_in_world=transform(view.world_from_cam, view.camera.unproject(centers, depth)),
        normal=(estimate.normal.reshape(-1, 3)[chosen] @ view.cam_from_world[:3, :3]).astype(np.float32),
        rgb=estimate.rgb.reshape(-1, 3)[chosen],
        depth=depth,
        confidence=estimate.confidence.ravel()[chosen],
        support=np.zeros(len(chosen), np.int32),
    )


def concatenate(parts: list[Points]) -> Points:
    """Join points of several views, shuffled."""
    order = np.random.default_rng(0).permutation(sum(len(part) for part in parts))
    names = ("points_in_world", "normal", "rgb", "depth", "confidence", "support")
    return Points(**{name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names})
