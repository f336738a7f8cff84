"""Apply a hypothesis to the cameras, measure the matches under it, compare with the cameras as given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nasrecon.check.fixes import apply_fixes
from nasrecon.errors import InputError
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays, Residuals
from nasrecon.types import Scene

# A hypothesis must leave no more than this share of the error, in this share of the pairs a smaller one, lie so much
# [searched px] under it, have this share of the points before the cameras, and be no worse than WORST_ACCEPTED_PX.
MIN_GAIN = 0.6


PAIRS_BETTER = 0.6


MIN_GAIN_PX = 0.5


MIN_CHEIRALITY_SHARE = 0.75


WORST_ACCEPTED_PX = 8.0


# A few pairs are fitted by many a wrong hypothesis: there it must be better by more, and no number is fitted.
FEW_PAIRS, FEW_GAIN_PX, FEW_BETTER = 6, 5.0, 0.2


# Numbers are fitted on at most this many matches of a pair, and of at most this many pairs.
FIT_MATCHES, FIT_PAIRS = 24, 150


@dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """Fixes that are tried together: name of the fault, what it says, the fixes."""

    name: str
    what: str
    fixes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """A hypothesis, the scene and matches that it leads to, and how well they fit."""

    hypothesis: Hypothesis
    scene: Scene
    matches: Matches
    residuals: Residuals


def thin_matches(matches: Matches) -> MatchArrays:
    """Return few enough observations for searches."""
    count = len(matches.pairs)
    pairs = np.linspace(0, count - 1, min(count, FIT_PAIRS)).round().astype(int)
    return MatchArrays(matches, pairs.tolist(), most=FIT_MATCHES)


def evaluate_hypothesis(scene: Scene, matches: Matches, hypothesis: Hypothesis) -> Outcome | None:
    """Apply a hypothesis and measure the fit; None where it cannot be applied."""
    try:
        repaired = apply_fixes(scene, hypothesis.fixes)
    except InputError:
        return None
    moved = matches.reindexed(scene, repaired)
    if not moved.pairs:
        return None
    residuals = MatchArrays(moved).evaluate(Cameras.of(repaired))
    return Outcome(hypothesis=hypothesis, scene=repaired, matches=moved, residuals=residuals)


def is_significantly_better(tried: Outcome, given: Residuals, matches: Matches) -> bool:
    """Say whether a hypothesis is significantly better than the cameras as given."""
    residuals = tried.residuals
    before = same_pairs(given, matches, tried)
    few = len(residuals.pair_px) < FEW_PAIRS
    least_gain, most_left = (FEW_GAIN_PX, FEW_BETTER) if few else (MIN_GAIN_PX, MIN_GAIN)
    return bool(
        given.median_px - residuals.median_px >= least_gain
        and residuals.median_px <= most_left * given.median_px
        and residuals.median_px <= WORST_ACCEPTED_PX
        and residuals.cheirality_share >= MIN_CHEIRALITY_SHARE
        and (residuals.pair_px < before).mean() >= PAIRS_BETTER
    )


def same_pairs(given: Residuals, matches: Matches, tried: Outcome) -> np.ndarray:
    """Return the errors that the pairs of a hypothesis had before it (it may have left views out)."""
    if len(tried.matches.pairs) == len(matches.pairs):
        return given.pair_px
    kept = {id(pair.x) for pair in tried.matches.pairs}
    return given.pair_px[[id(pair.x) in kept for pair in matches.pairs]]
