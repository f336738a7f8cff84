"""Depth, normal and uncertainty metrics. Pure numpy, one image at a time.

Depth errors are those of Eigen et al. (2014), as DeMoN, DPSNet and NAS report them. Keys of the dictionaries are plain
names, their units in the name (``_deg``, ``_pct``); lengths are in the unit of the depths.
"""

from __future__ import annotations

import numpy as np

from nasrecon.types import Camera

ANGLES_DEG = (11.25, 22.5, 30.0)
DEPTH_METRICS = ("abs_rel", "abs_diff", "sq_rel", "rmse", "rmse_log", "delta_1", "delta_2", "delta_3")
NORMAL_METRICS = ("mean_deg", "median_deg", *(f"below_{angle:g}_pct" for angle in ANGLES_DEG))

PATCH = 7
"""Side of the windows of true depth that planes are fitted to [px]."""
ROUGHNESS = 0.02
"""A window is rough where any of its pixels is off the plane by more than this part of its depth."""
REMOVED = np.arange(20) / 20
"""The shares of least confident pixels that are removed for a sparsification curve: 0, 5 ... 95 %."""
INTERVALS = (0.5, 0.9)
"""The intervals whose coverage is measured."""


def depth_metrics(depth: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return the errors of a depth map over the pixels of a mask.

    abs_rel: mean |d - t| / t. abs_diff: mean |d - t|. sq_rel: mean (d - t)^2 / t. rmse, rmse_log (natural logarithm).
    delta_k: share of pixels with max(d/t, t/d) < 1.25^k.

    Args:
        depth, truth: (H, W), positive within the mask, one unit.
        mask: (H, W) bool, not empty.
    """
    d, t = depth[mask].astype(np.float64), truth[mask].astype(np.float64)
    off, log_off = d - t, np.log(d) - np.log(t)
    ratio = np.maximum(d / t, t / d)
    values = [np.mean(np.abs(off) / t), np.mean(np.abs(off)), np.mean(off**2 / t), np.sqrt(np.mean(off**2))]
    values += [np.sqrt(np.mean(log_off**2)), *(np.mean(ratio < 1.25**k) for k in (1, 2, 3))]
    return dict(zip(DEPTH_METRICS, map(float, values), strict=True))


def normal_metrics(normal: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Return the errors of a normal map (H, W, 3) over the pixels of a mask (H, W), not empty.

    mean_deg, median_deg: of the angle to the truth. below_X_pct: per cent of pixels whose angle is below X degrees.
    A vector that has no length, or is not finite, counts as 90 degrees off.
    """
    estimated, expected = normal[mask].astype(np.float64), truth[mask].astype(np.float64)
    finite = np.isfinite(estimated).all(axis=-1, keepdims=True)
    estimated = np.where(finite, estimated, 0)
    across, along = np.linalg.norm(np.cross(estimated, expected), axis=-1), np.sum(estimated * expected, axis=-1)
    has_length = np.linalg.norm(estimated, axis=-1) > 0
    angle = np.where(has_length, np.degrees(np.arctan2(across, along)), 90.0)
    values = [angle.mean(), np.median(angle), *(100 * np.mean(angle < limit) for limit in ANGLES_DEG)]
    return dict(zip(NORMAL_METRICS, map(float, values), strict=True))


def true_normals(depth: np.ndarray, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Return the normals (H, W, 3) of a true depth map (H, W) and where they may be relied on (H, W) bool.

    Inverse depth is linear in the pixel on a plane: the plane that fits a 7x7 window best (least squares) gives the
    normal of its centre, and averages what the map's own steps do to it (stored in millimetres, differences of
    neighbours at 2 m are 5 degrees off). Relied on are windows full of depth, within the image, in which no pixel is
    more than 2 % off the plane: no edge, no step, no noise of that size. Elsewhere the normal is (0, 0, 0).
    """
    inv_depth = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1).astype(np.float64), np.nan)
    r = PATCH // 2
    steps = np.arange(-r, r + 1)
    padded = np.pad(inv_depth, r, constant_values=np.nan)
    height, width = depth.shape
    shifted = {(y, x): padded[r + y : r + y + height, r + x : r + x + width] for y in steps for x in steps}
    norm = PATCH * np.sum(steps**2)
    level = sum(shifted.values()) / PATCH**2
    slope_x = sum(x * value for (_, x), value in shifted.items()) / norm
    slope_y = sum(y * value for (y, _), value in shifted.items()) / norm
    with np.errstate(invalid="ignore"):
        smooth = np.isfinite(level) & (level > 0)
        for (y, x), value in shifted.items():
            smooth &= np.abs(value - (level + x * slope_x + y * slope_y)) <= ROUGHNESS * level
    # inverse depth = a . pixel (homogeneous) = -n . K^-1 pixel, up to the length of n.
    pixels = camera.pixel_centers()
    plane = np.stack([slope_x, slope_y, level - slope_x * pixels[..., 0] - slope_y * pixels[..., 1]], axis=-1)
    normal = -np.where(smooth[..., None], plane, 0) @ camera.K
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return (normal / np.where(length > 0, length, 1)).astype(np.float32), smooth


def sparsification(error: np.ndarray, confidence: np.ndarray) -> dict[str, float]:
    """Say how well confidence sorts errors; both (N,), N > 0.

    The curve is the mean error of the pixels that are left when the least confident 0, 5 ... 95 % are removed; pixels
    of one confidence are removed in proportion, so that their order does not matter. The oracle removes the largest
    errors.

    Returns:
        ause: mean over the curve of (curve - oracle): the area between them; 0 is perfect.
        aurg: mean over the curve of (all pixels' error - curve): what is gained over removing at random; more is
            better.
    """
    error = error.astype(np.float64)
    oracle = _mean_of_rest(np.sort(error))
    _, group, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    of_group = np.bincount(group, weights=error) / count
    curve = _mean_of_rest(np.repeat(of_group, count))
    return {"ause": float(np.mean(curve - oracle)), "aurg": float(np.mean(error.mean() - curve))}


def _mean_of_rest(error: np.ndarray) -> np.ndarray:
    """Return the mean of the first 100, 95 ... 5 % of errors (N,), at least one."""
    kept = np.maximum(np.round(len(error) * (1 - REMOVED)).astype(int), 1)
    return np.cumsum(error)[kept - 1] / kept


def coverage(error: np.ndarray, sigma: np.ndarray) -> dict[str, float]:
    """Return how many errors lie within the intervals that sigma states, for a Laplace distribution of scale sigma /
    sqrt(2).

    An interval of probability p holds the errors up to -ln(1 - p) times the scale.

    Args:
        error, sigma: (N,), one unit; sigma is a standard deviation.

    Returns:
        within_50_pct, within_90_pct: per cent of the errors; 50 and 90 where sigma and the distribution are right.
    """
    scale = sigma / np.sqrt(2)
    return {
        f"within_{100 * p:.0f}_pct": float(100 * np.mean(np.abs(error) <= -np.log(1 - p) * scale)) for p in INTERVALS
    }
