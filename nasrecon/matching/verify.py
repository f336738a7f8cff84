"""Verified matches of two images: ratio test, then a fundamental matrix or a homography by RANSAC."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nasrecon.matching.features import Features, FeatureStore
from nasrecon.matching.matches import PairMatches
from nasrecon.matching.residuals import epipolar_error
from nasrecon.types import Scene

# Lowe's ratio test, on the distance of unit descriptors.
RATIO = 0.8


# A pair is two images of one place if so many matches, and this share of all, obey one fundamental matrix to within
# MATCH_ERROR_PX. Fewer happen by chance.
MIN_MATCHES = 24


MIN_SHARE = 0.4


MATCH_ERROR_PX = 2.0


# Maximum number of verified matches kept per pair.
MAX_KEPT = 120


def matched(store: FeatureStore, scene: Scene, i: int, j: int) -> PairMatches | None:
    """Return the verified matches of two views, None if what they have in common may be chance; the store keeps
    them."""
    first, second = scene.views[i], scene.views[j]
    key = store.key(first), store.key(second)
    if key not in store.pairs:
        store.pairs[key] = match_pair(i, j, store.features(first), store.features(second))
    pair = store.pairs[key]
    return None if pair is None else replace(pair, first=i, second=j)


def match_pair(i: int, j: int, first: Features, second: Features) -> PairMatches | None:
    """Match two images; None if what they have in common may be chance."""
    ids = _mutual(first.descriptors, second.descriptors)
    if len(ids) < MIN_MATCHES:
        return None
    x, y = (
        first.pixels[ids[:, 0]] / first.image_px_per_feature_px,
        second.pixels[ids[:, 1]] / second.image_px_per_feature_px,
    )
    F, obey = _robust("fundamental", x, y)
    H, flat = _robust("homography", x, y)
    if flat.sum() >= 0.9 * obey.sum():  # a flat scene or a turn: F is not determined, H is
        obey = obey | flat
    count = int(obey.sum())
    if count < max(MIN_MATCHES, MIN_SHARE * len(ids)):
        return None
    residual = np.abs(epipolar_error(F, x, y)) if F is not None else np.zeros(len(x))
    chosen = np.flatnonzero(obey)
    if count > MAX_KEPT:
        chosen = chosen[np.linspace(0, count - 1, MAX_KEPT).round().astype(int)]

    def scale(ratio):
        return np.diag([ratio, ratio, 1.0])

    return PairMatches(
        first=i,
        second=j,
        ids=ids[chosen],
        x=first.pixels[ids[chosen, 0]],
        y=second.pixels[ids[chosen, 1]],
        count=count,
        residual_px=float(np.median(residual[obey])),
        median_flow_px=float(np.median(np.linalg.norm(y[obey] - x[obey], axis=1))),
        homography=None
        if H is None
        else scale(second.image_px_per_feature_px) @ H @ np.linalg.inv(scale(first.image_px_per_feature_px)),
    )


def _mutual(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (m, 2) which unit descriptors (n, 128) are each other's nearest, and clearly nearer than the next."""
    if min(len(first), len(second)) < 2:
        return np.empty((0, 2), dtype=int)
    similarity = first @ second.T
    best = similarity.argmax(axis=1)
    rows = np.arange(len(first))
    top = similarity[rows, best]
    similarity[rows, best] = -1
    distance, next_distance = (np.sqrt(np.maximum(2 - 2 * value, 0)) for value in (top, similarity.max(axis=1)))
    similarity[rows, best] = top
    keep = (similarity.argmax(axis=0)[best] == rows) & (distance < RATIO * next_distance)
    return np.stack([rows[keep], best[keep]], axis=1)


def _robust(kind: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Fit a fundamental matrix or a homography to matches (m, 2); returns it (or None) and which matches obey it."""
    import pycolmap

    options = pycolmap.RANSACOptions(max_error=MATCH_ERROR_PX, min_num_trials=50, max_num_trials=2000, random_seed=0)
    estimator = {
        "fundamental": pycolmap.estimate_fundamental_matrix,
        "homography": pycolmap.estimate_homography_matrix,
    }[kind]
    estimate = estimator(x, y, options)
    if estimate is None:
        return None, np.zeros(len(x), dtype=bool)
    return estimate["F" if kind == "fundamental" else "H"], np.asarray(estimate["inlier_mask"], dtype=bool)
