"""Surfaces in labels (inverse depth): slopes, the normals that go with them, and upsampling plane by plane.

The paper's consistency relation (section 3.3) in inverse depth, which is linear in the pixel on a plane.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from nasrecon.nas.precision import runs_kernels
from nasrecon.nas.volume import pixel_rays

_FREE_SLOPE = 0.02  # labels a pixel: slopes up to it are not bounded


def full_precision(function: Callable) -> Callable:
    """Run a function with autocast off: bfloat16 would round labels to a quarter of a plane."""

    @functools.wraps(function)
    def wrapped(first: torch.Tensor, *args: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        with torch.autocast(first.device.type, enabled=False):
            return function(first.float(), *(x.float() for x in args))

    return wrapped


def unit(x: torch.Tensor, least: float = 1e-6) -> torch.Tensor:
    """Scale vectors along dimension 1 to length one, those shorter than ``least`` to less.

    It is many times faster than ``F.normalize``.
    """
    return x * torch.rsqrt((x * x).sum(dim=1, keepdim=True).clamp_min(least**2))


@full_precision
def label_slopes(label: torch.Tensor) -> torch.Tensor:
    """Return the derivatives (B, 2, h, w) of a label map (B, h, w) along x and y, per pixel, by Sobel's weights."""
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=label.device, dtype=label.dtype) / 8
    weights = torch.stack([kernel, kernel.T])[:, None]
    return F.conv2d(F.pad(label[:, None], (1, 1, 1, 1), mode="replicate"), weights)


def forward_differences(label: torch.Tensor) -> torch.Tensor:
    """Return the steps (B, 2, h, w) of a label map (B, h, w) to the next pixel along x and y, 0 at the last.

    A pattern that alternates from pixel to pixel has steps, and no slope by Sobel's weights.
    """
    return torch.stack([F.pad(label.diff(dim=2), (0, 1)), F.pad(label.diff(dim=1), (0, 0, 0, 1))], dim=1)


def second_differences(label: torch.Tensor) -> torch.Tensor:
    """Return how far the mean of the two neighbours along x and y is from a label (B, h, w): (B, 2, h, w)."""
    padded = F.pad(label[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    x = (padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]) / 2 - label
    y = (padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1]) / 2 - label
    return torch.stack([x, y], dim=1)


@full_precision
def normal_from_slopes(label: torch.Tensor, slopes: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Return the unit normals (B, 3, h, w) of a surface of inverse depth ~ label (B, h, w) with slopes (B, 2, h, w).

    Inverse depth is linear in the pixel on a plane: label(u) ~ n . K^-1 u, so n ~ K^T (slope_x, slope_y, offset); K
    (B, 3, 3) with integer pixel centres. This is the paper's consistency relation (section 3.3) in inverse depth,
    with the true principal point.
    """
    _, h, w = label.shape
    y, x = torch.meshgrid(torch.arange(h, device=label.device), torch.arange(w, device=label.device), indexing="ij")
    offset = label - slopes[:, 0] * x - slopes[:, 1] * y
    plane = torch.stack([slopes[:, 0], slopes[:, 1], offset], dim=1)
    return -unit(torch.einsum("bji,bjhw->bihw", K, plane), 1e-9)


@full_precision
def slopes_from_normal(label: torch.Tensor, normal: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Invert ``normal_from_slopes``: return the slopes (B, 2, h, w) per pixel of normals, bounded at grazing angles."""
    B, h, w = label.shape
    rays = pixel_rays(K, h, w).view(B, 3, h, w)
    along = (normal * rays).sum(dim=1).clamp(max=-0.05)
    plane = torch.einsum("bji,bjhw->bihw", torch.linalg.inv(K), normal)[:, :2]
    return (plane / along[:, None]).clamp(-0.2, 0.2) * label[:, None]


@full_precision
def upsample_distribution(prob: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Upsample plane probabilities by 2: every fine pixel mixes those of the 3x3 nearest coarse pixels.

    Args:
        prob: (B, D, h, w). mask: (B, 9, 2h, 2w) logits of the mixture.

    Returns:
        (B, D, 2h, 2w)
    """
    B, D, h, w = prob.shape
    weights = mask.softmax(dim=1).view(B, 9, h, 2, w, 2)
    padded = F.pad(prob, (1, 1, 1, 1), mode="replicate")
    out = torch.zeros(())
    for k, weight in enumerate(weights.split(1, dim=1)):
        y, x = divmod(k, 3)
        part = padded[:, :, y : y + h, None, x : x + w, None]
        if k == 0:
            out = part * weight
        else:
            out = out.addcmul(part, weight) if torch.is_grad_enabled() else out.addcmul_(part, weight)
    return out.reshape(B, D, 2 * h, 2 * w)


@full_precision
def upsampled_likelihood(log_prob: torch.Tensor, mask: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Return the probability (B, 2h, 2w) that ``upsample_distribution`` gives to labels, for the gradient of the mask.

    Args:
        log_prob: (B, D, h, w), logarithms of the distribution. mask: (B, 9, 2h, 2w) logits. label: (B, 2h, 2w), each
            shared between the two planes beside it.
    """
    B, D, h, w = log_prob.shape
    low = label.floor().clamp(0, D - 2)
    share = (label - low).clamp(0, 1).view(B, 1, h, 2, w, 2)
    low = low.long().view(B, 1, h, 2, w, 2)
    padded = F.pad(log_prob.exp(), (1, 1, 1, 1), mode="replicate")
    near = []
    for k in range(9):
        y, x = divmod(k, 3)
        part = padded[:, :, y : y + h, None, x : x + w, None].expand(B, D, h, 2, w, 2)
        near.append(part.gather(1, low) * (1 - share) + part.gather(1, low + 1) * share)
    weights = mask.softmax(dim=1).view(B, 9, h, 2, w, 2)
    return (torch.cat(near, dim=1) * weights).sum(dim=1).reshape(B, 2 * h, 2 * w)


@full_precision
def limited_slopes(label: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """Bound slopes (B, 2, h, w) by twice the smaller of the differences of a label map (B, h, w) to either side.

    Where the two differences have opposite signs the bound is ``_FREE_SLOPE``. On a plane nothing changes; beside a
    depth edge, and on what is one pixel wide, no pixel is extrapolated beyond its own side.
    """
    bounds = []
    for axis in (2, 1):
        steps = label.diff(dim=axis)
        first, last = steps.narrow(axis, 0, 1), steps.narrow(axis, steps.shape[axis] - 1, 1)
        before, after = torch.cat([first, steps], dim=axis), torch.cat([steps, last], dim=axis)
        same_sign = before * after > 0
        bounds.append(2 * torch.where(same_sign, torch.minimum(before.abs(), after.abs()), 0.0))
    reach = torch.stack(bounds, dim=1) + _FREE_SLOPE
    return torch.maximum(torch.minimum(slopes, reach), -reach)


def smooth_mixture() -> torch.Tensor:
    """Return logits (9 * 16,) for ``upsample_planes``: weights that fall with the distance of the coarse pixel.

    With equal weights the window of nine would jump from one coarse pixel to the next, and the surface with it.
    """
    fine, coarse = (torch.arange(4) - 1.5) / 4, torch.arange(-1, 2)
    squares = (fine[None] - coarse[:, None]) ** 2
    return (-(squares[:, None, :, None] + squares[None, :, None, :]) / (2 * 0.5**2)).reshape(9 * 16)


@full_precision
def upsample_planes(
    label: torch.Tensor, slopes: torch.Tensor, normal: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Upsample by 4: every fine pixel blends the planes of the 3x3 nearest coarse pixels; exact on a plane.

    Args:
        label: (B, h, w). slopes: (B, 2, h, w), its derivatives per pixel along x and y. normal: (B, 3, h, w), unit.
        mask: (B, 9 * 16, h, w) logits.

    Returns:
        label (B, 4h, 4w) and unit normal (B, 3, 4h, 4w).
    """
    B, h, w = label.shape
    if runs_kernels(label):
        from nasrecon.nas import surface_kernels as kernels

        items = [kernels.upsample_planes(*item) for item in zip(label, slopes, normal, mask, strict=True)]
        fine_label, fine_normal = (torch.stack(each) for each in zip(*items, strict=True))
        return fine_label, fine_normal
    exists = F.unfold(torch.ones_like(label[:1, None]), 3, padding=1).view(1, 9, 1, 1, h, w)
    weights = mask.view(B, 9, 4, 4, h, w).masked_fill(exists == 0, -torch.inf).softmax(dim=1)
    planes = F.pad(torch.cat([label[:, None], slopes, normal], dim=1), (1, 1, 1, 1), mode="replicate")
    offset = ((torch.arange(4, device=label.device) - 1.5) / 4).view(1, 4, 1, 1, 1)
    values, normals = torch.zeros(()), torch.zeros(())
    for k, weight in enumerate(weights.unbind(dim=1)):
        y, x = divmod(k, 3)
        near = planes[:, :, None, None, y : y + h, x : x + w]
        right, below = offset.transpose(1, 2) - (x - 1), offset - (y - 1)
        values = values + weight * (near[:, 0] + near[:, 1] * right + near[:, 2] * below)
        normals = normals + weight[:, None] * near[:, 3:]
    value = values.permute(0, 3, 1, 4, 2).reshape(B, 4 * h, 4 * w)
    return value, unit(normals.permute(0, 1, 4, 2, 5, 3).reshape(B, 3, 4 * h, 4 * w))
