"""Matching of the house network: plane sweep at 1/8, correlation near a surface at 1/4 (paper, section 3.1).

On a CPU and without gradients ``lite_kernels.py`` computes it, where there is Numba.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from nasrecon.nas.precision import runs_kernels
from nasrecon.nas.volume import plane_homographies, plane_sample_grid, sample_on_planes

Cameras = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""ref_K (B, 3, 3), src_K (B, S, 3, 3) at feature resolution, src_from_ref (B, S, 4, 4)."""

_PLANES_AT_ONCE = 16  # without gradients: the warped features of all planes are the largest tensor by far


class Sweep(nn.Module):
    """Correlate the reference with every source on all planes; average with view weights per pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.view_weight = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(16, 1, 3, 1, 1))
        self.gain = nn.Parameter(torch.tensor(2.0))

    def forward(
        self, features: torch.Tensor, cameras: Cameras, inv_depth: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the volume (B, C, D, h, w), a channel for each one of the features, and the view weights (B, S, h, w).

        Args:
            features: (B, 1 + S, C, h, w), the reference first. inv_depth: (B, D) of the planes.
        """
        if runs_kernels(features):
            return self._sweep_by_kernels(features, cameras, inv_depth)
        ref_K, src_K, src_from_ref = cameras
        (ref, *sources), size = features.unbind(dim=1), features.shape[-2:]
        total, weight_sum, weights = None, 1e-3, []
        for s, source in enumerate(sources):
            grid, inside = plane_sample_grid(ref_K, src_K[:, s], src_from_ref[:, s], inv_depth, size)
            correlation = _correlate_planes(ref, source, grid)
            inside = inside.float()
            weight = self._weigh(correlation.mean(dim=1), inside.mean(dim=1))
            weight_sum = weight_sum + inside[:, None] * weight[:, :, None]
            total = _add(total, correlation, weight[:, :, None])
            weights.append(weight)
        assert total is not None
        return total / weight_sum, torch.cat(weights, dim=1)

    def _sweep_by_kernels(
        self, features: torch.Tensor, cameras: Cameras, inv_depth: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        from nasrecon.nas import lite_kernels as kernels

        volumes, weights = [], []
        for item, homographies, depths in zip(*_arrays(features, cameras), inv_depth.numpy(), strict=True):
            of_item = []
            for s, homography in enumerate(homographies):
                similarity, inside = kernels.plane_similarity(item[[0, 1 + s]], homography, depths)
                of_item.append(self._weigh(torch.from_numpy(similarity)[None], torch.from_numpy(inside)[None])[0])
            weights.append(torch.cat(of_item))
            volume = kernels.plane_volume(item, homographies, weights[-1].detach().numpy(), depths)
            volumes.append(torch.from_numpy(volume).permute(3, 0, 1, 2))
        return torch.stack(volumes) if len(volumes) > 1 else volumes[0][None], torch.stack(weights)

    def _weigh(self, similarity: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Return the weight (B, 1, h, w) of a source at each pixel, from how peaked its correlation (B, D, h, w) is.

        Args:
            inside: (B, h, w), the share of the planes on which the pixel falls into the source.
        """
        prob = (similarity * self.gain.exp()).softmax(dim=1)
        facts = torch.stack([prob.amax(dim=1), similarity.amax(dim=1), inside], dim=1)
        return torch.sigmoid(self.view_weight(facts).float())


def _arrays(features: torch.Tensor, cameras: Cameras) -> tuple[np.ndarray, np.ndarray]:
    """Return features (B, 1 + S, h, w, C) and homographies (B, S, 3, 4) as ``lite_kernels`` takes them."""
    ref_K, src_K, src_from_ref = cameras
    homographies = torch.cat(plane_homographies(ref_K[:, None], src_K, src_from_ref), dim=-1)
    return features.detach().permute(0, 1, 3, 4, 2).contiguous().numpy(), homographies.numpy()


def _add(total: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return total + x * weight, in place where no gradient is asked for."""
    if total is None:
        return x * weight
    return total.addcmul(x, weight) if torch.is_grad_enabled() else total.addcmul_(x, weight)


def _correlate_planes(ref: torch.Tensor, src: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Multiply (B, C, h, w) with the source's features on the planes of the grid (B, D, h, w, 2): (B, C, D, h, w)."""
    if torch.is_grad_enabled():
        return ref[:, :, None] * sample_on_planes(src, grid)
    B, D, h, w, _ = grid.shape
    out = torch.empty(B, src.shape[1], D, h, w, device=ref.device, dtype=ref.dtype)
    for part, planes in zip(out.split(_PLANES_AT_ONCE, dim=2), grid.split(_PLANES_AT_ONCE, dim=1), strict=True):
        torch.mul(ref[:, :, None], sample_on_planes(src, planes.contiguous()), out=part)
    return out


def correlate_near(
    features: torch.Tensor, cameras: Cameras, weights: torch.Tensor, inv_depth: torch.Tensor, groups: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Correlate at a few depths of each pixel.

    Args:
        features: (B, 1 + S, C, h, w), the reference first. weights: (B, S, h, w) of the views.
        inv_depth: (B, N, h, w). groups: of channels whose products are averaged.

    Returns:
        the correlation (B, groups * N, h, w), averaged over the sources, and their weight (B, 1, h, w), of the N
        depths the mean.
    """
    if runs_kernels(features):
        from nasrecon.nas import lite_kernels as kernels

        items = zip(
            *_arrays(features, cameras), weights.detach().numpy(), inv_depth.detach().contiguous().numpy(), strict=True
        )
        pairs = [kernels.correlate_near(*item, groups=groups) for item in items]
        near, visible = (torch.from_numpy(np.stack(maps)) for maps in zip(*pairs, strict=True))
        return near.flatten(1, 2), visible[:, None]
    ref_K, src_K, src_from_ref = cameras
    (ref, *sources), size = features.unbind(dim=1), features.shape[-2:]
    ref = ref * (groups / features.shape[2])
    N, weight_sum = inv_depth.shape[1], torch.full_like(weights[:, :1], 1e-3)
    totals: list[torch.Tensor | None] = [None] * N
    for s, source in enumerate(sources):
        grid, inside = plane_sample_grid(ref_K, src_K[:, s], src_from_ref[:, s], inv_depth.flatten(2), size)
        weight = weights[:, s, None]
        for n in range(N):  # one at a time: what is sampled stays in the cache of the processor
            sampled = sample_on_planes(source, grid[:, n : n + 1])[:, :, 0]
            totals[n] = _add(totals[n], (ref * sampled).unflatten(1, (groups, -1)).sum(dim=2), weight)
        weight_sum = weight_sum + inside * weight
    correlation = torch.stack([total for total in totals if total is not None], dim=2) / weight_sum[:, None]
    return correlation.flatten(1, 2), weight_sum.mean(dim=1, keepdim=True)
