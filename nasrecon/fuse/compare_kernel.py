"""What one view says of the pixels of another: loops that Numba compiles to vector instructions.

The pixels of a reference lie in blocks of ``STEP``, and in a block each of their numbers lies in one row. Rows of one
array at fixed distances cannot overlap, which the compiler has to know to vectorise. For the same reason places in
arrays are unsigned: a negative one would count from the end.
"""

from __future__ import annotations

import numpy as np

from nasrecon.compiled import compiled

STEP = 1024
"""Pixels in a block: what a loop works on stays in the processor's first cache."""

_PITCH = STEP + 16
"""The distance of rows: at 4096 bytes or a multiple, all rows of a pixel would share one set of the first cache."""

ROWS = 18
"""Numbers of a pixel: its place x, y [px] and inverse depth, its point and its normal in the camera frame, its
variance; the sums of what the sources say: the weighted relative differences of inverse depth, the weighted normals,
the weights, and the weights of those that contradict; the number of views that agree, and of those that it is not
hidden from."""

BLOCK = ROWS * _PITCH
"""float32 in a block."""

_OF_SOURCE = 7
"""Numbers of a pixel and one source: the source's plane and variance; whether the plane agrees in depth; whether
another look decides; the relative difference of inverse depth."""

Limits = tuple[np.float32, np.float32, np.float32, np.float32, np.float32]
"""Sigmas, low and high of the tolerance, squared; the cosine of its angle; by how many tolerances a nearer surface
hides."""

_TINY = np.float32(1e-20)
"""Instead of 0 where a quotient does not count."""

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_X, _Y, _INVERSE, _P0, _P1, _P2, _N0, _N1, _N2 = (np.uint64(row * _PITCH) for row in range(9))
_VARIANCE, _SHIFT, _M0, _M1, _M2, _WEIGHT = (np.uint64(row * _PITCH) for row in range(9, 15))
_AGAINST, _AGREE, _VISIBLE = (np.uint64(row * _PITCH) for row in range(15, ROWS))
_A, _B, _C, _V, _NEAR, _DECIDE, _OFF = (np.uint64(row * _PITCH) for row in range(_OF_SOURCE))


@compiled()
def begin(
    plane: np.ndarray,
    scale: np.float32,
    variance_scale: np.float32,
    top: int,
    width: int,
    K: np.ndarray,
    K_inv: np.ndarray,
    blocks: np.ndarray,
    at: np.ndarray,
) -> int:
    """Fill blocks with the pixels that have a depth, of the planes (n, 4) of the rows from ``top`` on of a reference.

    Args:
        K, K_inv: (3, 3) float32. blocks: (ceil(n / STEP) * BLOCK,) float32. at: (n,) int32, receives the number
            in the view of each pixel of the blocks.

    Returns:
        the number of pixels in the blocks.
    """
    n = start = column = 0
    for row in range(len(plane) // width):
        y = np.float32(top + row) + _HALF
        for k in range(row * width, (row + 1) * width):
            x = np.float32(k - row * width) + _HALF
            a, b, c = plane[k, 0] * scale, plane[k, 1] * scale, plane[k, 2] * scale
            inverse = a * x + b * y + c
            if not inverse > 0:
                continue
            i = np.uint64(start + column)
            variance = plane[k, 3] * variance_scale
            weight, depth = _ONE / variance, _ONE / inverse
            blocks[i], blocks[i + _Y], blocks[i + _INVERSE], blocks[i + _VARIANCE] = x, y, inverse, variance
            blocks[i + _P0] = (K_inv[0, 0] * x + K_inv[0, 1] * y + K_inv[0, 2]) * depth
            blocks[i + _P1] = (K_inv[1, 0] * x + K_inv[1, 1] * y + K_inv[1, 2]) * depth
            blocks[i + _P2] = (K_inv[2, 0] * x + K_inv[2, 1] * y + K_inv[2, 2]) * depth
            n0 = K[0, 0] * a + K[1, 0] * b + K[2, 0] * c
            n1 = K[0, 1] * a + K[1, 1] * b + K[2, 1] * c
            n2 = K[0, 2] * a + K[1, 2] * b + K[2, 2] * c
            turned = -_ONE / np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
            n0, n1, n2 = n0 * turned, n1 * turned, n2 * turned
            blocks[i + _N0], blocks[i + _N1], blocks[i + _N2] = n0, n1, n2
            blocks[i + _M0], blocks[i + _M1], blocks[i + _M2] = weight * n0, weight * n1, weight * n2
            blocks[i + _SHIFT], blocks[i + _AGAINST], blocks[i + _WEIGHT] = _ZERO, _ZERO, weight
            blocks[i + _AGREE], blocks[i + _VISIBLE] = _ONE, _ZERO
            at[n] = top * width + k
            n, column = n + 1, column + 1
            if column == STEP:
                start, column = start + BLOCK, 0
    return n


@compiled()
def finish(
    blocks: np.ndarray,
    at: np.ndarray,
    n: int,
    inv_depth: np.ndarray,
    normal: np.ndarray,
    weight: np.ndarray,
    against: np.ndarray,
    support: np.ndarray,
    visible: np.ndarray,
) -> tuple[int, int]:
    """Write the averages and counts of the ``n`` pixels of blocks to their places in the arrays of the whole view;
    normal is (H * W, 3).

    Returns:
        numbers of pairs of a pixel and a source that could be compared, and that agree.
    """
    compared = agreeing = 0
    for k in range(n):
        i, j = np.uint64((k // STEP) * (BLOCK - STEP) + k), np.uint64(at[k])
        total = blocks[i + _WEIGHT]
        inv_depth[j] = blocks[i + _INVERSE] * (_ONE + blocks[i + _SHIFT] / total)
        m0, m1, m2 = blocks[i + _M0], blocks[i + _M1], blocks[i + _M2]
        length = np.sqrt(m0 * m0 + m1 * m1 + m2 * m2)
        length = length if length > 0 else _ONE
        normal[j, 0], normal[j, 1], normal[j, 2] = m0 / length, m1 / length, m2 / length
        weight[j], against[j] = total, blocks[i + _AGAINST]
        support[j], visible[j] = np.int16(blocks[i + _AGREE]), np.int16(blocks[i + _VISIBLE])
        compared, agreeing = compared + visible[j], agreeing + support[j] - 1
    return compared, agreeing


@compiled()
def add_source(
    blocks: np.ndarray,
    n: int,
    plane: np.ndarray,
    size: tuple[int, int],
    A: np.ndarray,
    B: np.ndarray,
    variance_scale: np.float32,
    limits: Limits,
) -> int:
    """Compare the ``n`` pixels of blocks with a source and add what it says to their sums.

    Args:
        plane, size, A, B, variance_scale: of the source (``consistency._Pair``).

    Returns:
        the number of pixels that agree in depth.
    """
    index, of_source = np.empty(STEP, np.int32), np.empty(_OF_SOURCE * _PITCH, np.float32)
    near = 0
    for number in range((n + STEP - 1) // STEP):
        start, count = number * BLOCK, min(STEP, n - number * STEP)
        _find(blocks, start, count, A, size[0], size[1], index)
        _fetch(plane, index, count, of_source)
        _judge(blocks, start, count, of_source, B, variance_scale, limits)
        close, undecided = _noted(of_source, count)
        if undecided:
            _look_again(blocks, start, count, of_source, plane, size, A, B, variance_scale, limits)
        near += close
    return near


@compiled()
def _find(
    blocks: np.ndarray, start: int, count: int, A: np.ndarray, width: int, height: int, index: np.ndarray
) -> None:
    """Write the index of the source's plane where it sees each pixel of a block, by the matrix A (3, 4); outside of the
    source that of its last, empty plane."""
    a0, a1, a2, a3 = A[0, 0], A[0, 1], A[0, 2], A[0, 3]
    b0, b1, b2, b3 = A[1, 0], A[1, 1], A[1, 2], A[1, 3]
    c0, c1, c2, c3 = A[2, 0], A[2, 1], A[2, 2], A[2, 3]
    right, bottom, last = np.float32(width), np.float32(height), np.int32(width * height)
    for k in range(count):
        j = np.uint64(k)
        i = np.uint64(start) + j
        x, y, inverse = blocks[i], blocks[i + _Y], blocks[i + _INVERSE]
        w = c0 * x + c1 * y + c2 + c3 * inverse
        u = (a0 * x + a1 * y + a2 + a3 * inverse) / w
        v = (b0 * x + b1 * y + b2 + b3 * inverse) / w
        inside = (w > 0) & (u >= 0) & (u < right) & (v >= 0) & (v < bottom)
        column, row = np.int32(u if inside else _ZERO), np.int32(v if inside else _ZERO)
        index[j] = row * np.int32(width) + column if inside else last


@compiled()
def _fetch(plane: np.ndarray, index: np.ndarray, count: int, of_source: np.ndarray) -> None:
    """Fetch the source's planes and variances."""
    for k in range(count):
        i, j = np.uint64(k), np.uint64(index[np.uint64(k)])
        of_source[i + _A], of_source[i + _B] = plane[j, np.uint64(0)], plane[j, np.uint64(1)]
        of_source[i + _C], of_source[i + _V] = plane[j, np.uint64(2)], plane[j, np.uint64(3)]


@compiled()
def _judge(
    blocks: np.ndarray,
    start: int,
    count: int,
    of_source: np.ndarray,
    B: np.ndarray,
    variance_scale: np.float32,
    limits: Limits,
) -> None:
    """Add to the sums where the source agrees, and where it contradicts because its surface is not nearer."""
    a0, a1, a2 = B[0, 0], B[0, 1], B[0, 2]
    b0, b1, b2 = B[1, 0], B[1, 1], B[1, 2]
    c0, c1, c2 = B[2, 0], B[2, 1], B[2, 2]
    d0, d1, d2 = B[3, 0], B[3, 1], B[3, 2]
    sigmas, low, high, cosine, hidden = limits
    for k in range(count):
        j = np.uint64(k)
        i = np.uint64(start) + j
        a, b, c, other = of_source[j + _A], of_source[j + _B], of_source[j + _C], of_source[j + _V]
        has = other > _ZERO
        other = other * variance_scale if has else _ONE
        n0, n1, n2 = a0 * a + a1 * b + a2 * c, b0 * a + b1 * b + b2 * c, c0 * a + c1 * b + c2 * c
        # As parts of the pixel's inverse depth: where the plane cuts its ray, and where the source has its surface.
        along = n0 * blocks[i + _P0] + n1 * blocks[i + _P1] + n2 * blocks[i + _P2]
        behind = d0 * a + d1 * b + d2 * c - _ONE
        off = along / (behind if behind != _ZERO else _TINY) - _ONE
        allowed = (other + blocks[i + _VARIANCE]) * sigmas
        allowed = allowed if allowed > low else low
        allowed = allowed if allowed < high else high
        close = has & (off * off <= allowed)
        length = np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
        facing = n0 * blocks[i + _N0] + n1 * blocks[i + _N1] + n2 * blocks[i + _N2]
        agrees = close & (facing >= cosine * length)
        part = _ONE - off * off / allowed  # Biweight: pairs at the edge of the tolerance count least.
        share = part * part / other if agrees else _ZERO
        blocks[i + _SHIFT] += share * (off if agrees else _ZERO)
        blocks[i + _WEIGHT] += share
        share /= length if length > _TINY else _TINY
        blocks[i + _M0] += share * n0
        blocks[i + _M1] += share * n1
        blocks[i + _M2] += share * n2
        # A point is hidden where the source has a surface nearer by more than the tolerance allows.
        unhidden = (_ONE - hidden * np.sqrt(allowed)) * (behind - along + _ONE) <= _ONE
        blocks[i + _AGAINST] += _ONE / other if has & unhidden & (not agrees) else _ZERO
        blocks[i + _AGREE] += _ONE if agrees else _ZERO
        blocks[i + _VISIBLE] += _ONE if has & unhidden else _ZERO
        of_source[j + _NEAR] = _ONE if close else _ZERO
        of_source[j + _DECIDE] = _ONE if has & (not unhidden) & (off > -_ONE) else _ZERO
        of_source[j + _OFF] = off


@compiled()
def _look_again(
    blocks: np.ndarray,
    start: int,
    count: int,
    of_source: np.ndarray,
    plane: np.ndarray,
    size: tuple[int, int],
    A: np.ndarray,
    B: np.ndarray,
    variance_scale: np.float32,
    limits: Limits,
) -> None:
    """Decide on points that something nearer hides: where that lies on the pixel's own ray, the reference would see it,
    and the two contradict each other."""
    for k in range(count):
        j, i = np.uint64(k), np.uint64(start + k)
        if of_source[j + _DECIDE] == _ZERO:
            continue
        cut = _ONE + of_source[j + _OFF]
        x, y, inverse = blocks[i], blocks[i + _Y], blocks[i + _INVERSE] * cut
        w = A[2, 0] * x + A[2, 1] * y + A[2, 2] + A[2, 3] * inverse
        u = (A[0, 0] * x + A[0, 1] * y + A[0, 2] + A[0, 3] * inverse) / w
        v = (A[1, 0] * x + A[1, 1] * y + A[1, 2] + A[1, 3] * inverse) / w
        if not (w > 0 and u >= 0 and u < size[0] and v >= 0 and v < size[1]):
            continue
        q = int(v) * size[0] + int(u)
        a, b, c = plane[q, 0], plane[q, 1], plane[q, 2]
        along = (B[0, 0] * a + B[0, 1] * b + B[0, 2] * c) * blocks[i + _P0]
        along += (B[1, 0] * a + B[1, 1] * b + B[1, 2] * c) * blocks[i + _P1]
        along += (B[2, 0] * a + B[2, 1] * b + B[2, 2] * c) * blocks[i + _P2]
        off = B[3, 0] * a + B[3, 1] * b + B[3, 2] * c - along / cut - _ONE
        other = of_source[j + _V] * variance_scale
        allowed = min(max((other + blocks[i + _VARIANCE]) * limits[0], limits[1]), limits[2])
        if plane[q, 3] > 0 and off * off <= allowed:
            blocks[i + _VISIBLE] += _ONE
            blocks[i + _AGAINST] += _ONE / other


@compiled()
def _noted(of_source: np.ndarray, count: int) -> tuple[int, int]:
    """Return how many pixels the source is near, and for how many another look decides."""
    near = undecided = 0
    for k in range(count):
        i = np.uint64(k)
        near += int(of_source[i + _NEAR])
        undecided += int(of_source[i + _DECIDE])
    return near, undecided
