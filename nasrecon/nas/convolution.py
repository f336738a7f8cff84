"""Convolutions that add and rectify what they give: on a CPU one pass over the memory instead of three."""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import nn

from nasrecon.nas.int8 import Convolution, convolve_int8, in_use, int8_flop, int8_operations, state_of, suits

Rectifier = Literal["none", "relu", "relu6"]

_ARGUMENTS_WITHOUT_SUM = 9  # of oneDNN's convolution after its input, if it adds nothing
_UNARY: dict[str, tuple[str, list[float]]] = {
    "none": ("none", []), "relu": ("relu", []), "relu6": ("hardtanh", [0.0, 6.0])
}  # fmt: skip


class ConvolutionSequence(nn.Sequential):
    """A sequence in which a convolution computes the ReLU as well that follows it at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layers to x (N, C, ...), one after another."""
        layers = [layer for layer in self if not isinstance(layer, nn.Identity)]
        while layers:
            layer = layers.pop(0)
            if not isinstance(layer, Convolution):
                x = layer(x)
            elif layers and isinstance(layers[0], nn.ReLU):
                layers.pop(0)
                x = convolve(layer, x, rectify="relu")
            else:
                x = convolve(layer, x)
        return x


def convolve(
    layer: Convolution,
    x: torch.Tensor,
    *,
    plus: torch.Tensor | None = None,
    rectify: Rectifier = "none",
    kernel_padding: int = 0,
    inputs: slice = slice(None),
) -> torch.Tensor:
    """Convolve, add a tensor and rectify.

    Without gradients on a CPU, oneDNN does all three for each block of the output, in 8-bit integers where they are in
    use (``int8.py``), and the weights are cast to the precision of autocast once and not in every call.

    Args:
        x: (N, C, H, W) or (N, C, D, H, W). plus: (N, C', ...), of the shape of the output.
        inputs: the input channels of the layer that x holds; the bias is added with the first of them.
        kernel_padding: number of rows and columns of zeros put above and left of a 2D kernel: with stride 2 and one
            of them the input is padded by one pixel more at the right and bottom than at the left and top.

    Returns:
        (N, C', ...), in the precision of autocast.
    """
    if _can_fuse(x):
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        if in_use() and suits(layer, x.shape[1]) and not kernel_padding and rectify != "relu6":
            part, key = _part(layer, inputs), (inputs.start, inputs.stop)
            y = convolve_int8(layer, x, *part, key, plus=plus, dtype=dtype, rectify=rectify == "relu")
            if y is not None:
                return y
        x = x.to(dtype)
        weight, bias = _weights(layer, dtype, kernel_padding, inputs)
        padding = cast("tuple[int, ...]", layer.padding)
        attr, scalars = _UNARY[rectify]
        place = (padding, layer.stride, layer.dilation, layer.groups)
        x = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
        if plus is None:
            return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *place, attr, scalars, "")
        fuses = rectify == "relu" and layer.groups == 1
        unary = ("relu", [], "") if fuses else (None, [], None)
        y = torch.ops.mkldnn._convolution_pointwise.binary(x, plus.to(dtype), weight, bias, *place, "add", 1.0, *unary)
        return y if fuses else _rectify(y, rectify)
    if kernel_padding:
        y = _with_padded_kernel(layer, x, kernel_padding)
    else:
        y = layer(x) if inputs == slice(None) else _convolve_part(layer, x, inputs)
    return _rectify(y if plus is None else y.add_(plus), rectify)


def _rectify(y: torch.Tensor, rectify: Rectifier) -> torch.Tensor:
    if rectify == "none":
        return y
    return F.relu(y, inplace=True) if rectify == "relu" else F.relu6(y, inplace=True)


def _can_fuse(x: torch.Tensor) -> bool:
    """Return whether oneDNN's convolution with an addition and a rectifier can be used."""
    if torch.is_grad_enabled() or x.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    known = x.dtype in (torch.float32, torch.bfloat16) or torch.is_autocast_enabled("cpu")
    return known and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _part(layer: Convolution, inputs: slice) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a layer's weights for some input channels, and the bias with the first of them."""
    if inputs == slice(None):
        return layer.weight, layer.bias
    return layer.weight[:, inputs], None if inputs.start else layer.bias


def _weights(
    layer: Convolution, dtype: torch.dtype, kernel_padding: int, inputs: slice
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weights and the bias in a precision; cast once, and again where they have changed since."""
    weight, bias = _part(layer, inputs)
    state = (dtype, kernel_padding, state_of(weight, bias))
    cast_weights, key = layer.__dict__.setdefault("_cast_weights", {}), (inputs.start, inputs.stop)
    known = cast_weights.get(key)
    if known is None or known[0] != state:
        weight = _pad_kernel(layer, kernel_padding) if kernel_padding else weight.detach()
        order = torch.channels_last if weight.dim() == 4 else torch.channels_last_3d
        weight = weight.to(dtype, memory_format=order)
        known = cast_weights[key] = (state, weight, None if bias is None else bias.detach().to(dtype))
    return known[1], known[2]


def _pad_kernel(layer: Convolution, zeros: int) -> torch.Tensor:
    """Return the kernel of a 2D convolution with rows and columns of zeros before it."""
    return F.pad(layer.weight.detach(), (zeros, 0, zeros, 0)).contiguous(memory_format=torch.channels_last)


def _with_padded_kernel(layer: Convolution, x: torch.Tensor, zeros: int) -> torch.Tensor:
    padding = cast("tuple[int, int]", layer.padding)
    stride, dilation = cast("tuple[int, int]", layer.stride), cast("tuple[int, int]", layer.dilation)
    return F.conv2d(x, _pad_kernel(layer, zeros), layer.bias, stride, padding, dilation, layer.groups)


def _convolve_part(layer: Convolution, x: torch.Tensor, inputs: slice) -> torch.Tensor:
    weight, bias = _part(layer, inputs)
    convolution: Any = F.conv2d if x.dim() == 4 else F.conv3d
    return convolution(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def flop_formulas() -> dict[Any, Any]:
    """Return what ``FlopCounterMode`` needs as ``custom_mapping`` to count what ``convolve`` computes."""
    packet = getattr(torch.ops.mkldnn, "_convolution_pointwise", None)
    formulas = {} if packet is None else {packet: _convolution_flop}
    return formulas | dict.fromkeys(int8_operations(), int8_flop)


def _convolution_flop(x: Any, *others: Any, out_shape: Any = None, **_: Any) -> int:
    """Return the floating-point operations of a convolution; a tensor to add stands before the kernel's shape."""
    kernel = others[1] if len(others) > _ARGUMENTS_WITHOUT_SUM else others[0]
    return 2 * math.prod(out_shape) * math.prod(kernel[1:])
