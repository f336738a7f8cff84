"""The range of a tensor and its rounding to 8 bits, compiled by Numba.

Arrays are flat; floating-point numbers come as their bits, int16 (bfloat16) or int32 (float32). A kernel works on the
blocks first ... last - 1 of ``_BLOCK`` values. Indices of inner loops are unsigned: without the wrap-around of negative
indices the loops are vectorised.
"""

from __future__ import annotations

import numpy as np
import torch

from nasrecon.compiled import compiled
from nasrecon.nas.lite_kernels import over_rows

_BLOCK = 4096  # values that stay in the processor's nearest cache from one loop to the next
_SHARED = 1 << 21  # values from which on threads share the work
_compiled = compiled(fastmath={"reassoc", "contract", "nsz", "nnan"})


def round_values(values: np.ndarray, out: np.ndarray) -> tuple[float, int]:
    """Fill out (n,), uint8, so that values (n,) are scale * (out - zero): 255 steps from the least to the largest.

    0 is one of the steps.

    Returns:
        scale, infinite where a value is not finite, and nothing is filled; zero.
    """
    blocks = -(-len(values) // _BLOCK)
    if len(values) < _SHARED or torch.get_num_threads() == 1:
        return _round(0, blocks, values, out, _largest_bits(0, blocks, values))
    parts: list[tuple[int, int]] = []
    over_rows(blocks, lambda first, last: parts.append(_largest_bits(first, last, values)))
    largest = max(above for above, _ in parts), max(below for _, below in parts)
    steps: list[tuple[float, int]] = []
    over_rows(blocks, lambda first, last: steps.append(_round(first, last, values, out, largest)))
    return steps[0]


@_compiled
def _largest_bits(first, last, values):  # type: ignore[no-untyped-def]
    """Return the bits of the largest positive value and those of the size of the most negative, 0 if there is none.

    Of numbers of one sign the order is that of their bits as integers; what is not a number comes after infinity.
    """
    size = np.int32(0x7FFF) if values.itemsize == 2 else np.int32(0x7FFFFFFF)
    above, below = np.int32(0), np.int32(0)
    for block in range(first, last):
        start, n = np.uint64(block * _BLOCK), np.uint64(min(_BLOCK, len(values) - block * _BLOCK))
        for i in range(n):
            value = np.int32(values[start + i])
            above = max(above, value)
            below = max(below, value & size if value < 0 else np.int32(0))
    return above, below


@_compiled
def _round(first, last, values, out, largest):  # type: ignore[no-untyped-def]
    """Fill out, of the blocks first ... last - 1; return scale and zero."""
    if max(largest[0], largest[1]) >= (0x7F80 if values.itemsize == 2 else 0x7F800000):
        return np.inf, 0
    shift = np.uint32(16 if values.itemsize == 2 else 0)
    bits = np.empty(_BLOCK, np.uint32)
    numbers = bits.view(np.float32)
    bits[0], bits[1] = np.uint32(largest[0]) << shift, np.uint32(largest[1]) << shift
    high, low = np.float64(numbers[0]), np.float64(numbers[1])
    scale = (high + low) / 255 if high + low > 0 else 1.0
    zero = round(low / scale)
    steps, half = np.float32(1 / scale), np.float32(zero + 0.5)
    for block in range(first, last):
        start, n = np.uint64(block * _BLOCK), np.uint64(min(_BLOCK, len(values) - block * _BLOCK))
        for i in range(n):
            bits[i] = np.uint32(values[start + i]) << shift
        for i in range(n):
            out[start + i] = np.uint8(min(np.int32(numbers[i] * steps + half), np.int32(255)))
    return scale, zero
