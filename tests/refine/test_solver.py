"""The noise of matches is estimated; what matches do not see is taken from the poses given."""

from __future__ import annotations

import numpy as np
from check.seen import POINTS, bent_path, seen_by

from nasrecon.geometry import inverse
from nasrecon.refine.camera_steps import scale_cameras, step_cameras, steps_between
from nasrecon.refine.solver import Problem
from refine.test_poses import shaken


def test_the_noise_of_matches_is_estimated() -> None:
    true = bent_path()
    given = shaken(true, 0.004, 0.02)
    found = [Problem(given, seen_by(true, POINTS, noise_px=px)).solve(0.01).noise_px for px in (0.15, 0.6)]
    # Of Cauchy's scale, and across one axis of the pixels: about 0.6 of the standard deviation.
    assert 0.07 < found[0] < 0.15 and 0.28 < found[1] < 0.6


def test_frame_and_unit_are_the_likeliest_under_the_poses_given() -> None:
    """Poses far off, held by a wide prior: what matches do not see is not left where the search began or ended."""
    true = bent_path()
    given = shaken(true, 0.02, 0.1, seed=2)
    problem = Problem(given, seen_by(true, POINTS, noise_px=0.3))
    refined = step_cameras(problem.given.cam_from_world, problem.solve(0.1).steps)
    centers = [inverse(T)[:, :3, 3] for T in (problem.given.cam_from_world, refined)]
    a, b = (c - c.mean(axis=0) for c in centers)
    assert abs((a * b).sum() / (b * b).sum() - 1) < 1e-3
    np.testing.assert_allclose(centers[0].mean(axis=0), centers[1].mean(axis=0), atol=1e-6)


def test_steps_between_cameras_are_those_that_were_made() -> None:
    given = np.array([view.cam_from_world for view in bent_path().views])
    steps = np.random.default_rng(0).normal(size=(9, 6)) * 0.3
    np.testing.assert_allclose(steps_between(given, step_cameras(given, steps)), steps, atol=1e-12)
    np.testing.assert_allclose(steps_between(given, given), 0, atol=1e-12)


def test_depths_scale_with_the_places_of_cameras() -> None:
    given = np.array([view.cam_from_world for view in bent_path().views])
    centers, scaled = (inverse(T)[:, :3, 3] for T in (given, scale_cameras(given, 1.3)))
    np.testing.assert_allclose(scaled - centers.mean(axis=0), 1.3 * (centers - centers.mean(axis=0)), atol=1e-12)
    np.testing.assert_allclose(scale_cameras(given, 1.3)[:, :3, :3], given[:, :3, :3], atol=0)
