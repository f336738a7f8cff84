"""The contract between the package and a network: a batch goes in, a prediction comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import torch

if TYPE_CHECKING:
    import torch


NEAR = 0.05
"""Where confidence is a probability, it is that of a depth which is off by less than this share."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a network says of a batch; depths in the unit of the batch's ``min_depth``, normals in the reference camera.

    Attributes:
        depth_initial: Z1 (B, H, W), from the regularised cost volume (paper, section 3.1).
        depth: Z2 (B, H, W), after context-aware aggregation.
        normal: (B, 3, H, W), unit, facing the camera, from the cost volume (paper, section 3.2).
        refined_depth: (B, H, W), after the consistency module (paper, section 3.3).
        refined_normal: (B, 3, H, W).
        confidence: (B, H, W) in [0, 1].
        sigma: (B, H, W), one standard deviation of the refined depth, in its unit.
    """

    depth_initial: torch.Tensor
    depth: torch.Tensor
    normal: torch.Tensor
    refined_depth: torch.Tensor
    refined_normal: torch.Tensor
    confidence: torch.Tensor
    sigma: torch.Tensor


class Network(Protocol):
    """What the rest of the package asks of a network.

    Attributes:
        name: "lite", "paper", "zncc" ...
        planes: D, the number of planes; label i stands for min_depth * D / i, i = 0 ... D - 1.
        size_multiple: H and W that come in must be multiples of it (``adapter.py`` pads).
        min_side: the smallest H and W that the network takes [px].
    """

    name: str
    planes: int
    size_multiple: int
    min_side: int

    def __call__(self, batch: StereoBatch) -> Prediction: ...


@dataclass(frozen=True, kw_only=True)
class StereoBatch:
    """What a network eats: torch tensors, in the networks' own conventions (``adapter.py`` makes it, nobody else).

    Attributes:
        ref_image: (B, 3, H, W) float32, RGB in [-1, 1].
        src_images: (B, S, 3, H, W), likewise.
        ref_K: (B, 3, 3) [px], **integer** pixel centres: the centre of the top-left pixel is (0, 0).
        src_K: (B, S, 3, 3), likewise.
        src_from_ref: (B, S, 4, 4), the unit of its translation is free.
        min_depth: (B,), the depth scale of the planes, in that unit: label i stands for min_depth * D / i.
        rough: whether the poses are known to be less than exact.
    """

    ref_image: torch.Tensor
    src_images: torch.Tensor
    ref_K: torch.Tensor
    src_K: torch.Tensor
    src_from_ref: torch.Tensor
    min_depth: torch.Tensor
    rough: bool = False

    def to(self, device: torch.device | str) -> StereoBatch:
        """Return the batch on another device."""
        return self.with_tensors(lambda tensor: tensor.to(device))

    def item(self, i: int) -> StereoBatch:
        """Return item i as a batch of one, float32."""
        return self.with_tensors(lambda tensor: tensor[i : i + 1].float())

    def with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> StereoBatch:
        """Return the batch with every tensor changed."""
        tensors = ("ref_image", "src_images", "ref_K", "src_K", "src_from_ref", "min_depth")
        return replace(self, **{name: change(getattr(self, name)) for name in tensors})
