"""Batches at a smaller size, and predictions back at the size of the images."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from nasrecon.nas.network import Prediction, StereoBatch


def shrink_batch(batch: StereoBatch, factor: float, multiple: int) -> StereoBatch:
    """Shrink the images of a batch by about a factor, sides rounded to multiples; K follows, each axis by itself."""
    H, W = batch.ref_image.shape[-2:]
    h, w = (max(multiple, round(side * factor / multiple) * multiple) for side in (H, W))
    shrink = torch.tensor([[w / W], [h / H], [1.0]], device=batch.ref_K.device, dtype=batch.ref_K.dtype)

    def smaller(images: torch.Tensor) -> torch.Tensor:
        resized = F.interpolate(images.flatten(0, -4), (h, w), mode="bilinear", align_corners=False, antialias=True)
        return resized.unflatten(0, images.shape[:-3])

    def scaled(K: torch.Tensor) -> torch.Tensor:
        out = K * shrink
        out[..., :2, 2] += 0.5 * shrink[:2, 0] - 0.5
        return out

    return replace(
        batch, ref_image=smaller(batch.ref_image), src_images=smaller(batch.src_images),
        ref_K=scaled(batch.ref_K), src_K=scaled(batch.src_K),
    )  # fmt: skip


def enlarged(prediction: Prediction, size: tuple[int, int]) -> Prediction:
    """Resample a prediction to (H, W): depths linearly in inverse depth, normals as vectors, all else linearly."""

    def resample(x: torch.Tensor) -> torch.Tensor:
        maps = x.float() if x.dim() == 4 else x.float()[:, None]
        out = F.interpolate(maps, size, mode="bilinear", align_corners=False)
        return out if x.dim() == 4 else out[:, 0]

    inverse = lambda depth: 1 / resample(1 / depth)  # noqa: E731
    normal = lambda x: F.normalize(resample(x), dim=1)  # noqa: E731
    return Prediction(
        depth_initial=inverse(prediction.depth_initial),
        depth=inverse(prediction.depth),
        normal=normal(prediction.normal),
        refined_depth=inverse(prediction.refined_depth),
        refined_normal=normal(prediction.refined_normal),
        confidence=resample(prediction.confidence),
        sigma=resample(prediction.sigma),
    )
