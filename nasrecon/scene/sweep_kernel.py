"""Normalised cross-correlation of a thumbnail with another one warped by a plane, in a loop that Numba compiles."""

from __future__ import annotations

import numpy as np

from nasrecon.compiled import compiled


@compiled()
def box(image: np.ndarray, window: int, out: np.ndarray) -> None:
    """Write the mean over the window [px] around each pixel (h, w); at the border the outermost pixels repeat."""
    height, width = image.shape
    half, summed = window // 2, np.empty_like(image)
    for y in range(height):
        for x in range(width):
            total = 0.0
            for step in range(-half, half + 1):
                total += image[min(max(y + step, 0), height - 1), x]
            summed[y, x] = total
    for y in range(height):
        for x in range(width):
            total = 0.0
            for step in range(-half, half + 1):
                total += summed[y, min(max(x + step, 0), width - 1)]
            out[y, x] = total / (window * window)


@compiled()
def add_correlation(
    grey: np.ndarray,
    mean: np.ndarray,
    contrast: np.ndarray,
    source: np.ndarray,
    P: np.ndarray,
    window: int,
    least_contrast: float,
    total: np.ndarray,
    count: np.ndarray,
) -> None:
    """Add the correlation, -1 to 1, of a reference with a source to a sum, and 1 to a count, where the source sees it.

    Args:
        grey, mean, contrast: (h, w) float64, the reference, its means over windows, and its deviations there.
        source: (k, m) float64. P: (3, 3), from pixels of the reference (x, y, 1) to the source's.
        least_contrast: deviations count as no less.
    """
    height, width = grey.shape
    warped, inside = np.zeros_like(grey), np.zeros(grey.shape, np.bool_)
    for y in range(height):
        for x in range(width):
            u, v = x + 0.5, y + 0.5
            w = P[2, 0] * u + P[2, 1] * v + P[2, 2]
            if not w > 0:
                continue
            at_x = (P[0, 0] * u + P[0, 1] * v + P[0, 2]) / w - 0.5
            at_y = (P[1, 0] * u + P[1, 1] * v + P[1, 2]) / w - 0.5
            if not (at_x >= 0 and at_x <= source.shape[1] - 1 and at_y >= 0 and at_y <= source.shape[0] - 1):
                continue
            inside[y, x] = True
            i, j = min(int(at_y), source.shape[0] - 2), min(int(at_x), source.shape[1] - 2)
            a, b = at_x - j, at_y - i
            top = source[i, j] + a * (source[i, j + 1] - source[i, j])
            low = source[i + 1, j] + a * (source[i + 1, j + 1] - source[i + 1, j])
            warped[y, x] = top + b * (low - top)
    middle, square, product = np.empty_like(grey), np.empty_like(grey), np.empty_like(grey)
    box(warped, window, middle)
    box(warped * warped, window, square)
    box(grey * warped, window, product)
    for y in range(height):
        for x in range(width):
            if inside[y, x]:
                deviation = np.sqrt(max(square[y, x] - middle[y, x] * middle[y, x], 0.0))
                scale = max(contrast[y, x], least_contrast) * max(deviation, least_contrast)
                total[y, x] += (product[y, x] - mean[y, x] * middle[y, x]) / scale
                count[y, x] += 1
