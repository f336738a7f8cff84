"""Merging points that fall into one cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nasrecon.fuse.filter import FilteredView
from nasrecon.fuse.o3d import nearest_distance
from nasrecon.fuse.point_kernel import COLUMNS, find_keys
from nasrecon.fuse.points import _HASH, PointMerger
from nasrecon.geometry import angle_between_deg
from nasrecon.types import Estimate

from .test_consistency import row_of_views, run
from .worlds import Plane, lifted, look_at, render, small_camera

WALL = (Plane((0.2, -0.1, -np.sqrt(0.95)), -3.0),)


def filtered(estimate: Estimate, support: int = 3, sigma: float = 0.01) -> FilteredView:
    size = estimate.depth.shape
    return FilteredView(
        view=estimate.view,
        depth=estimate.depth,
        normal=estimate.normal,
        support=np.full(size, support, np.int32),
        sigma=np.full(size, sigma, np.float32),
        rgb=estimate.rgb,
    )


def wall_view(x: float = 0.0) -> Estimate:
    return render(WALL, look_at(f"{x}", (x, 0.05, 0), (0.2, 0, 3), small_camera()))


def test_small_cells_keep_every_pixel_where_it_is() -> None:
    estimate = wall_view()
    merger = PointMerger(1e-4, np.array([0.1, 0.2, 3]))
    merger.add(filtered(estimate, sigma=2e-5))
    cloud = merger.cloud("mm")
    truth = lifted(estimate).reshape(-1, 3)
    assert cloud.unit == "mm"
    assert len(cloud) == len(truth)
    # Positions are 32-bit numbers of cells from the origin, here up to 2e4: good to a hundredth of a cell.
    assert max(nearest_distance(cloud.xyz, truth).max(), nearest_distance(truth, cloud.xyz).max()) < 1e-6
    assert angle_between_deg(cloud.normal, np.array(WALL[0].n)).max() < 0.01


def test_the_same_view_again_adds_no_point() -> None:
    estimate = wall_view()
    once, thrice = PointMerger(0.05, np.zeros(3)), PointMerger(0.05, np.zeros(3))
    once.add(filtered(estimate, support=3))
    for support in (3, 5, 4):
        thrice.add(filtered(estimate, support=support))
    a, b = once.cloud(), thrice.cloud()
    np.testing.assert_allclose(b.xyz, a.xyz, atol=1e-5)
    np.testing.assert_allclose(b.rgb.astype(int), a.rgb, atol=1)
    assert (a.support == 3).all()
    assert (b.support == 5).all()


def test_a_cell_holds_one_point() -> None:
    merger = PointMerger(0.07, np.array([0.3, 0.2, 0.1]))
    for x in (0, 0.4, -0.3):
        merger.add(filtered(wall_view(x)))
    cloud = merger.cloud()
    # Points in the margin of a cell may change cells through rounding, so compare those clear of it.
    place = (cloud.xyz - (0.3, 0.2, 0.1)) / 0.07
    clear = (np.abs(place - np.round(place)) > 1e-3).all(axis=1)
    cells = np.floor(place[clear]).astype(int)
    assert len(np.unique(cells, axis=0)) == len(cells)
    assert np.abs(WALL[0].distance(cloud.xyz)).max() < 1e-5


def test_merging_is_a_weighted_mean() -> None:
    near = render(WALL, look_at("a", (0, 0, 0), (0, 0, 3), small_camera(4, 3, focal=1e4)))
    far = replace(near, depth=near.depth + np.float32(0.01), rgb=255 - near.rgb)
    merger = PointMerger(1.0, np.array([0.5, 0.5, 0.5]))
    merger.add(filtered(near, sigma=0.01))
    merger.add(filtered(far, sigma=0.01 * 3**0.5))
    cloud = merger.cloud()
    assert len(cloud) == 1
    # Pixels are far smaller than the cell: of 16 x 16 one is taken. Weights are inverse variances: 3 to 1.
    share = 0.75
    both = np.stack([lifted(near)[0, 0], lifted(far)[0, 0]])
    np.testing.assert_allclose(cloud.xyz[0], share * both[0] + (1 - share) * both[1], atol=1e-5)
    expected = share * near.rgb[0, 0] + (1 - share) * far.rgb[0, 0]
    np.testing.assert_allclose(cloud.rgb[0], expected, atol=0.51)


def test_opposite_normals_of_a_thin_sheet_do_not_cancel() -> None:
    front = render((Plane((0, 0, -1), -3.0),), look_at("a", (0, 0, 0), (0, 0, 3), small_camera()))
    back = render((Plane((0, 0, 1), 3.0),), look_at("b", (0, 0, 6), (0, 0, 3), small_camera()))
    merger = PointMerger(0.1, np.array([0.013, 0.017, 0.05]))
    merger.add(filtered(front))
    merger.add(filtered(back))
    cloud = merger.cloud()
    np.testing.assert_allclose(np.linalg.norm(cloud.normal, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.abs(cloud.normal[:, 2]), 1, atol=1e-4)


def test_merging_in_another_order_gives_the_same_points_in_the_same_order() -> None:
    views = [wall_view(x) for x in np.linspace(-0.5, 0.5, 6)]
    clouds = []
    for order in (views, views[::-1]):
        merger = PointMerger(0.03, np.zeros(3))
        for view in order:
            merger.add(filtered(view))
        clouds.append(merger.cloud())
    assert len(clouds[0]) == len(clouds[1])
    np.testing.assert_allclose(clouds[0].xyz, clouds[1].xyz, atol=1e-5)
    assert np.abs(clouds[0].rgb.astype(int) - clouds[1].rgb).max() <= 1


def keys_of(place: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Return the keys of points at places (n, 3) [cells] with a sigma of half a cell."""
    points, keys = np.zeros((len(place), COLUMNS), np.float32), np.empty(len(place), np.int64)
    points[:, :3], points[:, 3:6], points[:, 9] = place, normal, 4
    find_keys(points, 1.5, 16.0, _HASH, keys)
    return keys


def test_keys_are_those_of_the_cells_also_far_out() -> None:
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(-30, 30, (20000, 3)), axis=0)
    far = np.unique(rng.integers(-(10**5), 10**5, (200_000, 3)), axis=0)
    for c in (cells, far):
        normal = rng.normal(size=c.shape)
        keys = keys_of(c + 0.5, normal)
        assert len(np.unique(keys)) == len(c)
        np.testing.assert_array_equal(keys_of(c + rng.uniform(0.01, 0.99, c.shape), normal), keys)


def test_layers_within_the_depths_errors_become_one_and_sure_ones_stay_two() -> None:
    wall = (Plane((0, 0, -1), -3.0),)
    near = render(wall, look_at("a", (0, 0, 0), (0, 0, 3), small_camera()))
    far = replace(near, depth=near.depth + np.float32(0.05))
    clouds = []
    for sigma in (0.005, 0.1):
        merger = PointMerger(0.03, np.zeros(3))
        merger.add(filtered(near, sigma=sigma))
        merger.add(filtered(far, sigma=sigma))
        clouds.append(merger.cloud())
    sure, unsure = clouds
    assert set(np.unique(sure.xyz[:, 2].round(3))) == {3.0, 3.05}
    # At the picture's border a cell may hold a pixel of one layer only.
    assert np.mean(np.abs(unsure.xyz[:, 2] - 3.025) < 0.02) > 0.95
    assert len(unsure) < 0.6 * len(sure)
    np.testing.assert_allclose(unsure.sigma, 0.1, rtol=1e-3)
    np.testing.assert_allclose(sure.sigma, 0.005, rtol=1e-3)


def test_no_points_make_an_empty_cloud() -> None:
    merger = PointMerger(0.1, np.zeros(3))
    estimate = wall_view()
    merger.add(filtered(replace(estimate, depth=np.zeros_like(estimate.depth))))
    cloud = merger.cloud()
    assert len(cloud) == 0
    assert cloud.xyz.shape == (0, 3)


def test_sigma_falls_with_the_views_in_the_first_pass_and_by_half_the_variance_in_the_second() -> None:
    """The averages share their views: averaging them once more adds little."""
    estimates = [replace(e, sigma=np.float32(0.03) * e.depth) for e in row_of_views(9, 0.05)]
    filtered = run(estimates, ref=4)
    everywhere = filtered.support == 9
    assert everywhere.mean() > 0.5
    share = np.median(filtered.sigma[everywhere] / filtered.depth[everywhere])
    assert share == pytest.approx(0.03 * (2 / 9) ** 0.5 * 0.5**0.5, rel=0.03)
