"""Which pairs of views are matched: the rules of pose refinement, triangulation and structure from motion.

Of a small set all pairs are matched. Of a larger one each view is matched with those beside it in order and with those
that probably show the same surface: by the cameras where they are known, else by a few large features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from nasrecon.scene.source_views import source_scores
from nasrecon.types import Scene

Pairs = set[tuple[int, int]]
"""Positions (i, j) of two views, i < j."""

# Up to so many views all pairs are matched: for pose refinement, which extracts its own features, and for COLMAP.
REFINE_ALL_UP_TO, COLMAP_ALL_UP_TO = 16, 60
# Of more views each is matched with so many others that see most of what it sees.
REFINE_NEIGHBORS, TRIANGULATE_NEIGHBORS = 8, 15
# Without cameras: with so many next in order, and so many others with the most matches among LARGEST_FEATURES features.
NEXT_IN_ORDER, SIMILAR_PER_IMAGE, MIN_LARGE_MATCHES = 3, 15, 4
LARGEST_FEATURES = 128
RATIO, MAX_DISTANCE = 0.8, 0.7


def pairs_to_refine(scene: Scene) -> Pairs:
    """Return the pairs that pose refinement matches."""
    count = len(scene.views)
    if count <= REFINE_ALL_UP_TO:
        return _all_pairs(count)
    return _next_pairs(count, 1) | _overlapping_pairs(scene, REFINE_NEIGHBORS)


def pairs_to_triangulate(scene: Scene) -> Pairs:
    """Return the pairs that triangulation under known cameras matches."""
    count = len(scene.views)
    return _all_pairs(count) if count <= COLMAP_ALL_UP_TO else _overlapping_pairs(scene, TRIANGULATE_NEIGHBORS)


def pairs_without_cameras(count: int, descriptors_of: Callable[[int], np.ndarray]) -> Pairs:
    """Return the pairs of images that structure from motion matches.

    Args:
        count: number of images.
        descriptors_of: returns the descriptors (n, 128), of unit length, of an image's ``LARGEST_FEATURES`` largest
            features; those are seen from the farthest. Called for large sets only.
    """
    if count <= COLMAP_ALL_UP_TO:
        return _all_pairs(count)
    return _next_pairs(count, NEXT_IN_ORDER) | similar_pairs([descriptors_of(i) for i in range(count)])


def similar_pairs(descriptors: Sequence[np.ndarray]) -> Pairs:
    """Return the pairs of images whose few descriptors (n, 128), of unit length, match best.

    For each image the ``SIMILAR_PER_IMAGE`` others with the most matches, at least ``MIN_LARGE_MATCHES``.
    """
    counts = np.zeros((len(descriptors), len(descriptors)), dtype=int)
    for i, descriptor in enumerate(descriptors):
        for j, other in enumerate(descriptors):
            if i != j and len(descriptor) and len(other) >= 2:
                nearest = -np.partition(-(descriptor @ other.T), 1, axis=1)[:, :2]  # the two best cosines
                first, second = (2 - 2 * nearest.clip(-1, 1)).T  # squared distances
                counts[i, j] = np.sum((first < RATIO**2 * second) & (first < MAX_DISTANCE**2))
    mutual = np.minimum(counts, counts.T)
    return _best_of_each(np.where(mutual >= MIN_LARGE_MATCHES, mutual, 0), SIMILAR_PER_IMAGE)


def _all_pairs(count: int) -> Pairs:
    return set(combinations(range(count), 2))


def _next_pairs(count: int, steps: int) -> Pairs:
    return {(i, i + step) for i in range(count) for step in range(1, steps + 1) if i + step < count}


def _overlapping_pairs(scene: Scene, neighbors: int) -> Pairs:
    """Return each view with its best source views."""
    return _best_of_each([source_scores(scene, i) for i in range(len(scene.views))], neighbors)


def _best_of_each(scores: Sequence[np.ndarray] | np.ndarray, count: int) -> Pairs:
    """Return each view i with the up to ``count`` views of the highest scores[i] (N,) above 0."""
    pairs = set()
    for i, row in enumerate(scores):
        best = np.argsort(-row, kind="stable")[:count].tolist()
        pairs |= {(min(i, j), max(i, j)) for j in best if row[j] > 0}
    return pairs
