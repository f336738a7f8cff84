"""Metrics on values worked out by hand, and their laws."""

from __future__ import annotations

import numpy as np
import pytest
from plane_world import make_view, plane_depth, plane_in_cam

from nasrecon.evaluation.metrics import depth_metrics, normal_metrics, sparsification, true_normals
from nasrecon.geometry import angle_between_deg


def test_depth_metrics_by_hand():
    truth = np.array([[1.0, 2.0], [4.0, 7.0]])
    depth = np.array([[1.2, 1.0], [8.0, 0.1]])  # off by +0.2, -1, +4; ratios 1.2, 2, 2; the last does not count
    mask = np.array([[True, True], [True, False]])
    found = depth_metrics(depth, truth, mask)
    assert found == pytest.approx(
        {
            "abs_rel": (0.2 + 0.5 + 1.0) / 3,
            "abs_diff": (0.2 + 1 + 4) / 3,
            "sq_rel": (0.04 + 0.5 + 4) / 3,
            "rmse": ((0.04 + 1 + 16) / 3) ** 0.5,
            "rmse_log": ((np.log(1.2) ** 2 + 2 * np.log(2) ** 2) / 3) ** 0.5,
            "delta_1": 1 / 3,
            "delta_2": 1 / 3,
            "delta_3": 1 / 3,
        }
    )
    near = np.array([[1.0, 1.5, 1.9, 2.0]])  # thresholds 1.25, 1.5625, 1.953
    found = depth_metrics(near, np.ones((1, 4)), np.ones((1, 4), bool))
    assert [found[f"delta_{k}"] for k in (1, 2, 3)] == [0.25, 0.5, 0.75]


def test_depth_metrics_know_no_unit():
    draw = np.random.default_rng(0)
    truth, depth = draw.uniform(1, 5, (2, 6, 7))
    mask = truth > 2
    small, large = depth_metrics(depth, truth, mask), depth_metrics(1000 * depth, 1000 * truth, mask)
    for metric, value in small.items():
        factor = 1000 if metric in ("abs_diff", "sq_rel", "rmse") else 1
        assert large[metric] == pytest.approx(factor * value), metric


def test_normal_metrics_by_hand():
    angles = np.radians([[0, 10, 20, 25, 40, 60]])
    truth = np.broadcast_to([0.0, 0, -1], (1, 6, 3))
    normal = 3 * np.stack([np.sin(angles), 0 * angles, -np.cos(angles)], axis=-1)  # their length does not matter
    mask = np.array([[True] * 5 + [False]])
    assert normal_metrics(normal, truth, mask) == pytest.approx(
        {"mean_deg": 19, "median_deg": 20, "below_11.25_pct": 40, "below_22.5_pct": 60, "below_30_pct": 80}
    )


@pytest.mark.parametrize("vector", [(0, 0, 0), (np.nan, 0, -1), (0, np.inf, -1)])
def test_a_normal_that_is_none_is_no_good_one(vector):
    found = normal_metrics(np.full((1, 1, 3), vector), np.array([[[0.0, 0, -1]]]), np.ones((1, 1), bool))
    assert found["mean_deg"] == 90 and found["below_30_pct"] == 0


def test_true_normals_of_a_plane_are_exact_and_stand_millimetres():
    view = make_view("a", 160, 120, 140, (4, -7, 2), (0.1, 0, 0))
    depth = plane_depth(view)
    expected = plane_in_cam(view)[0]
    normal, smooth = true_normals(depth, view.camera)
    inside = np.zeros_like(smooth)
    inside[3:-3, 3:-3] = True
    assert (smooth == inside).all() and (normal[~smooth] == 0).all()
    assert angle_between_deg(normal[smooth], expected).max() < 1e-3
    stored = np.round(depth * 1000) / 1000
    normal, smooth = true_normals(stored, view.camera)
    # A millimetre at 3 units is 3e-4 of the depth; over 7 px of 1/140 each the slope is off by less than half a degree.
    assert (smooth == inside).all() and angle_between_deg(normal[smooth], expected).max() < 0.5


def test_rough_truth_and_holes_have_no_normals():
    view = make_view("a", 60, 50, 50, (0, 0, 0), (0, 0, 0))
    depth = np.full((50, 60), 2.0)
    depth[:, 30:] = 2.2  # a step of 10 %
    depth[10, 10] = 0
    _, smooth = true_normals(depth, view.camera)
    expected = np.zeros_like(smooth)
    expected[3:-3, 3:-3] = True
    expected[:, 27:33] = False
    expected[7:14, 7:14] = False
    assert (smooth == expected).all()


def test_sparsification_by_hand():
    """Twenty pixels: each is 5 % of them, and one step of the curve."""
    error = np.arange(20.0)
    perfect = sparsification(error, -error)
    # Left after removing the k largest: 0 ... 19 - k, mean (19 - k) / 2; over k = 0 ... 19 that is 4.75 on average.
    assert perfect == pytest.approx({"ause": 0, "aurg": 9.5 - 4.75})
    worst = sparsification(error, error)
    # Left after removing the k smallest: k ... 19, mean (19 + k) / 2.
    assert worst == pytest.approx({"ause": 14.25 - 4.75, "aurg": 9.5 - 14.25})


def test_sparsification_does_not_ask_for_the_order_of_equals():
    """A confidence that says nothing gains nothing, wherever the errors are."""
    error = np.arange(1000.0)
    for order in (error, error[::-1]):
        flat = sparsification(order, np.full(1000, 0.7))
        assert flat["aurg"] == pytest.approx(0) and flat["ause"] == pytest.approx(sparsification(error, -error)["aurg"])
    draw = np.random.default_rng(0)
    error, coarse = draw.uniform(size=500), draw.integers(0, 3, 500)
    shuffled = draw.permutation(500)
    assert sparsification(error, coarse) == pytest.approx(sparsification(error[shuffled], coarse[shuffled]))
    assert sparsification(np.array([2.0]), np.array([1.0])) == {"ause": 0, "aurg": 0}
