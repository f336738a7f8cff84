"""What a photograph shows of points of a surface, in loops that Numba compiles (``color.py``)."""

from __future__ import annotations

import numpy as np

from nasrecon.compiled import compiled

_HALF, _ONE = np.float32(0.5), np.float32(1)


@compiled()
def photo_maps(
    plane: np.ndarray, width: int, low: np.float32, high: np.float32, inv_depth: np.ndarray, tolerance: np.ndarray
) -> None:
    """Write the inverse depth (H, W) of planes (H * W + 1, 4), and twice their relative standard deviation, in low to
    high."""
    for row in range(inv_depth.shape[0]):
        y = np.float32(row) + _HALF
        for column in range(width):
            k = row * width + column
            inv_depth[row, column] = plane[k, 0] * (np.float32(column) + _HALF) + plane[k, 1] * y + plane[k, 2]
            tolerance[row, column] = min(max(np.float32(2) * np.sqrt(plane[k, 3]), low), high)


@compiled()
def edge_factors(inv_depth: np.ndarray, reach: int, step: float, beside: np.float32, out: np.ndarray) -> None:
    """Write ``beside`` (H, W) where the inverse depths of a pixel and of the eight ``reach`` pixels away differ by
    more than the part ``step``, and 1 elsewhere."""
    height, width = inv_depth.shape
    for row in range(height):
        top, bottom = row - reach if row >= reach else row, row + reach if row + reach < height else row
        for column in range(width):
            left = column - reach if column >= reach else column
            right = column + reach if column + reach < width else column
            low = high = inv_depth[row, column]
            for y in (top, row, bottom):
                for x in (left, column, right):
                    low, high = min(low, inv_depth[y, x]), max(high, inv_depth[y, x])
            out[row, column] = beside if high > (_ONE + step) * low else _ONE


@compiled()
def find_visible(
    xyz: np.ndarray,
    normal: np.ndarray,
    center: np.ndarray,
    R: np.ndarray,
    K: np.ndarray,
    inv_depth: np.ndarray,
    tolerance: np.ndarray,
    factor: np.ndarray,
    least_cosine: np.float32,
    border: np.float32,
    scale: np.float32,
    index: np.ndarray,
    place: np.ndarray,
    score: np.ndarray,
) -> int:
    """Find the points that a photograph shows, their places in it, and its score there.

    Args:
        xyz, normal: (N, 3) float64 and float32, in the world. center: (3,), of the camera. R, K: (3, 3) float32.
        inv_depth, tolerance, factor: (H, W), see ``color.Photo``; ``factor`` multiplies the score.
        least_cosine: between the normal and the ray to the camera. border: the width of the border [px] within which
            the score falls to 0. scale: of the score.
        index, place, score: (N,), (N, 2) and (N,), receive the numbers of the visible points, their places [px] and the
            scores.

    Returns:
        the number of visible points.
    """
    height, width = inv_depth.shape
    right, bottom, n = np.float32(width), np.float32(height), 0
    for i in range(len(xyz)):
        r0, r1, r2 = (
            np.float32(xyz[i, 0] - center[0]),
            np.float32(xyz[i, 1] - center[1]),
            np.float32(xyz[i, 2] - center[2]),
        )
        z = R[2, 0] * r0 + R[2, 1] * r1 + R[2, 2] * r2
        if not z > 0:
            continue
        X, Y = R[0, 0] * r0 + R[0, 1] * r1 + R[0, 2] * r2, R[1, 0] * r0 + R[1, 1] * r1 + R[1, 2] * r2
        x, y = (K[0, 0] * X + K[0, 1] * Y) / z + K[0, 2], K[1, 1] * Y / z + K[1, 2]
        if not (x >= _HALF and x <= right - _HALF and y >= _HALF and y <= bottom - _HALF):
            continue
        row, column = int(y), int(x)
        inverse = inv_depth[row, column]
        if not (inverse > 0 and abs(inverse * z - _ONE) < tolerance[row, column]):
            continue
        along = normal[i, 0] * r0 + normal[i, 1] * r1 + normal[i, 2] * r2
        facing = -along / np.sqrt(r0 * r0 + r1 * r1 + r2 * r2)
        if not facing > least_cosine:
            continue
        margin = min(min(x, right - x), min(y, bottom - y))
        index[n], place[n, 0], place[n, 1] = i, x, y
        score[n] = scale * facing * min(_ONE, margin / border) * factor[row, column] / z
        n += 1
    return n


@compiled()
def sample(rgb: np.ndarray, place: np.ndarray, out: np.ndarray) -> None:
    """Write the colours (n, 3) float32 of an image (H, W, 3) uint8 at places (n, 2) [px], between pixels bilinearly."""
    height, width = rgb.shape[:2]
    for i in range(len(place)):
        x, y = place[i, 0] - _HALF, place[i, 1] - _HALF
        column, row = int(np.floor(x)), int(np.floor(y))
        u, v = x - np.float32(column), y - np.float32(row)
        after, below = min(column + 1, width - 1), min(row + 1, height - 1)
        for k in range(3):
            upper = (_ONE - u) * np.float32(rgb[row, column, k]) + u * np.float32(rgb[row, after, k])
            lower = (_ONE - u) * np.float32(rgb[below, column, k]) + u * np.float32(rgb[below, after, k])
            out[i, k] = (_ONE - v) * upper + v * lower


@compiled()
def add_colors(index: np.ndarray, share: np.ndarray, colors: np.ndarray, total: np.ndarray, weight: np.ndarray) -> None:
    """Add weighted colours (n, 3) and their weights (n,) to the sums (V, 3) and (V,) of vertices."""
    for i in range(len(index)):
        k = index[i]
        for c in range(3):
            total[k, c] += share[i] * colors[i, c]
        weight[k] += share[i]


@compiled()
def add_to_grid(rgb: np.ndarray, row_of: np.ndarray, column_of: np.ndarray, total: np.ndarray) -> None:
    """Add the colours of an image (H, W, 3) uint8 to the sums (h, w, 3) of the parts that its rows (H,) and columns
    (W,) lie in."""
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            for k in range(3):
                total[row_of[y], column_of[x], k] += np.float32(rgb[y, x, k])


@compiled()
def look_up(rgb: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """Write the colours of an image (H, W, 3) uint8 through a table (256, 3) uint8."""
    for y in range(rgb.shape[0]):
        for x in range(rgb.shape[1]):
            for k in range(3):
                out[y, x, k] = table[rgb[y, x, k], k]
