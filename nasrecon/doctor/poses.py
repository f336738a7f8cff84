"""Poses that are a little off, as trackers and hand-eye calibrations leave them: refined by the matches, as far as these tell.

Each pose gets a small turn and a small move such that matches come to lie on their epipolar lines, against a prior that
holds it where it was given. How far poses are off is not known beforehand: of several sizes of the prior the one is
taken under which the matches are likeliest as a whole (empirical Bayes, Laplace's approximation), so that good poses
stay. Lengths of baselines cannot be seen in matches of two images: the prior keeps them, and with them the unit. What
is left of lens distortion is fitted beside the poses, so that they do not bend to make up for it, and then forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from nasrecon.doctor.fit import Cameras, Observations
from nasrecon.doctor.matches import Matches, Progress, match_pairs, signed_epipolar_error
from nasrecon.geometry import inverse, rotation_angle_deg, rotation_from_vector
from nasrecon.ingest.neighbors import source_scores
from nasrecon.types import Scene

# Poses are changed only where matches are off by so much [searched px], and by so many times what refined poses leave.
LEAST_OFF_PX, LEAST_TIMES = 0.7, 2.0
# The matches of a single pair leave much open; what they ask for need not be right although they fit. Its poses are
# given room for turns of so much [rad], whatever fewer would do, and depth is estimated under those given, too: the two
# span what is open.
PAIR_TURN = 1e-2

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
# Up to EXHAUSTIVE_UP_TO views all pairs are matched; of more, each view with the next and with its NEIGHBORS best
# sources.
EXHAUSTIVE_UP_TO, NEIGHBORS = 16, 8


@dataclass(frozen=True, kw_only=True, eq=False)
class RefinedPoses:
    """What came of it.

    Attributes:
        scene: with the refined poses, and those given beside them (``View.given_cam_from_world``).
        turn_rad: by how much the poses were taken to be off, the best of ``TURNS``, of a pair ``PAIR_TURN`` or more.
        turned_deg, moved: (N,) by how much each view was turned [degrees] and moved [scene units].
        before_px, after_px: median distance of the matches to their epipolar lines [px of the images]; NaN without
            matches.
        pairs: how many were used.
        changed: whether the matches ask for other poses; otherwise the scene is as it was given.
    """

    scene: Scene
    turn_rad: float
    turned_deg: np.ndarray
    moved: np.ndarray
    before_px: float
    after_px: float
    pairs: int
    changed: bool

    def in_words(self) -> str:
        """Say what was done, one line for people."""
        if not self.changed:
            return "poses as given: the matches ask for no others"
        some = self.moved > 0
        pairs = "1 pair" if self.pairs == 1 else f"{self.pairs} pairs"
        return (
            f"poses refined by the matches of {pairs}: {int(some.sum())} views turned by "
            f"{np.median(self.turned_deg[some]):.2g} degrees and moved by {np.median(self.moved[some]):.2g}"
            f"{'' if self.scene.unit == 'unknown' else ' ' + self.scene.unit} (median); epipolar error "
            f"{self.before_px:.2f} px before, {self.after_px:.2f} px after"
            f"{'; a pair cannot tell for certain, depth is estimated under the poses given, too' if len(some) == 2 else ''}"
        )


def refine_scene(scene: Scene, progress: Progress | None = None) -> RefinedPoses:
    """Match the images of a scene and refine its poses by that.

    Args:
        scene: as ``open_scene`` made it.
        progress: called with what is done, and how many of how many.
    """
    return refine_poses(scene, match_pairs(scene, _pairs_to_match(scene), progress))


def _pairs_to_match(scene: Scene) -> set[tuple[int, int]]:
    count = len(scene.views)
    if count <= EXHAUSTIVE_UP_TO:
        return set(combinations(range(count), 2))
    pairs = {(i, i + 1) for i in range(count - 1)}
    for i in range(count):
        scores = source_scores(scene, i)
        best = np.argsort(-scores, kind="stable")[:NEIGHBORS]
        pairs |= {(min(i, j), max(i, j)) for j in best.tolist() if scores[j] > 0}
    return pairs


def refine_poses(scene: Scene, matches: Matches) -> RefinedPoses:
    """Refine the poses of a scene by the matches of its images; views without matches, and all K, stay as they are.

    Args:
        scene: its cameras have the sizes of the images.
        matches: from ``match_scene``, of this scene.
    """
    problem = _Problem(scene, matches)
    nothing = np.zeros((len(scene.views), 6))
    if not len(problem) or not problem.depth > 0:  # nothing to go by: no matches, or all cameras at one place
        still = np.zeros(len(nothing))
        return RefinedPoses(
            scene=scene, turn_rad=TURNS[0], turned_deg=still, moved=still, before_px=np.nan, after_px=np.nan,
            pairs=0, changed=False,
        )  # fmt: skip
    solutions = [problem.solve(turn) for turn in TURNS]
    best = min(solutions, key=lambda solution: solution.evidence)
    asked_for, pair = best.turn_rad > TURNS[0], len(scene.views) == 2
    if pair:
        best = min((s for s in solutions if s.turn_rad >= PAIR_TURN), key=lambda solution: solution.evidence)
    before, after = (float(np.median(np.abs(problem.errors(steps)))) for steps in (nothing, best.steps))
    changed = asked_for and before >= max(LEAST_OFF_PX, 0 if pair else LEAST_TIMES * after)
    steps = best.steps if changed else nothing
    px = float(np.median(problem.seen.px))
    given = problem.given.cam_from_world
    new = _stepped(given, steps)
    views = [
        replace(view, cam_from_world=T, given_cam_from_world=view.cam_from_world)
        for view, T in zip(scene.views, new, strict=True)
    ]
    return RefinedPoses(
        scene=scene.replace_views(views) if changed else scene,
        turn_rad=best.turn_rad,
        turned_deg=rotation_angle_deg(rotation_from_vector(steps[:, :3])),
        moved=np.linalg.norm(inverse(new)[:, :3, 3] - inverse(given)[:, :3, 3], axis=1),
        before_px=before * px,
        after_px=(after if changed else before) * px,
        pairs=len(problem),
        changed=changed,
    )


def _stepped(cam_from_world: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Turn and move cameras (N, 4, 4) by steps (N, 6) in their own frames: turn [rad], move [scene units]."""
    out = cam_from_world.copy()
    R = rotation_from_vector(steps[:, :3])
    out[:, :3, :3] = R @ cam_from_world[:, :3, :3]
    out[:, :3, 3] = (R @ cam_from_world[:, :3, 3:])[..., 0] + steps[:, 3:]
    return out


@dataclass(frozen=True, kw_only=True, eq=False)
class _Solution:
    """Steps (N, 6) under one prior, and minus the logarithm of the evidence for that."""

    turn_rad: float
    steps: np.ndarray
    evidence: float


class _Problem:
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
        T = _stepped(self.given.cam_from_world, steps)
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

    def solve(self, turn: float) -> _Solution:
        """Find the likeliest steps where poses are off by ``turn`` [rad] and the move that goes with it."""
        count = len(self.given.cam_from_world)
        sigma = np.append(np.tile([turn] * 3 + [turn * MOVE_FOR_TURN * self.depth] * 3, count), DISTORTION)
        found = np.zeros(len(sigma))
        for noise in (*NOISE_AT_START_PX, NOISE_PX):
            found, cost, H = self._descend(found, sigma, noise, rounds=40 if noise == NOISE_PX else 12)
        evidence = cost + 0.5 * float(np.linalg.slogdet(H * sigma[:, None] * sigma)[1]) + turn / MEAN_TURN
        return _Solution(turn_rad=turn, steps=found[:-1].reshape(count, 6), evidence=evidence)

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
        here = _stepped(T, steps)
        J = np.empty((len(error), 13))
        for k in range(6):
            width = 1e-3 * sigma[k]
            there = _stepped(T, steps + width * np.eye(6)[k])
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
