"""Levenberg-Marquardt on pose corrections under a prior, with the evidence for the prior's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nasrecon.geometry import inverse, rotation_from_vector
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, Observations, signed_epipolar_error
from nasrecon.types import Scene

# Standard deviations of the turns that are tried [rad]; under the least, poses stay as they were given. Their own prior
# is exponential with that mean: a single pair must not be explained by poses that are far off.
TURNS, MEAN_TURN = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), 5e-3


# A pose that is off by a turn of 1 rad is off by a move of so many scene depths.
MOVE_FOR_TURN = 0.5


# Radial distortion that is left over: k1 for radii in focal lengths, one for all cameras.
DISTORTION = 0.03


# What a match is off by under true cameras [searched px], and what the estimate starts from where poses are far off.
NOISE_PX, NOISE_AT_START_PX = 0.7, (8.0, 3.0, 1.5)


# Matches of a pair share the errors of lens and shutter: together they weigh no more than so many independent ones.
INDEPENDENT = 40.0


LEAST_MATCHES = 15


# Matches of a pair that are used: so many, and of many pairs fewer, MOST_IN_ALL together.
MOST_MATCHES, FEWEST_MATCHES, MOST_IN_ALL = 120, 20, 40_000


def step_cameras(cam_from_world: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Turn and move cameras (N, 4, 4) by steps (N, 6) in their own frames: turn [rad], move [scene units]."""
    out = cam_from_world.copy()
    R = rotation_from_vector(steps[:, :3])
    out[:, :3, :3] = R @ cam_from_world[:, :3, :3]
    out[:, :3, 3] = (R @ cam_from_world[:, :3, 3:])[..., 0] + steps[:, 3:]
    return out


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution:
    """Steps (N, 6) under one prior, and minus the logarithm of the evidence for that."""

    turn_rad: float
    steps: np.ndarray
    evidence: float


class Problem:
    """The matches, each pair thinned, and the priors."""

    def __init__(self, scene: Scene, matches: Matches) -> None:
        usable = [p for p, pair in enumerate(matches.pairs) if pair.count >= LEAST_MATCHES]
        most = MOST_IN_ALL // max(len(usable), 1)
        self.seen = Observations(matches, usable, most=min(max(most, FEWEST_MATCHES), MOST_MATCHES))
        self.given = Cameras.of(scene)
        self._known: tuple[float, np.ndarray, np.ndarray] | None = None
        self.depth = self._scene_depth()
        counts = np.bincount(self.seen.pair, minlength=len(self.seen))
        self.share = np.minimum(1.0, INDEPENDENT / np.maximum(counts, 1))[self.seen.pair]

    def __len__(self) -> int:
        return len(self.seen)

    def _scene_depth(self) -> float:
        """Return how far things are, roughly [scene units]; where poses are so bad that nothing tells, the baselines."""
        depths = self.seen.depths(self.given)[0]
        positive = depths[(depths > 0).all(axis=1)]
        centers = inverse(self.given.cam_from_world)[:, :3, 3]
        return float(np.median(positive)) if len(positive) else float(np.linalg.norm(np.ptp(centers, axis=0)))

    def errors(self, steps: np.ndarray, k1: float = 0.0) -> np.ndarray:
        """Return the signed distances (M,) [searched px] of the matches to their epipolar lines after steps (N, 6)."""
        T = step_cameras(self.given.cam_from_world, steps)
        return self._errors_between(T, T, k1)

    def _errors_between(self, first: np.ndarray, second: np.ndarray, k1: float) -> np.ndarray:
        """Return them if the first views of the pairs had the transforms ``first`` (N, 4, 4), and the second ``second``."""
        seen = self.seen
        relative = second[seen.second] @ inverse(first[seen.first])
        x, y, z = np.moveaxis(relative[:, :3, 3], -1, 0)
        nothing = np.zeros_like(x)
        cross = np.stack([nothing, -z, y, z, nothing, -x, -y, x, nothing], axis=-1).reshape(-1, 3, 3)
        to_ray = np.linalg.inv(self.given.K)
        F = np.swapaxes(to_ray[seen.second], -1, -2) @ cross @ relative[:, :3, :3] @ to_ray[seen.first]
        return signed_epipolar_error(F[seen.pair], *self._straight(k1)) / seen.px[seen.pair]

    def _straight(self, k1: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels of the matches (M, 2) without a radial distortion: r, in focal lengths, becomes r / (1 + k1 r^2)."""
        if self._known is None or self._known[0] != k1:
            pixels = []
            for views, at in ((self.seen.first, self.seen.x), (self.seen.second, self.seen.y)):
                K = self.given.K[views[self.seen.pair]]
                radius = (at - K[:, :2, 2]) / K[:, [0, 1], [0, 1]]
                pixels.append(K[:, :2, 2] + (at - K[:, :2, 2]) / (1 + k1 * (radius**2).sum(-1, keepdims=True)))
            self._known = (k1, *pixels)
        return self._known[1:]

    def solve(self, turn: float) -> Solution:
        """Find the likeliest steps where poses are off by ``turn`` [rad] and the move that goes with it."""
        count = len(self.given.cam_from_world)
        sigma = np.append(np.tile([turn] * 3 + [turn * MOVE_FOR_TURN * self.depth] * 3, count), DISTORTION)
        found = np.zeros(len(sigma))
        for noise in (*NOISE_AT_START_PX, NOISE_PX):
            found, cost, H = self._descend(found, sigma, noise, rounds=40 if noise == NOISE_PX else 12)
        evidence = cost + 0.5 * float(np.linalg.slogdet(H * sigma[:, None] * sigma)[1]) + turn / MEAN_TURN
        return Solution(turn_rad=turn, steps=found[:-1].reshape(count, 6), evidence=evidence)

    def _descend(
        self, found: np.ndarray, sigma: np.ndarray, noise: float, rounds: int
    ) -> tuple[np.ndarray, float, np.ndarray]:
        """Levenberg and Marquardt's steps on Cauchy's robust loss, from ``found`` (6N + 1,): steps, then k1.

        Returns where it ends, the cost there and the last Hessian.
        """
        damping = 1e-3

        def cost_of(found: np.ndarray) -> tuple[float, np.ndarray]:
            error = self.errors(found[:-1].reshape(-1, 6), found[-1])
            robust = (self.share * 2 * np.log1p((error / noise) ** 2 / 4)).sum()
            return float(robust + 0.5 * ((found / sigma) ** 2).sum()), error

        cost, error = cost_of(found)
        for _ in range(rounds):
            weight = self.share / (1 + (error / noise) ** 2 / 4) / noise**2
            H, g = self._normal_equations(found, sigma, error, weight)
            for _ in range(8):
                step = np.linalg.solve(H + damping * np.diag(np.diag(H)), g)
                new_cost, new_error = cost_of(found - step)
                if new_cost <= cost:
                    break
                damping *= 5
            else:
                break
            gain, found, cost, error = cost - new_cost, found - step, new_cost, new_error
            damping = max(damping / 5, 1e-9)
            if gain < 1e-5 * max(1.0, cost):
                break
        return found, cost, H

    def _normal_equations(
        self, found: np.ndarray, sigma: np.ndarray, error: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the Hessian (6N + 1, 6N + 1) and the gradient (6N + 1,) of the cost.

        A match depends on the poses of its two views and on k1: each has 13 derivatives.
        """
        steps, k1, T = found[:-1].reshape(-1, 6), found[-1], self.given.cam_from_world
        here = step_cameras(T, steps)
        J = np.empty((len(error), 13))
        for k in range(6):
            width = 1e-3 * sigma[k]
            there = step_cameras(T, steps + width * np.eye(6)[k])
            J[:, k] = (self._errors_between(there, here, k1) - error) / width
            J[:, 6 + k] = (self._errors_between(here, there, k1) - error) / width
        width = 1e-3 * sigma[-1]
        J[:, 12] = (self._errors_between(here, here, k1 + width) - error) / width
        H, g = np.diag(1 / sigma**2), found / sigma**2
        last = np.full(len(self.seen), len(found) - 1)[:, None]
        which = np.concatenate(
            [6 * self.seen.first[:, None] + np.arange(6), 6 * self.seen.second[:, None] + np.arange(6), last], axis=1
        )
        for p, own in enumerate(self.seen.own):
            weighted = J[own] * weight[own, None]
            H[np.ix_(which[p], which[p])] += weighted.T @ J[own]
            g[which[p]] += weighted.T @ error[own]
        return H, g
