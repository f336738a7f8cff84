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

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from nasrecon.fuse.maps import PlaneMap, dot, pixel_rays
from nasrecon.fuse.options import FilterStats
from nasrecon.geometry import relative_pose

CHUNK = 12_000
"""Pixels that are compared at once: the arrays of a chunk stay in the processor's cache."""

HIDDEN = 3.0
"""A point is hidden from a view that sees a surface nearer by more than this many tolerances."""

_TINY = 1e-20
"""Instead of 0 where a quotient does not count."""


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
        normal=np.zeros((3, n), np.float32).T,
        weight=np.zeros(n, np.float32),
        support=np.zeros(n, np.int16),
        visible=np.zeros(n, np.int16),
        against=np.zeros(n, np.float32),
    )
    pairs = [_Pair(ref, source) for source in sources]
    rays = pixel_rays(camera)
    rows = max(1, CHUNK // camera.width)

    def work(top: int) -> np.ndarray:
        return _compare_rows(ref, pairs, tolerance, rays[:, top : top + rows], top, out)

    for counts in pool.map(work, range(0, camera.height, rows)):
        stats.comparisons += int(counts[0])
        stats.near += int(counts[1])
        stats.consistent += int(counts[2])
    return out


class _Pair:
    """A source and the float32 matrices between it and the reference; pixels are homogeneous, (x z, y z, z).

    Attributes:
        plane: (n + 1, 4), the source's planes.
        size: (width, height) of the source.
        projection: (3, 4), from a pixel (x, y, 1, inverse depth) of the reference to one of the source.
        from_plane: (4, 3), from the source's planes to directions in the reference's camera frame, and to the
            reference's centre in the source, multiplied by the plane there.
        scale, variance_scale: factors of the source's planes and of its variances.
    """

    def __init__(self, ref: PlaneMap, source: PlaneMap) -> None:
        src_from_ref = relative_pose(source.view.cam_from_world, ref.view.cam_from_world)
        R, t = src_from_ref[:3, :3], src_from_ref[:3, 3]
        K = source.view.camera.K
        self.plane, self.scale = source.plane, np.float32(source.scale)
        self.variance_scale = np.float32(source.sigma_scale**2)
        self.size = (source.view.camera.width, source.view.camera.height)
        self.projection = np.column_stack([K @ R @ np.linalg.inv(ref.view.camera.K), K @ t]).astype(np.float32)
        self.from_plane = (source.scale * np.vstack([-R.T @ K.T, K @ t])).astype(np.float32)


class _Pixels:
    """The pixels of some rows of a reference that have a depth, and the sums of what the sources say of them.

    Attributes:
        at: (n,) the places of the pixels in the reference, in row order.
        place: (4, n): x, y, 1 and the inverse depth.
        point, normal: (3, n), in the camera frame.
        variance: (n,).
        normal_sum: (3, n), the weighted sum of the normals.
        shift: (n,), the weighted sum of the relative differences of inverse depth.
        weight, support, visible, against: (n,), as in ``Comparison``.
    """

    def __init__(self, ref: PlaneMap, rays: np.ndarray, top: int) -> None:
        height, width = rays.shape[1:]
        first = top * width
        plane = np.ascontiguousarray(ref.plane[first : first + height * width].T)
        plane *= np.array([ref.scale] * 3 + [ref.sigma_scale**2], np.float32)[:, None]
        place = np.empty((4, height, width), np.float32)
        # Rounding makes the last row's coordinates differ by nothing that matters.
        place[0] = np.arange(width, dtype=np.float32) + np.float32(0.5)
        place[1] = np.arange(top, top + height, dtype=np.float32)[:, None] + np.float32(0.5)
        place[2] = 1
        place, rays = place.reshape(4, -1), rays.reshape(3, -1)
        place[3] = dot(plane, place)
        self.at: slice | np.ndarray = slice(first, first + height * width)
        if not (has := place[3] > 0).all():
            where = np.flatnonzero(has)
            self.at = where + first
            plane, place, rays = (columns.take(where, axis=1) for columns in (plane, place, rays))
        K = ref.view.camera.K.astype(np.float32)
        normal = np.stack([-dot(K[:, k], plane) for k in range(3)])
        self.place, self.point, self.variance = place, rays / place[3], plane[3]
        self.normal = normal / np.sqrt(dot(normal, normal))
        self.weight = 1 / self.variance
        self.normal_sum = self.weight * self.normal
        self.shift, self.against = np.zeros_like(self.weight), np.zeros_like(self.weight)
        self.support = np.ones(len(self.weight), np.int16)
        self.visible = np.zeros_like(self.support)

    def store(self, out: Comparison) -> None:
        """Write the weighted averages of inverse depth and unit normal, and the counts, into ``out``."""
        length = np.sqrt(dot(self.normal_sum, self.normal_sum))
        length[length == 0] = 1
        out.inv_depth[self.at] = self.place[3] * (1 + self.shift / self.weight)
        for k in range(3):
            out.normal[self.at, k] = self.normal_sum[k] / length
        out.weight[self.at], out.against[self.at] = self.weight, self.against
        out.support[self.at], out.visible[self.at] = self.support, self.visible


class _Buffers:
    """Memory for the arrays of ``n`` pixels, used for one source after the other: new memory costs more than a sum."""

    def __init__(self, n: int) -> None:
        self.projected, self.index = np.empty((3, n), np.float32), np.empty((2, n), np.int32)
        self.gathered, self.plane, self.other = np.empty((n, 4), np.float32), *np.empty((2, 4, n), np.float32)
        self.maps = np.empty((6, n), np.float32)


def _compare_rows(
    ref: PlaneMap, pairs: Sequence[_Pair], tolerance: Tolerance, rays: np.ndarray, top: int, out: Comparison
) -> np.ndarray:
    """Compare the rows from ``top`` on, whose rays (3, h, W) are given, with all sources; writes into ``out``.

    Returns:
        numbers (3,) of pairs of a pixel and a source that could be compared, that agree in depth, and in the normal
        too.
    """
    pixels, counts = _Pixels(ref, rays, top), np.zeros(3, np.int64)
    if n := len(pixels.weight):
        buffers = _Buffers(n)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for pair in pairs:
                if _project(pair, pixels.place, buffers.projected, buffers.index):
                    counts += _add(pixels, pair, tolerance, buffers)
            pixels.store(out)
    return counts


def _add(pixels: _Pixels, pair: _Pair, tolerance: Tolerance, buffers: _Buffers) -> tuple[int, int, int]:
    """Compare the pixels with a source, whose planes' indices are in ``buffers``, and add what it says to their sums.

    Returns:
        the counts of ``_compare_rows``.
    """
    m, other, (off, nearer, square, allowed, weight, free) = buffers.plane, buffers.other, buffers.maps
    pair.plane.take(buffers.index[0], axis=0, mode="clip", out=buffers.gathered)
    np.copyto(m, buffers.gathered.T)
    np.matmul(pair.from_plane, m[:3], out=other)
    variance = np.multiply(m[3], pair.variance_scale, out=m[3])
    known = variance > 0
    # As parts of the pixel's inverse depth: where the plane cuts its ray, and where the source has its surface.
    _dot(other, pixels.point, off, free)
    behind = np.subtract(other[3], 1, out=other[3])
    np.subtract(behind, off, out=nearer)
    nearer += 1
    behind[behind == 0] = _TINY
    off /= behind
    off -= 1
    np.square(off, out=square)
    np.add(variance, pixels.variance, out=allowed)
    allowed *= np.float32(tolerance.sigmas**2)
    np.maximum(allowed, np.float32(tolerance.low**2), out=allowed)
    np.minimum(allowed, np.float32(tolerance.high**2), out=allowed)
    near = square <= allowed
    near &= known
    # A point is hidden where the source has a surface nearer by more than the tolerance allows.
    np.sqrt(allowed, out=free)
    free *= np.float32(-HIDDEN)
    free += 1
    free *= nearer
    unhidden = free <= 1
    unhidden &= known
    hidden = known > unhidden
    if hidden.any():
        unhidden |= _is_seen_through(pair, pixels.place, off, allowed, hidden)
    np.maximum(variance, np.float32(_TINY), out=variance)
    np.divide(1, variance, out=weight)
    agree = _add_agreeing(pixels, near, np.divide(square, allowed, out=square), tolerance, buffers)
    pixels.support += agree
    pixels.visible += unhidden
    weight *= unhidden > agree
    pixels.against += weight
    return np.count_nonzero(unhidden), np.count_nonzero(near), np.count_nonzero(agree)


def _add_agreeing(
    pixels: _Pixels, near: np.ndarray, part: np.ndarray, tolerance: Tolerance, buffers: _Buffers
) -> np.ndarray:
    """Add inverse depth and normal of the pixels (n,) that are near and agree in their normals to the averages.

    Args:
        near: (n,) whether the depths agree.
        part: (n,) the squared difference, as a part of what is allowed; it is overwritten.

    Returns:
        which pixels (n,) agree.
    """
    other, (off, length, _, _, weight, free) = buffers.other, buffers.maps
    np.sqrt(_dot(other, other, length, free), out=length)
    np.maximum(length, np.float32(_TINY), out=length)
    cosine = _dot(other, pixels.normal, other[3], free)
    least_cosine = np.float32(np.cos(np.radians(tolerance.normal_angle_deg)))
    agree = cosine >= np.multiply(length, least_cosine, out=free)
    agree &= near
    # Biweight: pairs at the edge of the tolerance count least.
    share = np.subtract(1, part, out=part)
    share *= share
    share *= weight
    share[~agree] = 0
    pixels.weight += share
    off *= share
    pixels.shift += off
    share /= length
    for k in range(3):
        other[k] *= share
    pixels.normal_sum += other[:3]
    return agree


def _is_seen_through(
    pair: _Pair, place: np.ndarray, off: np.ndarray, allowed: np.ndarray, hidden: np.ndarray
) -> np.ndarray:
    """Return at which hidden pixels (n,) the source has a surface on the ray itself, in front of the pixel's depth.

    The reference would see that surface: it contradicts. A surface that hides the point from the source only is no
    contradiction: where the ray passes through its plane (inverse depth 1 + ``off`` times the pixel's), the source
    sees something else.
    """
    out = np.zeros(hidden.shape, bool)
    where = np.flatnonzero(hidden & (off > -1))
    if not len(where):
        return out
    place = place.take(where, axis=1)
    place[3] *= 1 + off[where]
    projected, index = np.empty((3, len(where)), np.float32), np.empty((2, len(where)), np.int32)
    if _project(pair, place, projected, index):
        m = pair.plane.take(index[0], axis=0, mode="clip").T
        square = np.square(pair.scale * dot(m, projected) / place[3] - 1)
        out[where] = (m[3] > 0) & (square <= allowed[where])
    return out


def _project(pair: _Pair, place: np.ndarray, projected: np.ndarray, index: np.ndarray) -> bool:
    """Project pixels (4, n) into a source; returns whether one lies inside.

    Args:
        projected: receives homogeneous source coordinates (3, n), which are spoiled.
        index: its first row receives the index of the source's plane: the empty plane where a pixel is outside.
    """
    np.matmul(pair.projection, place, out=projected)
    rows, columns = index
    width, height = pair.size
    inside = projected[2] > 0
    for k, (integer, size) in enumerate(((columns, width), (rows, height))):
        quotient = projected[k] / projected[2]
        np.copyto(integer, np.floor(quotient, out=quotient), casting="unsafe")
        # As unsigned numbers, negative places are beyond the image too.
        inside &= integer.view(np.uint32) < size
    rows *= width
    rows += columns
    rows[~inside] = len(pair.plane) - 1
    return bool(inside.any())


def _dot(a: np.ndarray, b: np.ndarray, out: np.ndarray, free: np.ndarray) -> np.ndarray:
    """Write the scalar products (n,) of vectors (3, n) to ``out``; ``free`` (n,) is overwritten."""
    np.multiply(a[0], b[0], out=out)
    for k in (1, 2):
        out += np.multiply(a[k], b[k], out=free)
    return out
