"""How well cameras fit what was seen: distances to epipolar lines, points before or behind the cameras, depths.

One camera's K and transform for each view, as arrays; so that many hypotheses ("K belongs to images of double
size") are evaluated cheaply. Distances are in pixels of the searched images (``matches.SIDE_PX``), so that a threshold
means the same for every set.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nasrecon.geometry import inverse
from nasrecon.matching.matches import Matches
from nasrecon.types import Scene

# A match that lies behind a camera, or is farther off, counts as so far off [px].
WORST_PX = 64.0
# Whether a point is before the cameras is decided where its rays differ by so many pixels more than noise.
MIN_PARALLAX_PX = 4.0
# Depths of a point from two pairs are the same to within this share.
SAME_DEPTH = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Cameras:
    """The cameras of all views of a scene: ``K (N, 3, 3)`` and ``cam_from_world (N, 4, 4)``."""

    K: np.ndarray
    cam_from_world: np.ndarray

    @classmethod
    def of(cls, scene: Scene) -> Cameras:
        """Return those of a scene."""
        return cls(
            K=np.array([view.camera.K for view in scene.views]),
            cam_from_world=np.array([view.cam_from_world for view in scene.views]),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Residuals:
    """How well cameras fit.

    Attributes:
        error_px: (M,) distance of each match to its epipolar line [searched px], behind a camera ``WORST_PX``.
        pair_px: (P,) the median of each pair.
        median_px: the median of all.
        cheirality_share: share of the matches with enough parallax that lie before both cameras; 1 if there are none.
        tested: how many have enough parallax.
        depth_agreement: share of points seen by three views whose depths from two pairs agree; NaN if they are few.
    """

    error_px: np.ndarray
    pair_px: np.ndarray
    median_px: float
    cheirality_share: float
    tested: int
    depth_agreement: float


class MatchArrays:
    """The matches of a set as flat arrays, ready to be held against cameras.

    Attributes:
        first, second: (P,) the views of each pair.
        pair: (M,) the pair of each match.
        x, y: (M, 2) pixels in first and second [full-size px].
        image_px_per_feature_px: (P,) pixels of the full-size image for one pixel of the searched image.
        noise_px: median distance of matches to epipolar lines that were fitted to them [searched px].
    """

    def __init__(self, matches: Matches, pairs: Sequence[int] | None = None, most: int | None = None) -> None:
        chosen = matches.pairs if pairs is None else [matches.pairs[p] for p in pairs]
        kept = [_thinned(len(pair.x), most) for pair in chosen]
        counts = [len(which) for which in kept]
        self.first = np.array([pair.first for pair in chosen], dtype=int)
        self.second = np.array([pair.second for pair in chosen], dtype=int)
        self.pair = np.repeat(np.arange(len(chosen)), counts)
        nothing = np.empty((0, 2))
        self.x = np.concatenate([nothing, *(pair.x[which] for pair, which in zip(chosen, kept, strict=True))])
        self.y = np.concatenate([nothing, *(pair.y[which] for pair, which in zip(chosen, kept, strict=True))])
        self.ids = np.concatenate([nothing, *(pair.ids[which] for pair, which in zip(chosen, kept, strict=True))])
        self.image_px_per_feature_px = np.array([matches.image_px_per_feature_px(pair.first) for pair in chosen])
        self.noise_px = float(np.median([pair.residual_px for pair in chosen])) if chosen else float("nan")
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)

    def __len__(self) -> int:
        return len(self.first)

    def medians(self, values: np.ndarray) -> np.ndarray:
        """Return the median of values (M,) over each pair: (P,)."""
        ranked = values[np.lexsort((values, self.pair))]
        low, high = (self._starts[:-1] + self._starts[1:] - 1) // 2, (self._starts[:-1] + self._starts[1:]) // 2
        return (ranked[low] + ranked[high]) / 2

    def evaluate(self, cameras: Cameras) -> Residuals:
        """Hold the matches against cameras."""
        error, tested, front, depths = self._measure(cameras)
        error = np.where(tested & ~front, WORST_PX, np.minimum(np.abs(error), WORST_PX))
        return Residuals(
            error_px=error,
            pair_px=self.medians(error),
            median_px=float(np.median(error)),
            cheirality_share=float(front[tested].mean()) if tested.any() else 1.0,
            tested=int(tested.sum()),
            depth_agreement=self._agreement(depths, tested & front & (error < WORST_PX)),
        )

    def median_by_view(self, residuals: Residuals) -> dict[int, float]:
        """Return the median error [px of the full-size image] of the matches of each view that has any."""
        error = residuals.error_px * self.image_px_per_feature_px[self.pair]
        ends = self.first[self.pair], self.second[self.pair]
        views = np.unique(np.concatenate(ends)).tolist()
        return {view: float(np.median(error[(ends[0] == view) | (ends[1] == view)])) for view in views}

    def median(self, cameras: Cameras) -> float:
        """Return ``fit(cameras).median_px``, faster."""
        error, tested, front, _ = self._measure(cameras)
        return float(np.median(np.where(tested & ~front, WORST_PX, np.minimum(np.abs(error), WORST_PX))))

    def errors_of_pair(self, p: int, cameras: Cameras, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return the errors (H, m) [searched px] of a pair's matches if its views had the transforms ``a`` and ``b``
        (H,)."""
        T = cameras.cam_from_world
        span = slice(self._starts[p], self._starts[p + 1])
        K = cameras.K[[self.first[p], self.second[p]]]
        relative = (T[b] @ inverse(T[a]))[:, None]
        error, tested, front, _ = _measure(
            relative, K[0], K[1], self.x[span], self.y[span], self.image_px_per_feature_px[p]
        )
        return np.where(tested & ~front, WORST_PX, np.abs(error))

    def depths(self, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
        """Return z in the first and second camera (M, 2) [scene units] of each match, and which are sound (M,)."""
        error, tested, front, depths = self._measure(cameras)
        return depths, tested & front & (np.abs(error) < 4 * max(self.noise_px, 0.5))

    def signed_px(self, cameras: Cameras) -> np.ndarray:
        """Return the signed distance (M,) [searched px] of each match to its epipolar line."""
        return self._measure(cameras)[0]

    @property
    def pair_slices(self) -> list[slice]:
        """Where the matches of each pair are among all."""
        return [slice(a, b) for a, b in itertools.pairwise(self._starts.tolist())]

    def _measure(self, cameras: Cameras) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        T = cameras.cam_from_world
        relative = T[self.second] @ inverse(T[self.first])
        # No baseline at all is rarely written as exactly 0.
        reach = np.abs(inverse(T)[:, :3, 3]).max(initial=0)
        relative[np.linalg.norm(relative[:, :3, 3], axis=1) <= 1e-6 * reach, :3, 3] = 0
        first, second, pair = self.first[self.pair], self.second[self.pair], self.pair
        return _measure(
            relative[pair], cameras.K[first], cameras.K[second], self.x, self.y, self.image_px_per_feature_px[pair]
        )

    def _agreement(self, depths: np.ndarray, sound: np.ndarray) -> float:
        """Return the share of features whose depths, from two pairs of one view, agree to ``SAME_DEPTH``."""
        view = np.concatenate([self.first[self.pair], self.second[self.pair]])
        feature, depth = self.ids.T.ravel(), depths.T.ravel()
        keep = np.concatenate([sound, sound])
        view, feature, depth = view[keep], feature[keep], depth[keep]
        order = np.lexsort((feature, view))
        view, feature, depth = view[order], feature[order], depth[order]
        same = (view[1:] == view[:-1]) & (feature[1:] == feature[:-1])
        if same.sum() < 30:
            return float("nan")
        return float((np.abs(np.log(depth[1:][same] / depth[:-1][same])) < SAME_DEPTH).mean())


def _thinned(count: int, most: int | None) -> np.ndarray:
    """Return evenly chosen indices of ``count``, ``most`` of them."""
    if most is None or count <= most:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(int)


def _measure(
    second_from_first: np.ndarray,
    K_first: np.ndarray,
    K_second: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    image_px_per_feature_px: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Hold matches against cameras; the leading shapes (...) are broadcast.

    Args:
        second_from_first: (..., 4, 4). K_first, K_second: (..., 3, 3). x, y: (..., 2) [px].
        image_px_per_feature_px: (...), pixels of the full-size image for one pixel of the searched image.

    Returns:
        of each match the signed distance to its epipolar line [searched px] (without a baseline: to its one possible
        place), whether its parallax suffices to tell front from behind, whether it is in front of both, and
        z in both (..., 2).
    """
    R, t = second_from_first[..., :3, :3], second_from_first[..., :3, 3]
    first, second = _rays(K_first, x), _rays(K_second, y)
    turned = _apply(R, first)
    # Sampson distance to y^T F x with F = K2^-T [t]x R K1^-1, from its two epipolar lines.
    line_in_second = _lines(K_second, _cross(t, turned))
    line_in_first = _lines(K_first, _apply(np.swapaxes(R, -1, -2), _cross(second, t)))
    slope = (line_in_second[..., :2] ** 2).sum(-1) + (line_in_first[..., :2] ** 2).sum(-1)
    product = (line_in_second[..., :2] * y).sum(-1) + line_in_second[..., 2]
    with np.errstate(invalid="ignore", divide="ignore"):
        error = product / np.sqrt(slope) / image_px_per_feature_px
    depths, sine = _triangulate(turned, second, t)
    still = np.broadcast_to((t == 0).all(axis=-1), error.shape)
    if still.any():
        at = _apply(K_second, turned)
        behind = at[..., 2] <= 0
        moved = (
            np.linalg.norm(at[..., :2] / np.where(behind, 1, at[..., 2])[..., None] - y, axis=-1)
            / image_px_per_feature_px
        )
        error = np.where(still, np.where(behind, WORST_PX, moved), error)
    tested = (sine * K_second[..., 0, 0] / image_px_per_feature_px > MIN_PARALLAX_PX) & ~still
    return np.nan_to_num(error, nan=WORST_PX), tested, np.asarray((depths > 0).all(axis=-1)), depths


def _apply(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Return matrix (..., 3, 3) times vector (..., 3), broadcast; much faster than matmul for many small ones."""
    return sum((matrix[..., k] * vector[..., k, None] for k in range(1, 3)), matrix[..., 0] * vector[..., 0, None])


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cross product of (..., 3) and (..., 3), broadcast."""
    (ax, ay, az), (bx, by, bz) = (np.moveaxis(v, -1, 0) for v in (a, b))
    return np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _rays(K: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Return the directions (..., 3), z = 1, of pixels (..., 2)."""
    y = (pixels[..., 1] - K[..., 1, 2]) / K[..., 1, 1]
    x = (pixels[..., 0] - K[..., 0, 2] - K[..., 0, 1] * y) / K[..., 0, 0]
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def _lines(K: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the lines (..., 3) in pixels, K^-T n, of planes through the camera with normals (..., 3)."""
    a = normal[..., 0] / K[..., 0, 0]
    b = (normal[..., 1] - K[..., 0, 1] * a) / K[..., 1, 1]
    return np.stack([a, b, normal[..., 2] - K[..., 0, 2] * a - K[..., 1, 2] * b], axis=-1)


def _triangulate(first: np.ndarray, second: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lengths (..., 2) along two rays at which they come nearest, and the sine (...) of their angle.

    The rays start at ``t`` (..., 3) along ``first`` and at 0 along ``second``: minimise |t + a first - b second|.
    """
    ff, ss, fs = (first * first).sum(-1), (second * second).sum(-1), (first * second).sum(-1)
    ft, st = (first * t).sum(-1), (second * t).sum(-1)
    det = np.maximum(ff * ss - fs**2, 1e-18)
    lengths = np.stack([(fs * st - ss * ft) / det, (ff * st - fs * ft) / det], axis=-1)
    return lengths, np.sqrt(det / (ff * ss))


def epipolar_error(F: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the Sampson distance (m,) [px] of matches x, y (m, 2) to fundamental matrices (3, 3) or (m, 3, 3)."""
    return np.abs(signed_epipolar_error(F, x, y))


def signed_epipolar_error(F: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return it with its sign; written out, which is much faster than matmul for many small matrices."""
    (a, b), (c, d) = np.moveaxis(x, -1, 0), np.moveaxis(y, -1, 0)
    Fx = [F[..., i, 0] * a + F[..., i, 1] * b + F[..., i, 2] for i in range(3)]
    Fty = [F[..., 0, i] * c + F[..., 1, i] * d + F[..., 2, i] for i in range(2)]
    slope = Fx[0] ** 2 + Fx[1] ** 2 + Fty[0] ** 2 + Fty[1] ** 2
    return (c * Fx[0] + d * Fx[1] + Fx[2]) / np.sqrt(np.maximum(slope, 1e-30))
