"""Which views do not fit while the rest does: every pair votes."""

from __future__ import annotations

import itertools

import numpy as np

from nasrecon.check.camera_edits import with_order
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays, Residuals
from nasrecon.types import Scene

# A pair is bad if its median error is so many times that of a good pair, and at least so large [searched px].
BAD_TIMES = 5.0
BAD_PX = 4.0
GOOD_PERCENTILE = 30
# A view is wrong if this share of its pairs with views that are not wrong is bad, and there are enough of them.
BAD_SHARE = 0.75
MIN_PAIRS = 2
# More wrong views than this share are no longer "a few".
A_FEW = 0.4
# Orders of so many wrong views are tried one by one.
MAX_ORDERED = 4


def bad_pairs(residuals: Residuals) -> np.ndarray:
    """Say which pairs (P,) do not fit, compared with the better ones."""
    return residuals.pair_px > max(BAD_PX, BAD_TIMES * np.percentile(residuals.pair_px, GOOD_PERCENTILE))


def wrong_views(matches: Matches, residuals: Residuals) -> list[int]:
    """Return the views whose pairs are bad, the worst first; empty if they are not a few."""
    bad = bad_pairs(residuals)
    first, second = (np.array([getattr(pair, name) for pair in matches.pairs]) for name in ("first", "second"))
    wrong: list[int] = []
    while True:
        left = ~np.isin(first, wrong) & ~np.isin(second, wrong)
        shares = {}
        for view in matches.views:
            of_view = left & ((first == view) | (second == view))
            if of_view.sum() >= MIN_PAIRS:
                shares[view] = (float(bad[of_view].mean()), float(np.median(residuals.pair_px[of_view])))
        worst = max(shares, key=lambda view: shares[view], default=None)
        if worst is None or shares[worst][0] < BAD_SHARE:
            return wrong if len(wrong) <= A_FEW * len(matches.views) else []
        wrong.append(worst)


def reordered(scene: Scene, matches: Matches, wrong: list[int]) -> Scene | None:
    """Return the scene with the transforms of wrong views exchanged among them, if that makes all of them fit."""
    if not 2 <= len(wrong) <= MAX_ORDERED:
        return None
    arrays = MatchArrays(matches)
    touching = np.isin(arrays.first, wrong) | np.isin(arrays.second, wrong)
    best = None
    for order in itertools.permutations(wrong):
        full = list(range(len(scene.views)))
        for view, source in zip(wrong, order, strict=True):
            full[view] = source
        tried = with_order(scene, full)
        residuals = arrays.evaluate(Cameras.of(tried))
        value = float(np.median(residuals.pair_px[touching]))
        if best is None or value < best[0]:
            best = (value, tried, residuals)
    if best is None or wrong_views(matches, best[2]) or best[1] is None:
        return None
    return best[1] if bad_pairs(best[2])[touching].mean() < 0.3 else None
