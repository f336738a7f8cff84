"""Cameras against matches that are exact: what is right has no error, what is behind is known to be."""

from __future__ import annotations

import numpy as np
import pytest
from check.seen import POINTS, bent_path, seen_by
from plane_world import make_view

from nasrecon.check.camera_edits import with_order
from nasrecon.check.fixes import apply_fixes
from nasrecon.check.order import matched_order
from nasrecon.check.outlier_views import wrong_views
from nasrecon.check.principal_point import fit_center_shift
from nasrecon.geometry import transform
from nasrecon.matching.residuals import WORST_PX, Cameras, MatchArrays
from nasrecon.types import Scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return bent_path()


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return POINTS


def test_exact_cameras_have_no_error_and_exact_depths(scene: Scene, points: np.ndarray) -> None:
    seen = MatchArrays(seen_by(scene, points))
    fit = seen.evaluate(Cameras.of(scene))
    assert fit.median_px < 1e-9 and fit.error_px.max() < 1e-6 and fit.cheirality_share == fit.depth_agreement == 1
    depths, sound = seen.depths(Cameras.of(scene))
    assert sound.mean() > 0.9
    first = np.repeat(seen.first, 60)
    true = np.array([transform(scene.views[i].cam_from_world, points)[:, 2] for i in range(9)])
    np.testing.assert_allclose(depths[sound, 0], true[first, seen.ids[:, 0].astype(int)][sound], rtol=1e-6)


def test_the_error_is_the_distance_to_the_epipolar_line(scene: Scene, points: np.ndarray) -> None:
    """A pixel moved across its line by d is off by d / sqrt(2) in Sampson's sense where both lines are as steep."""
    matches = seen_by(scene.subset([0, 1]), points)
    noisy = seen_by(scene.subset([0, 1]), points, noise_px=0.5)
    exact, off = (MatchArrays(m).evaluate(Cameras.of(scene.subset([0, 1]))).error_px for m in (matches, noisy))
    assert exact.max() < 1e-6
    # Noise of sigma on four numbers leaves |N(0, sigma)| to first order: the median of that is 0.67 sigma.
    assert 0.5 * 0.4 < np.median(off) < 0.5 * 0.95


def test_the_error_of_a_view_is_that_of_its_matches(scene: Scene, points: np.ndarray) -> None:
    """A camera that is turned a little is off in all of its pairs, another in one of eight."""
    seen = MatchArrays(seen_by(scene, points))
    turned = Cameras.of(scene)
    turned.cam_from_world[4, :3, 3] += (0, 0.02, 0)
    errors = seen.median_by_view(seen.evaluate(turned))
    assert sorted(errors) == list(range(9)) and errors[4] > 0.5
    assert all(error < 1e-6 for view, error in errors.items() if view != 4)


def test_points_behind_the_cameras_count_as_far_off(scene: Scene, points: np.ndarray) -> None:
    seen = MatchArrays(seen_by(scene, points))
    mirrored = Cameras.of(scene)
    mirrored.cam_from_world[:, :3, 3] *= -1  # turns every baseline round: the same epipolar lines
    fit = seen.evaluate(mirrored)
    assert fit.cheirality_share == 0 and fit.median_px == WORST_PX


def test_without_a_baseline_a_match_has_one_place(scene: Scene, points: np.ndarray) -> None:
    seen = MatchArrays(seen_by(scene, points))
    still = Cameras.of(scene)
    still.cam_from_world[:, :3, 3] = -still.cam_from_world[:, :3, :3] @ (5, -6, 7)
    fit = seen.evaluate(still)
    assert fit.tested == 0 and fit.median_px > 5
    turning = scene.replace_views(
        [make_view(v.name, 640, 480, 500, (0, 3 * (i - 4), 0), (0, 0, 0)) for i, v in enumerate(scene.views)]
    )
    assert MatchArrays(seen_by(turning, points)).evaluate(Cameras.of(turning)).median_px < 1e-9


def test_a_shuffled_set_is_put_in_order(scene: Scene, points: np.ndarray) -> None:
    matches = seen_by(scene, points, noise_px=0.3)
    shuffled = np.random.default_rng(5).permutation(9).tolist()
    found = matched_order(with_order(scene, shuffled), matches)
    assert [shuffled[k] for k in found] == list(range(9))


def test_pairs_vote_for_the_wrong_views_only(scene: Scene, points: np.ndarray) -> None:
    matches = seen_by(scene, points, noise_px=0.3)
    sound = MatchArrays(matches).evaluate(Cameras.of(scene))
    assert wrong_views(matches, sound) == []
    cameras = Cameras.of(scene)
    for i in (2, 6):
        turned = make_view("x", 8, 8, 5, (7, 9, 3), (0, 0, 0)).cam_from_world
        cameras.cam_from_world[i] = turned @ cameras.cam_from_world[i]
    assert sorted(wrong_views(matches, MatchArrays(matches).evaluate(cameras))) == [2, 6]


def test_half_a_pixel_is_fitted_with_its_uncertainty(scene: Scene, points: np.ndarray) -> None:
    many = np.random.default_rng(1).uniform([-1, -0.8, 3], [1, 0.8, 7], size=(400, 3))
    matches = seen_by(scene, many, noise_px=0.1)
    fitted = fit_center_shift(apply_fixes(scene, ["principal-point=0.5,-0.3"]), matches)
    assert fitted.sigma.max() < 0.15
    assert (np.abs(fitted.shift - (-0.5, 0.3)) < 4 * fitted.sigma + 0.01).all()
    assert fit_center_shift(scene.subset([0, 1]), seen_by(scene.subset([0, 1]), points)) is None
