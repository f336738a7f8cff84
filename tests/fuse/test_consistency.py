"""The check between views and the averaging, on exact depth that is spoiled on purpose."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from nasrecon.fuse.consistency import Comparison, compare
from nasrecon.fuse.filter import FilteredView, average_view, filter_view, first_tolerance, min_consistent_views
from nasrecon.fuse.maps import PlaneMap, Store, normals_at
from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.geometry import angle_between_deg, normals_from_depth, transform
from nasrecon.types import Camera, Estimate

from .worlds import (
    BALL,
    ROOM,
    Plane,
    lifted,
    look_at,
    render,
    ring,
    scaled,
    small_camera,
)

OPTIONS = FuseOptions()
WORLD = (BALL, *ROOM)
SLANTED = (Plane((0.3, 0.2, -np.sqrt(1 - 0.13)), -3.0),)


POOL = ThreadPoolExecutor(1)


def run(
    estimates: Sequence[Estimate],
    ref: int = 0,
    required: int = 3,
    options: FuseOptions = OPTIONS,
    stats: FilterStats | None = None,
) -> FilteredView:
    """Filter one view by both passes, compared with all others."""
    stats = stats if stats is not None else FilterStats()
    maps = [PlaneMap.of(e, options) for e in estimates]
    averaged = [
        average_view(m, [*maps[:i], *maps[i + 1 :]], required, options, stats, POOL) for i, m in enumerate(maps)
    ]
    sources = [*averaged[:ref], *averaged[ref + 1 :]]
    return filter_view(averaged[ref], sources, estimates[ref].rgb, required, options, stats, POOL)


def compared(estimates: Sequence[Estimate], ref: int = 0, options: FuseOptions = OPTIONS) -> Comparison:
    """Compare one view with all others, as they were estimated."""
    maps = [PlaneMap.of(e, options) for e in estimates]
    return compare(maps[ref], [*maps[:ref], *maps[ref + 1 :]], first_tolerance(options), FilterStats(), POOL)


def row_of_views(count: int, spacing: float = 0.25) -> list[Estimate]:
    camera = small_camera()
    xs = (np.arange(count) - (count - 1) / 2) * spacing
    return [render(SLANTED, look_at(f"{x:.2f}", (x, 0.1 * x, -0.05 * x), (0, 0, 3), camera)) for x in xs]


def test_support_counts_the_views_that_see_the_point() -> None:
    """On a plane nothing is hidden: a view sees a pixel's point where it projects into the image."""
    estimates = row_of_views(5, 0.6)
    filtered = run(estimates, ref=1, options=replace(OPTIONS, min_views=3))
    points = lifted(estimates[1])
    count, clear = np.ones(points.shape[:2], int), np.ones(points.shape[:2], bool)
    for i in (0, 2, 3, 4):
        view = estimates[i].view
        pixel = view.camera.project(transform(view.cam_from_world, points))
        inside = np.minimum(pixel, (view.camera.width, view.camera.height) - pixel).min(axis=-1)
        count += inside > 0
        clear &= np.abs(inside) > 1e-3
    assert set(np.unique(count)) >= {2, 3, 4, 5}
    support = compared(estimates, ref=1).support.reshape(count.shape)
    np.testing.assert_array_equal(support[clear], count[clear])
    np.testing.assert_array_equal((filtered.depth > 0)[clear], count[clear] >= 3)


def test_exact_depth_passes_unchanged() -> None:
    views = ring(36)
    estimates = [render(WORLD, views[i]) for i in (0, 1, 2, 35, 34)]
    filtered = run(estimates)
    kept = filtered.depth > 0
    relative = np.abs(filtered.depth - estimates[0].depth)[kept] / estimates[0].depth[kept]
    assert kept.mean() > 0.7
    # A pixel is taken as a plane; on the ball its curvature is lost.
    of_ball = np.abs(BALL.distance(lifted(estimates[0])[kept])) < 1e-3
    assert np.quantile(relative[~of_ball], 0.9) < 5e-6
    assert np.median(relative[of_ball]) < 3e-4
    assert relative.max() < 0.015
    assert np.quantile(angle_between_deg(filtered.normal[kept], estimates[0].normal[kept]), 0.95) < 1.5
    assert np.sum(filtered.normal[kept] * lifted_in_cam(estimates[0])[kept], axis=-1).max() < 0


def lifted_in_cam(estimate: Estimate) -> np.ndarray:
    return estimate.view.camera.unproject_depth(estimate.depth)


def test_planes_come_out_exact() -> None:
    """The baseline is wide: the other views' pixels lie beside the pixel's ray, on the same plane."""
    estimates = row_of_views(5, 0.5)
    filtered = run(estimates, ref=2)
    kept = filtered.depth > 0
    assert np.abs(filtered.depth / estimates[2].depth - 1)[kept].max() < 2e-5


def test_a_view_with_wrong_depth_is_dropped_and_harms_nobody() -> None:
    estimates = row_of_views(5)
    wrong = [*estimates[:4], replace(estimates[4], depth=estimates[4].depth * np.float32(1.15))]
    assert not (run(wrong, ref=4).depth > 0).any()
    filtered, clean = run(wrong, ref=1), run(estimates[:4], ref=1)
    np.testing.assert_allclose(filtered.depth, clean.depth, rtol=1e-5)
    np.testing.assert_array_equal(filtered.support, clean.support)


def test_wrong_patches_are_cut_out() -> None:
    estimates = row_of_views(5)
    depth = estimates[2].depth.copy()
    depth[30:50, 40:70] *= 0.9
    depth[80:90, 100:120] = 0
    filtered = run([*estimates[:2], replace(estimates[2], depth=depth), *estimates[3:]], ref=2)
    expected = run(estimates, ref=2).depth > 0
    expected[30:50, 40:70] = expected[80:90, 100:120] = False
    np.testing.assert_array_equal(filtered.depth > 0, expected)


def test_averaging_lowers_independent_noise_by_the_root_of_the_views() -> None:
    rng = np.random.default_rng(0)
    exact = row_of_views(9, 0.08)
    noisy = []
    for e in exact:
        coarse = rng.normal(size=(e.depth.shape[0] // 4, e.depth.shape[1] // 4)).astype(np.float32)
        noisy.append(replace(e, depth=e.depth * (1 + np.float32(0.005) * np.kron(coarse, np.ones((4, 4), np.float32)))))
    found = compared(noisy, ref=4, options=replace(OPTIONS, max_normal_angle_deg=180))
    all_agree = (found.support == 9).reshape(exact[4].depth.shape)
    before = np.std((noisy[4].depth / exact[4].depth - 1)[all_agree])
    after = np.std((1 / found.inv_depth.reshape(exact[4].depth.shape) / exact[4].depth - 1)[all_agree])
    assert all_agree.mean() > 0.5
    # 1/3 for nine independent views that count alike; those at the edge of the tolerance count less.
    assert after < 0.45 * before


def test_the_surer_view_counts_for_more() -> None:
    sure, unsure = row_of_views(2, 0.1)
    unsure = replace(unsure, depth=unsure.depth * np.float32(1.002), sigma=unsure.sigma * 10)
    for pair in ((sure, unsure), (unsure, sure)):
        found = compared(pair)
        truth = pair[0].depth.ravel() / (1.002 if pair[0] is unsure else 1)
        error = (1 / found.inv_depth / truth - 1)[found.support == 2]
        # sigma 1 % against 10 %: weights 100 to 1, so 1 % of the 0.2 % are left.
        assert np.median(error) == pytest.approx(0.002 / 101, abs=5e-6)
    doubtful = replace(unsure, sigma=sure.sigma, confidence=unsure.confidence * np.float32(0.25))
    found = compared((sure, doubtful))
    error = (1 / found.inv_depth / sure.depth.ravel() - 1)[found.support == 2]
    assert np.median(error) == pytest.approx(0.002 / 5, abs=4e-5)


def test_what_more_views_look_through_is_dropped() -> None:
    """Three views agree on a pane that floats before the wall; six others see the wall behind it."""
    estimates = row_of_views(9, 0.15)
    pane = (Plane(SLANTED[0].n, -2.0),)
    rows, columns = slice(45, 75), slice(60, 100)
    for i in (3, 4, 5):
        floating = render(pane, estimates[i].view).depth
        depth = estimates[i].depth.copy()
        depth[rows, columns] = floating[rows, columns]
        estimates[i] = replace(estimates[i], depth=depth)
    estimates = [replace(e, sigma=np.float32(0.01) * e.depth) for e in estimates]
    stats = FilterStats()
    filtered = run(estimates, ref=4, stats=stats)
    on_pane = np.zeros(filtered.depth.shape, bool)
    on_pane[rows, columns] = True
    agreed = on_pane & (compared(estimates, ref=4).support == 3).reshape(on_pane.shape)
    assert agreed.sum() > 200
    assert not (filtered.depth > 0)[agreed].any()
    assert stats.contradicted >= agreed.sum()
    # As many that look through as agree with the pixel: it stays.
    five = estimates[2:7]
    assert (run(five, ref=2).depth > 0)[agreed].mean() > 0.95
    # ... unless they are surer.
    surer = [replace(e, sigma=e.sigma * np.float32(0.5)) if i in (0, 4) else e for i, e in enumerate(five)]
    assert not (run(surer, ref=2).depth > 0)[agreed].any()


def test_normals_that_disagree_withhold_support_and_missing_ones_come_from_depth() -> None:
    estimates = row_of_views(4)
    turn = np.array([[np.cos(0.7), 0, np.sin(0.7)], [0, 1, 0], [-np.sin(0.7), 0, np.cos(0.7)]], np.float32)
    options = replace(OPTIONS, max_normal_angle_deg=30)
    full = compared(estimates, options=options).support
    turned = [*estimates[:3], replace(estimates[3], normal=estimates[3].normal @ turn)]
    missing = [*estimates[:3], replace(estimates[3], normal=np.zeros_like(estimates[3].normal))]
    away = [*estimates[:3], replace(estimates[3], normal=-estimates[3].normal)]
    np.testing.assert_array_equal(
        compared(turned, options=options).support, compared(estimates[:3], options=options).support
    )
    for replaced in (missing, away):
        assert (compared(replaced, options=options).support == full).mean() > 0.98
        assert (
            compared(replaced[::-1], options=options).support == compared(estimates[::-1], options=options).support
        ).mean() > 0.98
    assert (full > compared(turned, options=options).support).any()


def test_sure_pixels_that_nothing_contradicts_stay_with_less_support() -> None:
    """Sigma is 1 % of the depth: surer than the 3 % by which views may differ, not surer than 0.5 %."""
    estimates = row_of_views(2)
    assert (run(estimates).depth > 0).mean() > 0.99
    strict = replace(OPTIONS, max_relative_depth_error=0.005)
    assert not (run(estimates, options=strict).depth > 0).any()
    assert not (run(estimates, options=replace(OPTIONS, min_views=3)).depth > 0).any()
    # A view that contradicts the other one where both see is not believed where it alone sees.
    wrong = replace(estimates[1], depth=estimates[1].depth * np.float32(1.2))
    assert not (run([estimates[0], wrong]).depth > 0).any()


def test_a_point_behind_what_another_view_sees_is_hidden_unless_the_ray_itself_passes_through_that() -> None:
    estimates = row_of_views(5)
    nearer = [replace(e, depth=e.depth * np.float32(0.5)) for e in estimates[3:]]
    through = compared([*estimates[:3], *nearer], ref=1).visible.reshape(estimates[1].depth.shape)
    assert through.max() == 4, "the reference would see that surface: it contradicts"
    middle = estimates[3].depth.shape[1] // 2
    depth = estimates[3].depth.copy()
    depth[:, middle : middle + 2] *= np.float32(0.5)  # a post: seen from the reference it stands 8 px aside
    post = compared([estimates[1], replace(estimates[3], depth=depth)]).visible
    clear = compared([estimates[1], estimates[3]]).visible
    behind_post = (post == 0) & (clear == 1)
    assert estimates[1].depth.shape[0] <= behind_post.sum() <= 4 * estimates[1].depth.shape[0]
    behind = [replace(e, depth=e.depth * np.float32(2)) for e in estimates[3:]]
    assert compared([*estimates[:3], *behind], ref=1).visible.max() == 4


def test_unsure_pixels_neither_stay_nor_vote() -> None:
    estimates = row_of_views(4)
    confidence = estimates[3].confidence * np.float32(0.5 * OPTIONS.min_confidence)
    estimates[3] = replace(estimates[3], confidence=confidence)
    assert not run(estimates, ref=3).depth.any()
    np.testing.assert_array_equal(run(estimates).support, run(estimates[:3]).support)


def test_invalid_numbers_count_as_no_depth() -> None:
    estimates = row_of_views(4)
    depth = estimates[0].depth.copy()
    depth[10, :4] = (np.nan, np.inf, -1, 0)
    normal = np.full_like(estimates[1].normal, np.nan)
    sigma = np.full_like(estimates[2].sigma, np.inf)
    spoiled = [
        replace(estimates[0], depth=depth),
        replace(estimates[1], normal=normal),
        replace(estimates[2], sigma=sigma),
        estimates[3],
    ]
    for ref in range(4):
        filtered = run(spoiled, ref=ref)
        assert np.isfinite(filtered.depth).all()
        assert np.isfinite(filtered.normal).all()
        assert (filtered.depth > 0).any()
    assert (run(spoiled).support[10, :4] == 0).all()


@pytest.mark.parametrize("s", [1e-3, 1e3])
def test_the_unit_does_not_matter(s: float) -> None:
    rng = np.random.default_rng(1)
    estimates = [render(WORLD, view) for view in ring(16)[:5]]
    estimates = [replace(e, depth=(e.depth * rng.normal(1, 0.01, e.depth.shape)).astype(np.float32)) for e in estimates]
    small = run(estimates, ref=2)
    large = run([scaled(e, s, (3e2 * s, -50 * s, 10 * s)) for e in estimates], ref=2)
    same = (small.depth > 0) == (large.depth > 0)
    assert same.mean() > 0.999
    both = (small.depth > 0) & (large.depth > 0)
    # A pixel at the very edge of a tolerance may lose or gain a voice through rounding, hence quantiles.
    np.testing.assert_allclose(
        np.quantile(np.abs(large.depth / s / np.maximum(small.depth, 1e-9) - 1)[both], 0.99), 0, atol=1e-5
    )


def test_planes_hold_depth_and_normal_beside_the_pixel_too() -> None:
    view = look_at("a", (0, 0, 0), (0, 0, 1), small_camera())
    estimate = render(SLANTED, view)
    plane = PlaneMap.of(estimate, OPTIONS).plane
    assert not plane[-1].any()
    rng = np.random.default_rng(2)
    places = rng.uniform(0, (view.camera.width, view.camera.height), (4000, 2))
    pixel = places[:, 1].astype(int) * view.camera.width + places[:, 0].astype(int)
    found = np.sum(plane[pixel, :3] * np.c_[places, np.ones(len(places))], axis=-1)
    rays = view.camera.unproject(places, np.ones(len(places)))
    expected = rays @ (view.cam_from_world[:3, :3] @ np.array(SLANTED[0].n)) / SLANTED[0].offset
    np.testing.assert_allclose(found, expected, rtol=5e-6)
    direction = -plane[:-1, :3] @ view.camera.K
    assert angle_between_deg(direction, estimate.normal.reshape(-1, 3)).max() < 0.05


def test_normals_of_some_pixels_are_those_of_the_whole_depth_map() -> None:
    estimate = render(WORLD, ring(36)[3])
    camera, depth = estimate.view.camera, estimate.depth.copy()
    depth[np.random.default_rng(5).random(depth.shape) < 0.3] = 0
    every = normals_from_depth(depth, camera).reshape(-1, 3)
    assert 0.5 < every.any(axis=-1).mean() < 0.9
    index = np.flatnonzero(depth)
    np.testing.assert_allclose(normals_at(depth, camera, index), every[index], atol=1e-6)


def test_a_wrong_scale_of_a_source_is_taken_back_by_its_map() -> None:
    estimates = row_of_views(3)
    wrong = replace(estimates[1], depth=estimates[1].depth * np.float32(1.1))
    maps = [PlaneMap.of(e, OPTIONS) for e in (estimates[0], wrong, estimates[2])]
    maps[1] = replace(maps[1], scale=1.1)
    found = compare(maps[0], maps[1:], first_tolerance(OPTIONS), FilterStats(), POOL)
    expected = compared(estimates)
    np.testing.assert_array_equal(found.support, expected.support)
    np.testing.assert_allclose(found.inv_depth, expected.inv_depth, rtol=1e-5)
    found = compare(maps[1], [maps[0], maps[2]], first_tolerance(OPTIONS), FilterStats(), POOL)
    np.testing.assert_allclose(found.inv_depth, compared(estimates, ref=1).inv_depth, rtol=1e-5)


def test_tiny_maps_are_taken() -> None:
    camera = Camera(width=1, height=1, K=np.array([[1.0, 0, 0.5], [0, 1, 0.5], [0, 0, 1]]))
    estimates = [render(SLANTED, look_at(str(x), (x, 0, 0), (0, 0, 3), camera)) for x in (0, 0.01, 0.02)]
    assert run(estimates).support[0, 0] == 3


def test_required_support_adapts_to_what_there_is() -> None:
    free = FuseOptions()
    assert min_consistent_views(free, views=1, neighbor_count=0) == 1
    assert min_consistent_views(free, views=2, neighbor_count=1) == 2
    assert min_consistent_views(free, views=9, neighbor_count=0) == 2
    assert min_consistent_views(free, views=9, neighbor_count=1) == 2
    assert min_consistent_views(free, views=9, neighbor_count=2) == 3
    assert min_consistent_views(free, views=9, neighbor_count=8) == 3
    assert min_consistent_views(FuseOptions(min_views=5), views=2, neighbor_count=1) == 5


def test_the_store_gives_back_what_it_was_given_from_memory_and_from_its_file() -> None:
    arrays = [np.full((5, 4), i, np.float32) for i in range(9)]
    store = Store(max_bytes=4 * arrays[0].nbytes)
    for i, array in enumerate(arrays):
        store.put(i, array)
    for i in (8, 0, 3, 8, 5, 3, 1):
        np.testing.assert_array_equal(store[i], arrays[i])
