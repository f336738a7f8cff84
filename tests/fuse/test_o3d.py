"""The border to Open3D: pixel centres, units, colours, against planes with exact answers."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nasrecon.errors import NasReconError
from nasrecon.fuse.o3d import TsdfGrid, nearest_distance, render_mesh_preview, vertex_normals
from nasrecon.types import Camera, Mesh, View

from .worlds import Plane, look_at, render, small_camera

N = np.array([0.62, 0.35, -np.sqrt(1 - 0.62**2 - 0.35**2)])
SLANTED = (Plane(tuple(N), float(N @ (0, 0, 3))),)


def fused_plane(views: Sequence[View], voxel: float, block_count: int = 1000) -> tuple[np.ndarray, np.ndarray]:
    grid = TsdfGrid(voxel=voxel, origin=np.array([0.1, -0.1, 3]), truncation=5, band=5, block_count=block_count)
    for view in views:
        estimate = render(SLANTED, view)
        grid.integrate(estimate.depth, view.camera, view.cam_from_world)
    return grid.extract(1)


def view_at_origin(camera: Camera) -> View:
    return look_at("a", (0, 0, 0), (0, 0, 3), camera)


def inner(vertices: np.ndarray, view: View, margin: float = 6) -> np.ndarray:
    """Tell which points (V, 3) project ``margin`` pixels inside the image: the band ends raggedly at its borders."""
    pixel = view.camera.project(vertices @ view.cam_from_world[:3, :3].T + view.cam_from_world[:3, 3])
    return (np.minimum(pixel, (view.camera.width, view.camera.height) - pixel) > margin).all(axis=1)


def test_pixel_centres_are_at_half_a_pixel() -> None:
    """A shift by half a pixel would move the slanted plane by about 0.5 px * depth / f * sin(slant), to one side."""
    camera = small_camera(320, 240, 300)
    view = view_at_origin(camera)
    footprint = 3.0 / 300
    vertices, _ = fused_plane([view], voxel=2 * footprint)
    vertices = vertices[inner(vertices, view)]
    error = SLANTED[0].distance(vertices)
    shifted = 0.5 * footprint * np.hypot(N[0], N[1])
    assert len(vertices) > 3000
    assert abs(error.mean()) < 0.05 * shifted
    # One depth map, read at its nearest pixel: off by up to half a pixel times the slope, to both sides.
    assert np.quantile(np.abs(error), 0.99) < footprint


def test_many_views_average_to_a_fraction_of_a_voxel() -> None:
    views = [
        look_at(f"{x}{y}", (x, y, 0), (0, 0, 3), small_camera(320, 240, 300))
        for x in (-0.3, 0.2)
        for y in (-0.2, 0.1, 0.3)
    ]
    vertices, _ = fused_plane(views, voxel=0.02)
    vertices = vertices[np.all([inner(vertices, v) for v in views], axis=0)]
    assert np.median(np.abs(SLANTED[0].distance(vertices))) < 0.05 * 0.02


def test_faces_turn_counter_clockwise_outwards() -> None:
    vertices, faces = fused_plane([view_at_origin(small_camera())], voxel=0.05)
    corners = vertices[faces]
    facing = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) @ N
    assert (facing > 0).mean() > 0.99
    assert (vertex_normals(vertices, faces) @ N).mean() > 0.97


def test_a_grid_that_grows_is_the_same() -> None:
    views = [look_at(str(x), (x, 0, 0), (0, 0, 3), small_camera()) for x in (-0.8, 0, 0.8)]
    small, large = fused_plane(views, 0.02, block_count=1), fused_plane(views, 0.02, block_count=20_000)
    assert len(small[0]) == len(large[0])
    assert nearest_distance(small[0], large[0]).max() < 1e-5
    assert nearest_distance(large[0], small[0]).max() < 1e-5


def test_a_skewed_camera_is_not_ignored() -> None:
    K = np.array([[260.0, 30, 128], [0, 265, 101], [0, 0, 1]])
    view = view_at_origin(Camera(width=256, height=192, K=K))
    vertices, _ = fused_plane([view], voxel=0.03)
    vertices = vertices[inner(vertices, view, 20)]
    error = SLANTED[0].distance(vertices)
    # Rows are shifted by whole pixels: half a pixel of noise. Ignoring the skew is off by up to 11 px at the top and
    # bottom.
    assert np.quantile(np.abs(error), 0.95) < 0.75 * 3 / 260
    assert len(vertices) > 2000


def square(z: float, rgb: tuple[int, int, int], half: float = 10.0) -> Mesh:
    """Return a wall across the z axis at depth z, facing the origin, of one colour."""
    vertices = np.array([(-half, -half, z), (half, -half, z), (half, half, z), (-half, half, z)])
    faces = np.array([(0, 2, 1), (0, 3, 2)], np.int32)
    return Mesh(
        vertices=vertices,
        faces=faces,
        normal=np.full((4, 3), (0, 0, -1), np.float32),
        rgb=np.array([rgb] * 4, np.uint8),
    )


def test_rendered_depth_is_exact_and_normals_face_the_camera() -> None:
    camera = Camera(width=96, height=64, K=np.array([[80.0, 3, 41], [0, 85, 30], [0, 0, 1]]))
    view = look_at("a", (1e4 + 0.5, -0.3, 2e4), (1e4, 0, 2e4 + 3), camera)
    wall = square(3.0, (200, 100, 50))
    wall = Mesh(vertices=wall.vertices + np.array([1e4, 0, 2e4]), faces=wall.faces, normal=wall.normal, rgb=wall.rgb)
    image = render_mesh_preview(wall, camera, view.cam_from_world)
    truth = render((Plane((0, 0, -1), -(2e4 + 3.0)),), view)
    np.testing.assert_allclose(image.depth, truth.depth, rtol=2e-5)
    np.testing.assert_allclose(image.normal, truth.normal, atol=1e-4)
    assert (image.rgb[..., 0] > image.rgb[..., 1]).all()


def test_rendered_colours_run_evenly_between_the_corners() -> None:
    camera = small_camera()
    wall = square(3.0, (0, 0, 0), half=4.0)
    corners = (25 * (wall.vertices[:, :2] + 4)).astype(np.uint8)
    wall = replace(wall, rgb=np.concatenate([corners, np.full((4, 1), 255, np.uint8)], axis=1))
    image = render_mesh_preview(wall, camera, np.eye(4))
    points = camera.unproject_depth(image.depth)
    light = 0.6 + 0.4 * points[..., 2] / np.linalg.norm(points, axis=-1)
    expected = np.stack([25 * (points[..., 0] + 4), 25 * (points[..., 1] + 4), np.full_like(light, 255)], axis=-1)
    assert np.abs(image.rgb - expected * light[..., None]).max() < 1


def test_what_is_not_hit_is_background_and_backs_are_dark() -> None:
    camera = small_camera()
    wall = square(3.0, (200, 200, 200), half=0.5)
    front = render_mesh_preview(wall, camera, np.eye(4), style="image", background=(1, 2, 3))
    hit = front.depth > 0
    assert 0.02 < hit.mean() < 0.5
    assert (front.rgb[~hit] == (1, 2, 3)).all()
    assert not front.normal[~hit].any()
    from_behind = look_at("b", (0, 0, 6), (0, 0, 3), camera)
    back = render_mesh_preview(wall, camera, from_behind.cam_from_world, style="clay")
    assert (
        back.rgb[back.depth > 0].max() < 0.6 * render_mesh_preview(wall, camera, np.eye(4), style="clay").rgb[hit].max()
    )
    assert render_mesh_preview(wall, camera, np.eye(4), style="normal").rgb[hit][0].tolist() == [128, 128, 255]


def test_nearest_distance_against_brute_force() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(300, 3)), rng.normal(size=(200, 3))
    expected = np.linalg.norm(a[:, None] - b[None], axis=-1).min(axis=1)
    np.testing.assert_allclose(nearest_distance(a, b), expected, rtol=1e-9)
    far = np.array([5e6, -3e6, 40.0])
    np.testing.assert_allclose(nearest_distance(a + far, b + far), expected, atol=1e-8)


def test_without_open3d_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(NasReconError, match="libusb"):
        nearest_distance(np.zeros((1, 3)), np.zeros((1, 3)))
