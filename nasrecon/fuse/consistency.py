"""Which pixels agree across views, and what depth they agree on.

The ray of a reference's pixel is cut with the plane that another view has where it sees the pixel's point. The cut is
where that view puts the surface. Where it lies as near as the two depths' errors let expect, and the normals agree, the
other view supports the pixel and its cut joins a mean. Averaging is what makes the result better than its inputs: the
errors of the views are partly independent.

Where the other view sees something clearly nearer, the point is hidden from it: that is no contradiction, unless the
pixel's ray itself passes through what is nearer. Where the other view sees a surface behind the point, or one whose
normal differs, the two contradict each other.

All of it is float32 in camera-relative coordinates, so that the scene's unit and the place of its origin do not matter.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nasrecon.fuse.maps import PlaneMap, dot, pixel_rays
from nasrecon.fuse.options import FilterStats
from nasrecon.geometry import relative_pose

CHUNK = 1 << 14
"""Pixels that are compared at once: the arrays of a chunk stay in the processor's cache."""

THREADS = min(4, os.cpu_count() or 1)

HIDDEN = 3.0
"""A point is hidden from a view that sees a surface nearer by more than this many tolerances."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How far two views' depths may lie apart and still be of one surface.

    Attributes:
        sigmas: this many standard deviations of their difference ...
        low, high: ... but not less and not more than these parts of the depth.
        normal_angle_deg: the normals differ by no more than this.
    """

    sigmas: float
    low: float
    high: float
    normal_angle_deg: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """What other views say of a reference's pixels, n = H * W in row order.

    Attributes:
        inv_depth: (n,) float32, the mean of the reference and those that agree; 0 where it has no depth.
        normal: (n, 3) float32, unit, camera frame, facing the camera: the same mean; 0 where there is no depth.
        weight: (n,) float32, the sum of the weights: inverse relative variances.
        support: (n,) int16, views that agree, the reference included; 0 where it has no depth.
        visible: (n,) int16, other views that have a depth where they would see the point, and nothing nearer there.
        against: (n,) float32, the sum of the weights of those of them that do not agree.
    """

    inv_depth: np.ndarray
    normal: np.ndarray
    weight: np.ndarray
    support: np.ndarray
    visible: np.ndarray
    against: np.ndarray


def compare(
    ref: PlaneMap, sources: Sequence[PlaneMap], tolerance: Tolerance, stats: FilterStats, pool: ThreadPoolExecutor
) -> Comparison:
    """Compare the pixels of a view with other views; the number of comparisons is added to ``stats``."""
    camera = ref.view.camera
    n = camera.height * camera.width
    out = Comparison(
        inv_depth=np.zeros(n, np.float32),
        normal=np.zeros((n, 3), np.float32),
        weight=np.zeros(n, np.float32),
        support=np.zeros(n, np.int16),
        visible=np.zeros(n, np.int16),
        against=np.zeros(n, np.float32),
    )
    pairs = [_Pair(ref, source) for source in sources]
    rays = pixel_rays(camera)
    rows = max(1, CHUNK // camera.width)

    def work(top: int) -> tuple[int, int, int]:
        return _compare_rows(ref, pairs, tolerance, rays[:, top : top + rows], top, out)

    for counts in pool.map(work, range(0, camera.height, rows)):
        stats.comparisons += counts[0]
        stats.near += counts[1]
        stats.consistent += counts[2]
    return out


class _Pair:
    """A source and the float32 matrices between it and the reference; pixels are homogeneous, (x z, y z, z).

    Attributes:
        plane: (n + 1, 4), the source's planes.
        size: (width, height) of the source.
        A, b: (3, 3) and (3,), from a pixel of the reference with its depth to one of the source.
        normal_from_plane: (3, 3), from the source's planes to directions in the reference's camera frame.
        variance_scale: factor of the source's variances.
    """

    def __init__(self, ref: PlaneMap, source: PlaneMap) -> None:
        src_from_ref = relative_pose(source.view.cam_from_world, ref.view.cam_from_world)
        R, t = src_from_ref[:3, :3], src_from_ref[:3, 3]
        K = source.view.camera.K
        self.plane, self.variance_scale = source.plane, np.float32(source.sigma_scale**2)
        self.size = (source.view.camera.width, source.view.camera.height)
        # All that comes of a plane is linear in it or does not depend on its length, so its scale goes into A and b.
        self.A = (source.scale * K @ R @ np.linalg.inv(ref.view.camera.K)).astype(np.float32)
        self.b = (source.scale * K @ t).astype(np.float32)
        self.normal_from_plane = (-R.T @ K.T).astype(np.float32)


def _compare_rows(
    ref: PlaneMap, pairs: Sequence[_Pair], tolerance: Tolerance, rays: np.ndarray, top: int, out: Comparison
) -> tuple[int, int, int]:
    """Compare the rows from ``top`` on, whose rays (3, h, W) are given, with all sources; writes into ``out``.

    Returns:
        numbers of pairs of a pixel and a source that could be compared, that agree in depth, and in the normal too.
    """
    height, width = rays.shape[1:]
    span = slice(top * width, (top + height) * width)
    # Rounding makes the last row's coordinates differ by nothing that matters.
    x = np.arange(width, dtype=np.float32) + np.float32(0.5)
    y = np.arange(top, top + height, dtype=np.float32)[:, None] + np.float32(0.5)
    ref_plane = np.ascontiguousarray(ref.plane[span].T).reshape(4, height, width)
    ref_plane *= np.array([ref.scale] * 3 + [ref.sigma_scale**2], np.float32)[:, None, None]
    K = ref.view.camera.K.astype(np.float32)
    inv_depth = ref_plane[0] * x + ref_plane[1] * y + ref_plane[2]
    if not (has := inv_depth > 0).any():
        return 0, 0, 0
    depth = 1 / np.where(has, inv_depth, np.float32(1))
    normal, variance = _unit_normal(ref_plane, K, has), ref_plane[3]
    weight = np.where(has, 1 / np.where(has, variance, 1), 0)
    sums = [weight * inv_depth, *(weight * component for component in normal)]
    support = has.astype(np.int16)
    visible, against = np.zeros_like(support), np.zeros_like(weight)
    counts = np.zeros(3, np.int64)
    limits = [np.float32(v) for v in (tolerance.sigmas**2, tolerance.low**2, tolerance.high**2)]
    least_cosine = np.float32(np.cos(np.radians(tolerance.normal_angle_deg)))
    for pair in pairs:
        V, pixel = _project(pair, x, y, inv_depth, has)
        if pixel is None:
            continue
        m = np.ascontiguousarray(pair.plane.take(pixel.ravel(), axis=0).T).reshape(4, height, width)
        m[3] *= pair.variance_scale
        known = m[3] > 0
        mV, mb = dot(m, V), dot(m, pair.b)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            cut = (mV - inv_depth * mb) / (1 - mb)
            off = np.square(cut * depth - 1)
            allowed = np.minimum(np.maximum(limits[0] * (variance + m[3]), limits[1]), limits[2])
            near = (off <= allowed) & known
            other = [dot(row, m) for row in pair.normal_from_plane]
            scale = np.where(known, 1 / np.sqrt(dot(other, other)), 0)
            agree = (dot(other, normal) * scale >= least_cosine) & near
            # Biweight: pairs at the edge of the tolerance count least.
            share = np.where(agree, np.square(1 - off / allowed) / m[3], 0)
            unhidden = (inv_depth >= (1 - np.float32(HIDDEN) * np.sqrt(allowed)) * mV) & known
            unhidden |= _is_seen_through(pair, x, y, cut, allowed, known & ~unhidden)
        weight += share
        sums[0] += share * np.where(agree, cut, 0)
        share *= scale
        for k in range(3):
            sums[1 + k] += share * other[k]
        support += agree
        visible += unhidden
        against += np.where(unhidden & ~agree, 1 / np.where(known, m[3], 1), 0)
        counts += np.count_nonzero(unhidden), np.count_nonzero(near), np.count_nonzero(agree)
    _store_average(out, span, sums, weight, has)
    out.support[span], out.visible[span], out.against[span] = support.ravel(), visible.ravel(), against.ravel()
    return int(counts[0]), int(counts[1]), int(counts[2])


def _is_seen_through(
    pair: _Pair, x: np.ndarray, y: np.ndarray, cut: np.ndarray, allowed: np.ndarray, hidden: np.ndarray
) -> np.ndarray:
    """Return at which hidden pixels (h, W) the source has a surface on the ray itself, in front of the pixel's depth.

    The reference would see that surface: it contradicts. A surface that hides the point from the source only is no
    contradiction: where the ray passes through its plane, ``cut`` (inverse depths), the source sees something else.
    """
    out = np.zeros(hidden.shape, bool)
    row, column = np.nonzero(hidden & (cut > 0))
    if not len(row):
        return out
    inv_depth = cut[row, column]
    V, pixel = _project(pair, x[column], y[row, 0], inv_depth, inv_depth > 0)
    if pixel is None:
        return out
    m = pair.plane.take(pixel, axis=0).T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        off = np.square(dot(m, V) / inv_depth - 1)
    out[row, column] = (m[3] > 0) & (off <= allowed[row, column])
    return out


def _unit_normal(ref_plane: np.ndarray, K: np.ndarray, has: np.ndarray) -> list[np.ndarray]:
    """Return the unit normals, three maps (h, W), of planes (4, h, W) where they exist (h, W)."""
    normal = [-dot(K[:, k], ref_plane) for k in range(3)]
    length = np.sqrt(dot(normal, normal))
    return [component / np.where(has, length, 1) for component in normal]


def _project(
    pair: _Pair, x: np.ndarray, y: np.ndarray, inv_depth: np.ndarray, has: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Project pixels (h, W) into a source.

    Returns:
        homogeneous source coordinates, three maps (h, W), and the index of the source's plane (h, W): the empty plane
        at the end where a pixel is outside; None where all are.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        A, b = pair.A, pair.b
        V = [A[k, 0] * x + (A[k, 1] * y + A[k, 2]) + b[k] * inv_depth for k in range(3)]
        u, v = (np.floor(V[k] / V[2]).astype(np.int32) for k in (0, 1))
    # As unsigned numbers, negative places are beyond the image too.
    inside = (u.view(np.uint32) < pair.size[0]) & (v.view(np.uint32) < pair.size[1]) & (V[2] > 0) & has
    return V, np.where(inside, v * pair.size[0] + u, len(pair.plane) - 1) if inside.any() else None


def _store_average(
    out: Comparison, span: slice, sums: Sequence[np.ndarray], weight: np.ndarray, has: np.ndarray
) -> None:
    """Write the weighted averages of inverse depth and unit normal of the rows into ``out``."""
    length = np.sqrt(dot(sums[1:], sums[1:]))
    length = np.where(length > 0, length, 1)
    out.inv_depth[span] = (sums[0] / np.where(has, weight, 1)).ravel()
    for k in range(3):
        out.normal[span, k] = (sums[1 + k] / length).ravel()
    out.weight[span] = weight.ravel()
