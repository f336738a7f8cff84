"""Planes of constant depth and the sampling of source features on them (paper, section 3.1).

Geometry is computed in the precision that comes in, under autocast too: bfloat16 knows pixel 300 to two pixels only.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def plane_inv_depth(min_depth: torch.Tensor, planes: int) -> torch.Tensor:
    """Return the planes' inverse depths (B, D) for ``min_depth`` (B,): i / (min_depth * D), plane 0 at infinity."""
    labels = torch.arange(planes, device=min_depth.device, dtype=min_depth.dtype)
    return labels[None] / (min_depth[:, None] * planes)


def depth_from_label(label: torch.Tensor, min_depth: torch.Tensor, planes: int) -> torch.Tensor:
    """Turn labels (B, ...) into depths in the unit of ``min_depth`` (B,); label 0 gives a huge number, not inf."""
    return min_depth.view(-1, *[1] * (label.dim() - 1)) * planes / (label + 1e-16)


def scaled_K(K: torch.Tensor, factor: float, corner_aligned: bool) -> torch.Tensor:
    """Return K (..., 3, 3) of the image shrunk by ``factor``, integer pixel centres before and after.

    ``corner_aligned`` False: small pixel i covers the pixels factor*i ... factor*i + factor - 1, so
    c' = (c + 0.5) / factor - 0.5. True: it sits on pixel factor*i, c' = c / factor, as the published network has it.
    """
    out = K.clone()
    out[..., :2, :] = K[..., :2, :] / factor
    if not corner_aligned:
        out[..., :2, 2] += 0.5 / factor - 0.5
    return out


def pixel_rays(K: torch.Tensor, h: int, w: int) -> torch.Tensor:
    """Return the rays (B, 3, h*w), z = 1, through the pixels of an h x w image; K (B, 3, 3), integer pixel centres."""
    with torch.autocast(K.device.type, enabled=False):
        return torch.linalg.inv(K) @ _pixels(h, w, K)


def _pixels(h: int, w: int, like: torch.Tensor) -> torch.Tensor:
    """Return the homogeneous pixels (3, h*w), integer centres, row by row, of the dtype and device of ``like``."""
    y, x = torch.meshgrid(
        torch.arange(h, device=like.device, dtype=like.dtype),
        torch.arange(w, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)


def plane_sample_grid(
    ref_K: torch.Tensor,
    src_K: torch.Tensor,
    src_from_ref: torch.Tensor,
    inv_depth: torch.Tensor,
    size: Sequence[int],
    src_size: Sequence[int] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Say where each voxel of the reference's plane sweep falls in the source.

    Args:
        ref_K, src_K: (B, 3, 3) at feature resolution, integer pixel centres.
        src_from_ref: (B, 4, 4).
        inv_depth: (B, D) of the planes in the reference, or (B, D, h*w) of each voxel.
        size, src_size: (h, w) of the reference's and of the source's features.

    Returns:
        grid (B, D, h, w, 2) for ``grid_sample(align_corners=True)`` and inside (B, D, h, w) bool: in front of the
        source camera and its centre within the source's outermost pixel centres, give or take what rounding can do (an
        identity warp keeps its border). Points outside are moved far off the grid.
    """
    (h, w), (sh, sw) = size, src_size or size
    B, D = inv_depth.shape[:2]
    q = _in_source(ref_K, src_K, src_from_ref, inv_depth, size)
    # z is the depth in the source over the depth in the reference: no unit in it. The paper's network clamps the depth
    # itself at 1e-3 scene units, which is as good as outside, but would hide a scene whose unit is a kilometre.
    z = q[:, 2]
    before_camera = z > 1e-6
    x, y = q[:, 0] / torch.where(before_camera, z, 1), q[:, 1] / torch.where(before_camera, z, 1)
    slack = 4 * torch.finfo(x.dtype).eps * max(sw, sh)
    inside = before_camera & (x >= -slack) & (x <= sw - 1 + slack) & (y >= -slack) & (y <= sh - 1 + slack)
    x, y = x.clamp(0, sw - 1), y.clamp(0, sh - 1)
    grid = torch.stack([2 * x / max(sw - 1, 1) - 1, 2 * y / max(sh - 1, 1) - 1], dim=-1)
    grid = torch.where(inside[..., None], grid, 4.0)
    return grid.view(B, D, h, w, 2), inside.view(B, D, h, w)


def plane_homographies(
    ref_K: torch.Tensor, src_K: torch.Tensor, src_from_ref: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return K_src R inv(K_ref) (..., 3, 3) and K_src t (..., 3, 1): x_src ~ first @ x_ref + second / depth."""
    with torch.autocast(ref_K.device.type, enabled=False):
        # Double precision for the product of 3x3 matrices: views that agree give the identity to the last digit.
        infinite = src_K.double() @ src_from_ref[..., :3, :3].double() @ torch.linalg.inv(ref_K.double())
        return infinite.to(ref_K.dtype), src_K @ src_from_ref[..., :3, 3:]


def _in_source(
    ref_K: torch.Tensor, src_K: torch.Tensor, src_from_ref: torch.Tensor, inv_depth: torch.Tensor, size: Sequence[int]
) -> torch.Tensor:
    """Return where voxels fall in the source, homogeneous (B, 3, D, h*w); z is the depth there over the depth here.

    It is finite on the plane at infinity too.
    """
    B, D = inv_depth.shape[:2]
    infinite, moved = plane_homographies(ref_K, src_K, src_from_ref)
    with torch.autocast(ref_K.device.type, enabled=False):
        turned = infinite @ _pixels(size[0], size[1], ref_K)
    return turned[:, :, None] + moved[:, :, None] * inv_depth.reshape(B, 1, D, -1)


def sample_on_planes(src_features: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Sample source features (B, C, sh, sw) at a grid (B, D, h, w, 2): (B, C, D, h, w), zero outside."""
    B, D, h, w, _ = grid.shape
    sampled = F.grid_sample(
        src_features, grid.view(B, D * h, w, 2), mode="bilinear", padding_mode="zeros", align_corners=True
    )
    return sampled.view(B, -1, D, h, w)
