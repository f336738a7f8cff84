"""Errors of labels that the losses of both networks are made of."""

from __future__ import annotations

import torch

from nasrecon.train.datasets import TrainingBatch


def true_label(batch: TrainingBatch, planes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the true labels (B, H, W) and where they count (bool): a depth, no nearer than the nearest plane."""
    label = batch.stereo.min_depth[:, None, None] * planes / batch.depth.clamp_min(1e-9)
    valid = (batch.depth > 0) & (label <= planes - 1)
    return torch.where(valid, label, 1.0), valid


def has_normal(normal: torch.Tensor) -> torch.Tensor:
    """Return where there are normals (B, 3, H, W): (B, H, W) bool."""
    return (normal * normal).sum(dim=1) > 0.5


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of x over mask; 0 where the mask is empty."""
    return (x * mask).sum() / mask.sum().clamp_min(1)


def log_error(label: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """|log depth error|; labels below 0.25 count as 0.25 (all "very far")."""
    return (label.clamp_min(0.25).log() - truth.clamp_min(0.25).log()).abs()


def relative_error(label: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """|depth / true depth - 1|, growing only as a logarithm beyond 1; labels below 0.25 count as 0.25.

    Unlike the error of the logarithm it costs more to be too far than too near: where the depth is in doubt, the near
    guess is the better one under abs rel.
    """
    error = (truth.clamp_min(0.25) / label.clamp_min(0.25) - 1).abs()
    return torch.where(error < 1, error, 1 + error.clamp_min(1).log())


def cross_entropy(cost: torch.Tensor, label: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Score the planes (B, D, h, w) against labels (B, h, w), shared between the two planes beside each label."""
    log_prob = cost.float().log_softmax(dim=1)
    low = label.floor().clamp(0, cost.shape[1] - 2)
    share = (label - low)[:, None]
    low = low.long()[:, None]
    picked = log_prob.gather(1, low) * (1 - share) + log_prob.gather(1, low + 1) * share
    return -masked_mean(picked[:, 0], mask)
