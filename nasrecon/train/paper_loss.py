"""The losses of the paper's network, in its two stages (paper, section 3.4 and supplement).

Depths are in the units in which ``min_depth`` is the network's ``trained_min_depth``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nasrecon.nas.heads import expected_label
from nasrecon.nas.paper import PaperNetwork, plane_probabilities
from nasrecon.nas.volume import depth_from_label
from nasrecon.train.datasets import TrainingBatch
from nasrecon.train.label_loss import cross_entropy, has_normal, log_error, masked_mean, true_label

_GRADIENT_SCALE = 100.0
_LARGEST_TRUE_GRADIENT = 1.0
_LARGEST_GRADIENT = 5.0


def volume_loss(network: PaperNetwork, batch: TrainingBatch) -> tuple[torch.Tensor, dict[str, float]]:
    """Stage 1, of depth and normals from the cost volume: Huber(Z2) + 0.7 Huber(Z1) + 3 Huber(n).

    Depths are divided by the median of the item's true ones, and there are two terms that the paper does not have: the
    cross-entropy of the planes, and the error of the logarithm of depth. Of worlds of all sizes the deepest have
    ten times the gradient of all else otherwise, and a short schedule does not arrive.
    """
    depth, normal = batch.depth * network.trained_min_depth, batch.normal
    label, valid = _within_planes(batch, network)
    size = depth.shape[-2:]
    scores, scores_in_context, found_normal = network.mvdnet(batch.stereo)
    labels = [expected_label(plane_probabilities(s.float(), size)) for s in (scores, scores_in_context)]
    # A label below 0.25 is "very far": its depth, and the gradient with it, would be without bounds.
    z1, z2 = (_depth(predicted.clamp_min(0.25), network) for predicted in labels)
    coarse = F.interpolate(label[:, None], scores.shape[-2:], mode="nearest")[:, 0]
    counts = F.interpolate(valid[:, None].float(), scores.shape[-2:], mode="nearest")[:, 0] > 0.5
    scale = _median(depth, valid)
    terms = {
        "depth": _huber(z2 / scale, depth / scale, valid),
        "depth_initial": 0.7 * _huber(z1 / scale, depth / scale, valid),
        "normal": 3 * _huber(found_normal.float(), normal, valid[:, None]),
        "ce": 0.5 * (cross_entropy(scores_in_context, coarse, counts) + 0.7 * cross_entropy(scores, coarse, counts)),
        "log": masked_mean(log_error(labels[1], label) + 0.7 * log_error(labels[0], label), valid),
    }
    return _total(terms, z2, found_normal, depth, normal, valid)


def consistency_loss(network: PaperNetwork, batch: TrainingBatch) -> tuple[torch.Tensor, dict[str, float]]:
    """Stage 2, of the consistency module over a frozen first stage: Huber(Z) + 3 Huber(n) + 0.1 consistency.

    Huber's Z is divided by the median, as in stage 1.
    """
    depth, normal = batch.depth * network.trained_min_depth, batch.normal
    _, valid = _within_planes(batch, network)
    with torch.no_grad():
        _, scores, from_volume = network.mvdnet(batch.stereo)
        z2 = _depth(expected_label(plane_probabilities(scores.float(), depth.shape[-2:])), network)
    with torch.autocast(depth.device.type, enabled=False):
        refined, refined_normal = network.consistency(z2.float(), from_volume.float())
    scale = _median(depth, valid)
    terms = {
        "depth": _huber(refined / scale, depth / scale, valid),
        "normal": 3 * _huber(refined_normal, normal, valid[:, None]),
        "consistency": 0.1 * gradient_disagreement(refined, refined_normal, depth, batch.stereo.ref_K, valid),
    }
    total, logged = _total(terms, refined, refined_normal, depth, normal, valid)
    return total, logged | {
        "abs_rel_z2": _abs_rel(z2, depth, valid),
        "angle_volume": _angle(from_volume, normal, valid),
    }


def gradient_disagreement(
    depth: torch.Tensor, normal: torch.Tensor, true_depth: torch.Tensor, K: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Huber distance, x100, of the depth's gradient and the one that normal and depth imply (paper, section 3.3).

    Counted where the true gradient is below 1 and both estimates are below 5 (each x100): not across edges.

    Args:
        depth, true_depth, valid: (B, H, W). normal: (B, 3, H, W). K: (B, 3, 3), integer pixel centres.
    """
    of_map, of_normal = depth_gradient(depth), gradient_from_normal(depth, normal, K)
    true = depth_gradient(true_depth)
    s = _GRADIENT_SCALE
    smooth = (true.abs() * s < _LARGEST_TRUE_GRADIENT).all(1) & valid
    small = ((of_map.abs() * s < _LARGEST_GRADIENT) & (of_normal.abs() * s < _LARGEST_GRADIENT)).all(1)
    return _huber(of_map * s, of_normal * s, (smooth & small)[:, None])


def depth_gradient(depth: torch.Tensor) -> torch.Tensor:
    """Return dZ/du, dZ/dv (B, 2, H, W) of a depth map (B, H, W) by Sobel's weights, per pixel."""
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=depth.device, dtype=depth.dtype) / 8
    weights = torch.stack([kernel, kernel.T])[:, None]
    return F.conv2d(F.pad(depth[:, None], (1, 1, 1, 1), mode="replicate"), weights)


def gradient_from_normal(depth: torch.Tensor, normal: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Return dZ/du, dZ/dv (B, 2, H, W) that normals (B, 3, H, W) imply at depths (B, H, W): the equation, with the
    real principal point; the published code takes the image's centre."""
    _, H, W = depth.shape
    y, x = torch.meshgrid(torch.arange(H, device=depth.device), torch.arange(W, device=depth.device), indexing="ij")
    at = lambda i, j: K[:, i, j].view(-1, 1, 1)  # noqa: E731
    nz = normal[:, 2].clamp(max=-1e-2)
    a, b = normal[:, 0] / nz / at(0, 0), normal[:, 1] / nz / at(1, 1)
    scale = 1 + a * (x - at(0, 2)) + b * (y - at(1, 2))
    scale = torch.where(scale.abs() < 1e-2, 1e-2, scale)
    return torch.stack([-a * depth / scale, -b * depth / scale], dim=1)


def _within_planes(batch: TrainingBatch, network: PaperNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the true labels (B, H, W) and where they count: min_depth <= depth <= D min_depth."""
    label, valid = true_label(batch, network.planes)
    valid = valid & has_normal(batch.normal)
    return label, valid & (label >= 1)


def _depth(label: torch.Tensor, network: PaperNetwork) -> torch.Tensor:
    return depth_from_label(label, label.new_full((len(label),), network.trained_min_depth), network.planes)


def _median(depth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the median (B, 1, 1) of each item's depths (B, H, W) where they count, 1 where none does."""
    median = torch.where(valid, depth, torch.nan).flatten(1).nanmedian(dim=1).values
    return median.nan_to_num(1.0)[:, None, None]


def _huber(predicted: torch.Tensor, true: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return masked_mean(F.smooth_l1_loss(predicted, true, reduction="none"), mask.expand_as(predicted))


def _total(
    terms: dict[str, torch.Tensor], depth: torch.Tensor, normal: torch.Tensor,
    true_depth: torch.Tensor, true_normal: torch.Tensor, valid: torch.Tensor,
) -> tuple[torch.Tensor, dict[str, float]]:  # fmt: skip
    total = torch.stack(list(terms.values())).sum()
    logged = {name: float(term.detach()) for name, term in terms.items()}
    scores = {"abs_rel": _abs_rel(depth, true_depth, valid), "angle": _angle(normal, true_normal, valid)}
    return total, logged | scores | {"loss": float(total.detach())}


@torch.no_grad()
def _abs_rel(depth: torch.Tensor, true: torch.Tensor, valid: torch.Tensor) -> float:
    return float(masked_mean((depth / true.clamp_min(1e-9) - 1).abs(), valid))


@torch.no_grad()
def _angle(normal: torch.Tensor, true: torch.Tensor, valid: torch.Tensor) -> float:
    cosine = (F.normalize(normal.float(), dim=1) * true).sum(1).clamp(-1, 1)
    return float(masked_mean(cosine.acos().rad2deg(), valid))
