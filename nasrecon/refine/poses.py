"""Poses that are a little off, as trackers and hand-eye calibrations leave them: refined by the matches, as far as
these tell.

Each pose gets a small turn and a small move such that matches come to lie on their epipolar lines, against a prior that
holds it where it was given. How far poses are off is not known beforehand: of several sizes of the prior the one is
taken under which the matches are likeliest as a whole (empirical Bayes, Laplace's approximation), so that good poses
stay; the noise of the matches is estimated with it. Lengths of baselines cannot be seen in matches of two images:
features of three views tie them to each other, and the prior keeps their unit. The lens distortion k1 is a nuisance
parameter: estimated jointly, then discarded. Refined poses that the matches do not support are rejected
(``acceptance.py``); the depths of three or four views are scaled towards those of the poses given (``SAME_SCALE``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from nasrecon.geometry import inverse, rotation_angle_deg, rotation_from_vector
from nasrecon.matching.features import FeatureStore
from nasrecon.matching.match_scene import match_pairs
from nasrecon.matching.matches import Matches
from nasrecon.matching.pairs import pairs_to_refine
from nasrecon.progress import Progress
from nasrecon.refine.acceptance import reason_to_reject
from nasrecon.refine.camera_steps import scale_cameras, step_cameras, steps_between
from nasrecon.refine.solver import FEW_VIEWS, TURNS, Problem, Solution
from nasrecon.refine.terms import InverseDepth
from nasrecon.types import Scene

# Poses are changed where matches are off by OFF_TIMES what refined poses leave (median), without what the lens
# explains. Three or four views hold each other less: FEW_OFF_TIMES, and FEW_ERROR_PX [searched px]; of a pair,
# FEW_ERROR_PX alone.
OFF_TIMES, FEW_OFF_TIMES, FEW_ERROR_PX = 1.2, 2.0, 0.7


# The matches of a single pair leave much open; what they ask for need not be right although they fit. Its poses are
# given room for turns of so much [rad], whatever fewer would do, and depth is estimated under those given, too: the two
# span what is open.
PAIR_TURN = 1e-2


# The poses of more than ``FEW_VIEWS`` views are held by each other. Their prior is made so many times wider than the
# likeliest one: few errors are Gauss's, and the prior would pull those that are far off to where they were given. It is
# chosen by at most MATCHES_FOR_PRIOR matches of a pair.
LOOSER, MATCHES_FOR_PRIOR = 3.0, 40


# The matches of three or four views determine the scale of depths no better than the poses given do where the two
# differ by a factor of exp(SAME_SCALE) or less: errors of lens, shutter and clock are in every match. The scale is then
# their geometric mean. A larger difference means that the poses given are off.
SAME_SCALE = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class RefinedPoses:
    """Result of pose refinement.

    Attributes:
        scene: with the refined poses, where ``changed``.
        turn_rad: by how much the poses were taken to be off, the best of ``TURNS``, of a pair ``PAIR_TURN`` or more.
        turned_deg, moved: (N,) by how much each view was turned [degrees] and moved [scene units].
        before_px, after_px: median distance of the matches to their epipolar lines [px of the images]; NaN without
            matches.
        pairs: how many were used.
        changed: whether the matches ask for other poses; otherwise the scene is as it was given.
        rejected_because: why refined poses were not taken (``acceptance.py``); "" where they were, or were not needed.
    """

    scene: Scene
    turn_rad: float
    turned_deg: np.ndarray
    moved: np.ndarray
    before_px: float
    after_px: float
    pairs: int
    changed: bool
    rejected_because: str = ""

    def in_words(self) -> str:
        """Say what was done, one line for people."""
        if self.rejected_because:
            return f"poses as given: refined ones are not taken, because {self.rejected_because}"
        if not self.changed:
            return "poses as given: the matches ask for no others"
        some = self.moved > 0
        pairs = "1 pair" if self.pairs == 1 else f"{self.pairs} pairs"
        return (
            f"poses refined by the matches of {pairs}: {int(some.sum())} views turned by "
            f"{np.median(self.turned_deg[some]):.2g} degrees and moved by {np.median(self.moved[some]):.2g}"
            f"{'' if self.scene.unit == 'unknown' else ' ' + self.scene.unit} (median); epipolar error "
            f"{self.before_px:.2f} px before, {self.after_px:.2f} px after"
            + ("; depth is estimated under the given poses as well" if len(some) == 2 else "")
        )


def refine_scene(scene: Scene, progress: Progress | None = None, store: FeatureStore | None = None) -> RefinedPoses:
    """Match the images of a scene and refine its poses by that.

    Args:
        scene: as ``open_scene`` made it.
        progress: receives the reports.
        store: features and matches that are known already.
    """
    return refine_poses(scene, match_pairs(scene, pairs_to_refine(scene), progress, store))


def refine_poses(scene: Scene, matches: Matches) -> RefinedPoses:
    """Refine the poses of a scene by the matches of its images; views without matches, and all K, stay as they are.

    Args:
        scene: its cameras have the sizes of the images.
        matches: from ``match_scene``, of this scene.
    """
    problem = Problem(scene, matches)
    nothing = np.zeros((len(scene.views), 6))
    if not len(problem) or not problem.depth > 0:  # nothing to go by: no matches, or all cameras at one place
        still = np.zeros(len(nothing))
        return RefinedPoses(
            scene=scene, turn_rad=TURNS[0], turned_deg=still, moved=still, before_px=np.nan, after_px=np.nan,
            pairs=0, changed=False,
        )  # fmt: skip
    best, asked_for = _solved(problem, matches, scene)
    without_lens = np.append(best.parameters[:-1], 0.0)
    before, after = (
        float(np.median(np.abs(problem.residuals(problem.epipolar, parameters))))
        for parameters in (0 * best.parameters, without_lens)
    )
    changed = asked_for and before >= _least_error(len(scene.views), after)
    reason = reason_to_reject(problem, best) if changed else ""
    changed = changed and not reason
    steps = _at_shared_scale(problem, best) if changed else nothing
    image_px_per_feature_px = float(np.median(problem.arrays.image_px_per_feature_px))
    given = problem.given.cam_from_world
    new = step_cameras(given, steps)
    views = [replace(view, cam_from_world=T) for view, T in zip(scene.views, new, strict=True)]
    return RefinedPoses(
        scene=scene.replace_views(views) if changed else scene,
        turn_rad=best.turn_rad,
        turned_deg=rotation_angle_deg(rotation_from_vector(steps[:, :3])),
        moved=np.linalg.norm(inverse(new)[:, :3, 3] - inverse(given)[:, :3, 3], axis=1),
        before_px=before * image_px_per_feature_px,
        after_px=(after if changed else before) * image_px_per_feature_px,
        pairs=len(problem),
        changed=changed,
        rejected_because=reason,
    )


def _solved(problem: Problem, matches: Matches, scene: Scene) -> tuple[Solution, bool]:
    """Return the solution that poses are taken from, and whether the matches ask for other poses than those given.

    The prior of many views is chosen by a part of the matches; more tell the same of it and take longer.
    """
    views = len(scene.views)
    part = Problem(scene, matches, most=MATCHES_FOR_PRIOR) if views > FEW_VIEWS else problem
    solutions = [part.solve(TURNS[0])]
    for turn in TURNS[1:]:
        solutions.append(part.solve(turn, solutions[-1]))
        if views > 2 and solutions[-1].evidence > solutions[-2].evidence:
            break
    best = min(solutions, key=lambda solution: solution.evidence)
    asked_for = best.turn_rad > TURNS[0]
    if views == 2:
        best = min((s for s in solutions if s.turn_rad >= PAIR_TURN), key=lambda solution: solution.evidence)
    elif asked_for and views > FEW_VIEWS:
        best = problem.solve(LOOSER * best.turn_rad, best)
    return best, asked_for


def _at_shared_scale(problem: Problem, solution: Solution) -> np.ndarray:
    """Return the steps (N, 6) of a solution [rad, scene units].

    Those of three or four views scale depths to the geometric mean with the poses given (``SAME_SCALE``).
    """
    given = problem.given.cam_from_world
    if not 2 < len(given) <= FEW_VIEWS:
        return solution.steps
    term = InverseDepth(problem.arrays, problem.given.K)
    before, after = (problem.residuals(term, x) for x in (np.zeros_like(solution.parameters), solution.parameters))
    both = (before > 0) & (after > 0)
    apart = float(np.median(np.log(after[both] / before[both]))) if both.any() else np.inf
    if abs(apart) > SAME_SCALE:
        return solution.steps
    return steps_between(given, scale_cameras(step_cameras(given, solution.steps), math.exp(apart / 2)))


def _least_error(views: int, after: float) -> float:
    """Return what matches must be off by [searched px] for poses to be changed that leave ``after`` [searched px]."""
    if views == 2:
        return FEW_ERROR_PX
    return max(FEW_ERROR_PX, FEW_OFF_TIMES * after) if views <= FEW_VIEWS else OFF_TIMES * after
