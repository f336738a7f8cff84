"""Convolutions of 8-bit integers, where a CPU has instructions for them: in half of the time that bfloat16 takes.

Weights are rounded in steps of each output channel, inputs in 255 steps between the least and the largest value of the
tensor (0 is one of them, and exact). Sums are exact, and what comes out is in the precision around: the network's other
operations do not change. ``lite`` scores the same with and without (``weights/README.md``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import torch
from torch import nn

Convolution = nn.Conv2d | nn.Conv3d

_in_use: ContextVar[bool] = ContextVar("int8", default=False)
_MIN_INPUTS = 16
_MIN_PRODUCTS = 60  # for each value of the input; below, rounding it takes what the integers save
_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8")  # without one of them sums of products saturate


@contextmanager
def int8_convolutions() -> Iterator[None]:
    """Compute in 8-bit integers what ``suits`` them, without gradients on this thread, where the CPU can."""
    token = _in_use.set(is_supported())
    try:
        yield
    finally:
        _in_use.reset(token)


def in_use() -> bool:
    """Return whether this thread computes convolutions in 8-bit integers now."""
    return _in_use.get()


def suits(layer: Convolution, inputs: int) -> bool:
    """Return whether a layer is faster in integers, for a number of input channels."""
    products = math.prod(layer.kernel_size) * layer.out_channels
    return layer.groups == 1 and inputs >= _MIN_INPUTS and products >= _MIN_PRODUCTS


def is_supported() -> bool:
    """Return whether this CPU has the instructions, and this torch the operations, which a small example checks."""
    return any(torch.cpu.get_capabilities().get(name) for name in _INSTRUCTIONS) and _has_operations()


@functools.cache
def _has_operations() -> bool:
    """Return whether torch's operations exist with the arguments used here, and give what floats give."""
    try:
        return all(_computes(layer) for layer in (nn.Conv2d(16, 16, 3, 1, 1), nn.Conv3d(16, 16, 3, 1, 1)))
    except (AttributeError, ImportError, RuntimeError, TypeError):
        return False


@torch.no_grad()
@torch.autocast("cpu", enabled=False)
def _computes(layer: Convolution) -> bool:
    x = torch.linspace(-1, 2, 16 * 4 ** layer.weight[0, 0].dim()).view(1, 16, *[4] * layer.weight[0, 0].dim())
    for x_ in (x, x.clamp_min(0)):
        expected = layer(x_)
        y = convolve_int8(layer, x_, layer.weight, layer.bias, plus=expected, dtype=torch.float32, rectify=True)
        if y is None or not torch.allclose(y, (2 * expected).relu(), atol=0.05):
            return False
    return True


def convolve_int8(
    layer: Convolution,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    key: object = None,
    *,
    plus: torch.Tensor | None = None,
    dtype: torch.dtype,
    rectify: bool,
) -> torch.Tensor | None:
    """Convolve x (N, C, ...) with a layer's weights, add a tensor and apply ReLU.

    Args:
        x: float32 or bfloat16. plus: (N, C', ...), of the shape of the output; it is left as it is.
        weight: of the layer, or of some of its input channels, (C', C, ...). key: identifies these.
        dtype: of the output, float32 or bfloat16.

    Returns:
        (N, C', ...), channels last; None where x holds values that are not finite.
    """
    rounded, scale, zero = _round(x)
    if rounded is None:
        return None
    place = cast("tuple[Any, ...]", (layer.stride, layer.padding, layer.dilation, layer.groups))
    packed, steps, zeros, bias = _packed(layer, weight, bias, key, zero != 0, place, rounded.shape)
    arguments = (rounded, scale, zero, packed, steps, zeros)
    is_2d = x.dim() == 4
    if plus is None or not is_2d:
        attr = "relu" if rectify and is_2d and plus is None else "none"
        y = torch.ops.onednn.qconv_pointwise(*arguments, bias, *place, 1.0, 0, dtype, attr, [], "")
        y = y if plus is None else y.add_(plus)
        return y.relu_() if rectify and attr == "none" else y
    total = plus.to(dtype, copy=True, memory_format=torch.channels_last)
    unary = ("relu", [], "") if rectify else (None, [], "")
    return torch.ops.onednn.qconv2d_pointwise.binary(
        *arguments, total, bias, *place, 1.0, 0, dtype, 1.0, 0, "sum", 1.0, *unary
    )


def int8_operations() -> list[Any]:
    """Return torch's operations that ``convolve_int8`` uses."""
    return [torch.ops.onednn.qconv_pointwise, torch.ops.onednn.qconv2d_pointwise] if is_supported() else []


def int8_flop(x: Any, scale: Any, zero: Any, kernel: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Return the operations of a convolution, from the shapes of its kernel and its output."""
    return 2 * math.prod(out_shape) * math.prod(kernel[1:])


def _packed(
    layer: Convolution,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    key: object,
    has_zero: bool,
    place: tuple[Any, ...],
    shape: torch.Size,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return rounded weights as oneDNN lays them out, their steps and zero points, and the bias; made once."""
    state = state_of(weight, bias)
    known = layer.__dict__.setdefault("_int8_weights", {})
    entry = known.get((key, has_zero))
    if entry is None or entry[0] != state:
        kernel = weight.detach().float()
        steps = kernel.flatten(1).abs().amax(dim=1).clamp_min(1e-12) / 127
        whole = (kernel / steps.view(-1, *[1] * (kernel.dim() - 1))).round().to(torch.int8)
        packed = torch.ops.onednn.qconv_prepack(whole, steps, 1.0, int(has_zero), *place, list(shape))
        bias = None if bias is None else bias.detach().float()
        entry = known[(key, has_zero)] = (state, packed, steps, torch.zeros(len(steps), dtype=torch.long), bias)
    return entry[1:]


def state_of(*tensors: torch.Tensor | None) -> object:
    """Return what is equal only while the tensors are the same and do not change.

    Tensors made in inference mode have no number of their version, and always count as changed.
    """
    known = [tensor for tensor in tensors if tensor is not None]
    return [(tensor.data_ptr(), object() if tensor.is_inference() else tensor._version) for tensor in known]


def _round(x: torch.Tensor) -> tuple[torch.Tensor | None, float, int]:
    """Round x (N, C, ...), float32 or bfloat16, to x = scale * (whole - zero).

    Returns:
        whole, uint8, channels last, None where x holds values that are not finite; scale; zero.
    """
    from nasrecon.nas.int8_kernels import round_values

    order = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    flat = lambda y: y.permute(0, *range(2, y.dim()), 1).reshape(-1)  # noqa: E731
    values = flat(x.contiguous(memory_format=order))
    whole = torch.empty(x.shape, dtype=torch.uint8, memory_format=order)
    bits = values.view(torch.int16 if x.dtype == torch.bfloat16 else torch.int32)
    scale, zero = round_values(bits.numpy(), flat(whole).numpy())
    return (whole if math.isfinite(scale) else None), scale, zero
