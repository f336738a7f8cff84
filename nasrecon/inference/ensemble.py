"""Average predictions that were made under alternative camera poses or at other sizes of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from nasrecon.nas.network import NEAR, Prediction

_MIN_SPREAD = 1e-4


def fuse_stages(predictions: Sequence[Prediction], power: float, *, by_pixel: bool = False) -> Prediction:
    """Average predictions of the same references, each as much as it is sure of itself.

    Depths are averaged as one over depth, normals as vectors, with weights of one over the relative spread to a power:
    over its geometric mean in the image, which tells wrong poses better than one pixel can, or by pixel. Where the
    predictions contradict each other sigma grows and confidence falls: both are those of the mixture, taken as
    Laplace's distributions around the single depths.

    Args:
        predictions: at least one, of one size. Pixels whose refined depth is not finite or not positive do not count.
        power: of the spread. by_pixel: each pixel has weights of its own.

    Returns:
        the average; a pixel that none of them knows has NaN depths and confidence 0.
    """
    if len(predictions) == 1:
        return predictions[0]
    refined = torch.stack([p.refined_depth.float() for p in predictions])
    known = torch.isfinite(refined) & (refined > 0)
    sigma = torch.stack([p.sigma.float() for p in predictions])
    spread = torch.where(known, sigma / refined, 1.0).nan_to_num(1.0).clamp(_MIN_SPREAD, 1 / _MIN_SPREAD)
    log_spread = spread.log()
    if not by_pixel:
        counted = known.sum(dim=(2, 3), keepdim=True).clamp_min(1)
        log_spread = (log_spread * known).sum(dim=(2, 3), keepdim=True) / counted
    sure = torch.where(known, -power * log_spread, -torch.inf)
    weights = sure.softmax(dim=0).nan_to_num(0.0)  # NaN where nothing is known

    def depth(name: str) -> torch.Tensor:
        inverse = torch.stack([1 / getattr(p, name).float() for p in predictions])
        usable = torch.isfinite(inverse) & (inverse > 0)
        shares = weights * usable
        average = (shares * torch.where(usable, inverse, 0.0)).sum(dim=0) / shares.sum(dim=0)
        return torch.where(average > 0, 1 / average, torch.nan)

    def normal(name: str) -> torch.Tensor:
        parts = torch.stack([getattr(p, name).float() for p in predictions]).nan_to_num(0.0)
        return F.normalize((weights[:, :, None] * parts).sum(dim=0), dim=1, eps=1e-6)

    average = depth("refined_depth")
    off = torch.where(known, refined / average - 1, 0.0)
    laplace = spread / math.sqrt(2)
    still_near = _within(NEAR, off, laplace) / _within(NEAR, torch.zeros_like(off), laplace)
    confidence = torch.stack([p.confidence.float() for p in predictions]).nan_to_num(0.0)
    relative = (weights * (spread**2 + off**2)).sum(dim=0).sqrt()
    return Prediction(
        depth_initial=depth("depth_initial"),
        depth=depth("depth"),
        normal=normal("normal"),
        refined_depth=average,
        refined_normal=normal("refined_normal"),
        confidence=(weights * confidence * still_near).sum(dim=0),
        sigma=average * relative,
    )


def _within(reach: float, center: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Return the probability that a Laplace distribution gives to [-reach, reach]."""
    laplace = torch.distributions.Laplace(center, scale, validate_args=False)
    return laplace.cdf(torch.full_like(center, reach)) - laplace.cdf(torch.full_like(center, -reach))
