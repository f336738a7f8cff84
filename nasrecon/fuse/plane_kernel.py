"""The planes of a view's pixels, in loops that Numba compiles; ``maps.py`` defines them.

A view's pixels are in row order: depth (n,), normal (n, 3), ``width`` of them in a row, all float32.
"""

from __future__ import annotations

import numpy as np

from nasrecon.compiled import compiled

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)
_MIN_FACING = np.float32(0.15)
"""The cosine between a normal and the ray to the camera is taken as this where it is smaller: beyond 81 degrees a
normal's error moves the plane by more than the plane adds."""

_AWAY = np.float32(0.1)
"""A normal whose cosine with the ray from the camera is larger points away from it."""

_SMALL = np.float32(1e-9)


@compiled(inline="always")
def _ray(K_inv: np.ndarray, column: int, row: int) -> tuple[float, float, float]:
    """Return the direction of a pixel's centre in the camera frame, z = 1."""
    x, y = np.float32(column) + _HALF, np.float32(row) + _HALF
    return (
        K_inv[0, 0] * x + K_inv[0, 1] * y + K_inv[0, 2],
        K_inv[1, 0] * x + K_inv[1, 1] * y + K_inv[1, 2],
        K_inv[2, 0] * x + K_inv[2, 1] * y + K_inv[2, 2],
    )


@compiled(inline="always")
def _plane(
    K_inv: np.ndarray, ray: tuple[float, float, float], depth: float, n0: float, n1: float, n2: float
) -> tuple[float, float, float]:
    """Return the plane of a pixel that has a depth.

    A normal that is turned too far is tilted towards the camera; an unknown one (0) becomes the ray itself.
    """
    r0, r1, r2 = ray
    length = np.sqrt(r0 * r0 + r1 * r1 + r2 * r2)
    lacking = max(_MIN_FACING + (n0 * r0 + n1 * r1 + n2 * r2) / length, _ZERO) / length
    n0, n1, n2 = n0 - lacking * r0, n1 - lacking * r1, n2 - lacking * r2
    along = (n0 * r0 + n1 * r1 + n2 * r2) * depth
    scale = _ONE / along
    return (
        (K_inv[0, 0] * n0 + K_inv[1, 0] * n1 + K_inv[2, 0] * n2) * scale,
        (K_inv[0, 1] * n0 + K_inv[1, 1] * n1 + K_inv[2, 1] * n2) * scale,
        (K_inv[0, 2] * n0 + K_inv[1, 2] * n1 + K_inv[2, 2] * n2) * scale,
    )


@compiled()
def find_lacking(depth: np.ndarray, normal: np.ndarray, width: int, K_inv: np.ndarray, out: np.ndarray) -> int:
    """Write into the mask ``out`` (n,) where there is a depth and no normal, none that is finite, or one that points
    away from the camera.

    Returns:
        the number of depths.
    """
    known = 0
    for row in range(len(depth) // width):
        for column in range(width):
            k = row * width + column
            out[k] = False
            if not depth[k] > 0:
                continue
            known += 1
            r0, r1, r2 = _ray(K_inv, column, row)
            n0, n1, n2 = normal[k, 0], normal[k, 1], normal[k, 2]
            away = n0 * r0 + n1 * r1 + n2 * r2
            faces = away < _AWAY * np.sqrt(r0 * r0 + r1 * r1 + r2 * r2)  # not where it is not a number
            out[k] = not (faces and away > -np.inf and (n0 != 0 or n1 != 0 or n2 != 0))
    return known


@compiled()
def estimated_planes(
    depth: np.ndarray,
    normal: np.ndarray,
    sigma: np.ndarray,
    confidence: np.ndarray,
    unknown: np.float32,
    floor: np.float32,
    width: int,
    K_inv: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the planes (n + 1, 4) of an estimate.

    Args:
        sigma: (n,) standard deviation of the depth; where it is not a positive number, ``unknown`` times the depth;
            never less than ``floor`` times the depth.
        confidence: (n,), divides the variance; 0.05 where it is less, or not a number.
    """
    for row in range(len(depth) // width):
        for column in range(width):
            k = row * width + column
            if not depth[k] > 0:
                out[k, 0], out[k, 1], out[k, 2], out[k, 3] = _ZERO, _ZERO, _ZERO, _ZERO
                continue
            ray = _ray(K_inv, column, row)
            part, sure = sigma[k] / depth[k], confidence[k]
            part = max(part if part > 0 and part < np.inf else unknown, floor)
            variance = part * part / (sure if sure > np.float32(0.05) else np.float32(0.05))
            a, b, c = _plane(K_inv, ray, depth[k], normal[k, 0], normal[k, 1], normal[k, 2])
            out[k, 0], out[k, 1], out[k, 2], out[k, 3] = a, b, c, variance
    out[-1] = _ZERO


@compiled()
def averaged_planes(
    keep: np.ndarray,
    inv_depth: np.ndarray,
    normal: np.ndarray,
    weight: np.ndarray,
    support: np.ndarray,
    before: np.ndarray,
    variance_scale: np.float32,
    floor: np.float32,
    width: int,
    K_inv: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write the planes (n + 1, 4) of what a view and others agree on, where ``keep``.

    Errors of neighbouring views are correlated, so the mean's variance is that of half as many: 2 / ``weight``.

    Args:
        weight, support: (n,), see ``consistency.Comparison``.
        before: (n + 1, 4), the planes that the view had, their variances to be multiplied by ``variance_scale``.
        floor: of the relative standard deviation.
    """
    for row in range(len(keep) // width):
        for column in range(width):
            k = row * width + column
            if not keep[k]:
                out[k, 0], out[k, 1], out[k, 2], out[k, 3] = _ZERO, _ZERO, _ZERO, _ZERO
                continue
            ray, depth = _ray(K_inv, column, row), _ONE / inv_depth[k]
            variance = before[k, 3] * variance_scale
            if support[k] >= 2:
                variance = min(variance, max(np.float32(2) / max(weight[k], _SMALL), floor * floor))
            a, b, c = _plane(K_inv, ray, depth, normal[k, 0], normal[k, 1], normal[k, 2])
            out[k, 0], out[k, 1], out[k, 2], out[k, 3] = a, b, c, variance
    out[-1] = _ZERO


@compiled()
def filtered_maps(
    keep: np.ndarray,
    inv_depth: np.ndarray,
    weight: np.ndarray,
    support: np.ndarray,
    floor: np.float32,
    normal: np.ndarray,
    depth: np.ndarray,
    sigma: np.ndarray,
) -> None:
    """Write depth and sigma (n,) of what is kept, and 0 elsewhere, there into the normals (n, 3) too.

    Averages of neighbouring views share errors: the mean's variance is half of theirs, however many agree.
    """
    for k in range(len(keep)):
        if keep[k]:
            variance = max(np.float32(support[k]) / np.float32(2), _ONE) / max(weight[k], _SMALL)
            depth[k] = _ONE / inv_depth[k]
            sigma[k] = depth[k] * np.sqrt(max(variance, floor * floor))
        else:
            depth[k], sigma[k] = _ZERO, _ZERO
            normal[k, 0], normal[k, 1], normal[k, 2] = _ZERO, _ZERO, _ZERO


@compiled()
def depth_ranges(
    depth: np.ndarray, row_of: np.ndarray, column_of: np.ndarray, nearest: np.ndarray, farthest: np.ndarray
) -> None:
    """Lower ``nearest`` and raise ``farthest`` (h, w) to the depths (H, W), 0 = none, of the parts that the rows (H,)
    and columns (W,) lie in."""
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            z, i, j = depth[y, x], row_of[y], column_of[x]
            if z > 0:
                nearest[i, j], farthest[i, j] = min(nearest[i, j], z), max(farthest[i, j], z)
