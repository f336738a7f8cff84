"""The development sets, checked against what they hold: true depth warped between views, points reprojected."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nasrecon.geometry import relative_pose, transform
from nasrecon.ingest.images import read_view
from nasrecon.ingest.open_scene import open_scene
from nasrecon.ingest.true_depth import read_true_depth
from nasrecon.scene.depth_range import depth_range_source, with_depth_ranges
from nasrecon.scene.source_views import select_source_views, source_scores
from nasrecon.types import Scene, View

from .worlds import DATA, in_unit


def dataset(name: str):
    if not (DATA / name).is_dir():
        pytest.skip(f"needs the development set {name} at ../shared/data")
    return DATA / name


def warp_disagreement(ref: View, src: View, center: float = 0.5) -> np.ndarray:
    """Return |depth warped from ref / depth that src has there - 1| where both views see a smooth surface.

    center: where the centre of the first pixel is taken to be; 0.5 is what ``Camera`` says.
    """
    ref_depth, src_depth = read_true_depth(ref), read_true_depth(src)
    row, column = np.nonzero(ref_depth[::3, ::3])
    row, column = 3 * row, 3 * column
    pixels = np.stack([column + center, row + center], axis=-1)
    in_src = transform(
        relative_pose(src.cam_from_world, ref.cam_from_world), ref.camera.unproject(pixels, ref_depth[row, column])
    )
    at = src.camera.project(in_src) - center
    with np.errstate(invalid="ignore"):
        inside = ((at >= 0) & (at < (src.camera.width - 1, src.camera.height - 1))).all(axis=-1)
    at, in_src = at[inside], in_src[inside]
    x, y = at.astype(int).T
    a, b = (at - at.astype(int)).T
    corners = np.stack([src_depth[y, x], src_depth[y, x + 1], src_depth[y + 1, x], src_depth[y + 1, x + 1]])
    there = ((1 - a) * (1 - b), a * (1 - b), (1 - a) * b, a * b)
    off = np.abs(sum(w * c for w, c in zip(there, corners, strict=True)) / in_src[:, 2] - 1)
    smooth = (corners.min(axis=0) > 0) & (corners.max(axis=0) < 1.02 * corners.min(axis=0))
    return off[smooth & (off < 0.1)]  # more than that is another surface


def assert_sharpest_at_half(pairs: list[tuple[View, View]], limit: float) -> None:
    """Warped depths must agree to a limit, and better with half-pixel centres than with ones half a pixel off."""
    means = {}
    for center in (0.0, 0.5, 1.0):
        off = np.concatenate([warp_disagreement(ref, src, center) for ref, src in pairs])
        assert len(off) > 5000
        means[center] = off.mean()
        if center == 0.5:
            assert np.median(off) < limit
    assert means[0.5] < means[0.0] and means[0.5] < means[1.0]


def test_livingroom() -> None:
    scene = open_scene(dataset("livingroom1"))
    origin = scene.origin
    assert (origin.format, origin.images, origin.poses) == ("Redwood trajectory", "211 images", "trajectory.log")
    assert origin.pose_convention == "world-from-cam" and origin.intrinsics == "camera.json"
    assert scene.unit == "m" and not scene.dropped
    np.testing.assert_array_equal(scene.views[0].camera.K, [[525, 0, 320], [0, 525, 240], [0, 0, 1]])
    assert read_view(scene.views[3])[0].shape == (480, 640, 3)
    views = scene.views
    for i in (0, 60, 120, 180):
        off = warp_disagreement(views[i], views[i + 9])
        # rounding to millimetres is 0.03 % of 1.8 m; the trajectory is good to 0.1 %, too coarse to tell half a pixel
        assert len(off) > 5000 and np.median(off) < 0.002


@pytest.mark.parametrize("pair", ["mvs_test_00030", "scenes11_test_00006", "scenes11_test_00030"])
def test_demon_pairs_with_exact_depth(pair) -> None:
    scene = open_scene(dataset(f"demon_sample/{pair}"))
    assert (scene.origin.format, scene.origin.images, scene.origin.intrinsics) == (
        "DeMoN folder",
        "2 images",
        "cam.txt",
    )
    first, second = scene.views
    assert_sharpest_at_half([(first, second), (second, first)], limit=0.0005)


@pytest.mark.parametrize("pair", ["rgbd_test_00006", "rgbd_test_00030", "sun3d_test_00030"])
def test_demon_pairs_with_sensor_depth(pair) -> None:
    first, second = open_scene(dataset(f"demon_sample/{pair}")).views
    assert (
        np.median(warp_disagreement(first, second)) < 0.015
    )  # sensor noise; a wrong convention leaves nothing to compare


def test_redkitchen() -> None:
    scene = open_scene(dataset("redkitchen_sample"))
    assert (scene.origin.images, scene.origin.intrinsics) == (
        "40 images",
        "camera-intrinsics-color.txt",
    ) and not scene.dropped
    assert scene.views[0].camera.K[0, 0] == 525
    depth = read_true_depth(scene.views[0])
    assert (depth > 0).mean() > 0.5 and depth.max() < 20
    off = np.concatenate([warp_disagreement(scene.views[i], scene.views[i + 1]) for i in (0, 10, 20)])
    assert len(off) > 5000 and np.median(off) < 0.03  # the set's poses are off by as much


def test_tum() -> None:
    scene = open_scene(dataset("tum_sample"))
    assert scene.origin.images == "10 images" and "freiburg1, undistorted" in scene.origin.intrinsics
    rgb, view = read_view(scene.views[0])
    depth = read_true_depth(view)
    assert rgb.shape[:2] == depth.shape == (view.camera.height, view.camera.width)
    assert (depth > 0).mean() > 0.4 and 0.3 < np.median(depth[depth > 0]) < 5
    off = warp_disagreement(scene.views[2], scene.views[7])
    assert len(off) > 5000 and np.median(off) < 0.03


def test_fountain_points_reproject_onto_their_keypoints() -> None:
    import pycolmap

    folder = dataset("fountain")
    scene = open_scene(folder / "images", folder / "sparse" / "0")
    assert (scene.origin.format, scene.origin.images) == ("COLMAP model", "11 of 11 images")
    assert scene.origin.notes == ("13951 sparse points", "11 cameras (PINHOLE)")
    model = pycolmap.Reconstruction(folder / "sparse" / "0")
    ids = sorted(model.points3D)
    errors = []
    for view, seen in zip(scene.views, scene.visible, strict=True):
        keypoints = {p.point3D_id: p.xy for p in model.find_image_with_name(view.name).get_observation_points2D()}
        assert len(seen) == len(keypoints)
        found = view.camera.project(transform(view.cam_from_world, scene.points_in_world[seen]))
        errors.append(np.linalg.norm(found - [keypoints[ids[i]] for i in seen], axis=1))
    # the model's own mean error is 0.28 px; half a pixel of a wrong convention would leave 0.7
    assert np.concatenate(errors).mean() < 0.35


def near_shares(scene: Scene) -> np.ndarray:
    """Return near over the depth of the nearest 2 % of the pixels, for each view."""
    shares = []
    for view in scene.views:
        depth = read_true_depth(view)
        shares.append(view.depth_range[0] / np.percentile(depth[depth > 0], 2))
    return np.array(shares)


@pytest.mark.parametrize(
    ("name", "views", "least"),
    [
        ("livingroom1", range(0, 211, 21), 0.5),
        ("redkitchen_sample", range(8, 18), 0.4),
        ("redkitchen_sample", range(0, 40, 3), 0.4),  # some views share little with any other
    ],
)
def test_the_swept_near_covers_the_nearest_surfaces(name, views, least) -> None:
    scene = with_depth_ranges(open_scene(dataset(name)).subset(views))
    assert depth_range_source(scene).startswith("coarse sweep of the images")
    shares = near_shares(scene)
    assert shares.max() < 1.0  # no surface cut off
    assert shares.min() > least and np.median(shares) > 0.55  # and not half of the planes wasted


def test_the_swept_near_of_pairs_covers_the_nearest_surfaces_in_any_unit() -> None:
    """Of sun3d_test_00006 the nearest surfaces lie where the other view does not look."""
    shares = []
    for pair in sorted(path for path in dataset("demon_sample").iterdir() if path.is_dir()):
        scene = with_depth_ranges(open_scene(pair))
        shares += [*near_shares(scene)]
        for unit in (0.01, 1000.0):
            found = with_depth_ranges(in_unit(open_scene(pair), unit))
            for view, true in zip(found.views, scene.views, strict=True):
                np.testing.assert_allclose(view.depth_range, np.array(true.depth_range) * unit, rtol=1e-6)
    assert len(shares) == 16 and max(shares) < 1.0 and min(shares) > 0.15


def test_the_swept_near_of_a_camera_that_hardly_moves_covers_the_nearest_surfaces() -> None:
    """fr1/rpy turns on the spot: some nears come out far too small, none too large."""
    scene = open_scene(dataset("tum_sample"))
    assert near_shares(with_depth_ranges(scene)).max() < 1.0


def test_the_sweep_agrees_with_the_sparse_points_of_fountain() -> None:
    scene = open_scene(dataset("fountain"))
    sparse = with_depth_ranges(scene)
    assert depth_range_source(sparse) == "sparse points (11 of 11 views)"
    swept = with_depth_ranges(replace(scene, points_in_world=None, visible=None))
    assert depth_range_source(swept) == "coarse sweep of the images (11 of 11 views)"
    ratio = np.array([a.depth_range[0] / b.depth_range[0] for a, b in zip(swept.views, sparse.views, strict=True)])
    assert ratio.min() > 0.8 and ratio.max() < 1.2


def test_fountain_sources_are_the_neighbours_of_the_row() -> None:
    scene = open_scene(dataset("fountain"))
    for ref in range(11):
        ranked = select_source_views(scene, ref, 4)
        assert len(ranked) == 4 and np.abs(np.array(ranked) - ref).max() <= 4
        assert source_scores(scene, ref)[ranked[0]] > 0.3
