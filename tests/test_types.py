"""Laws of the camera, and what the types refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasrecon.errors import InputError
from nasrecon.types import Camera, Estimate, ImageSource, Scene, View

sides = st.integers(1, 3000)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def cameras(draw) -> Camera:
    width, height = draw(sides), draw(sides)
    rng = np.random.default_rng(draw(seeds))
    fx, fy = rng.uniform(0.3, 3, 2) * max(width, height)
    cx, cy = rng.uniform(-0.2, 1.2, 2) * (width, height)
    return Camera(width=width, height=height, K=np.array([[fx, rng.uniform(-5, 5), cx], [0, fy, cy], [0, 0, 1]]))


def pixels_and_depths(camera: Camera, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 1.5, (20, 2)) * (camera.width, camera.height), rng.uniform(1e-3, 1e4, 20)


@given(cameras(), seeds)
def test_project_undoes_unproject(camera: Camera, seed: int) -> None:
    pixels, depth = pixels_and_depths(camera, seed)
    points_in_cam = camera.unproject(pixels, depth)
    np.testing.assert_allclose(points_in_cam[:, 2], depth, rtol=1e-12)
    # float64 and an inverse of K: rounding is relative to the largest number about, the focal length
    np.testing.assert_allclose(camera.project(points_in_cam), pixels, rtol=0, atol=1e-9 * camera.K.max())


@given(cameras(), sides, sides, seeds)
def test_resize_commutes_with_project(camera: Camera, width: int, height: int, seed: int) -> None:
    pixels, depth = pixels_and_depths(camera, seed)
    points_in_cam = camera.unproject(pixels, depth)
    small = camera.resized(width, height)
    assert (small.width, small.height) == (width, height)
    stretched = pixels * (width / camera.width, height / camera.height)
    np.testing.assert_allclose(small.project(points_in_cam), stretched, rtol=0, atol=1e-9 * small.K.max())
    # the image [0, w] x [0, h] maps onto itself: corners onto corners, whatever the size
    np.testing.assert_allclose(small.resized(camera.width, camera.height).K, camera.K, rtol=1e-12)


@given(cameras(), st.integers(-50, 50), st.integers(-50, 50), sides, sides, seeds)
def test_crop_shifts_pixels(camera: Camera, left: int, top: int, width: int, height: int, seed: int) -> None:
    pixels, depth = pixels_and_depths(camera, seed)
    window = camera.cropped(left, top, width, height)
    assert (window.width, window.height) == (width, height)
    found = window.project(camera.unproject(pixels, depth))
    np.testing.assert_allclose(found, pixels - (left, top), rtol=0, atol=1e-9 * (camera.K.max() + 50))


def test_crop_and_halving_commute() -> None:
    camera = Camera(width=64, height=48, K=np.array([[50.0, 0.7, 30], [0, 51, 25], [0, 0, 1]]))
    first = camera.cropped(8, 4, 32, 40).resized(16, 20)
    last = camera.resized(32, 24).cropped(4, 2, 16, 20)
    np.testing.assert_allclose(first.K, last.K, rtol=1e-12)


def test_the_first_pixel_centre_is_at_one_half() -> None:
    camera = Camera(width=4, height=2, K=np.array([[2.0, 0, 2], [0, 2, 1], [0, 0, 1]]))
    centers = camera.pixel_centers()
    assert centers.shape == (2, 4, 2)
    assert centers[0, 0].tolist() == [0.5, 0.5]
    assert centers[1, 3].tolist() == [3.5, 1.5]
    # a principal point in the middle of the image lets opposite pixels look along opposite rays
    points_in_cam = camera.unproject_depth(np.ones((2, 4)))
    np.testing.assert_allclose(points_in_cam[0, 0, :2], -points_in_cam[1, 3, :2])
    np.testing.assert_allclose(points_in_cam[0, 0], [-0.75, -0.25, 1])


def test_points_at_or_behind_the_camera_have_no_pixel() -> None:
    camera = Camera(width=4, height=2, K=np.array([[2.0, 0, 2], [0, 2, 1], [0, 0, 1]]))
    pixels = camera.project(np.array([[0.1, 0.1, 1], [0.1, 0.1, 0], [0.1, 0.1, -1]]))
    assert np.isfinite(pixels[0]).all() and np.isnan(pixels[1:]).all()


def test_unproject_depth_asks_for_the_cameras_size() -> None:
    camera = Camera(width=4, height=2, K=np.diag([2.0, 2, 1]))
    with pytest.raises(InputError, match=r"\(4, 2\).*\(2, 4\)"):
        camera.unproject_depth(np.ones((4, 2)))


GOOD_K = np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]])


@pytest.mark.parametrize(
    "K",
    [GOOD_K.T, -GOOD_K, GOOD_K[:2], 2 * GOOD_K, np.diag([500.0, 0, 1]), np.where(GOOD_K > 400, np.nan, GOOD_K)],
    ids=["transposed", "negative", "2x3", "scaled", "fy=0", "nan"],
)
def test_camera_refuses_what_is_no_pinhole_matrix(K: np.ndarray) -> None:
    with pytest.raises(InputError, match="K must"):
        Camera(width=640, height=480, K=K)


def test_what_is_not_finite_is_named_with_its_place() -> None:
    K, pose = GOOD_K.copy(), np.eye(4)
    K[0, 2], pose[2, 3] = np.inf, np.nan
    with pytest.raises(InputError, match="K must hold finite numbers, found inf in row 1, column 3"):
        Camera(width=640, height=480, K=K)
    with pytest.raises(
        InputError, match=r"a.jpg: cam_from_world must hold finite numbers, found nan in row 3, column 4"
    ):
        make_view(cam_from_world=pose)


def test_camera_refuses_an_empty_image() -> None:
    with pytest.raises(InputError, match="640x0"):
        Camera(width=640, height=0, K=GOOD_K)


def make_view(name: str = "a.jpg", cam_from_world: np.ndarray | None = None) -> View:
    matrix = np.eye(4) if cam_from_world is None else cam_from_world
    camera = Camera(width=6, height=4, K=np.diag([5.0, 5, 1]))
    return View(name=name, image=ImageSource(path=Path(name)), camera=camera, cam_from_world=matrix)


TURNED = np.array([[0.0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]])


def test_view_centre_and_inverse() -> None:
    view = make_view(cam_from_world=TURNED[:3])
    assert view.cam_from_world.shape == (4, 4)
    np.testing.assert_allclose(view.cam_from_world @ [*view.center_in_world, 1], [0, 0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(view.world_from_cam[:3, 3], view.center_in_world)
    np.testing.assert_allclose(view.world_from_cam @ view.cam_from_world, np.eye(4), atol=1e-15)


@pytest.mark.parametrize(
    "matrix",
    [TURNED * [[2], [2], [2], [1]], TURNED @ np.diag([-1, 1, 1, 1]), TURNED.T, np.full((4, 4), np.nan), np.eye(3)],
    ids=["scaled", "mirrored", "transposed", "nan", "3x3"],
)
def test_view_refuses_what_is_not_rigid(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"a.jpg: cam_from_world must"):
        make_view(cam_from_world=matrix)


def test_scene_finds_views_and_refuses_twins() -> None:
    views = [make_view(name) for name in ("a.jpg", "b.jpg", "c.jpg")]
    points, visible = np.arange(15.0).reshape(5, 3), [np.array([0]), np.array([1, 2]), np.array([4])]
    scene = Scene(root=Path(), views=views, points_in_world=points, visible=visible)
    assert scene.index("b.jpg") == 1
    part = scene.subset([2, 1])
    assert [view.name for view in part.views] == ["c.jpg", "b.jpg"]
    assert [seen.tolist() for seen in part.visible] == [[4], [1, 2]]
    with pytest.raises(InputError, match=r"'d.jpg'"):
        scene.index("d.jpg")
    with pytest.raises(InputError, match=r"found twice: a.jpg"):
        Scene(root=Path(), views=[*views, make_view("a.jpg")])
    with pytest.raises(InputError, match="visible needs"):
        Scene(root=Path(), views=views, points_in_world=points, visible=visible[:2])


@pytest.mark.parametrize("field", ["depth", "normal", "confidence", "sigma", "rgb"])
def test_estimate_refuses_maps_of_another_size(field: str) -> None:
    maps = {
        "depth": np.zeros((4, 6)),
        "normal": np.zeros((4, 6, 3)),
        "confidence": np.zeros((4, 6)),
        "sigma": np.zeros((4, 6)),
        "rgb": np.zeros((4, 6, 3), dtype=np.uint8),
    }
    Estimate(view=make_view(), **maps)
    with pytest.raises(InputError, match=f"a.jpg: {field} has shape"):
        Estimate(view=make_view(), **maps | {field: maps[field].swapaxes(0, 1)})
