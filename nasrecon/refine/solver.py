"""Levenberg-Marquardt on pose corrections under a prior, with the evidence for the prior's size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nasrecon.geometry import inverse
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays
from nasrecon.refine.camera_steps import align_parameters, step_cameras
from nasrecon.refine.terms import DepthTerm, EpipolarTerm, Term
from nasrecon.types import Scene

# Standard deviations of the turns that are tried [rad]; under the least, poses stay as they were given. Their own prior
# is exponential with that mean: a single pair must not be explained by poses that are far off.
TURNS, MEAN_TURN = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), 5e-3


# A pose that is off by a turn of 1 rad is off by a move of so many scene depths; of a single pair, whose matches tell
# least of moves, by fewer.
MOVE_FOR_TURN, MOVE_FOR_TURN_OF_PAIR = 1.0, 0.5


# Radial distortion that is left over: k1 for radii in focal lengths, one for all cameras.
DISTORTION = 0.03


# What a match is off by under true cameras [searched px]: estimated with the poses of more than FEW_VIEWS views, within
# these bounds; the matches of fewer leave too much open for that, and it is the upper one. The search starts from more
# where poses are far off: from what is at most START_TIMES what matches are off by at first.
NOISE_PX, NOISE_AT_START_PX, START_TIMES = (0.1, 0.7), (8.0, 3.0, 1.5), 3.0
FEW_VIEWS, NOISE_ROUNDS = 4, 5


MIN_MATCHES = 15


# Matches of a pair that are used: so many, and of many pairs fewer, MAX_IN_ALL together.
MAX_MATCHES, FEWEST_MATCHES, MAX_IN_ALL = 120, 20, 40_000


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """The likeliest corrections under one prior.

    Attributes:
        turn_rad: standard deviation of the turns in the prior.
        noise_px: what matches are off by, the likeliest.
        parameters: (6N + 1,) the steps of the views, then the radial distortion k1.
        sigma: (6N + 1,) their standard deviations in the prior.
        hessian: (6N + 1, 6N + 1) of the cost there; its inverse is the covariance of ``parameters``.
        evidence: minus the logarithm of the evidence for the prior.
    """

    turn_rad: float
    noise_px: float
    parameters: np.ndarray
    sigma: np.ndarray
    hessian: np.ndarray
    evidence: float

    @property
    def steps(self) -> np.ndarray:
        """The steps (N, 6) of the views."""
        return self.parameters[:-1].reshape(-1, 6)


class Problem:
    """The matches, at most ``most`` of each pair, and the priors."""

    def __init__(self, scene: Scene, matches: Matches, most: int = MAX_MATCHES) -> None:
        usable = [p for p, pair in enumerate(matches.pairs) if pair.count >= MIN_MATCHES]
        share = MAX_IN_ALL // max(len(usable), 1)
        self.arrays = MatchArrays(matches, usable, most=min(max(share, FEWEST_MATCHES), most))
        self.given = Cameras.of(scene)
        self.depth = self._scene_depth()
        self.epipolar = EpipolarTerm(self.arrays, self.given.K)
        self.tracks = DepthTerm(self.arrays, self.given.K)
        self.terms = [self.epipolar, self.tracks]
        count = 6 * len(scene.views) + 1
        self._unknowns = [[unknowns_of(views, count) for views in term.views] for term in self.terms]

    def __len__(self) -> int:
        return len(self.arrays)

    def _scene_depth(self) -> float:
        """Return the median depth of the points [scene units]; where no point lies before both cameras, the
        baselines."""
        depths = self.arrays.depths(self.given)[0]
        positive = depths[(depths > 0).all(axis=1)]
        centers = inverse(self.given.cam_from_world)[:, :3, 3]
        return float(np.median(positive)) if len(positive) else float(np.linalg.norm(np.ptp(centers, axis=0)))

    def residuals(self, term: Term, parameters: np.ndarray) -> np.ndarray:
        """Return the residuals (M,) of a term after corrections (6N + 1,)."""
        T = step_cameras(self.given.cam_from_world, parameters[:-1].reshape(-1, 6))
        return term.errors([T] * term.views.shape[1], float(parameters[-1]))

    def solve(self, turn: float, start: Solution | None = None) -> Solution:
        """Find the likeliest steps where poses are off by ``turn`` [rad] and the move that goes with it.

        Args:
            start: where the search begins; None: at the poses given.
        """
        count = len(self.given.cam_from_world)
        move = turn * self.depth * (MOVE_FOR_TURN_OF_PAIR if count == 2 else MOVE_FOR_TURN)
        sigma = np.append(np.tile([turn] * 3 + [move] * 3, count), DISTORTION)
        aligned = lambda parameters: align_parameters(self.given.cam_from_world, parameters, sigma)  # noqa: E731
        parameters = np.zeros(len(sigma)) if start is None else start.parameters
        noise = NOISE_PX[1]
        first = float(np.median(np.abs(self.residuals(self.epipolar, parameters))))
        for at_start in NOISE_AT_START_PX:
            if at_start <= START_TIMES * first:
                parameters = self._descend(parameters, sigma, at_start, rounds=12)[0]
        for _ in range(NOISE_ROUNDS):
            parameters, cost, H = self._descend(aligned(parameters), sigma, noise, rounds=40)
            before, noise = noise, self._likeliest_noise(parameters)
            if count <= FEW_VIEWS or noise > 0.95 * before:
                break
        parameters = aligned(parameters)
        evidence = cost + 0.5 * float(np.linalg.slogdet(H * sigma[:, None] * sigma)[1]) + turn / MEAN_TURN
        return Solution(
            turn_rad=turn, noise_px=before, parameters=parameters, sigma=sigma, hessian=H, evidence=evidence
        )

    def _likeliest_noise(self, parameters: np.ndarray) -> float:
        """Return the noise [searched px] under which the residuals after corrections (6N + 1,) are likeliest."""
        errors = [self.residuals(term, parameters) for term in self.terms]
        levels = np.geomspace(*NOISE_PX, 40)
        return float(levels[np.argmin([self._cost_of_errors(errors, level) for level in levels])])

    def _cost_of_errors(self, errors: list[np.ndarray], noise: float) -> float:
        """Return minus the logarithm of the likelihood of residuals, one array a term: Cauchy's robust loss, and what
        makes densities of different noise comparable."""
        cost = 0.0
        for term, error in zip(self.terms, errors, strict=True):
            cost += float((term.share * (np.log1p((error / noise) ** 2) + math.log(noise))).sum())
        return cost

    def _descend(
        self, parameters: np.ndarray, sigma: np.ndarray, noise: float, rounds: int
    ) -> tuple[np.ndarray, float, np.ndarray]:
        """Levenberg and Marquardt's steps on Cauchy's robust loss, from ``parameters`` (6N + 1,): steps, then k1.

        Returns where it ends, the cost there and the last Hessian.
        """
        damping = 1e-3

        def cost_of(parameters: np.ndarray) -> tuple[float, list[np.ndarray]]:
            errors = [self.residuals(term, parameters) for term in self.terms]
            return self._cost_of_errors(errors, noise) + float(0.5 * ((parameters / sigma) ** 2).sum()), errors

        cost, errors = cost_of(parameters)
        for _ in range(rounds):
            H, g = self._normal_equations(parameters, sigma, errors, noise)
            for _ in range(8):
                step = np.linalg.solve(H + damping * np.diag(np.diag(H)), g)
                new_cost, new_errors = cost_of(parameters - step)
                if new_cost <= cost:
                    break
                damping *= 5
            else:
                break
            gain, parameters, cost, errors = cost - new_cost, parameters - step, new_cost, new_errors
            damping = max(damping / 5, 1e-9)
            if gain < 1e-4 * max(1.0, abs(cost)):
                break
        return parameters, cost, H

    def _normal_equations(
        self, parameters: np.ndarray, sigma: np.ndarray, errors: list[np.ndarray], noise: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the Hessian (6N + 1, 6N + 1) and the gradient (6N + 1,) of the cost."""
        H, g = np.diag(1 / sigma**2), parameters / sigma**2
        for term, unknowns, error in zip(self.terms, self._unknowns, errors, strict=True):
            J = self.derivatives(term, parameters, sigma, error)
            weight = 2 * term.share / (1 + (error / noise) ** 2) / noise**2
            for which, slices in zip(unknowns, term.slices, strict=True):
                weighted = J[slices] * weight[slices, None]
                H[which[:, None], which] += weighted.T @ J[slices]
                g[which] += weighted.T @ error[slices]
        return H, g

    def derivatives(self, term: Term, parameters: np.ndarray, sigma: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Return the derivatives (M, 6 R + 1) of the residuals of a term for the R poses that each depends on, and
        k1."""
        steps, k1 = parameters[:-1].reshape(-1, 6), parameters[-1]
        current, roles = step_cameras(self.given.cam_from_world, steps), term.views.shape[1]
        J = np.empty((len(error), 6 * roles + 1))
        shifted = [step_cameras(self.given.cam_from_world, steps + 1e-3 * sigma[k] * np.eye(6)[k]) for k in range(6)]
        for role in range(roles):  # one after the other: terms keep what depends on the other roles
            for k in range(6):
                cameras = [shifted[k] if r == role else current for r in range(roles)]
                J[:, 6 * role + k] = (term.errors(cameras, k1) - error) / (1e-3 * sigma[k])
        width = 1e-3 * sigma[-1]
        J[:, -1] = (term.errors([current] * roles, k1 + width) - error) / width
        return J


def unknowns_of(views: np.ndarray, count: int) -> np.ndarray:
    """Return which of ``count`` unknowns, the steps of all views and k1, belong to some views, and k1."""
    return np.append((6 * views[:, None] + np.arange(6)).ravel(), count - 1)
