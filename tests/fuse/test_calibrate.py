"""Scales of the views' depths, found from the views themselves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nasrecon.fuse.calibrate import PlaneSamples, choose_pairs, pair_offsets, sigma_scales, view_scales
from nasrecon.fuse.fusion import fuse_estimates
from nasrecon.fuse.maps import PlaneMap
from nasrecon.fuse.options import FuseOptions
from nasrecon.fuse.pair_equations import PairEquations
from nasrecon.types import Estimate

from .worlds import BALL, ROOM, distance, render, ring

WORLD = (BALL, *ROOM)
VIEWS = 14


@pytest.fixture(scope="module")
def estimates() -> list[Estimate]:
    return [render(WORLD, view) for view in ring(VIEWS)]


def scales(estimates: list[Estimate]) -> np.ndarray:
    samples = [PlaneSamples.of(PlaneMap.of(e, FuseOptions())) for e in estimates]
    near = [[j for k in (1, -1, 2, -2) if (j := (i + k) % len(estimates)) != i] for i in range(len(estimates))]
    return view_scales(pair_offsets(samples, near), len(estimates))


def scaled_depth(estimate: Estimate, factor: float) -> Estimate:
    return replace(estimate, depth=estimate.depth * np.float32(factor))


def test_exact_depths_keep_their_scale(estimates: list[Estimate]) -> None:
    np.testing.assert_allclose(scales(estimates), 1, atol=2e-3)


def test_views_whose_depths_are_scaled_are_found(estimates: list[Estimate]) -> None:
    factors = np.ones(VIEWS)
    factors[[3, 8]] = 1.03, 0.96
    found = scales([scaled_depth(e, f) for e, f in zip(estimates, factors, strict=True)])
    np.testing.assert_allclose(1 / found, factors, atol=6e-3)


def test_an_error_that_all_views_have_shows_where_they_stand_apart(estimates: list[Estimate]) -> None:
    """On a ring around the room the same wall is seen from near and from far."""
    found = scales([scaled_depth(e, 1.02) for e in estimates])
    assert np.abs(1 / found - 1.02).max() < 6e-3


def test_fusing_scaled_depths_gives_the_surface_and_names_the_view(estimates: list[Estimate]) -> None:
    spoiled = [*estimates[:5], scaled_depth(estimates[5], 1.05), *estimates[6:]]
    fusion = fuse_estimates(spoiled, mesh=False)
    assert fusion.stats.scales[estimates[5].view.name] == pytest.approx(1 / 1.05, abs=8e-3)
    assert np.quantile(distance(WORLD, fusion.cloud.xyz), 0.95) < 0.02


def test_pairs_are_neighbours_and_a_bounded_number_of_others() -> None:
    near = [[(i + 1) % 300] for i in range(300)]
    pairs = choose_pairs(near)
    assert all((i, near[i][0]) in pairs for i in range(300))
    assert max(np.bincount([i for i, _ in pairs])) <= 44
    assert not any(i == j for i, j in pairs)


def test_one_view_has_nothing_to_compare_with(estimates: list[Estimate]) -> None:
    assert scales(estimates[:1]).tolist() == [1.0]


def test_sigma_that_the_differences_contradict_is_scaled_up(estimates: list[Estimate]) -> None:
    rng = np.random.default_rng(0)

    def scales_of(noise: float, sigma: float) -> np.ndarray:
        noisy = []
        for e in estimates:
            depth = (e.depth * (1 + rng.normal(0, noise, e.depth.shape))).astype(np.float32)
            noisy.append(replace(e, depth=depth, sigma=sigma * e.depth))
        samples = [PlaneSamples.of(PlaneMap.of(e, FuseOptions())) for e in noisy]
        near = [[(i + k) % VIEWS for k in (1, -1)] for i in range(VIEWS)]
        return sigma_scales(pair_offsets(samples, near), VIEWS)

    np.testing.assert_allclose(scales_of(0.02, 0.02), 1, atol=0.3)
    np.testing.assert_allclose(scales_of(0.02, 0.005), 4, rtol=0.3)
    assert (scales_of(0.005, 0.03) == 1).all()


def test_equations_of_pairs_are_those_of_their_dense_rows() -> None:
    draw = np.random.default_rng(0)
    source, ref = draw.permuted(np.tile(np.arange(6), (20, 1)), axis=1)[:, :2].T
    gain, weight, a = draw.uniform(0.5, 2, 20), draw.uniform(1, 9, 20), draw.normal(size=6)
    rows = np.zeros((20, 6))
    rows[np.arange(20), source], rows[np.arange(20), ref] = gain, -1
    pairs = PairEquations(source, ref, gain, 6)
    np.testing.assert_allclose(pairs.information(weight), rows.T @ (weight[:, None] * rows))
    np.testing.assert_allclose(pairs.right_side(weight), rows.T @ weight)
    np.testing.assert_allclose(pairs.differences(a), rows @ a)
