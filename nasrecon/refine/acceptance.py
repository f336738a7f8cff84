"""Decide from the matches alone whether refined poses replace those given."""

from __future__ import annotations

import numpy as np

from nasrecon.refine.solver import FEW_VIEWS, Problem, Solution, unknowns_of
from nasrecon.refine.terms import InverseDepth

# Refined poses fit where this share of the matches is within INLIER_PX of the epipolar lines [searched px].
MIN_INLIERS, INLIER_PX = 0.75, 2.0
# They are impossible where more than this share of the points lies behind a camera, surely.
MAX_BEHIND = 0.1
# Depth is open where its standard deviation under the refined poses is above this share (median over the matches).
MAX_DEPTH_STD = 0.35
# Given poses may be as good as refined ones where matches are off by less than GIVEN_PX and depths change by less than
# SMALL_CHANGE: less than SURE standard deviations of what the matches leave open, or less than VERY_SURE of them where
# depths of a feature from two baselines are GIVEN_TRACK_PX apart or less already. What is left are errors of lens,
# shutter and clock, which the poses of FEW_VIEWS or fewer would absorb.
GIVEN_PX, SMALL_CHANGE, SURE, VERY_SURE, GIVEN_TRACK_PX = 3.0, 0.13, 1.2, 3.0, 1.5


def reason_to_reject(problem: Problem, solution: Solution) -> str:
    """Return why refined poses do not replace those given, one phrase; "" where they do.

    A scene of two views is only tested for matches that do not fit and points behind the cameras: its depth is
    estimated under both poses.
    """
    nothing = np.zeros_like(solution.parameters)
    before, after = (
        np.abs(problem.residuals(problem.epipolar, parameters)) for parameters in (nothing, solution.parameters)
    )
    fits = after < INLIER_PX
    if fits.mean() < MIN_INLIERS:
        return f"only {fits.mean():.0%} of the matches fit to {INLIER_PX:g} px ({MIN_INLIERS:.0%} are needed)"
    term = InverseDepth(problem.arrays, problem.given.K)
    given, refined = (problem.residuals(term, parameters) for parameters in (nothing, solution.parameters))
    std = _standard_deviations(problem, term, solution, refined)
    behind = float((refined < -3 * std)[fits].mean())
    if behind > MAX_BEHIND:
        return f"{behind:.0%} of the points would lie behind a camera"
    if len(problem.given.K) == 2:
        return ""
    share = float(np.median((std / np.maximum(np.abs(refined), 1e-12))[fits]))
    if share > MAX_DEPTH_STD:
        return f"the matches leave depth open to {share:.0%} ({MAX_DEPTH_STD:.0%} at most): too little parallax"
    if not len(problem.tracks.share):
        return "no features are common to three views, so the lengths of the baselines cannot be checked"
    if len(problem.given.K) > FEW_VIEWS:
        return ""
    return _as_good(before, given, refined, fits, share, _median(problem.residuals(problem.tracks, nothing)))


def _as_good(
    before: np.ndarray, given: np.ndarray, refined: np.ndarray, fits: np.ndarray, share: float, apart_px: float
) -> str:
    """Return why the poses given may be as good; inverse depths (M,) under either, their standard deviation a share."""
    both = fits & (given > 0) & (refined > 0)
    change = _median(np.log(refined[both] / given[both])) if both.any() else np.inf
    limit = min(SMALL_CHANGE, share * (VERY_SURE if apart_px <= GIVEN_TRACK_PX else SURE))
    if np.median(before) < GIVEN_PX and change < limit:
        return (
            f"they change depths by {change:.1%} only, less than the {limit:.1%} that can be decided from these matches "  # noqa: E501
            f"(which are {np.median(before):.1f} px off, depths from two baselines {apart_px:.1f} px apart)"
        )
    return ""


def _median(values: np.ndarray) -> float:
    return float(np.median(np.abs(values)))


def _standard_deviations(problem: Problem, term: InverseDepth, solution: Solution, at: np.ndarray) -> np.ndarray:
    """Return the standard deviations (M,) of inverse depths that the covariance of the poses makes."""
    J = problem.derivatives(term, solution.parameters, solution.sigma, at)
    covariance = np.linalg.inv(solution.hessian)
    variance = np.empty(len(at))
    for views, slices in zip(term.views, term.slices, strict=True):
        which = unknowns_of(views, len(solution.parameters))
        variance[slices] = np.einsum("mi,ij,mj->m", J[slices], covariance[np.ix_(which, which)], J[slices])
    return np.sqrt(np.maximum(variance, 0))
