"""One gain for each view and colour channel, so that overlapping photographs are equally bright.

Where two views see one surface, the median difference of their log colours is the difference of their gains. The gains
are solved by least squares, robustly, with a prior. Their mean is 1, so the whole is as bright as the photographs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from nasrecon.fuse.ahead import ahead, in_parts
from nasrecon.fuse.overlap import CoarseDepth
from nasrecon.fuse.pair_equations import PairEquations

_SAME_SURFACE = 0.03
_MIN_SAMPLES = 30
_RANGE = (8.0, 245.0)
_PRIOR = 0.3
_PAIR_ERROR = 0.02
_ROUNDS = 8
_MAX_GAIN = 3.0


def coarse_rgb(rgb: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the mean colours (*grid, 3) float32 of an image (H, W, 3) in a grid of equal parts."""
    from nasrecon.fuse.color_kernel import add_to_grid

    rows, columns = (np.unique(np.arange(n) * size // n) for n, size in zip(grid, rgb.shape, strict=False))
    row_of, column_of = (
        np.searchsorted(starts, np.arange(n), side="right") - 1
        for starts, n in ((rows, rgb.shape[0]), (columns, rgb.shape[1]))
    )
    total = np.zeros((len(rows), len(columns), 3), np.float32)
    add_to_grid(rgb, row_of, column_of, total)
    heights, widths = np.diff(rows, append=rgb.shape[0]), np.diff(columns, append=rgb.shape[1])
    mean = total / (heights[:, None, None] * widths[None, :, None])
    y, x = (np.arange(n) * len(part) // n for n, part in zip(grid, (rows, columns), strict=True))
    return mean[np.ix_(y, x)]


def view_gains(
    coarse: Sequence[CoarseDepth], colors: Sequence[np.ndarray], pairs: Sequence[tuple[int, int]]
) -> np.ndarray:
    """Return the factors (V, 3) for the colours of each view.

    Args:
        coarse: each view's coarse depth (h, w).
        colors: each view's mean colours (h, w, 3), from ``coarse_rgb``.
        pairs: the views to compare.
    """
    views = len(coarse)

    def compare(part: Sequence[tuple[int, int]]) -> list[tuple[int, int, np.ndarray]]:
        pairs = [(i, j, _offset(coarse[i], colors[i], coarse[j], colors[j])) for i, j in part]
        return [(i, j, offset) for i, j, offset in pairs if offset is not None]

    offsets = [pair for some in ahead(partial(compare, part) for part in in_parts(pairs)) for pair in some]
    if not offsets:
        return np.ones((views, 3))
    source, ref = np.array([(i, j) for i, j, _ in offsets]).T
    equations = PairEquations(source, ref, np.ones(len(offsets)), views)
    gains = np.zeros((views, 3))
    for channel in range(3):
        difference = -np.array([offset[channel] for _, _, offset in offsets])
        weight = np.full(len(offsets), _PAIR_ERROR**-2)
        for _ in range(_ROUNDS):
            information = equations.information(weight) + np.eye(views) / _PRIOR**2
            gains[:, channel] = np.linalg.solve(information, equations.right_side(weight * difference))
            residual = np.abs(difference - equations.differences(gains[:, channel])) / _PAIR_ERROR
            weight = 1 / (np.maximum(1, residual / 2) * _PAIR_ERROR**2)
    gains -= gains.mean(axis=0)
    return np.exp(gains).clip(1 / _MAX_GAIN, _MAX_GAIN)


def _offset(a: CoarseDepth, a_rgb: np.ndarray, b: CoarseDepth, b_rgb: np.ndarray) -> np.ndarray | None:
    """Return the median (3,) of log colour of a less that of b where both see one surface; None if that is little."""
    from nasrecon.fuse.pair_kernel import color_differences

    at = np.flatnonzero(a.depth)
    if len(at) != len(a.points_in_world):
        return None
    camera, height, width = b.view.camera, *b.depth.shape
    P = np.diag([width / camera.width, height / camera.height, 1]) @ camera.K @ b.view.cam_from_world[:3]
    out = np.empty((3, len(at)), np.float32)
    ours, theirs = a_rgb.reshape(-1, 3), b_rgb.reshape(-1, 3)
    n = color_differences(a.points_in_world, at, ours, P, b.depth, theirs, _SAME_SURFACE, *_RANGE, out)
    return np.median(out[:, :n], axis=1) if n >= _MIN_SAMPLES else None
