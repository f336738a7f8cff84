"""Which pairs of views are matched."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from nasrecon.scene.source_views import source_scores
from nasrecon.types import Scene

# Up to EXHAUSTIVE_UP_TO views all pairs are matched; of more, each view with the next and with its NEIGHBORS best
# sources.
EXHAUSTIVE_UP_TO, NEIGHBORS = 16, 8


def pairs_to_refine(scene: Scene) -> set[tuple[int, int]]:
    count = len(scene.views)
    if count <= EXHAUSTIVE_UP_TO:
        return set(combinations(range(count), 2))
    pairs = {(i, i + 1) for i in range(count - 1)}
    for i in range(count):
        scores = source_scores(scene, i)
        best = np.argsort(-scores, kind="stable")[:NEIGHBORS]
        pairs |= {(min(i, j), max(i, j)) for j in best.tolist() if scores[j] > 0}
    return pairs
