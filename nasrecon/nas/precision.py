"""Where networks compute, and how precisely: device, bfloat16, 8-bit integers, memory layout of convolutions."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nasrecon.nas.int8 import int8_convolutions
from nasrecon.nas.network import Network, network_info


def channels_last(network: nn.Module) -> nn.Module:
    """Lay out the weights of all convolutions channels-last, in place; their outputs follow. Changes no value."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        elif isinstance(module, nn.Conv3d):
            module.to(memory_format=torch.channels_last_3d)  # pyright: ignore[reportCallIssue]
    return network


@runtime_checkable
class FoldsNormalization(Protocol):
    """A module with batch normalisation that no convolution of an ``nn.Sequential`` stands before."""

    def fold_normalization(self) -> None:
        """Fold it, in place."""
        ...


def fold_normalization(network: nn.Module) -> nn.Module:
    """Fold batch normalisation into the convolutions before it, in place; for evaluation only.

    Convolutions and normalisations that follow each other in an ``nn.Sequential`` are folded; modules that normalise
    otherwise do it in a method ``fold_normalization`` of their own.
    """
    for sequence in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for i, (layer, norm) in enumerate(pairwise(list(sequence))):
            if isinstance(layer, nn.Conv2d | nn.Conv3d) and isinstance(norm, nn.BatchNorm2d | nn.BatchNorm3d):
                sequence[i] = fuse_conv_bn_eval(layer, norm)
                sequence[i + 1] = nn.Identity()
    for module in network.modules():
        if isinstance(module, FoldsNormalization):
            module.fold_normalization()
    return network


def device_of(network: Network) -> torch.device:
    """Return the device of a network's parameters, or of its buffers; the CPU for one that has neither."""
    for kind in ("parameters", "buffers"):
        tensors: Any = getattr(network, kind, None)
        if callable(tensors):
            for tensor in cast(Iterable[torch.Tensor], tensors()):
                return tensor.device
    return torch.device("cpu")


@contextmanager
def autocast(network: Network, device: torch.device) -> Iterator[None]:
    """Compute in bfloat16 and, on a CPU, in 8-bit integers, where the network is made for it and the device is fast."""
    if not network_info(network).low_precision:
        yield
        return
    if device.type == "cpu":
        has = torch.cpu.get_capabilities()
        fast = bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    else:
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    with ExitStack() as stack:
        if fast:
            stack.enter_context(torch.autocast(device.type, torch.bfloat16))
        if device.type == "cpu":
            stack.enter_context(int8_convolutions())
        yield


def runs_kernels(x: torch.Tensor) -> bool:
    """Return whether what is computed from a tensor is left to the kernels that Numba compiles: without gradients, in
    float32, on a CPU, where there is Numba."""
    plain = not torch.is_grad_enabled() and x.device.type == "cpu" and x.dtype == torch.float32
    return plain and importlib.util.find_spec("numba") is not None
