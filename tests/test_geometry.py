"""Laws of the transforms; normals of surfaces whose normals are known."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nasrecon.geometry import (
    angle_between_deg,
    array_indices,
    in_image,
    inverse,
    normals_from_depth,
    relative_pose,
    rotation_angle_deg,
    rotation_from_quaternion,
    transform,
)
from nasrecon.types import Camera

seeds = st.integers(0, 2**32 - 1)
CAMERA = Camera(width=48, height=36, K=np.array([[40.0, 0.3, 25], [0, 42, 17], [0, 0, 1]]))


def random_transforms(rng: np.random.Generator, *shape: int) -> np.ndarray:
    out = np.zeros((*shape, 4, 4))
    out[..., :3, :3] = rotation_from_quaternion(rng.normal(size=(*shape, 4)))
    out[..., :3, 3] = rng.normal(size=(*shape, 3)) * 10
    out[..., 3, 3] = 1
    return out


@given(seeds)
def test_inverse_undoes_a_transform(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target_from_source = random_transforms(rng, 2, 3)
    there_and_back = inverse(target_from_source) @ target_from_source
    np.testing.assert_allclose(there_and_back, np.broadcast_to(np.eye(4), (2, 3, 4, 4)), atol=1e-13)
    points, one = rng.normal(size=(5, 7, 3)), target_from_source[0, 0]
    np.testing.assert_allclose(transform(inverse(one), transform(one, points)), points, atol=1e-13)
    homogeneous = np.concatenate([points, np.ones((5, 7, 1))], axis=-1)
    np.testing.assert_allclose(transform(one, points), (homogeneous @ one.T)[..., :3], atol=1e-12)


@given(seeds)
def test_relative_pose_goes_from_the_reference_to_the_source(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ref_from_world, src_from_world = random_transforms(rng, 2)
    points_in_world = rng.normal(size=(6, 3))
    src_from_ref = relative_pose(src_from_world, ref_from_world)
    found = transform(src_from_ref, transform(ref_from_world, points_in_world))
    np.testing.assert_allclose(found, transform(src_from_world, points_in_world), atol=1e-12)


@given(seeds, st.floats(1e-3, 1e3))
def test_quaternions_give_rotations(seed: int, length: float) -> None:
    wxyz = np.random.default_rng(seed).normal(size=(4, 4))
    R = rotation_from_quaternion(wxyz)
    np.testing.assert_allclose(R @ np.swapaxes(R, -1, -2), np.broadcast_to(np.eye(3), (4, 3, 3)), atol=1e-14)
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=1e-14)
    np.testing.assert_allclose(rotation_from_quaternion(-length * wxyz), R, atol=1e-13)
    w = np.abs(wxyz[:, 0]) / np.linalg.norm(wxyz, axis=-1)
    np.testing.assert_allclose(rotation_angle_deg(R), np.degrees(2 * np.arccos(w)), atol=1e-5)  # arccos near 0 and 180


def test_quaternion_order_is_scalar_first_and_turns_right_handed() -> None:
    half = np.sqrt(0.5)
    about_z = rotation_from_quaternion(np.array([half, 0, 0, half]))
    np.testing.assert_allclose(about_z @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    about_x = rotation_from_quaternion(np.array([half, half, 0, 0]))
    np.testing.assert_allclose(about_x @ [0, 1, 0], [0, 0, 1], atol=1e-15)


@given(seeds, st.floats(-8, 2.2))
def test_angles_are_accurate_down_to_tiny_ones(seed: int, log_angle: float) -> None:
    angle_deg = 10**log_angle
    a, b = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0][:, :2].T
    other = np.cos(np.radians(angle_deg)) * a + np.sin(np.radians(angle_deg)) * b
    np.testing.assert_allclose(angle_between_deg(3 * a, 0.2 * other), angle_deg, rtol=1e-6)


def plane_depth(normal_in_cam: np.ndarray, distance: float, camera: Camera = CAMERA) -> np.ndarray:
    """The depth (H, W) of the plane n . x = -distance; its normal faces the camera where distance > 0."""
    rays = camera.unproject(camera.pixel_centers(), np.ones((camera.height, camera.width)))
    return -distance / (rays @ normal_in_cam)


@given(st.floats(-0.6, 0.6), st.floats(-0.6, 0.6), st.floats(1e-3, 1e3))
def test_normals_of_a_plane_are_exact(x: float, y: float, distance: float) -> None:
    normal = np.array([x, y, -1]) / np.linalg.norm([x, y, -1])
    depth = plane_depth(normal, distance)
    found = normals_from_depth(depth, CAMERA)
    assert found.shape == (36, 48, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.broadcast_to(normal, found.shape), atol=1e-6)  # float32


def test_normals_of_a_sphere() -> None:
    camera = Camera(width=200, height=200, K=np.array([[300.0, 0, 100], [0, 300, 100], [0, 0, 1]]))
    center, radius = np.array([0.1, -0.05, 4.0]), 1.0
    rays = camera.unproject(camera.pixel_centers(), np.ones((200, 200)))
    a, b = (rays * rays).sum(-1), rays @ center
    root = b * b - a * (center @ center - radius**2)
    depth = np.where(root > 0, (b - np.sqrt(np.maximum(root, 0))) / a, 0)
    true = (rays * depth[..., None] - center) / radius
    inner = root > 0.35 * root.max()  # away from the rim, where a pixel spans much of the sphere
    error_deg = angle_between_deg(normals_from_depth(depth, camera), true)[inner]
    # one-sided differences over a pixel of about 1/75 of the radius: half a pixel's turn of the normal is 0.4 degrees
    assert np.median(error_deg) < 0.6 and error_deg.max() < 1.5


def test_a_step_bends_no_normal_and_holes_have_none() -> None:
    near, far = np.array([0.3, 0, -1]) / np.hypot(0.3, 1), np.array([0, -0.4, -1]) / np.hypot(0.4, 1)
    depth = plane_depth(far, 5.0)
    depth[:, :24] = plane_depth(near, 1.0)[:, :24]
    depth[10, 10] = 0
    true = np.where((np.arange(48) < 24)[None, :, None], near, far).repeat(36, axis=0)
    true[10, 10] = 0
    np.testing.assert_allclose(normals_from_depth(depth, CAMERA), true, atol=1e-6)


def test_a_pixel_alone_has_no_normal() -> None:
    depth = np.zeros((36, 48))
    depth[5, 5], depth[20, 20:22] = 2.0, 2.0  # one pixel; two in a row, with no neighbour above or below
    assert not normals_from_depth(depth, CAMERA).any()


def test_an_image_holds_its_first_edge_and_not_its_last() -> None:
    pixels = np.array([[0, 0], [4, 2.9], [4.999, 2.999], [5, 1], [1, 3], [-0.001, 1], [np.nan, 1]])
    np.testing.assert_array_equal(in_image(pixels, 5, 3), [True, True, True, False, False, False, False])
    half = np.array([[0.5, 0.5], [4.5, 2.5], [0.49, 1], [4.51, 1]])
    np.testing.assert_array_equal(in_image(half, 5, 3, margin=0.5), [True, True, False, False])
    row, column, inside = array_indices(pixels, 5, 3)
    np.testing.assert_array_equal(inside, in_image(pixels, 5, 3))
    np.testing.assert_array_equal(np.stack([column, row], axis=1)[:3], [[0, 0], [4, 2], [4, 2]])
    assert not row[3:].any() and not column[3:].any()
