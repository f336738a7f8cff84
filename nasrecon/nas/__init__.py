"""The networks: tensors to tensors, torch only. Every network maps a ``StereoBatch`` to a ``Prediction``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from nasrecon.types import StereoBatch

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
