"""The plane sweep against projection by hand, and its laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nas.setups import rotation
from nasrecon.nas.volume import (
    depth_from_label,
    pixel_rays,
    plane_inv_depth,
    plane_sample_grid,
    sample_on_planes,
    scaled_K,
)

H, W = 40, 56
REF_K = torch.tensor([[51.3, 0.0, 27.2], [0.0, 48.9, 20.4], [0.0, 0.0, 1.0]])
SRC_K = torch.tensor([[70.7, 0.0, 35.1], [0.0, 66.1, 22.9], [0.0, 0.0, 1.0]])
SRC_SIZE = (46, 64)


def motion(tx: float = 0.1, ty: float = -0.04, tz: float = 0.05) -> torch.Tensor:
    out = torch.eye(4)
    out[:3, :3] = rotation(torch.tensor([0.03, -0.05, 0.04]))
    out[:3, 3] = torch.tensor([tx, ty, tz])
    return out


def pixels_of_grid(grid: torch.Tensor, size: tuple[int, int]) -> np.ndarray:
    """Undo the normalisation of ``grid_sample(align_corners=True)``."""
    return ((grid.double() + 1) / 2 * torch.tensor([size[1] - 1, size[0] - 1])).numpy()


def projected(K: torch.Tensor, points: np.ndarray) -> np.ndarray:
    flat = points @ K.double().numpy().T
    return flat[..., :2] / flat[..., 2:]


def test_planes_are_uniform_in_inverse_depth_and_invert_to_labels() -> None:
    min_depth = torch.tensor([0.5, 3.0])
    inv_depth = plane_inv_depth(min_depth, 64)
    assert inv_depth[:, 0].tolist() == [0, 0]
    torch.testing.assert_close(1 / inv_depth[:, 63], min_depth * 64 / 63)
    labels = torch.arange(64.0).repeat(2, 1)
    torch.testing.assert_close(depth_from_label(labels, min_depth, 64)[:, 1:], 1 / inv_depth[:, 1:])
    assert torch.isfinite(depth_from_label(torch.zeros(2, 3, 3), min_depth, 64)).all()


@pytest.mark.parametrize("corner_aligned", [False, True])
def test_scaled_K_projects_to_the_small_image(corner_aligned: bool) -> None:
    """A point's pixel in the small image follows from its pixel in the large one by the convention in the docstring."""
    points = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 5), (20, 3))
    large, small = projected(REF_K, points), projected(scaled_K(REF_K, 4, corner_aligned), points)
    expected = large / 4 if corner_aligned else (large + 0.5) / 4 - 0.5
    np.testing.assert_allclose(small, expected, atol=1e-5)  # K is float32


def test_grid_is_the_projection_of_the_voxels() -> None:
    """Different K, size and rotation: every voxel's place in the source is where float64 algebra puts it."""
    inv_depth = plane_inv_depth(torch.tensor([0.5]), 8)
    T = motion()
    grid, inside = plane_sample_grid(REF_K[None], SRC_K[None], T[None], inv_depth, (H, W), SRC_SIZE)
    rays = pixel_rays(REF_K[None], H, W)[0].T.reshape(H, W, 3).double().numpy()
    for i in range(1, 8):
        in_src = rays / float(inv_depth[0, i]) @ T[:3, :3].double().numpy().T + T[:3, 3].double().numpy()
        expected = projected(SRC_K, in_src)
        seen = ((expected >= 0) & (expected <= (SRC_SIZE[1] - 1, SRC_SIZE[0] - 1))).all(axis=-1) & (in_src[..., 2] > 0)
        assert 0.3 < seen.mean() < 1, "the test needs voxels on both sides of the border"
        np.testing.assert_array_equal(inside[0, i].numpy(), seen)
        np.testing.assert_allclose(pixels_of_grid(grid[0, i], SRC_SIZE)[seen], expected[seen], atol=2e-4)  # float32
        assert (np.abs(grid[0, i].numpy()[~seen]) > 2).all()


def test_slanted_plane_gives_the_references_features() -> None:
    """Features painted on a slanted plane, seen through different K, are equal after the warp along the plane."""
    normal, offset = np.array([0.25, -0.35, 0.9]), 2.0  # normal . X = offset in the reference camera

    def paint(points_in_ref: np.ndarray) -> np.ndarray:
        x, y, z = np.moveaxis(points_in_ref, -1, 0)
        return np.stack([np.sin(3 * x + y), np.cos(2 * y - z), np.sin(2 * x - 3 * y)])

    def on_plane(rays: np.ndarray, center: np.ndarray) -> np.ndarray:
        return (offset - normal @ center) / (rays @ normal)

    T = motion(0.3, -0.1, 0.2)
    R, t = T[:3, :3].double().numpy(), T[:3, 3].double().numpy()
    ref_rays = pixel_rays(REF_K[None], H, W)[0].T.reshape(H, W, 3).double().numpy()
    depth = on_plane(ref_rays, np.zeros(3))
    src_rays = pixel_rays(SRC_K[None], *SRC_SIZE)[0].T.reshape(*SRC_SIZE, 3).double().numpy() @ R  # in ref axes
    center = -R.T @ t
    src_points = center + src_rays * on_plane(src_rays, center)[..., None]
    src_features = torch.from_numpy(paint(src_points)).float()[None]

    inv_depth = torch.from_numpy(1 / depth).float().reshape(1, 1, -1)
    grid, inside = plane_sample_grid(REF_K[None], SRC_K[None], T[None], inv_depth, (H, W), SRC_SIZE)
    warped = sample_on_planes(src_features, grid)[0, :, 0].numpy()
    expected = paint(ref_rays * depth[..., None])
    seen = inside[0, 0].numpy()
    assert seen.mean() > 0.5
    error = np.abs(warped - expected).max(axis=0)
    assert error[seen].max() < 6e-3  # bilinear: (phase step, up to 0.15 rad)**2 / 8, along each axis
    assert np.abs(warped[:, ~seen]).max() == 0

    wrong, _ = plane_sample_grid(REF_K[None], REF_K[None], T[None], inv_depth, (H, W), SRC_SIZE)
    assert np.median(np.abs(sample_on_planes(src_features, wrong)[0, :, 0].numpy() - expected)) > 0.05


@pytest.mark.parametrize("seed", range(20))
def test_identical_views_give_the_identity_warp_with_its_border(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    h, w = (int(n) for n in torch.randint(8, 300, (2,), generator=g))
    K = torch.eye(3)
    K[0, 0], K[1, 1] = 30 + 900 * torch.rand(2, generator=g)
    K[:2, 2] = torch.tensor([w / 2, h / 2]) + 5 * torch.randn(2, generator=g)
    features = torch.randn(1, 4, h, w, generator=g)
    grid, inside = plane_sample_grid(
        K[None], K[None], torch.eye(4)[None], plane_inv_depth(torch.tensor([0.7]), 3), (h, w)
    )
    assert inside.all()
    # grid_sample's own rounding: about w * 1e-7 px, times the step between neighbours
    sampled = sample_on_planes(features, grid)
    torch.testing.assert_close(sampled, features[:, :, None].expand_as(sampled), atol=1e-3, rtol=0)


def test_plane_at_infinity_forgets_the_translation() -> None:
    inv_depth = plane_inv_depth(torch.tensor([0.5]), 4)
    far, _ = plane_sample_grid(REF_K[None], SRC_K[None], motion()[None], inv_depth, (H, W))
    turned, _ = plane_sample_grid(REF_K[None], SRC_K[None], motion(0, 0, 0)[None], inv_depth, (H, W))
    assert torch.isfinite(far).all()
    torch.testing.assert_close(far[:, 0], turned[:, 0])
    assert not torch.equal(far[:, 1], turned[:, 1])


def test_points_behind_the_source_are_outside() -> None:
    turned_back = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))
    grid, inside = plane_sample_grid(
        REF_K[None], REF_K[None], turned_back[None], plane_inv_depth(torch.tensor([1.0]), 6), (H, W)
    )
    assert not inside.any()
    assert sample_on_planes(torch.ones(1, 2, H, W), grid).abs().max() == 0


def test_a_sample_beyond_the_outermost_centre_is_zero_as_a_whole() -> None:
    """No partial blend across the border: half a pixel out is zero, half a pixel in is not."""
    shifted = REF_K.clone()
    shifted[0, 2] += 0.5
    grid, inside = plane_sample_grid(
        REF_K[None], shifted[None], torch.eye(4)[None], plane_inv_depth(torch.tensor([1.0]), 1), (H, W)
    )
    sampled = sample_on_planes(torch.ones(1, 1, H, W), grid)[0, 0, 0]
    assert sampled[:, -1].abs().max() == 0 and not inside[0, 0, :, -1].any()
    torch.testing.assert_close(sampled[:, :-1], torch.ones(H, W - 1))


@pytest.mark.parametrize("scale", [2.0**-12, 2.0**12])
def test_the_unit_of_length_does_not_matter(scale: float) -> None:
    """Exactly: a power of two scales floats without rounding."""
    T, scaled = motion(), motion()
    scaled[:3, 3] *= scale
    one = plane_sample_grid(REF_K[None], SRC_K[None], T[None], plane_inv_depth(torch.tensor([0.4]), 16), (H, W))
    other = plane_sample_grid(
        REF_K[None], SRC_K[None], scaled[None], plane_inv_depth(torch.tensor([0.4]) * scale, 16), (H, W)
    )
    assert one[1].float().mean() > 0.3
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_batch_equals_its_items() -> None:
    T = torch.stack([motion(), motion(-0.2, 0.1, 0.1)])
    min_depth = torch.tensor([0.5, 0.8])
    K = torch.stack([REF_K, SRC_K])
    together, _ = plane_sample_grid(K, K.flip(0), T, plane_inv_depth(min_depth, 5), (H, W))
    for b in range(2):
        alone, _ = plane_sample_grid(
            K[b : b + 1], K.flip(0)[b : b + 1], T[b : b + 1], plane_inv_depth(min_depth[b : b + 1], 5), (H, W)
        )
        torch.testing.assert_close(together[b], alone[0])


def test_geometry_keeps_its_precision_under_autocast() -> None:
    def both() -> tuple[torch.Tensor, torch.Tensor]:
        inv_depth = plane_inv_depth(torch.tensor([0.5]), 4)
        grid, _ = plane_sample_grid(REF_K[None], SRC_K[None], motion()[None], inv_depth, (H, W))
        return grid, pixel_rays(REF_K[None], H, W)

    exact = both()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = both()
    assert torch.equal(exact[0], mixed[0]) and torch.equal(exact[1], mixed[1])
