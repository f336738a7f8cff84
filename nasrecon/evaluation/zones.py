"""Where in an image errors are: outside the sources, near depth edges, on flat texture, and the rest; and thin
structures.

All from true depth and the image. Pure numpy, one reference at a time, lengths in pixels of the size that is scored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nasrecon.geometry import array_indices, relative_pose, transform
from nasrecon.types import View

ZONES = ("outside", "edge", "flat", "rest")
"""The zones; a pixel belongs to the first that it meets the condition of."""
EDGE_PX, EDGE_JUMP = 8, 0.05
"""A pixel is near an edge if, so many pixels away or fewer, true depths of neighbours differ by more than this
share."""
FLAT_WINDOW, FLAT_STD = 9, 0.02
"""Texture is flat where grey has less than this standard deviation, of its whole range, in windows of this side
[px]."""
OCCLUDED = 0.05
"""A true point is occluded in a source where that sees something nearer by more than this share of its depth."""
THIN_PX, THIN_FOUND = 12, 0.1
"""Thin: foreground that holds no square of this side [px]. Found: the depth is off by this share of the truth or
less."""


def zone_masks(
    rgb: np.ndarray,
    view: View,
    truth: np.ndarray,
    sources: Sequence[tuple[View, np.ndarray | None]],
) -> dict[str, np.ndarray]:
    """Return the zones of a reference, disjoint masks (H, W) that cover all pixels with true depth.

    Args:
        rgb: (H, W, 3) uint8. view: its camera, and the pose that the true depth belongs to.
        truth: (H, W), 0 = none.
        sources: the views of the sources and their true depth, at their cameras' sizes; None where there is none.
    """
    conditions = {
        "outside": lambda: ~seen_by_a_source(view, truth, sources),
        "edge": lambda: near_edge(truth),
        "flat": lambda: flat_texture(rgb),
        "rest": lambda: True,
    }
    left = truth > 0
    masks = {}
    for zone in ZONES:
        masks[zone] = left & conditions[zone]()
        left = left & ~masks[zone]
    return masks


def zone_errors(error: np.ndarray, mask: np.ndarray, zones: dict[str, np.ndarray]) -> dict[str, float]:
    """Return the mean error (H, W) in each zone and the zone's share of the pixels of a mask (H, W), not empty.

    Keys: ``edge`` and ``edge_share`` and so on; an empty zone has the share 0 and no mean.
    """
    out = {}
    for name, zone in zones.items():
        inside = zone & mask
        if inside.any():
            out[name] = float(error[inside].mean())
        out[f"{name}_share"] = float(inside.sum() / mask.sum())
    return out


def seen_by_a_source(view: View, truth: np.ndarray, sources: Sequence[tuple[View, np.ndarray | None]]) -> np.ndarray:
    """Return where (H, W) the true point falls into the image of a source and is not occluded in it."""
    points = view.camera.unproject_depth(truth)
    visible = np.zeros(truth.shape, dtype=bool)
    for source, depth in sources:
        camera = source.camera
        in_source = transform(relative_pose(source.cam_from_world, view.cam_from_world), points)
        z = in_source[..., 2]
        row, column, inside = array_indices(camera.project(in_source), camera.width, camera.height)
        if depth is not None:
            nearest = depth[row, column]
            inside &= (nearest <= 0) | (z <= nearest * (1 + OCCLUDED))
        visible |= inside & (truth > 0)
    return visible


def near_edge(truth: np.ndarray) -> np.ndarray:
    """Return which pixels (H, W) are within ``EDGE_PX`` of a jump of depth.

    Neighbours are pixels of one row or column with true depth and at most ``EDGE_PX`` without between them.
    """
    edge = _jumps(truth) | _jumps(truth.T).T
    height, width = edge.shape
    sums = np.pad(np.cumsum(edge, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    columns, near = np.arange(width), np.zeros_like(edge)
    for dy in range(-EDGE_PX, EDGE_PX + 1):
        reach = int(np.sqrt(EDGE_PX**2 - dy**2))
        left, correct = np.maximum(columns - reach, 0), np.minimum(columns + reach + 1, width)
        rows = (sums[:, correct] - sums[:, left]) > 0
        near[max(dy, 0) : height + min(dy, 0)] |= rows[max(-dy, 0) : height + min(-dy, 0)]
    return near


def _jumps(truth: np.ndarray) -> np.ndarray:
    """Return the pixels (H, W) on both sides of a jump along the rows."""
    before = _last_valid(truth > 0)
    columns = np.arange(truth.shape[1])
    rows = np.arange(len(truth))[:, None]
    previous = np.pad(before, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    has_previous = (truth > 0) & (previous >= 0) & (columns - previous <= EDGE_PX + 1)
    depth = truth[rows, np.maximum(previous, 0)]
    jump = has_previous & (np.abs(truth - depth) > EDGE_JUMP * np.minimum(truth, depth))
    edge = jump.copy()
    edge[np.nonzero(jump)[0], previous[jump]] = True
    return edge


def _last_valid(valid: np.ndarray) -> np.ndarray:
    """Return the column (H, W) of the last valid pixel up to each pixel of its row; -1 before the first."""
    return np.maximum.accumulate(np.where(valid, np.arange(valid.shape[1]), -1), axis=1)


def flat_texture(rgb: np.ndarray) -> np.ndarray:
    """Return where (H, W) the image (H, W, 3) uint8 has nearly one grey in a window around each pixel."""
    grey = rgb @ np.array([0.299, 0.587, 0.114]) / 255
    grey = grey - grey.mean()
    mean, square = _window_mean(grey), _window_mean(grey**2)
    return square - mean**2 < FLAT_STD**2


def _window_mean(values: np.ndarray) -> np.ndarray:
    """Return the mean over windows of ``FLAT_WINDOW``, at the borders of mirrored values."""
    r = FLAT_WINDOW // 2
    for axis in (0, 1):
        pads = [(r + 1, r) if a == axis else (0, 0) for a in (0, 1)]
        sums = np.cumsum(np.pad(values, pads, mode="reflect"), axis=axis)
        count = values.shape[axis]
        ends, starts = (np.take(sums, range(k, k + count), axis=axis) for k in (FLAT_WINDOW, 0))
        values = (ends - starts) / FLAT_WINDOW
    return values


def thin_structures(truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find thin foreground: what an opening of inverse depth by a square of ``THIN_PX`` takes away.

    Returns:
        where (H, W) the true depth is nearer than its surroundings by more than ``EDGE_JUMP``, and the depth (H, W) of
        the surroundings there. Pixels without depth take the farther one of the next valid pixels in their row.
    """
    near = _filled(truth)
    opened = np.pad(near, THIN_PX, mode="edge")
    for best in (np.minimum, np.maximum):  # erosion, then dilation by the mirrored square
        for axis in (0, 1):
            opened = _running(best, opened, axis, ahead=best is np.minimum)
    opened = opened[THIN_PX:-THIN_PX, THIN_PX:-THIN_PX]
    with np.errstate(divide="ignore"):
        return (truth > 0) & (near > opened * (1 + EDGE_JUMP)), 1 / opened


def _filled(truth: np.ndarray) -> np.ndarray:
    """Return inverse depth (H, W) without holes."""
    valid = truth > 0
    near = np.where(valid, 1 / np.where(valid, truth, 1), 0)
    width = truth.shape[1]
    left, correct = _last_valid(valid), width - 1 - _last_valid(valid[:, ::-1])[:, ::-1]
    rows = np.arange(len(truth))[:, None]
    sides = [np.where((at >= 0) & (at < width), near[rows, at.clip(0, width - 1)], np.inf) for at in (left, correct)]
    nearer = np.minimum(*sides)
    return np.where(np.isfinite(nearer), nearer, 0)


def _running(best: np.ufunc, values: np.ndarray, axis: int, ahead: bool) -> np.ndarray:
    """Return the minimum or maximum over ``THIN_PX`` values along an axis, from each ahead or back; borders repeat."""
    values = np.moveaxis(values, axis, 0)
    count, reach = len(values), THIN_PX - 1
    out = np.pad(values, ((0, reach) if ahead else (reach, 0), (0, 0)), mode="edge")
    width = 1
    while width < THIN_PX:
        step = min(width, THIN_PX - width)
        out = best(out[:-step], out[step:])
        width += step
    return np.moveaxis(out[:count], 0, axis)


def found_thin(depth: np.ndarray, truth: np.ndarray, surroundings: np.ndarray) -> np.ndarray:
    """Return where (H, W) a depth is the thin thing's: within ``THIN_FOUND``, and nearer to it than to its
    surroundings."""
    off = np.abs(depth - truth)
    return (off <= THIN_FOUND * truth) & (off <= np.abs(depth - surroundings))
