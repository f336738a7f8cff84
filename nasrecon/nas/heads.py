"""From a volume of scores to labels, confidence and spread (paper, section 3.1; soft argmin as in GC-Net).

Labels are computed in the precision that comes in, under autocast too: bfloat16 resolves label 40 to 0.25 planes.
"""

from __future__ import annotations

import torch

from nasrecon.nas.precision import runs_kernels
from nasrecon.nas.surface import upsample_distribution


def expected_label(prob: torch.Tensor) -> torch.Tensor:
    """Return the mean label (B, H, W) under plane probabilities (B, D, H, W)."""
    labels = torch.arange(prob.shape[1], device=prob.device, dtype=prob.dtype)
    with torch.autocast(prob.device.type, enabled=False):
        return torch.einsum("bdhw,d->bhw", prob, labels)


def label_spread(prob: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation (B, H, W), in labels, of probabilities (B, D, H, W) about ``mean`` (B, H, W)."""
    labels = torch.arange(prob.shape[1], device=prob.device, dtype=prob.dtype)
    with torch.autocast(prob.device.type, enabled=False):
        second = torch.einsum("bdhw,d->bhw", prob, labels**2)
        first = torch.einsum("bdhw,d->bhw", prob, labels)
    return (second - 2 * mean * first + mean**2).clamp_min(0).sqrt()


def mass_near(prob: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Return the mass (B, H, W) of the four planes nearest to ``mean``: MVSNet's confidence (its section 3.3)."""
    first = mean.floor().long().sub(1).clamp(0, prob.shape[1] - 4)
    total = torch.zeros_like(mean)
    for offset in range(4):
        total = total + prob.gather(1, (first + offset)[:, None])[:, 0]
    return total.clamp(0, 1)


def sigma_from_spread(spread: torch.Tensor, label: torch.Tensor, min_depth: torch.Tensor, planes: int) -> torch.Tensor:
    """Turn a spread in labels (B, H, W) about ``label`` (B, H, W) into one of depth, in the unit of ``min_depth`` (B,).

    First order: |d depth / d label| = min_depth * D / label**2. Below half a plane from infinity, where the depth
    itself means nothing any more, the slope stays at its value there: label 0 gives a large number and not inf.
    """
    slope = min_depth.view(-1, *[1] * (label.dim() - 1)) * planes / label.clamp_min(0.5) ** 2
    return spread * slope


def fine_hypotheses(prob: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Upsample plane probabilities (B, D, h, w) by 2 with logits (B, 9, 2h, 2w) and find the two best labels.

    Returns:
        labels and masses (B, 2, 2h, 2w) as ``best_hypotheses``; the entropy (B, 1, 2h, 2w) of the distribution.
    """
    if runs_kernels(prob):
        from nasrecon.nas import surface_kernels as kernels

        items = [kernels.upsample_distribution(*item) for item in zip(prob, mask, strict=True)]
        fine, labels, masses = (torch.stack(each) for each in zip(*items, strict=True))
        return labels, masses, -(fine * fine.clamp_min(1e-6).log()).sum(dim=-1)[:, None]
    fine = upsample_distribution(prob, mask)
    return *best_hypotheses(fine), -(fine * fine.clamp_min(1e-6).log()).sum(dim=1, keepdim=True)


def best_hypotheses(prob: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two best labels under plane probabilities (B, D, H, W).

    A hypothesis is the mean label of the five planes about the most probable one; the second is that of what is left
    without the seven planes about it.

    Returns:
        labels (B, 2, H, W), not the same; their masses (B, 2, H, W), the better one first.
    """
    last = prob.shape[1] - 1
    labels, masses, left = [], [], prob
    for _ in range(2):
        best = left.argmax(dim=1, keepdim=True)
        planes = (best + torch.arange(-2, 3, device=prob.device).view(1, -1, 1, 1)).clamp(0, last)
        first = torch.ones_like(planes, dtype=torch.bool)
        first[:, 1:] = planes[:, 1:] != planes[:, :-1]  # planes beyond the ends count once
        near = left.gather(1, planes) * first
        mass = near.sum(dim=1)
        labels.append((near * planes).sum(dim=1) / mass.clamp_min(1e-9))
        masses.append(mass)
        around = (best + torch.arange(-3, 4, device=prob.device).view(1, -1, 1, 1)).clamp(0, last)
        left = left.scatter(1, around, 0.0)
    return torch.stack(labels, dim=1), torch.stack(masses, dim=1)
