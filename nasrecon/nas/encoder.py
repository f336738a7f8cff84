"""The encoder of ``lite``: EfficientNet-Lite0 up to stride 16, batch normalisation folded into the convolutions."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from nasrecon.nas.convolution import convolve

# (blocks, kernel, stride of the first block, expansion, output channels), from the first stage after the stem.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
_STEM = 32
_TAPPED = (0, 1, 2, 4)  # the stages whose output is returned

CHANNELS = (16, 24, 40, 112)
"""Channels of the features at strides 2, 4, 8 and 16."""


class InvertedResidual(nn.Module):
    """Expand, convolve each channel by itself, project; plus the input where the shapes agree (MobileNetV2)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expand = nn.Conv2d(inputs, width, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(width, width, kernel, stride, kernel // 2, groups=width)
        self.project = nn.Conv2d(width, outputs, 1)
        self.has_skip = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.expand is None else convolve(self.expand, x, rectify="relu6")
        y = convolve_relu6(self.depthwise, y)
        return convolve(self.project, y, plus=x) if self.has_skip else convolve(self.project, y)


class Encoder(nn.Module):
    """Images (N, 3, H, W) in [-1, 1], H and W multiples of 16 -> features at strides 2, 4, 8, 16 (``CHANNELS``)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, _STEM, 3, 2, 1)
        self.stages = nn.ModuleList()
        self._frozen: int | None = None
        inputs = _STEM
        for blocks, kernel, stride, expansion, outputs in _STAGES:
            stage = nn.Sequential()
            for i in range(blocks):
                stage.append(InvertedResidual(inputs, outputs, kernel, stride if i == 0 else 1, expansion))
                inputs = outputs
            self.stages.append(stage)

    def freeze(self, stages: int) -> None:
        """Leave the stem and the first stages as they are; no gradient is computed for them."""
        self._frozen = stages
        for part in (self.stem, *self.stages[:stages]):
            part.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._frozen is None):
            x = convolve_relu6(self.stem, image)
        features = []
        for i, stage in enumerate(self.stages):
            with torch.set_grad_enabled(torch.is_grad_enabled() and (self._frozen is None or i >= self._frozen)):
                x = stage(x)
            if i in _TAPPED:
                features.append(x)
        return features


def convolve_relu6(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Convolve (N, C, H, W) and apply ReLU6.

    At stride 2 the input is padded by one pixel more at the right and bottom, as the pretrained weights expect.

    With gradients, convolutions of single channels are computed in float32: in bfloat16 their gradients take five to
    fifteen times as long on a CPU.
    """
    if not torch.is_grad_enabled():
        return convolve(layer, x, rectify="relu6", kernel_padding=0 if layer.stride == (1, 1) else 1)
    padding = cast("tuple[int, int]", layer.padding)
    if layer.stride != (1, 1):
        before, after = padding[0] - 1, padding[0]
        x, padding = F.pad(x, (before, after, before, after)), (0, 0)
    if layer.groups == 1:
        return F.relu6(F.conv2d(x, layer.weight, layer.bias, layer.stride, padding), inplace=True)
    with torch.autocast(x.device.type, enabled=False):
        y = F.conv2d(x.float(), layer.weight.float(), layer.bias, layer.stride, padding, groups=layer.groups)
    return F.relu6(y.to(x.dtype), inplace=True)
