"""What one view says of the pixels of another: one loop, compiled by Numba, that other threads do not wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

TINY = np.float32(1e-20)
"""Instead of 0 where a quotient does not count."""

_ONE = np.float32(1)


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile on the first call; what is compiled is cached on disk where there is a folder to write to."""
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    except RuntimeError:
        return numba.njit(nogil=True, error_model="numpy")(function)


@_compiled
def _index(A: np.ndarray, x: float, y: float, inv_depth: float, width: int, height: int) -> int:
    """Return the index of the source's plane where it sees a pixel by the matrix A (3, 4); -1 outside of the source."""
    w = A[2, 0] * x + A[2, 1] * y + A[2, 2] + A[2, 3] * inv_depth
    if not w > 0:
        return -1
    u = (A[0, 0] * x + A[0, 1] * y + A[0, 2] + A[0, 3] * inv_depth) / w
    v = (A[1, 0] * x + A[1, 1] * y + A[1, 2] + A[1, 3] * inv_depth) / w
    return int(v) * width + int(u) if u >= 0 and u < width and v >= 0 and v < height else -1


@_compiled
def _is_on_ray(plane: np.ndarray, B: np.ndarray, k: int, point: tuple[float, float, float], allowed: float) -> bool:
    """Return whether the source's plane k passes through a point of the pixel's ray, given in the reference's frame.

    Where it does, the reference would see that surface: it contradicts. Elsewhere the surface hides the pixel's point
    from the source only.
    """
    a, b, c = plane[k, 0], plane[k, 1], plane[k, 2]
    along = _row(B, 0, a, b, c) * point[0] + _row(B, 1, a, b, c) * point[1] + _row(B, 2, a, b, c) * point[2]
    off = _row(B, 3, a, b, c) - along - _ONE
    return plane[k, 3] > 0 and off * off <= allowed


@_compiled
def _row(B: np.ndarray, k: int, a: float, b: float, c: float) -> float:
    return B[k, 0] * a + B[k, 1] * b + B[k, 2] * c


@_compiled
def _add_agreeing(
    sums: np.ndarray, i: int, normal: tuple[float, float, float], length: float, off: float, share: float
) -> None:
    """Add inverse depth and normal of a source to the averages of a pixel."""
    sums[0, i] += share * off
    sums[4, i] += share
    part = share / max(length, TINY)
    sums[1, i] += part * normal[0]
    sums[2, i] += part * normal[1]
    sums[3, i] += part * normal[2]


@_compiled
def add_source(
    place: np.ndarray,
    point: np.ndarray,
    normal: np.ndarray,
    variance: np.ndarray,
    sums: np.ndarray,
    counts: np.ndarray,
    plane: np.ndarray,
    size: tuple[int, int],
    A: np.ndarray,
    B: np.ndarray,
    variance_scale: np.float32,
    limits: tuple[np.float32, np.float32, np.float32, np.float32, np.float32],
) -> tuple[int, int, int]:
    """Compare pixels with a source and add what it says to their sums.

    Args:
        place, point, normal, variance: (4, n), (3, n), (3, n), (n,): the pixels (``consistency._Pixels``).
        sums: (6, n): the weighted sums of the relative differences of inverse depth and of the normals, of the weights,
            and of the weights of those that contradict.
        counts: (2, n): views that agree, and views that the pixel is not hidden from.
        plane, size, A, B, variance_scale: of the source (``consistency._Pair``).
        limits: sigmas, low and high of the tolerance, squared; the cosine of its angle; how many tolerances nearer a
            surface hides.

    Returns:
        numbers of pixels that could be compared, that agree in depth, and in the normal too.
    """
    compared = near = agreeing = 0
    for i in range(len(variance)):
        k = _index(A, place[0, i], place[1, i], place[3, i], *size)
        if k < 0 or not plane[k, 3] > 0:
            continue
        a, b, c, other_variance = plane[k, 0], plane[k, 1], plane[k, 2], plane[k, 3] * variance_scale
        n0, n1, n2 = _row(B, 0, a, b, c), _row(B, 1, a, b, c), _row(B, 2, a, b, c)
        # As parts of the pixel's inverse depth: where the plane cuts its ray, and where the source has its surface.
        along = n0 * point[0, i] + n1 * point[1, i] + n2 * point[2, i]
        behind = _row(B, 3, a, b, c) - _ONE
        off = along / (behind if behind != 0 else TINY) - _ONE
        allowed = min(max((other_variance + variance[i]) * limits[0], limits[1]), limits[2])
        agrees = False
        if off * off <= allowed:
            near += 1
            length = np.sqrt(n0 * n0 + n1 * n1 + n2 * n2)
            agrees = n0 * normal[0, i] + n1 * normal[1, i] + n2 * normal[2, i] >= limits[3] * length
        if agrees:
            agreeing, counts[0, i] = agreeing + 1, counts[0, i] + 1
            part = _ONE - off * off / allowed  # Biweight: pairs at the edge of the tolerance count least.
            _add_agreeing(sums, i, (n0, n1, n2), length, off, part * part / other_variance)
        # A point is hidden where the source has a surface nearer by more than the tolerance allows.
        unhidden = (_ONE - limits[4] * np.sqrt(allowed)) * (behind - along + _ONE) <= _ONE
        if not unhidden and off > -_ONE:
            cut = _ONE + off
            k = _index(A, place[0, i], place[1, i], place[3, i] * cut, *size)
            on_ray = (point[0, i] / cut, point[1, i] / cut, point[2, i] / cut)
            unhidden = k >= 0 and _is_on_ray(plane, B, k, on_ray, allowed)
        if unhidden:
            compared, counts[1, i] = compared + 1, counts[1, i] + 1
            sums[5, i] += np.float32(0) if agrees else _ONE / other_variance
    return compared, near, agreeing
