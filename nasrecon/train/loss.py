"""What training asks of the lite network's stages (paper, section 3.4, and what makes a short schedule work)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from nasrecon.nas.surface import label_slopes, normal_from_slopes
from nasrecon.nas.volume import scaled_K
from nasrecon.train.datasets import TrainingBatch

# Weights of the terms, chosen so that none of them drowns the others at the start.
WEIGHTS = {
    "ce": 0.5, "label": 0.15, "label_initial": 0.1, "normal": 2.0, "steps": 0.6, "refined": 2.0, "refined_normal": 2.0,
    "consistency": 0.3, "spread": 0.15,
}  # fmt: skip

OF_STAGE_1 = ("ce", "label", "label_initial", "normal")


def quarter(full: torch.Tensor) -> torch.Tensor:
    """Take a map (B, H, W) to (B, h, w): the lower median of the middle four pixels of 4x4, never a mix of surfaces."""
    middle = torch.stack([full[:, y::4, x::4] for y in (1, 2) for x in (1, 2)])
    return middle.median(dim=0).values


def true_label(batch: TrainingBatch, planes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the true labels (B, H, W) and where they count (B, H, W) bool: a depth, no nearer than the nearest plane."""
    label = batch.stereo.min_depth[:, None, None] * planes / batch.depth.clamp_min(1e-9)
    valid = (batch.depth > 0) & (label <= planes - 1)
    return torch.where(valid, label, 1.0), valid


def masked_mean(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of x over mask; 0 where the mask is empty."""
    return (x * mask).sum() / mask.sum().clamp_min(1)


def cross_entropy(cost: torch.Tensor, label: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Score the planes (B, D, h, w) against labels (B, h, w), shared between the two planes beside each label."""
    log_prob = cost.float().log_softmax(dim=1)
    low = label.floor().clamp(0, cost.shape[1] - 2)
    share = (label - low)[:, None]
    low = low.long()[:, None]
    picked = log_prob.gather(1, low) * (1 - share) + log_prob.gather(1, low + 1) * share
    return -masked_mean(picked[:, 0], mask)


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


def training_loss(
    stages: dict[str, torch.Tensor], batch: TrainingBatch, planes: int, stage: str = "all"
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the loss of a stage (``recipes.py``) and what to log.

    Cross-entropy of both costs and Huber of both labels (Z1, Z2), distance of the normals (volume, each step, full
    size), relative depth and label of each step and of the full-size map, the paper's consistency term in inverse
    depth, and Laplace's likelihood for the spread.
    Logged: each term, ``abs_rel`` of Z2 and of the refined depth and ``angle`` [degrees] of both normals.
    """
    truth_full, valid_full = true_label(batch, planes)
    truth, valid = quarter(truth_full), quarter(valid_full.float()) > 0.5
    normal_true = torch.stack([quarter(batch.normal[:, c]) for c in range(3)], dim=1)
    normal_true = F.normalize(normal_true, dim=1, eps=1e-6)
    K = scaled_K(batch.stereo.ref_K, 4, corner_aligned=False)
    huber = lambda a: F.smooth_l1_loss(a, truth, reduction="none")  # noqa: E731
    apart = lambda a, b: (a - b).norm(dim=1)  # noqa: E731

    terms = {
        "ce": cross_entropy(stages["cost2"], truth, valid) + 0.5 * cross_entropy(stages["cost"], truth, valid),
        "label": masked_mean(huber(stages["label"]), valid) + masked_mean(log_error(stages["label"], truth), valid),
        "label_initial": masked_mean(huber(stages["label_initial"]), valid),
        "normal": masked_mean(apart(stages["normal"], normal_true), valid),
    }
    # The consistency term counts where the true depth's own slopes agree with the true normal: not across edges.
    smooth = valid & (apart(normal_from_slopes(truth, label_slopes(truth), K), normal_true) < 0.25)
    terms["steps"] = terms["consistency"] = 0
    for label, normal in zip(stages["step_labels"], stages["step_normals"], strict=True):
        terms["steps"] = terms["steps"] + masked_mean(huber(label) * 0.15 + relative_error(label, truth) * 2, valid)
        terms["steps"] = terms["steps"] + masked_mean(apart(normal, normal_true), valid)
        from_depth = normal_from_slopes(label, label_slopes(label), K)
        terms["consistency"] = terms["consistency"] + masked_mean(apart(from_depth, normal_true), smooth)
    refined = stages["refined_label"]
    terms["refined"] = masked_mean(relative_error(refined, truth_full), valid_full) + 0.1 * masked_mean(
        F.smooth_l1_loss(refined, truth_full, reduction="none"), valid_full
    )
    terms["refined_normal"] = masked_mean(apart(stages["refined_normal"], batch.normal), valid_full)
    relative = log_error(stages["step_labels"][-1].detach(), truth)
    terms["spread"] = masked_mean(relative * torch.exp(-stages["log_spread"]) + stages["log_spread"], valid)

    counted = {"all": tuple(WEIGHTS), "1": OF_STAGE_1, "2": tuple(name for name in WEIGHTS if name not in OF_STAGE_1)}[
        stage
    ]
    total = sum(WEIGHTS[name] * terms[name] for name in counted)
    logged = {name: float(term.detach()) for name, term in terms.items()} | _scores(
        stages, batch, truth, valid, truth_full, valid_full, normal_true
    )
    return total, logged | {"loss": float(total.detach())}


@torch.no_grad()
def _scores(
    stages: dict[str, torch.Tensor], batch: TrainingBatch, truth: torch.Tensor, valid: torch.Tensor,
    truth_full: torch.Tensor, valid_full: torch.Tensor, normal_true: torch.Tensor,
) -> dict[str, float]:  # fmt: skip
    def abs_rel(label: torch.Tensor, true: torch.Tensor, mask: torch.Tensor) -> float:
        counted = mask & (true > 1)  # nearer than the 64-fold min_depth
        return float(masked_mean((true / label.clamp_min(0.25) - 1).abs(), counted))

    def angle(a: torch.Tensor, b: torch.Tensor, mask: torch.Tensor) -> float:
        return float(masked_mean(torch.rad2deg(torch.arccos((a * b).sum(dim=1).clamp(-1, 1))), mask))

    return {
        "abs_rel_z2": abs_rel(stages["label"], truth, valid),
        "abs_rel": abs_rel(stages["refined_label"], truth_full, valid_full),
        "angle_volume": angle(stages["normal"], normal_true, valid),
        "angle": angle(stages["refined_normal"], batch.normal, valid_full),
    }
