"""What the error of the poses adds to the error of the depths.

The sigma of a network is that of its matching under the poses of the batch; it leaves the error of these poses out.
The epipolar error of the scene's matches measures it, together with the noise of the matches. An error of e pixels
changes a depth by the share e / p of it, where p is the parallax: the distance in the image between a point and the
same point at infinity.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from nasrecon.nas.network import NEAR, Prediction, StereoBatch
from nasrecon.nas.volume import pixel_rays

SCALE_OF_MEDIAN = 0.8
"""Scale of the Laplace distribution of an error of the depths, in shares of the parallax, over the median epipolar
error; measured on livingroom1, with 2 and with 4 sources."""
PAIR_FACTOR = 3.0
"""The scale of a single refined pair is so many times larger: its own matches leave a part of the error of its poses
unmeasured; measured on the 8 pairs of demon_sample."""
_STEP = 4  # the parallax is computed every so many pixels
_MIN_PARALLAX = 1e-6


def add_pose_error(prediction: Prediction, batch: StereoBatch, error: torch.Tensor) -> Prediction:
    """Add the error of the poses to sigma (in quadrature), and lower the confidence accordingly.

    Args:
        prediction: of the batch: refined_depth, sigma (B, H, W) in the unit of ``min_depth``, confidence (B, H, W).
        error: (B,), median distance of the matches from their epipolar lines [focal lengths]; 0 where it is unknown.
    """
    if not bool((error > 0).any()):
        return prediction
    depth = prediction.refined_depth
    is_pair = batch.src_from_ref.shape[1] == 1 and not batch.poses_exact
    error = error * (SCALE_OF_MEDIAN * (PAIR_FACTOR if is_pair else 1.0))
    added = error.to(depth.device).view(-1, 1, 1) * depth / _parallax_times_depth(depth, batch)
    network_scale = prediction.sigma / (math.sqrt(2) * depth)
    scale = torch.hypot(network_scale, added)
    near = lambda scale: -torch.expm1(-NEAR / scale)  # noqa: E731
    known = torch.isfinite(scale) & (network_scale > 0) & (depth > 0)
    return replace(
        prediction,
        sigma=torch.where(known, math.sqrt(2) * depth * scale, prediction.sigma),
        confidence=torch.where(known, prediction.confidence * near(scale) / near(network_scale), prediction.confidence),
    )


def _parallax_times_depth(depth: torch.Tensor, batch: StereoBatch) -> torch.Tensor:
    """Return the mean parallax over the sources [focal lengths] times the depth: (B, H, W).

    It is smooth where the depth is not. A source that a point does not lie in front of has no parallax there.
    """
    B, H, W = depth.shape
    z = depth[:, _STEP // 2 :: _STEP, _STEP // 2 :: _STEP]
    z = torch.where(torch.isfinite(z) & (z > 0), z, batch.min_depth.view(-1, 1, 1))
    h, w = z.shape[1:]
    K = batch.ref_K.clone()
    K[:, :2] /= _STEP
    K[:, :2, 2] -= 0.5  # pixels _STEP // 2, _STEP // 2 + _STEP ... become 0, 1 ...
    rays, total = pixel_rays(K, h, w).reshape(B, 3, h * w), torch.zeros(B, h * w, device=depth.device)
    for pose in batch.src_from_ref.unbind(dim=1):
        with torch.autocast(depth.device.type, enabled=False):
            far = pose[:, :3, :3] @ rays
        near = far * z.reshape(B, 1, -1) + pose[:, :3, 3:]
        faces = (far[:, 2] > 1e-3) & (near[:, 2] > 0)
        off = near[:, :2] / near[:, 2:].clamp_min(1e-12) - far[:, :2] / far[:, 2:].clamp_min(1e-3)
        total += torch.where(faces, off.norm(dim=1), 0.0)
    mean = (total / batch.src_from_ref.shape[1]).clamp_min(_MIN_PARALLAX).view(B, h, w) * z
    return F.interpolate(mean[:, None], (H, W), mode="bilinear", align_corners=False)[:, 0]
