"""Residuals of matches against cameras, in searched pixels: distances to epipolar lines, and depths of three views."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

import numpy as np

from nasrecon.geometry import inverse
from nasrecon.matching.residuals import MatchArrays, signed_epipolar_error

# Groups of three views with fewer common features are left out, and so are the features beyond MAX_TRACKS.
MIN_TRACKS, MAX_TRACKS = 5, 20_000
# Matches of a pair share the errors of lens and shutter: together they weigh no more than so many independent ones. A
# feature of three views gives up to three residuals, one in each view, so these weigh a third.
INDEPENDENT, INDEPENDENT_TRACKS = 40.0, 40.0 / 3
_LENS_ROUNDS = 4  # of the fixed point that inverts a radial distortion


class Term(Protocol):
    """Values that depend on the poses of a few views, in groups of the same views.

    Attributes:
        views: (G, R) the views of each group, one in each of R roles.
        slices: which of the values belong to each group.
        share: (M,) the weight of each value.
    """

    views: np.ndarray
    slices: list[slice]
    share: np.ndarray

    def errors(self, cameras: list[np.ndarray], k1: float) -> np.ndarray:
        """Return the values (M,) if the views in role r have the transforms ``cameras[r]`` (N, 4, 4)."""
        ...


class _Latest:
    """A function of k1 that keeps its latest value: most derivatives are of poses."""

    def __init__(self, function: Callable[[float], list[np.ndarray]]) -> None:
        self._function = function
        self._known: tuple[float, list[np.ndarray]] | None = None

    def __call__(self, k1: float) -> list[np.ndarray]:
        """Return the function's value."""
        if self._known is None or self._known[0] != k1:
            self._known = (k1, self._function(k1))
        return self._known[1]


class EpipolarTerm:
    """The signed distance of each match to its epipolar line; a group is a pair."""

    def __init__(self, arrays: MatchArrays, K: np.ndarray) -> None:
        self.arrays, self.K = arrays, K
        self.views = np.stack([arrays.first, arrays.second], axis=1)
        self.slices = arrays.pair_slices
        self.share = _shares(arrays.pair, len(arrays), INDEPENDENT)
        self._to_ray = np.linalg.inv(K)
        self._pixels = _Latest(self._straight)

    def errors(self, cameras: list[np.ndarray], k1: float) -> np.ndarray:
        """Return the residuals (M,) [searched px] if the first and second views have these transforms, (N, 4, 4)
        each."""
        arrays, to_ray = self.arrays, self._to_ray
        relative = cameras[1][arrays.second] @ inverse(cameras[0][arrays.first])
        x, y, z = np.moveaxis(relative[:, :3, 3], -1, 0)
        nothing = np.zeros_like(x)
        cross = np.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], axis=-1).reshape(-1, 3, 3)
        F = np.swapaxes(to_ray[arrays.second], -1, -2) @ cross @ relative[:, :3, :3] @ to_ray[arrays.first]
        return signed_epipolar_error(F[arrays.pair], *self._pixels(k1)) / arrays.image_px_per_feature_px[arrays.pair]

    def _straight(self, k1: float) -> list[np.ndarray]:
        views = (self.arrays.first, self.arrays.second)
        at = (self.arrays.x, self.arrays.y)
        return [undistorted(x, self.K[v[self.arrays.pair]], k1) for v, x in zip(views, at, strict=True)]


class InverseDepth:
    """The inverse depth [1 / scene unit] of each match in the first view of its pair."""

    def __init__(self, arrays: MatchArrays, K: np.ndarray) -> None:
        self.arrays, self.K = arrays, K
        self.views = np.stack([arrays.first, arrays.second], axis=1)
        self.slices, self.share = arrays.pair_slices, np.ones(len(arrays.pair))

    def errors(self, cameras: list[np.ndarray], k1: float) -> np.ndarray:
        """Return the inverse depths (M,), negative behind the camera."""
        arrays = self.arrays
        first, second = (
            _rays(self.K[views[arrays.pair]], at, k1)
            for views, at in ((arrays.first, arrays.x), (arrays.second, arrays.y))
        )
        relative = cameras[1][arrays.second] @ inverse(cameras[0][arrays.first])
        return _inverse_depth(first, second, relative[arrays.pair])[0]


class DepthTerm:
    """How far the depths of a feature from two pairs are apart, in pixels: what ties the lengths of the baselines.

    The first view of a group sees the feature; the two others give it an inverse depth each. The residual is their
    difference, divided by the standard deviation that one pixel of noise in each of the others makes.
    """

    def __init__(self, arrays: MatchArrays, K: np.ndarray) -> None:
        self.K = K
        view, feature, other, x, y, ratio = _sightings(arrays)
        order = np.lexsort((other, feature, view))
        view, feature, other, x, y, ratio = (values[order] for values in (view, feature, other, x, y, ratio))
        next_to = np.flatnonzero((view[1:] == view[:-1]) & (feature[1:] == feature[:-1]))
        next_to = next_to[np.linspace(0, len(next_to) - 1, min(len(next_to), MAX_TRACKS)).round().astype(int)]
        views = np.stack([view[next_to], other[next_to], other[next_to + 1]], axis=1).reshape(-1, 3)
        all_views, group = np.unique(views, axis=0, return_inverse=True)
        counts = np.bincount(group.ravel(), minlength=len(all_views))
        order = np.argsort(group.ravel(), kind="stable")
        order = order[counts[group.ravel()[order]] >= MIN_TRACKS]
        self.views, self.group = np.unique(views[order], axis=0, return_inverse=True)
        self.group = self.group.ravel()
        chosen = next_to[order]
        self.pixels = (x[chosen], y[chosen], y[chosen + 1])
        self.image_px_per_feature_px = ratio[chosen]
        counts = np.bincount(self.group, minlength=len(self.views))
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        self.slices = [slice(a, b) for a, b in itertools.pairwise(starts.tolist())]
        self.share = _shares(self.group, len(self.views), INDEPENDENT_TRACKS)
        self._rays = _Latest(self._straight)
        self._known: dict[int, tuple[np.ndarray, np.ndarray, float, tuple[np.ndarray, np.ndarray]]] = {}

    def errors(self, cameras: list[np.ndarray], k1: float) -> np.ndarray:
        """Return the residuals (M,) [searched px] if the views of the groups have these transforms, (N, 4, 4) each."""
        if not len(self.group):
            return np.empty(0)
        errors = [self._inverse_depths(role, cameras[0], cameras[role], k1) for role in (1, 2)]
        focal = self.K[self.views[self.group, 0], 0, 0] / self.image_px_per_feature_px
        variance = sum(1 / np.maximum((focal * slope) ** 2, 1e-12) for _, slope in errors)
        return (errors[0][0] - errors[1][0]) / np.sqrt(variance)

    def _inverse_depths(
        self, role: int, first: np.ndarray, other: np.ndarray, k1: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return what ``_inverse_depth`` does of the features' first views and those in a role; the latest is kept."""
        known = self._known.get(role)
        if known is None or known[0] is not first or known[1] is not other or known[2] != k1:
            rays = self._rays(k1)
            relative = other[self.views[:, role]] @ inverse(first[self.views[:, 0]])
            known = self._known[role] = (first, other, k1, _inverse_depth(rays[0], rays[role], relative[self.group]))
        return known[3]

    def _straight(self, k1: float) -> list[np.ndarray]:
        return [_rays(self.K[self.views[self.group, role]], at, k1) for role, at in enumerate(self.pixels)]


def _rays(K: np.ndarray, at: np.ndarray, k1: float) -> np.ndarray:
    """Return x and y (M, 2), at z = 1, of the rays of pixels (M, 2)."""
    at = undistorted(at, K, k1)
    y = (at[:, 1] - K[:, 1, 2]) / K[:, 1, 1]
    return np.stack([(at[:, 0] - K[:, 0, 2] - K[:, 0, 1] * y) / K[:, 0, 0], y], axis=-1)


def _inverse_depth(ray: np.ndarray, to: np.ndarray, other_from_here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the inverse depths (M,) of rays (M, 2) that are seen at ``to`` (M, 2) by another camera, all z = 1.

    The point (ray, 1) / w is at R (ray, 1) + w t there. Returns also how fast it moves with w, in ``to``'s unit.
    """
    R, t = other_from_here[:, :3, :3], other_from_here[:, :3, 3]
    turned = R[..., 0] * ray[:, :1] + R[..., 1] * ray[:, 1:] + R[..., 2]
    constant = turned[:, :2] - to * turned[:, 2:]
    slope = t[:, :2] - to * t[:, 2:]
    square = np.maximum(slope[:, 0] ** 2 + slope[:, 1] ** 2, 1e-18)
    along = constant[:, 0] * slope[:, 0] + constant[:, 1] * slope[:, 1]
    return -along / square, np.sqrt(square) / np.maximum(np.abs(turned[:, 2]), 1e-6)


def undistorted(at: np.ndarray, K: np.ndarray, k1: float) -> np.ndarray:
    """Return pixels (M, 2) without a radial distortion that made r + k1 r^3 of a radius r, in focal lengths."""
    distorted = (at - K[:, :2, 2]) / K[:, [0, 1], [0, 1]]
    square = (distorted**2).sum(-1, keepdims=True)
    straight = square
    for _ in range(_LENS_ROUNDS):
        straight = square / (1 + k1 * straight) ** 2
    return K[:, :2, 2] + (at - K[:, :2, 2]) / (1 + k1 * straight)


def _sightings(arrays: MatchArrays) -> tuple[np.ndarray, ...]:
    """Return each match from both of its sides: view, feature, other view, pixel here, pixel there, px."""
    first, second = arrays.first[arrays.pair], arrays.second[arrays.pair]
    return (
        np.concatenate([first, second]),
        np.concatenate([arrays.ids[:, 0], arrays.ids[:, 1]]).astype(int),
        np.concatenate([second, first]),
        np.concatenate([arrays.x, arrays.y]),
        np.concatenate([arrays.y, arrays.x]),
        np.tile(arrays.image_px_per_feature_px[arrays.pair], 2),
    )


def _shares(group: np.ndarray, groups: int, independent: float) -> np.ndarray:
    counts = np.bincount(group, minlength=groups)
    return np.minimum(1.0, independent / np.maximum(counts, 1))[group]
