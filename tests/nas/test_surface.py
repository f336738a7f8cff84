"""Laws of surfaces in labels: slopes and normals of a plane agree, and upsampling continues it exactly."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from nasrecon.nas.heads import fine_hypotheses
from nasrecon.nas.surface import (
    forward_differences,
    label_slopes,
    limited_slopes,
    normal_from_slopes,
    second_differences,
    slopes_from_normal,
    smooth_mixture,
    upsample_distribution,
    upsample_planes,
    upsampled_likelihood,
)
from nasrecon.nas.volume import pixel_rays, scaled_K


def plane() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Label (1, 30, 40), normal (1, 3, 30, 40) and K of a slanted plane at coarse resolution."""
    K = torch.tensor([[[50.0, 0, 20.3], [0, 52, 14.1], [0, 0, 1]]])
    normal = F.normalize(torch.tensor([0.3, -0.4, -0.8]), dim=0).view(1, 3, 1, 1).expand(1, 3, 30, 40)
    label = -(normal * pixel_rays(K, 30, 40).view(1, 3, 30, 40)).sum(dim=1) * 25
    return label, normal, K


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_depth_slopes_and_normals_of_a_plane_agree(dtype: torch.dtype | None) -> None:
    label, normal, K = plane()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        slopes = label_slopes(label)
        found = normal_from_slopes(label, slopes, K)
        asked = slopes_from_normal(label, normal, K)
    inner = (..., slice(1, -1), slice(1, -1))  # Sobel's window leaves the image at the border
    assert (found - normal)[inner].abs().max() < 1e-4  # float32 rounding; bfloat16 would be off by 1e-2
    assert (asked - slopes)[inner].abs().max() < 1e-4


def test_upsampling_is_exact_on_a_plane_for_any_mask() -> None:
    label, normal, K = plane()
    full_K = scaled_K(K, 0.25, corner_aligned=False)
    truth = -(normal[:, :, :1, :1] * pixel_rays(full_K, 120, 160).view(1, 3, 120, 160)).sum(dim=1) * 25
    mask = torch.randn(1, 144, 30, 40, generator=torch.Generator().manual_seed(1)) * 3
    fine, fine_normal = upsample_planes(label, slopes_from_normal(label, normal, K), normal, mask)
    assert (fine - truth).abs().max() < 1e-4  # labels are up to 40: rounding
    assert (fine_normal - normal[:, :, :1, :1]).abs().max() < 1e-5


def test_a_plane_is_upsampled_exactly_with_limited_slopes() -> None:
    label, normal, K = plane()
    slopes = limited_slopes(label, slopes_from_normal(label, normal, K))
    mask = torch.randn(1, 144, 30, 40, generator=torch.Generator().manual_seed(1)) * 3
    fine, _ = upsample_planes(label, slopes, normal, mask)
    coarse = F.avg_pool2d(fine[:, None], 4)[:, 0]
    assert (coarse - label).abs().max() < 1e-4
    assert (fine[:, 1:-1, 2:] - 2 * fine[:, 1:-1, 1:-1] + fine[:, 1:-1, :-2]).abs().max() < 1e-3


def test_slopes_are_bounded_beside_an_edge_and_on_thin_things() -> None:
    label = torch.full((1, 6, 9), 10.0)
    label[:, :, 5:] = 30.0
    label[:, :, 2] = 20.0
    steep = torch.full((1, 2, 6, 9), 8.0)
    bounded = limited_slopes(label, steep)[:, 0]
    assert bounded.max() < 0.1  # all neighbours to one side are equal: nothing is continued
    ramp = torch.arange(9.0).expand(1, 6, 9) * 3
    assert torch.allclose(limited_slopes(ramp, torch.full((1, 2, 6, 9), 3.0))[:, 0], torch.tensor(3.0))


def test_a_distribution_is_upsampled_by_choosing_neighbours() -> None:
    prob = torch.rand(1, 8, 4, 5, generator=torch.Generator().manual_seed(0)).softmax(dim=1)
    mask = torch.zeros(1, 9, 8, 10)
    mask[:, 5] = 50.0  # the right neighbour
    fine = upsample_distribution(prob, mask)
    assert torch.allclose(fine[..., ::2, ::2][..., :-1], prob[..., 1:], atol=1e-5)
    mixed = torch.randn(1, 9, 8, 10, generator=torch.Generator().manual_seed(1))
    fine = upsample_distribution(prob, mixed)
    assert torch.allclose(fine.sum(dim=1), torch.ones(1, 8, 10), atol=1e-5)
    label = torch.full((1, 8, 10), 2.25)
    likelihood = upsampled_likelihood(prob.log(), mixed, label)
    assert torch.allclose(likelihood, fine[:, 2] * 0.75 + fine[:, 3] * 0.25, atol=1e-5)


def test_a_pattern_that_alternates_has_differences_and_no_slope() -> None:
    label = torch.arange(8.0).expand(1, 6, 8) * 0.5
    bumpy = label + 0.1 * (torch.arange(8) % 2)
    inner = (..., slice(1, -1), slice(1, -1))
    assert torch.allclose(label_slopes(bumpy)[:, 0][inner], torch.tensor(0.5))
    steps = forward_differences(bumpy)
    assert steps[0, 0, 0, :3].tolist() == pytest.approx([0.6, 0.4, 0.6]) and (steps[:, 1] == 0).all()
    assert steps.shape == second_differences(bumpy).shape == (1, 2, 6, 8)
    assert second_differences(bumpy)[0, 0, 0, 1:4].tolist() == pytest.approx([-0.1, 0.1, -0.1], abs=1e-6)
    assert second_differences(label)[inner].abs().max() < 1e-6


def test_the_smooth_mixture_does_not_jump_between_coarse_pixels() -> None:
    """Steps from pixel to pixel of an upsampled ramp whose planes have no slope: none is 0, as in blocks, or large."""
    label = torch.arange(10.0).expand(1, 6, 10)
    mask = smooth_mixture().view(1, 144, 1, 1).expand(1, 144, 6, 10)
    normal = torch.tensor([0.0, 0.0, -1.0]).view(1, 3, 1, 1).expand(1, 3, 6, 10)
    fine, _ = upsample_planes(label, torch.zeros(1, 2, 6, 10), normal, mask)
    steps = fine[0, 10, 8:-8].diff()
    assert steps.min() > 0.15 and steps.max() < 0.35  # 0.25 is the ramp's


def test_kernels_without_gradients_compute_what_torch_does_with_them() -> None:
    generator = torch.Generator().manual_seed(2)
    rand = lambda *shape: torch.randn(shape, generator=generator)  # noqa: E731
    prob, edges = (rand(2, 16, 6, 8) * 3).softmax(dim=1), rand(2, 9, 12, 16)
    label, slopes, normal = rand(2, 6, 8) + 9, rand(2, 2, 6, 8) * 0.1, F.normalize(rand(2, 3, 6, 8), dim=1)
    mask, results = rand(2, 9 * 16, 6, 8) * 30, []  # at the border all weight may be on a pixel that is not there
    for learns in (True, False):
        with torch.set_grad_enabled(learns):
            results.append((*fine_hypotheses(prob, edges), *upsample_planes(label, slopes, normal, mask)))
    for by_torch, by_kernel in zip(*results, strict=True):
        assert by_torch.shape == by_kernel.shape
        assert torch.allclose(by_torch, by_kernel, atol=1e-4)
