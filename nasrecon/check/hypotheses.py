"""Hypotheses about the cameras of a whole set, each a list of fixes, tried against the matches.

The cameras as given win unless a hypothesis is better by far (``MIN_GAIN``) for most pairs, puts the points before
the cameras, and leaves a median error of at most 8 px. Of hypotheses that do about equally well the first in the
list is taken: they are in the order of how often people meet them, and those that have a number to fit come last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from nasrecon.check.camera_edits import natural_order, with_order
from nasrecon.check.hypothesis_test import (
    FEW_PAIRS,
    MIN_GAIN_PX,
    WORST_ACCEPTED_PX,
    Hypothesis,
    Outcome,
    evaluate_hypothesis,
    is_significantly_better,
    thin_matches,
)
from nasrecon.check.order import MAX_VIEWS, matched_order
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays, Residuals
from nasrecon.types import Scene

# Hypotheses do equally well within this share and so many pixels.
ABOUT_EQUAL = 1.2


ABOUT_EQUAL_PX = 0.1


# Cameras whose error is within this factor of that of the matches themselves leave nothing to fit.
AS_GOOD_AS_MATCHES = 1.6


# K of other image sizes is looked for between these factors; common factors are preferred to fitted ones.
SCALES = (1 / 8, 8.0)


COMMON_SCALES = (
    1 / 8,
    1 / 6,
    1 / 5,
    1 / 4,
    0.3,
    1 / 3,
    0.4,
    0.5,
    0.6,
    2 / 3,
    0.75,
    0.8,
    1.25,
    4 / 3,
    1.5,
    5 / 3,
    2.0,
    2.5,
    3.0,
    10 / 3,
    4.0,
    5.0,
    6.0,
    8.0,
)


# An order is off by no more than WIDEST_STEP, and by one for every so many views: the views at the end are lost by it.
WIDEST_STEP, VIEWS_A_STEP = 3, 5


def conventions(scene: Scene) -> list[Hypothesis]:
    """Return hypotheses about the transforms; names say how this scene was read."""
    inverted = scene.origin.pose_convention == "world-from-cam"
    other = "cam-from-world" if inverted else "world-from-cam"
    axes, have, taken = (
        ("opencv-axes", "OpenCV", "OpenGL") if scene.origin.axes == "OpenGL" else ("opengl-axes", "OpenGL", "OpenCV")
    )
    turned = f"the poses are {other.replace('-', '_')}, and were read the other way round"
    flipped = f"the cameras have {have} axes, and were read as {taken}'s"
    hypotheses = [
        Hypothesis(name=other, what=turned, fixes=(other,)),
        Hypothesis(name=axes, what=flipped, fixes=(axes,)),
        Hypothesis(name=f"{other}+{axes}", what=f"{turned}; besides, {flipped}", fixes=(other, axes)),
    ]
    for order, wrong in (("x y z w", "w x y z"), ("w x y z", "x y z w")):
        name = f"quaternion-{order.replace(' ', '')}"
        what = f"the quaternions are {order}, and were read as {wrong}"
        sides = ("", "=world-from-cam")
        for side in reversed(sides) if inverted else sides:
            hypotheses.append(Hypothesis(name=name, what=what, fixes=(name + side,)))
    return [
        *hypotheses,
        Hypothesis(
            name="transposed-rotations",
            what="the rotations are transposed (the translations are not)",
            fixes=("transposed-rotations",),
        ),
        Hypothesis(
            name="camera-centers",
            what="the translations are the cameras' positions, beside rotations of cam_from_world",
            fixes=("camera-centers",),
        ),
    ]


def orders(scene: Scene) -> list[Hypothesis]:
    """Return hypotheses about the order of the images, made from the names alone."""
    count = len(scene.views)
    says = "the images are in another order than the poses"
    hypotheses = [Hypothesis(name="order", what=f"{says}: reversed", fixes=("order=reversed",))]
    if natural_order(scene) != list(range(count)):
        what = f"{says}: those are in the order of numbers (2 before 10), these of letters"
        hypotheses.append(Hypothesis(name="order", what=what, fixes=("order=natural",)))
    for step in range(1, min(WIDEST_STEP, max(1, count // VIEWS_A_STEP)) + 1):
        for sign in "-+":
            what = f"{says}: off by {step}"
            hypotheses.append(Hypothesis(name="order", what=what, fixes=(f"order={sign}{step}",)))
    return hypotheses


def intrinsics(scene: Scene) -> list[Hypothesis]:
    """Return hypotheses about K without a fitted number; nothing if lens distortion was removed with it."""
    if any(view.image.lens is not None for view in scene.views):
        return []
    return [
        Hypothesis(name="swap-principal-point", what="cx and cy are exchanged", fixes=("swap-principal-point",)),
        Hypothesis(name="swap-focal-lengths", what="fx and fy are exchanged", fixes=("swap-focal-lengths",)),
        Hypothesis(
            name="principal-point",
            what="the principal point is not where K has it, but at the centre",
            fixes=("principal-point=center",),
        ),
    ]


def fitted_intrinsics(scene: Scene, matches: Matches) -> list[Hypothesis]:
    """Return hypotheses about K with the numbers that fit the matches best."""
    if any(view.image.lens is not None for view in scene.views) or len(matches.pairs) < FEW_PAIRS:
        return []
    arrays, cameras = thin_matches(matches), Cameras.of(scene)
    camera = scene.views[0].camera
    return [
        *(_sized(scene, factor) for factor in _scales(arrays, cameras, camera.K, camera.width, camera.height)),
        _moved(_best_shift(arrays, cameras, camera.width)),
        _refocused(_best_factor(lambda factor: arrays.median(_focal(cameras, factor)))),
    ]


def _sized(scene: Scene, factor: float) -> Hypothesis:
    camera = scene.views[0].camera
    size = f"{camera.width / factor:.6g}x{camera.height / factor:.6g}"
    what = f"K belongs to images of another size (about {size}; these are {camera.width}x{camera.height})"
    return Hypothesis(name="k-size", what=what, fixes=(f"k-size={size}",))


def _moved(shift: np.ndarray) -> Hypothesis:
    what = f"the principal point is off: it fits best moved by ({shift[0]:.1f}, {shift[1]:.1f}) px"
    return Hypothesis(name="principal-point", what=what, fixes=(f"principal-point={shift[0]:.1f},{shift[1]:.1f}",))


def _refocused(factor: float) -> Hypothesis:
    what = f"the focal lengths are off by a factor of {1 / factor:.3g} (not those of this lens, or of this camera)"
    return Hypothesis(name="focal-length", what=what, fixes=(f"focal-scale={factor:.4g}",))


def _scaled(cameras: Cameras, factor: float) -> Cameras:
    return replace(cameras, K=np.diag([factor, factor, 1.0]) @ cameras.K)


def _focal(cameras: Cameras, factor: float) -> Cameras:
    K = cameras.K.copy()
    K[:, [0, 0, 1], [0, 1, 1]] *= factor
    return replace(cameras, K=K)


def _scales(arrays: MatchArrays, cameras: Cameras, K: np.ndarray, width: int, height: int) -> list[float]:
    """Return factors for K, likely ones first: those that make (2 cx, 2 cy) the size, common ones, the best fit."""

    def error(factor):
        return arrays.median(_scaled(cameras, factor))

    fitted = _best_factor(error)
    centered = [side / (2 * center) for side, center in ((width, K[0, 2]), (height, K[1, 2])) if center > 0]
    if len(centered) == 2 and abs(np.log(centered[0] / centered[1])) < 0.02:
        centered = [float(np.mean(centered))]
    near = [factor for factor in (*centered, *COMMON_SCALES) if abs(np.log(factor / fitted)) < 0.05]
    return [*near, fitted]


def _best_factor(error: Callable[[float], float]) -> float:
    """Return the factor in ``SCALES`` of least error: the best of a grid, then of finer ones about it."""
    factors = np.geomspace(*SCALES, 49)
    for _ in range(4):
        best = factors[int(np.argmin([error(float(factor)) for factor in factors]))]
        step = factors[1] / factors[0]
        factors = best * np.geomspace(1 / step, step, 9)
    return float(best)


def _best_shift(arrays: MatchArrays, cameras: Cameras, width: int) -> np.ndarray:
    """Return by how much [px] to move all principal points for the least error, up to 0.4 widths."""
    best, reach = np.zeros(2), 0.4 * width
    for _ in range(9):
        grid = [best + reach * np.array([x, y]) for x in np.linspace(-1, 1, 5) for y in np.linspace(-1, 1, 5)]
        best = min([best, *grid], key=lambda shift: arrays.median(shifted(cameras, shift)))
        reach *= 0.5
    return best


def shifted(cameras: Cameras, shift: np.ndarray) -> Cameras:
    """Return the cameras with all principal points moved by ``shift`` (2,) [px]."""
    K = cameras.K.copy()
    K[:, :2, 2] += shift
    return replace(cameras, K=K)


def best_hypothesis(scene: Scene, matches: Matches, given: Residuals, quick: bool = False) -> Outcome | None:
    """Return the hypothesis that explains the set, or None if the cameras stand as given.

    Args:
        scene, matches: the set. given: how well it fits as it is.
        quick: leave out the hypotheses that take long (the order found from the images).
    """
    if given.median_px <= MIN_GAIN_PX:
        return None  # nothing can gain that much
    noise_px = MatchArrays(matches).noise_px
    groups: list[Callable[[], list[Hypothesis]]] = [
        lambda: [*conventions(scene), *intrinsics(scene), *orders(scene)],
        lambda: fitted_intrinsics(scene, matches),
    ]
    better: list[Outcome] = []
    for group in groups:
        tried = [evaluate_hypothesis(scene, matches, hypothesis) for hypothesis in group()]
        better += [one for one in tried if one is not None and is_significantly_better(one, given, matches)]
        if any(one.residuals.median_px <= AS_GOOD_AS_MATCHES * noise_px for one in better):
            break  # numbers that are fitted could not do better
    many = len(matches.pairs) >= FEW_PAIRS and len(scene.views) <= MAX_VIEWS
    if not better and not quick and many and given.median_px > WORST_ACCEPTED_PX / 2:
        better += _reordered(scene, matches, given)
    if not better:
        return None
    least = min(one.residuals.median_px for one in better)
    return next(one for one in better if one.residuals.median_px <= ABOUT_EQUAL * least + ABOUT_EQUAL_PX)


def _reordered(scene: Scene, matches: Matches, given: Residuals) -> list[Outcome]:
    order = matched_order(scene, matches)
    changed = sum(i != k for i, k in enumerate(order))
    what = f"the images are in another order than the poses ({changed} of {len(order)} are elsewhere)"
    repaired = with_order(scene, order)
    residuals = MatchArrays(matches).evaluate(Cameras.of(repaired))
    hypothesis = Hypothesis(name="order", what=what, fixes=("order=matched",))
    one = Outcome(hypothesis=hypothesis, scene=repaired, matches=matches, residuals=residuals)
    return [one] if is_significantly_better(one, given, matches) else []
