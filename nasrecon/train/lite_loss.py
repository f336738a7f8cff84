"""The loss of the stages of ``lite`` (paper, section 3.4, with terms that make a short schedule work)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nasrecon.nas.surface import forward_differences, label_slopes, normal_from_slopes, upsampled_likelihood
from nasrecon.nas.volume import scaled_K
from nasrecon.train.datasets import TrainingBatch
from nasrecon.train.label_loss import has_normal, log_error, masked_mean, relative_error, true_label

# Weights of the terms, chosen so that none of them drowns the others at the start.
WEIGHTS = {
    "ce": 0.5, "edges": 0.3, "label": 0.15, "label_initial": 0.1, "normal": 2.0, "steps": 0.6, "refined": 2.0,
    "refined_normal": 2.0, "consistency": 0.4, "refined_consistency": 0.5, "spread": 0.15,
}  # fmt: skip

OF_STAGE_1 = ("ce", "edges", "label", "label_initial", "normal")

EDGE_WEIGHT, EDGE_JUMP = 2.0, 1.05
"""How many times a pixel near a depth edge counts in the error of depth; the factor between the depths of neighbours
from which there is an edge."""

_STEP_DECAY, _STEP_SUM = 0.8, 2.0  # weights of the consistency steps: _STEP_DECAY^k, k steps before the last
_SMOOTH = 0.25  # largest distance of the true normal from that of the true depth where a surface is smooth


def shrink(full: torch.Tensor, factor: int) -> torch.Tensor:
    """Take a map (B, H, W) to 1/factor: the lower median of the middle four pixels, never a mix of surfaces."""
    middle = torch.stack(
        [full[:, y::factor, x::factor] for y in (factor // 2 - 1, factor // 2) for x in (factor // 2 - 1, factor // 2)]
    )
    return middle.median(dim=0).values


def plane_shares(label: torch.Tensor, valid: torch.Tensor, planes: int, factor: int) -> torch.Tensor:
    """Return how the labels (B, H, W) of each cell of factor x factor pixels spread over the planes: (B, D, h, w).

    Each label is shared between the two planes beside it. The shares of a cell add up to 1, to 0 where nothing in it
    is valid.
    """
    cells = lambda x: x.unflatten(2, (-1, factor)).unflatten(1, (-1, factor)).permute(0, 2, 4, 1, 3).flatten(1, 2)  # noqa: E731
    label, counted = cells(label), cells(valid.float())
    low = label.floor().clamp(0, planes - 2)
    share = (label - low).clamp(0, 1)
    B, _, h, w = label.shape
    shares = torch.zeros(B, planes, h, w, device=label.device)
    shares.scatter_add_(1, low.long(), (1 - share) * counted).scatter_add_(1, low.long() + 1, share * counted)
    return shares / shares.sum(dim=1, keepdim=True).clamp_min(1e-6)


def share_entropy(log_prob: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """Score logarithms (B, D, h, w) of plane probabilities against shares (B, D, h, w): the mean of valid cells."""
    return -(log_prob * shares).sum() / shares.sum().clamp_min(1)


def edge_weights(label: torch.Tensor, valid: torch.Tensor, reach: int) -> torch.Tensor:
    """Return how much each pixel counts (B, H, W): ``EDGE_WEIGHT`` within ``reach`` px of a depth edge, else 1.

    Blurred edges cost little in the mean of all pixels, as few pixels lie there.

    Args:
        label: true labels (B, H, W). valid: where they count; the end of what is valid is no edge.
    """
    nearest = F.max_pool2d(torch.where(valid, label, 0.0)[:, None], 3, 1, 1)
    farthest = -F.max_pool2d(-torch.where(valid, label, torch.inf)[:, None], 3, 1, 1)
    edges = (nearest > EDGE_JUMP * farthest).float()
    return 1 + (EDGE_WEIGHT - 1) * F.max_pool2d(edges, 2 * reach + 1, 1, reach)[:, 0]


def step_weights(steps: int) -> list[float]:
    """Return the weights of the consistency steps, the last the largest; they add up to 2."""
    raw = [_STEP_DECAY ** (steps - 1 - k) for k in range(steps)]
    return [_STEP_SUM * x / sum(raw) for x in raw]


def training_loss(
    stages: dict[str, torch.Tensor], batch: TrainingBatch, planes: int, stage: str = "all"
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss of a stage (``recipes.py``) and what to log.

    Cross-entropy of both costs against the depths in each cell, likelihood of the upsampled distribution, Huber of both
    labels (Z1, Z2), distance of the normals (volume, each step, full size), relative depth and label of each step and
    of the full-size map (more near depth edges, ``edge_weights``), the paper's consistency term in inverse depth, and
    Laplace's likelihood for the spread.
    The consistency term (each step, full size) takes the slopes from pixel to pixel: slopes averaged over
    three pixels are the same with and without a pattern that alternates.
    Logged: each term, ``abs_rel`` of Z2 and of the refined depth and ``angle`` [degrees] of both normals.
    """
    truth_full, valid_full = true_label(batch, planes)
    truth8, valid8, normal8 = _at(batch, truth_full, valid_full, 8)
    truth4, valid4, normal4 = _at(batch, truth_full, valid_full, 4)
    K4 = scaled_K(batch.stereo.ref_K, 4, corner_aligned=False)
    huber = lambda a, b: F.smooth_l1_loss(a, b, reduction="none")  # noqa: E731

    shares = plane_shares(truth_full, valid_full, planes, 8)
    log_prob = [stages[name].log_softmax(dim=1) for name in ("cost2", "cost")]
    likelihood = upsampled_likelihood(log_prob[0].detach(), stages["edges"], truth4)
    terms = {
        "ce": share_entropy(log_prob[0], shares) + 0.5 * share_entropy(log_prob[1], shares),
        "edges": masked_mean(-likelihood.clamp_min(1e-5).log(), valid4),
        "label": masked_mean(huber(stages["label"], truth8) + log_error(stages["label"], truth8), valid8),
        "label_initial": masked_mean(huber(stages["label_initial"], truth8), valid8),
        "normal": masked_mean(_distance(stages["normal"], normal8), valid8 & has_normal(normal8)),
    }
    smooth = valid4 & _is_smooth(truth4, normal4, K4)
    terms["steps"] = terms["consistency"] = torch.zeros((), device=truth4.device)
    weights = step_weights(len(stages["step_labels"]))
    counted4 = valid4 * edge_weights(truth4, valid4, 2)
    for weight, label, normal in zip(weights, stages["step_labels"], stages["step_normals"], strict=True):
        error = huber(label, truth4) * 0.15 + relative_error(label, truth4) * 2
        turned = masked_mean(_distance(normal, normal4), valid4 & has_normal(normal4))
        terms["steps"] = terms["steps"] + weight * (masked_mean(error, counted4) + turned)
        from_depth = normal_from_slopes(label, forward_differences(label), K4)
        terms["consistency"] = terms["consistency"] + weight * masked_mean(_distance(from_depth, normal4), smooth)
    refined = stages["refined_label"]
    counted_full = valid_full * edge_weights(truth_full, valid_full, 8)
    terms["refined"] = masked_mean(relative_error(refined, truth_full) + 0.1 * huber(refined, truth_full), counted_full)
    from_depth = normal_from_slopes(refined, forward_differences(refined), batch.stereo.ref_K)
    smooth = valid_full & _is_smooth(truth_full, batch.normal, batch.stereo.ref_K)
    terms["refined_consistency"] = masked_mean(_distance(from_depth, batch.normal), smooth)
    with_normal = valid_full & has_normal(batch.normal)
    terms["refined_normal"] = masked_mean(_distance(stages["refined_normal"], batch.normal), with_normal)
    relative = log_error(stages["step_labels"][-1].detach(), truth4)
    terms["spread"] = masked_mean(relative * torch.exp(-stages["log_spread"]) + stages["log_spread"], valid4)

    counted = {"all": tuple(WEIGHTS), "1": OF_STAGE_1, "2": tuple(name for name in WEIGHTS if name not in OF_STAGE_1)}
    total = sum((WEIGHTS[name] * terms[name] for name in counted[stage]), torch.zeros((), device=truth4.device))
    logged = {name: float(term.detach()) for name, term in terms.items()} | {
        "abs_rel_z2": _abs_rel(stages["label"], truth8, valid8),
        "abs_rel": _abs_rel(refined, truth_full, valid_full),
        "angle_volume": _angle(stages["normal"], normal8, valid8 & has_normal(normal8)),
        "angle": _angle(stages["refined_normal"], batch.normal, with_normal),
    }
    return total, logged | {"loss": float(total.detach())}


def _distance(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the distance of vectors (B, 3, H, W): (B, H, W); many times faster than ``norm``."""
    x, y, z = (a - b).unbind(dim=1)
    return (x * x + y * y + z * z).clamp_min(1e-12).sqrt()


def _is_smooth(truth: torch.Tensor, normal: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Return where the consistency terms count: where the true depth's own slopes agree with the true normal.

    They do not count across depth edges.
    """
    return _distance(normal_from_slopes(truth, label_slopes(truth), K), normal) < _SMOOTH


def _at(
    batch: TrainingBatch, label: torch.Tensor, valid: torch.Tensor, factor: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return true labels, where they count, and true normals at 1/factor."""
    normal = torch.stack([shrink(batch.normal[:, c], factor) for c in range(3)], dim=1)
    return shrink(label, factor), shrink(valid.float(), factor) > 0.5, F.normalize(normal, dim=1, eps=1e-6)


@torch.no_grad()
def _abs_rel(label: torch.Tensor, truth: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the mean relative error of depths nearer than the D-fold min_depth."""
    return float(masked_mean((truth / label.clamp_min(0.25) - 1).abs(), mask & (truth > 1)))


@torch.no_grad()
def _angle(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> float:
    return float(masked_mean(torch.rad2deg(torch.arccos((a * b).sum(dim=1).clamp(-1, 1))), mask))
