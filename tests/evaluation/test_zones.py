"""Zones, thin structures and intervals on drawn scenes whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from plane_world import make_view

from nasrecon.evaluation.metrics import coverage
from nasrecon.evaluation.zones import (
    EDGE_PX,
    THIN_PX,
    ZONES,
    flat_texture,
    found_thin,
    near_edge,
    seen_by_a_source,
    thin_structures,
    zone_errors,
    zone_masks,
)
from nasrecon.types import Camera, View

H, W, FOCAL = 96, 128, 100.0


def camera_at(x: float, turn_deg: float = 0.0) -> View:
    """A view without skew at (x, 0, 0), turned about the vertical."""
    view = make_view("v", W, H, FOCAL, (0, turn_deg, 0), (x, 0, 0))
    return replace(view, camera=Camera(width=W, height=H, K=[[FOCAL, 0, W / 2], [0, FOCAL, H / 2], [0, 0, 1]]))


def test_an_edge_reaches_eight_pixels_and_ignores_holes() -> None:
    truth = np.full((H, W), 2.0)
    truth[:, 64:] = 3.0
    near = near_edge(truth)
    columns = np.flatnonzero(near.any(axis=0))
    assert (columns[0], columns[-1]) == (63 - EDGE_PX, 64 + EDGE_PX) and near[:, columns].all()
    # A sensor's shadow of 6 px at the jump: the two sides are neighbours still.
    truth[:, 61:67] = 0
    columns = np.flatnonzero(near_edge(truth).any(axis=0))
    assert (columns[0], columns[-1]) == (60 - EDGE_PX, 67 + EDGE_PX)
    assert not near_edge(np.where(np.arange(W) < 64, 2.0, 2.08) * np.ones((H, 1))).any()  # 4 %
    single = np.full((H, W), 2.0)
    single[40, 50] = 1.0
    away = np.hypot(*(np.mgrid[:H, :W] - np.array([40, 50])[:, None, None]))
    disc = near_edge(single)
    assert disc[away <= EDGE_PX].all() and not disc[away > EDGE_PX + 1].any()


def test_flat_texture_is_low_deviation() -> None:
    rng = np.random.default_rng(0)
    grey = np.full((H, W), 120.0)
    grey[:, :64] += rng.normal(size=(H, 64)) * 2.0  # 0.8 % of the range
    grey[:, 64:] += rng.normal(size=(H, 64)) * 12.0
    flat = flat_texture(np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=-1))
    assert flat[:, :60].all() and not flat[:, 68:].any()


def test_outside_is_beyond_the_image_or_hidden_in_all_sources() -> None:
    """A wall at 4; sources 0.8 to the right and left see 20 columns less each; a post at 2 hides in one."""
    ref, correct, left = camera_at(0.0), camera_at(0.8), camera_at(-0.8)
    wall = np.full((H, W), 4.0)
    seen = seen_by_a_source(ref, wall, [(correct, None)])
    assert seen[:, 20:].all() and not seen[:, :20].any()
    assert seen_by_a_source(ref, wall, [(correct, None), (left, None)]).all()
    behind = camera_at(0.0, 180.0)
    assert not seen_by_a_source(ref, wall, [(behind, None)]).any()
    # In the source on the right the post covers columns 60 to 70: the wall there is at 80 to 90 in the reference.
    hidden = wall.copy()
    hidden[:, 60:70] = 2.0
    seen = seen_by_a_source(ref, wall, [(correct, hidden)])
    assert not seen[:, 80:90].any() and seen[:, 91:].all() and seen[:, 20:79].all()
    assert seen_by_a_source(ref, wall, [(correct, hidden), (left, None)])[:, 80:90].all()


def test_zones_are_disjoint_in_their_order_and_scored_apart() -> None:
    ref, source = camera_at(0.0), camera_at(0.8)
    truth = np.full((H, W), 4.0)
    truth[:, 100:] = 6.0
    truth[:5] = 0
    rgb = np.random.default_rng(0).integers(0, 255, (H, W, 3)).astype(np.uint8)
    rgb[:, :80] = 90
    masks = zone_masks(rgb, ref, truth, [(source, None)])
    assert tuple(masks) == ZONES
    assert (sum(mask.astype(int) for mask in masks.values()) == (truth > 0)).all()
    at = {name: set(np.flatnonzero(mask[50])) for name, mask in masks.items()}
    assert at["outside"] == set(range(20)) and at["edge"] == set(range(99 - EDGE_PX, 100 + EDGE_PX + 1))
    assert at["flat"] >= set(range(20, 76)) and at["rest"] >= set(range(109, W))
    error = np.select([masks["outside"], masks["edge"], masks["flat"]], [0.4, 0.3, 0.2], 0.1)
    scores = zone_errors(error, truth > 0, masks)
    assert [scores[name] for name in ZONES] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert scores["outside_share"] == pytest.approx(20 / W) and scores["edge_share"] == pytest.approx(18 / W)
    assert sum(scores[f"{name}_share"] for name in ZONES) == pytest.approx(1)
    mean = sum(scores[name] * scores[f"{name}_share"] for name in ZONES)
    assert mean == pytest.approx(error[truth > 0].mean())
    nothing = zone_errors(error, (truth == 6.0), masks)
    assert nothing["outside_share"] == 0 and "outside" not in nothing


def test_thin_structures_are_what_holds_no_square() -> None:
    columns = np.arange(W)
    truth = np.full((H, W), 4.0) + columns * 0.002  # a slanted wall is not thin
    truth[:, 20:26] = 2.0  # a post of 6 px
    truth[:, 50 : 50 + THIN_PX] = 2.0  # one of 12 px: wide
    truth[30:34, 80:] = 3.0  # a rail of 4 px that leaves the image
    truth[:, W - 5 :] = 2.5  # cut by the image border: how wide it is is unknown
    truth[60:66] = 8.0  # a slot in the wall is not foreground
    thin, surroundings = thin_structures(truth)
    expected = np.zeros((H, W), dtype=bool)
    expected[:, 20:26] = True
    expected[30:34, 80 : W - 5] = True
    expected[60:66] = False
    assert (thin[:58] == expected[:58]).all() and not thin[60:66].any()
    # The opening never makes surroundings nearer than they are: the slanted wall's far side of the post.
    assert np.allclose(surroundings[:50, 20:26], 4.0 + 26 * 0.002, atol=0.02)

    depth = np.where(thin, 2.0, truth)
    assert found_thin(depth, truth, surroundings)[:58, 20:26].all()
    for off, found in ((1.09, True), (1.11, False)):
        assert (found_thin(off * truth, truth, surroundings)[:50, 20:26] == found).all()
    # 6 % nearer than the wall: half-way is 3 %, whatever the 10 % allow.
    near = np.full((H, W), 4.0)
    near[:, 40:44] = 4.0 / 1.06
    thin, surroundings = thin_structures(near)
    assert thin[:, 40:44].all() and thin.sum() == 4 * H
    assert found_thin(near * 1.02, near, surroundings)[:, 40:44].all()
    assert not found_thin(near * 1.04, near, surroundings)[:, 40:44].any()


def test_holes_beside_thin_things_belong_to_what_is_behind() -> None:
    truth = np.full((H, W), 4.0)
    truth[:, 40:46] = 2.0
    truth[:, 30:40] = 0  # the shadow of a sensor's projector
    thin, _ = thin_structures(truth)
    assert thin[:, 40:46].all() and thin.sum() == 6 * H
    assert not thin_structures(np.zeros((H, W)))[0].any()


def test_coverage_of_laplace_intervals() -> None:
    sigma = np.random.default_rng(0).uniform(1, 3, 20000)
    error = np.abs(sigma * np.random.default_rng(1).laplace(scale=0.5**0.5, size=20000))
    found = coverage(error, sigma)
    assert list(found) == ["within_50_pct", "within_90_pct"]
    # The standard deviations of the shares are 0.35 and 0.2 %.
    assert found["within_50_pct"] == pytest.approx(50, abs=1.4) and found["within_90_pct"] == pytest.approx(90, abs=0.9)
    assert coverage(np.array([0.48, 0.50, 1.6, 1.7]), np.ones(4)) == {"within_50_pct": 25, "within_90_pct": 75}
