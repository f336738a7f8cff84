"""Fold BatchNorm into the convolutions before it: the same network in eval mode, to rounding, in fewer steps."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn

from nasrecon.errors import NasReconError

NetworkModule = TypeVar("NetworkModule", bound=nn.Module)
_PAIRS = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))


def fold_batchnorm(network: NetworkModule) -> NetworkModule:
    """Return a copy of a network in eval mode in which every convolution has taken in the BatchNorm right behind it.

    Pairs are found where they sit side by side in an ``nn.Sequential``; the BatchNorm's place is kept by an identity,
    so that indices into the sequence stay. Other layers are copied as they are. The copy is for inference: its state
    dict has other keys, and it must not be trained.

    Raises:
        NasReconError: if the network is in training mode, where BatchNorm depends on the batch and cannot be folded.
    """
    if network.training:
        raise NasReconError("BatchNorm can be folded in eval mode only: call network.eval() first")
    folded = copy.deepcopy(network)
    for sequence in [module for module in folded.modules() if isinstance(module, nn.Sequential)]:
        for (index, conv), (next_index, norm) in pairwise(list(sequence.named_children())):
            if any(isinstance(conv, a) and isinstance(norm, b) for a, b in _PAIRS):
                sequence.register_module(index, _fold_pair(conv, norm))
                sequence.register_module(next_index, nn.Identity())
    return folded


@torch.no_grad()
def _fold_pair(conv: nn.Module, norm: nn.Module) -> nn.Module:
    """Turn ``conv`` to weight * g / s and bias (b - mean) * g / s + beta, s the root of the variance plus eps."""
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    scale = scale * norm.weight.double() if norm.affine else scale
    bias = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    bias = bias * scale + norm.bias.double() if norm.affine else bias * scale
    weight = conv.weight.double() * scale.view(-1, *[1] * (conv.weight.dim() - 1))
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    conv.bias = nn.Parameter(bias.to(conv.weight.dtype), requires_grad=conv.weight.requires_grad)
    return conv
