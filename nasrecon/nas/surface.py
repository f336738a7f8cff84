"""Surfaces in labels (inverse depth): slopes, the normals that go with them, and upsampling plane by plane.

The paper's consistency relation (section 3.3) in inverse depth, which is linear in the pixel on a plane.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from nasrecon.nas.volume import pixel_rays


def full_precision(function: Callable) -> Callable:
    """Run a function with autocast off: bfloat16 would round labels to a quarter of a plane."""

    @functools.wraps(function)
    def wrapped(first: torch.Tensor, *args: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        with torch.autocast(first.device.type, enabled=False):
            return function(first.float(), *(x.float() for x in args))

    return wrapped


def unit(x: torch.Tensor, least: float = 1e-6) -> torch.Tensor:
    """Scale vectors along dimension 1 to length one, those shorter than ``least`` to less; many times faster than ``F.normalize``."""
    return x * torch.rsqrt((x * x).sum(dim=1, keepdim=True).clamp_min(least**2))


@full_precision
def label_slopes(label: torch.Tensor) -> torch.Tensor:
    """Return the derivatives (B, 2, h, w) of a label map (B, h, w) along x and y, per pixel, by Sobel's weights."""
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=label.device, dtype=label.dtype) / 8
    weights = torch.stack([kernel, kernel.T])[:, None]
    return F.conv2d(F.pad(label[:, None], (1, 1, 1, 1), mode="replicate"), weights)


@full_precision
def normal_from_slopes(label: torch.Tensor, slopes: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Return the unit normals (B, 3, h, w) of the surface with inverse depth ~ label (B, h, w) and its slopes (B, 2, h, w).

    Inverse depth is linear in the pixel on a plane: label(u) ~ n . K^-1 u, so n ~ K^T (slope_x, slope_y, offset); K
    (B, 3, 3) with integer pixel centres. This is the paper's consistency relation (section 3.3) in inverse depth, with the
    true principal point.
    """
    B, h, w = label.shape
    y, x = torch.meshgrid(torch.arange(h, device=label.device), torch.arange(w, device=label.device), indexing="ij")
    offset = label - slopes[:, 0] * x - slopes[:, 1] * y
    plane = torch.stack([slopes[:, 0], slopes[:, 1], offset], dim=1)
    return -unit(torch.einsum("bji,bjhw->bihw", K, plane), 1e-9)


@full_precision
def slopes_from_normal(label: torch.Tensor, normal: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Invert ``normal_from_slopes``: the slopes (B, 2, h, w) per pixel that the normal asks for, bounded at grazing angles."""
    B, h, w = label.shape
    rays = pixel_rays(K, h, w).view(B, 3, h, w)
    along = (normal * rays).sum(dim=1).clamp(max=-0.05)
    plane = torch.einsum("bji,bjhw->bihw", torch.linalg.inv(K), normal)[:, :2]
    return (plane / along[:, None]).clamp(-0.2, 0.2) * label[:, None]


@full_precision
def upsample_planes(
    label: torch.Tensor, normal: torch.Tensor, mask: torch.Tensor, K: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Upsample by 4: every fine pixel blends the planes of the 3x3 nearest coarse pixels (exact on a plane for any mask).

    Args:
        label: (B, h, w). normal: (B, 3, h, w), unit. mask: (B, 9 * 16, h, w) logits. K: (B, 3, 3) at h x w.

    Returns:
        label (B, 4h, 4w) and unit normal (B, 3, 4h, 4w).
    """
    B, h, w = label.shape
    exists = F.unfold(torch.ones_like(label[:1, None]), 3, padding=1).view(1, 9, 1, 1, h, w)
    weights = mask.view(B, 9, 4, 4, h, w).masked_fill(exists == 0, -torch.inf).softmax(dim=1)
    slopes = slopes_from_normal(label, normal, K)
    planes = torch.cat([label[:, None], slopes, normal], dim=1)
    near = F.unfold(F.pad(planes, (1, 1, 1, 1), mode="replicate"), 3).view(B, 6, 9, h, w)
    fine = (torch.arange(4, device=label.device) - 1.5) / 4
    coarse = torch.arange(3, device=label.device) - 1.0
    dx = (fine[None, None, None, :] - coarse[None, :, None, None]).expand(3, 3, 4, 4).reshape(1, 9, 4, 4, 1, 1)
    dy = (fine[None, None, :, None] - coarse[:, None, None, None]).expand(3, 3, 4, 4).reshape(1, 9, 4, 4, 1, 1)
    blend = lambda c: torch.einsum("bkyxhw,bkhw->byxhw", weights, near[:, c])  # noqa: E731
    value = blend(0)
    value = value + torch.einsum("bkyxhw,bkhw->byxhw", weights * dx, near[:, 1])
    value = value + torch.einsum("bkyxhw,bkhw->byxhw", weights * dy, near[:, 2])
    shuffle = lambda x: x.permute(0, 3, 1, 4, 2).reshape(B, 4 * h, 4 * w)  # noqa: E731
    up_normal = torch.stack([shuffle(blend(c)) for c in (3, 4, 5)], dim=1)
    return shuffle(value), unit(up_normal)
