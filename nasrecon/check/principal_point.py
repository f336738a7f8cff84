"""By how much the principal points are off, and how sure that is: whether half a pixel can be detected at all.

Half a pixel (K of integer pixel centres read as one of half-pixel centres) moves epipolar lines by some hundredths of
a pixel: less than one match can show, but thousands of sharp ones may. So the shift is fitted to all matches at once
(Gauss-Newton on the signed distances, far ones left out), and its uncertainty comes from leaving out each view in turn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays
from nasrecon.types import Scene

# Matches count that are off by no more than so many times the median.
KEPT_TIMES = 4.0
STEP_PX = 1.0
ROUNDS = 3
MIN_VIEWS = 5


@dataclass(frozen=True, kw_only=True, eq=False)
class CenterShift:
    """Fitted shift of all principal points (2,) and its standard deviation (2,) [px of the images]."""

    shift: np.ndarray
    sigma: np.ndarray


def fit_center_shift(scene: Scene, matches: Matches) -> CenterShift | None:
    """Fit by how much all principal points are to be moved; None with too few views, or where nothing determines it."""
    if len(matches.views) < MIN_VIEWS:
        return None
    arrays, cameras = MatchArrays(matches), Cameras.of(scene)
    shift = np.zeros(2)
    for _ in range(ROUNDS):
        A, b = _normal_equations(arrays, _moved(cameras, shift))
        if np.linalg.cond(A.sum(axis=0)) > 1e6:
            return None
        shift = shift - np.linalg.solve(A.sum(axis=0), b.sum(axis=0))
    left_out = []
    for view in matches.views:
        rest = (arrays.first != view) & (arrays.second != view)
        if rest.any() and np.linalg.cond(A[rest].sum(axis=0)) < 1e6:
            left_out.append(-np.linalg.solve(A[rest].sum(axis=0), b[rest].sum(axis=0)))
    if len(left_out) < MIN_VIEWS:
        return None
    count = len(left_out)
    sigma = np.sqrt((count - 1) / count * ((left_out - np.mean(left_out, axis=0)) ** 2).sum(axis=0))
    return CenterShift(shift=shift, sigma=sigma)


def _moved(cameras: Cameras, shift: np.ndarray) -> Cameras:
    K = cameras.K.copy()
    K[:, :2, 2] += shift
    return replace(cameras, K=K)


def _normal_equations(arrays: MatchArrays, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Return J^T J (P, 2, 2) and J^T e (P, 2) of each pair, for the shift of the principal points."""
    error = arrays.signed_px(cameras)
    steps = STEP_PX * np.eye(2)
    J = np.stack(
        [
            (arrays.signed_px(_moved(cameras, step)) - arrays.signed_px(_moved(cameras, -step))) / (2 * STEP_PX)
            for step in steps
        ],
        axis=1,
    )
    keep = np.abs(error) <= KEPT_TIMES * np.median(np.abs(error))
    J, error = J * keep[:, None], error * keep
    A, b = np.zeros((len(arrays), 2, 2)), np.zeros((len(arrays), 2))
    np.add.at(A, arrays.pair, J[:, :, None] * J[:, None])
    np.add.at(b, arrays.pair, J * error[:, None])
    return A, b
