"""Depth ranges from sparse points, from a sweep of photographs with known depth, or from cameras alone; in any unit."""

from __future__ import annotations

from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
from ingest import worlds

from nasrecon.errors import InputError
from nasrecon.geometry import rotation_from_quaternion, transform
from nasrecon.scene.depth_range import MIN_POINTS, depth_range_source, unseen_share, with_depth_ranges
from nasrecon.scene.source_views import sees, select_source_views
from nasrecon.scene.sweep import sweep, thumbnail
from nasrecon.types import ImageSource, Scene


def sparse_scene(count: int = 300) -> Scene:
    scene = worlds.small_scene()
    points = np.random.default_rng(4).uniform([-1.5, -1, 2.5], [1.5, 1.2, 4.5], (count, 3))
    visible = tuple(np.flatnonzero(sees(view, points)) for view in scene.views)
    return replace(scene, points_in_world=points, visible=visible)


def point_depths(scene: Scene, i: int) -> np.ndarray:
    return transform(scene.views[i].cam_from_world, scene.points_in_world[scene.visible[i]])[:, 2]


def test_sparse_points_set_near_below_them_and_far_beyond() -> None:
    scene = with_depth_ranges(sparse_scene())
    assert depth_range_source(scene) == "sparse points (5 of 5 views)"
    for i, view in enumerate(scene.views):
        near, far = view.depth_range
        depths = point_depths(scene, i)
        assert 0.6 * depths.min() < near < 0.9 * depths.min()
        assert depths.max() < far < 1.6 * depths.max()


def test_a_few_wrong_points_do_not_draw_near_in() -> None:
    scene = sparse_scene()
    clean = with_depth_ranges(scene)
    points, visible = scene.points_in_world.copy(), scene.visible
    for i, view in enumerate(scene.views):  # 2 % of each view's points, 5 cm before the lens
        at = np.flatnonzero(visible[i])[: max(1, len(visible[i]) // 50)]
        lifted = np.tile([0.0, 0.0, 0.05], (len(at), 1))
        points = np.concatenate([points, transform(view.world_from_cam, lifted)])
        visible = tuple(
            np.concatenate([own, np.arange(len(points) - len(at), len(points))]) if j == i else own
            for j, own in enumerate(visible)
        )
    wrong = with_depth_ranges(replace(scene, points_in_world=points, visible=visible))
    for found, true in zip(wrong.views, clean.views, strict=True):
        assert found.depth_range[0] > 0.5 * true.depth_range[0]


def test_points_that_only_others_saw_count_too() -> None:
    scene = sparse_scene()
    depths = point_depths(scene, 0)
    far_half = scene.visible[0][depths > np.median(depths)]
    partial = with_depth_ranges(replace(scene, visible=(far_half, *scene.visible[1:])))
    assert partial.views[0].depth_range[0] < 0.9 * depths.min()


def test_a_views_own_near_points_count_however_many_others_lie_behind() -> None:
    scene = sparse_scene()
    depths = point_depths(scene, 0)
    crowd = transform(scene.views[0].world_from_cam, np.tile([0.0, 0.0, 8.0], (200 * len(depths), 1)))
    crowded = replace(scene, points_in_world=np.concatenate([scene.points_in_world, crowd]))
    assert with_depth_ranges(crowded).views[0].depth_range[0] < 0.9 * depths.min()


def test_min_depth_overrides_and_a_range_that_was_read_stays() -> None:
    scene = sparse_scene()
    given = with_depth_ranges(scene, min_depth=0.7)
    assert {view.depth_range for view in given.views} == {(0.7, 0.7 * 64)}
    assert "0.7" in depth_range_source(given)
    first = replace(scene.views[0], depth_range=(1.0, 9.0))
    mixed = with_depth_ranges(scene.replace_views([first, *scene.views[1:]]))
    assert mixed.views[0].depth_range == (1.0, 9.0)
    assert depth_range_source(mixed) == "as read (1 of 5 views); sparse points (4 of 5 views)"
    assert [view.depth_range_from for view in mixed.views] == ["as read", *["sparse points"] * 4]
    assert depth_range_source(with_depth_ranges(mixed)) == depth_range_source(mixed)
    assert {view.depth_range_from for view in given.views} == {"min_depth as given (0.7)"}
    for bad in (0, -1, np.nan, np.inf):
        with pytest.raises(InputError, match="min_depth must be positive"):
            with_depth_ranges(scene, min_depth=bad)
    assert depth_range_source(scene) == "not known yet"


def turned(view, degrees: float):
    """The view turned about its y axis: to its right, by that much."""
    half = np.radians(degrees) / 2
    cam_from_world = view.cam_from_world.copy()
    cam_from_world[:3] = rotation_from_quaternion(np.array([np.cos(half), 0, -np.sin(half), 0])) @ cam_from_world[:3]
    return replace(view, cam_from_world=cam_from_world)


def test_near_leaves_room_where_no_other_view_looks() -> None:
    """The same points; but the others have turned away from half of the image, where something near may stand."""
    scene = worlds.small_scene(count=2)
    points = np.random.default_rng(4).uniform([0.2, -0.2, 3.0], [0.6, 0.2, 3.4], (200, 3))  # in both views
    visible = tuple(np.arange(len(points)) for _ in scene.views)
    nears, shares = [], []
    for angle in (0, 25, 180):
        aside = scene.replace_views([scene.views[0], turned(scene.views[1], angle)])
        found = with_depth_ranges(replace(aside, points_in_world=points, visible=visible))
        nears.append(found.views[0].depth_range[0])
        shares.append(unseen_share(aside, 0, 2.0))
    assert shares[0] < 0.3 < shares[1] < shares[2] == 1
    depths = transform(scene.views[0].cam_from_world, points)[:, 2]
    assert nears[2] < 0.9 * nears[1] < nears[1] < 0.95 * nears[0] < 0.5 * depths.min()


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_sparse_ranges_scale_with_the_unit(unit) -> None:
    scene = with_depth_ranges(sparse_scene())
    scaled = with_depth_ranges(worlds.in_unit(sparse_scene(), unit))
    for found, true in zip(scaled.views, scene.views, strict=True):
        np.testing.assert_allclose(found.depth_range, np.array(true.depth_range) * unit, rtol=1e-9)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Scene:
    return worlds.room_scene(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def swept_room(room) -> Scene:
    return with_depth_ranges(room)


def test_the_sweep_finds_the_depths_of_a_room(room) -> None:
    thumbnails = [thumbnail(view) for view in room.views]
    depth = sweep(thumbnails[2], [*thumbnails[:2], *thumbnails[3:]])
    camera = thumbnails[2].camera
    true = worlds.room_depth(replace(room.views[2], camera=camera))
    known = depth > 0
    assert known.mean() > 0.5
    ratio = (depth / true)[known]
    assert np.mean(np.abs(ratio - 1) < 0.1) > 0.9  # planes are 10 % apart
    assert abs(np.median(ratio) - 1) < 0.05


def test_the_sweeps_range_covers_the_nearest_surface_and_little_more(swept_room) -> None:
    assert depth_range_source(swept_room) == "coarse sweep of the images (6 of 6 views)"
    for view in swept_room.views:
        true = worlds.room_depth(view)
        near, far = view.depth_range
        assert 0.5 * true.min() < near < 0.95 * true.min()
        assert true.max() * 0.9 < far < 2 * true.max()


def test_the_sweep_works_in_any_unit(swept_room, tmp_path) -> None:
    scaled = with_depth_ranges(worlds.room_scene(tmp_path, unit=1000.0))
    for found, true in zip(scaled.views, swept_room.views, strict=True):
        # the photographs may differ by a grey level of rounding here and there
        np.testing.assert_allclose(found.depth_range, np.array(true.depth_range) * 1000, rtol=0.05)
    for ref in range(6):
        assert select_source_views(scaled, ref, 3) == select_source_views(swept_room, ref, 3)


def test_a_pair_is_enough_for_the_sweep(room) -> None:
    scene = with_depth_ranges(room.subset([2, 3]))
    assert "coarse sweep" in depth_range_source(scene)
    for view in scene.views:
        true = worlds.room_depth(view)
        assert 0.3 * true.min() < view.depth_range[0] < 0.95 * true.min()


def test_an_unreadable_image_does_not_stop_the_sweep(room) -> None:
    broken = replace(room.views[1], image=ImageSource(path=room.root / "missing.png"))
    scene = with_depth_ranges(room.subset([0, 1, 2, 3]).replace_views([room.views[0], broken, *room.views[2:4]]))
    true = worlds.room_depth(scene.views[1])
    assert 0.3 * true.min() < scene.views[1].depth_range[0] < 0.95 * true.min()


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_blank_images_leave_the_guess(unit, tmp_path) -> None:
    scene = worlds.room_scene(tmp_path, unit, count=3)
    for view in scene.views:
        iio.imwrite(view.image.path, np.full((120, 160, 3), 90, dtype=np.uint8))
    found = with_depth_ranges(scene)
    assert depth_range_source(found) == "camera geometry alone (a guess) (3 of 3 views)"
    for view in found.views:
        near, far = view.depth_range
        assert 0.1 * unit < near < 4 * unit < far  # the room is 2.5 to 4 units away


def test_too_few_sparse_points_call_for_the_sweep(room) -> None:
    room = room.subset([2, 3])
    points = np.random.default_rng(0).uniform([-1, -1, 3.9], [1, 1, 4.0], (MIN_POINTS // 2, 3))
    visible = tuple(np.flatnonzero(sees(view, points)) for view in room.views)
    scene = with_depth_ranges(replace(room, points_in_world=points, visible=visible))
    assert depth_range_source(scene) == "coarse sweep of the images (2 of 2 views)"
