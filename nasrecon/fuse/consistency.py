"""Which pixels agree across views, and what depth they agree on.

Every pixel of a reference is lifted to a point X, sent into another view, moved along that view's ray to the depth
found there, and sent back. Where it returns to about the same pixel with about the same depth and the normals agree,
the other view supports the pixel, and the depth it speaks for joins a weighted mean. Averaging is what makes the result
better than its inputs: the errors of the views are partly independent.

All of it is float32 in camera-relative coordinates, so that the scene's unit and the place of its origin do not matter.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nasrecon.fuse.options import FilterStats, FuseOptions
from nasrecon.geometry import relative_pose
from nasrecon.types import Estimate, View

CACHE_BYTES = 1_500_000_000
"""Memory for the maps of views that others are compared with: about 300 views of 640x480."""

_CHUNK = 1 << 15
_SIGMA_FLOOR = 0.005
_MIN_FACING = 0.1
_SEE_THROUGH = 3.0
_NORMAL_SCALE = 32767


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceMaps:
    """A view as others look into it, compact: pixels in row order, n = H * W.

    Attributes:
        view: the view.
        inv_depth: (n,) float32, 0 where there is no confident depth.
        normal: (n, 4) int16, in the camera frame, times 32767, and a fourth number, 0 where there is none, else 1.
        weight: (n,) float32, the confidence over the square of the relative depth error that sigma tells.
    """

    view: View
    inv_depth: np.ndarray
    normal: np.ndarray
    weight: np.ndarray

    @property
    def nbytes(self) -> int:
        """Memory of the arrays [bytes]."""
        return self.inv_depth.nbytes + self.normal.nbytes + self.weight.nbytes

    @staticmethod
    def of(estimate: Estimate, options: FuseOptions) -> SourceMaps:
        """Make them from an estimate; pixels below the asked confidence count as empty."""
        depth = confident_depth(estimate, options).ravel()
        valid = depth > 0
        inv_depth = np.divide(1, depth, out=np.zeros_like(depth), where=valid)
        normal = np.zeros((len(depth), 4), np.int16)
        normal[:, :3] = np.rint(np.nan_to_num(estimate.normal.reshape(-1, 3)) * np.float32(_NORMAL_SCALE))
        normal[:, 3] = normal[:, :3].any(axis=1)
        return SourceMaps(
            view=estimate.view,
            inv_depth=inv_depth,
            normal=normal,
            weight=_weights(estimate, inv_depth),
        )


def confident_depth(estimate: Estimate, options: FuseOptions) -> np.ndarray:
    """Return the depth (H, W) float32 with 0 where there is none or its confidence is too low."""
    depth = estimate.depth.astype(np.float32, copy=False)
    with np.errstate(invalid="ignore"):
        keep = (depth > 0) & np.isfinite(depth) & (estimate.confidence >= options.min_confidence)
    return np.where(keep, depth, np.float32(0))


def _weights(estimate: Estimate, inv_depth: np.ndarray) -> np.ndarray:
    """Return confidence / relative variance (n,); sigma is not believed below half a percent of the depth."""
    sigma = np.nan_to_num(estimate.sigma.ravel().astype(np.float32, copy=False), nan=0, posinf=0) * inv_depth
    confidence = np.maximum(estimate.confidence.ravel().astype(np.float32, copy=False), np.float32(1e-3))
    return np.where(inv_depth > 0, confidence / (sigma * sigma + np.float32(_SIGMA_FLOOR**2)), np.float32(0))


class MapCache:
    """The source maps of a sequence of estimates, made on demand; beyond a bound the least used are forgotten."""

    def __init__(self, estimates: Sequence[Estimate], options: FuseOptions, max_bytes: int = CACHE_BYTES) -> None:
        self._estimates = estimates
        self._options = options
        self._max_bytes = max_bytes
        self._held: OrderedDict[int, SourceMaps] = OrderedDict()
        self._bytes = 0

    def __getitem__(self, index: int) -> SourceMaps:
        if index not in self._held:
            self.put(index, self._estimates[index])
        self._held.move_to_end(index)
        return self._held[index]

    def put(self, index: int, estimate: Estimate) -> None:
        """Take in the maps of an estimate that is at hand anyway."""
        if index in self._held:
            return
        maps = SourceMaps.of(estimate, self._options)
        self._held[index] = maps
        self._bytes += maps.nbytes
        while self._bytes > self._max_bytes and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].nbytes


@dataclass(frozen=True, kw_only=True, eq=False)
class FilteredView:
    """What is left of a view, averaged with the views that agree.

    Attributes:
        view: the view.
        depth: (H, W) float32; 0 = dropped.
        normal: (H, W, 3) float32, unit, camera frame, facing the camera; 0 = dropped or unknown.
        support: (H, W) int32, views that agree, own included; counted where the pixel is confident, 0 elsewhere.
        weight: (H, W) float32, the sum of the weights of those that agree (inverse relative variance of the depth).
        rgb: (H, W, 3) uint8.
    """

    view: View
    depth: np.ndarray
    normal: np.ndarray
    support: np.ndarray
    weight: np.ndarray
    rgb: np.ndarray


def required_support(options: FuseOptions, views: int, neighbor_count: int) -> int:
    """Return how many views must agree on a pixel of a view with so many neighbours.

    Without an option: 3, but 2 if there is one neighbour only; a view beside no other in a set of several cannot be
    checked and keeps nothing (2 are asked of it); a single view is taken as it is.
    """
    if options.min_support is not None:
        return options.min_support
    return 1 if views == 1 else max(2, min(3, 1 + neighbor_count))


def filter_view(
    estimate: Estimate, sources: Sequence[SourceMaps], required: int, options: FuseOptions, stats: FilterStats
) -> FilteredView:
    """Keep the pixels of a view that at least ``required`` views agree on, with averaged depth and normal.

    A pixel with enough support still goes if more other views look through its place onto something clearly behind it
    than agree with it.
    Counts are added to ``stats``.
    """
    camera = estimate.view.camera
    own = SourceMaps.of(estimate, options)
    kept = np.flatnonzero(own.inv_depth)
    n = camera.height * camera.width
    depth = np.zeros(n, np.float32)
    normal = np.zeros((n, 3), np.float32)
    support = np.zeros(n, np.int32)
    weight = np.zeros(n, np.float32)
    pairs = [_Pair.of(estimate.view, source) for source in sources]
    for start in range(0, len(kept), _CHUNK):
        pixels = kept[start : start + _CHUNK]
        chunk = _Chunk(own, pixels)
        for pair in pairs:
            chunk.compare(pair, options, stats)
        enough = chunk.support >= required
        good = enough & (chunk.seen_through < chunk.support) if required > 1 else enough
        stats.see_through += int(enough.sum() - good.sum())
        support[pixels] = chunk.support
        pixels = pixels[good]
        depth[pixels], normal[pixels], weight[pixels] = chunk.averages(good)
    stats.supported += int(np.count_nonzero(depth))
    size = (camera.height, camera.width)
    return FilteredView(
        view=estimate.view,
        depth=depth.reshape(size),
        normal=normal.reshape(*size, 3),
        support=support.reshape(size),
        weight=weight.reshape(size),
        rgb=estimate.rgb,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pair:
    """A source and the float32 matrices between it and the reference.

    Attributes:
        source: the source's maps.
        to_pixel: (3, 3) and (3,), from a homogeneous reference pixel times its depth to one of the source.
        center: (3,), the source's centre as a homogeneous reference pixel times its depth.
        R_from_packed: (3, 4), from the source's packed normals to the reference's frame.
    """

    source: SourceMaps
    to_pixel: tuple[np.ndarray, np.ndarray]
    center: np.ndarray
    R_from_packed: np.ndarray

    @staticmethod
    def of(ref: View, source: SourceMaps) -> _Pair:
        src_from_ref = relative_pose(source.view.cam_from_world, ref.cam_from_world)
        R, t = src_from_ref[:3, :3], src_from_ref[:3, 3]
        K_src, K_ref = source.view.camera.K, ref.camera.K
        return _Pair(
            source=source,
            to_pixel=((K_src @ R @ np.linalg.inv(K_ref)).astype(np.float32), (K_src @ t).astype(np.float32)[:, None]),
            center=(K_ref @ (-R.T @ t)).astype(np.float32)[:, None],
            R_from_packed=np.concatenate([R.T / _NORMAL_SCALE, np.zeros((3, 1))], axis=1).astype(np.float32),
        )


class _Chunk:
    """Some pixels (n) of a reference, and what the views seen so far say of them.

    Points are kept as U = (x z, y z, z): the pixel times its depth, (3, n). The map from the camera frame to U is
    linear (it is K), so the whole round trip is done on U and the pixel is one division away. Pixels that a view has no
    answer for are carried along with weight 0 rather than sorted out: that is faster, as most have one.
    """

    def __init__(self, own: SourceMaps, pixels: np.ndarray) -> None:
        camera = own.view.camera
        rows, columns = np.divmod(pixels, camera.width)
        self.x = columns.astype(np.float32) + np.float32(0.5)
        self.y = rows.astype(np.float32) + np.float32(0.5)
        self.depth = 1 / own.inv_depth[pixels]
        self.U = np.stack([self.x * self.depth, self.y * self.depth, self.depth])
        self.normal = np.ascontiguousarray(own.normal[pixels, :3].T) / np.float32(_NORMAL_SCALE)
        self.no_normal = own.normal[pixels, 3] == 0
        # n . X = (K^-T n) . U: the plane of a pixel in the same coordinates as its point.
        self.plane = np.linalg.inv(camera.K).T.astype(np.float32) @ self.normal
        self.rays = np.linalg.inv(camera.K).astype(np.float32) @ (self.U / self.depth)
        facing = -_dot(self.normal, self.rays)
        self.tilted = facing < _MIN_FACING * np.sqrt(_dot(self.rays, self.rays))
        self.inv_plane_at_ray = -1 / np.where(self.tilted, np.float32(1), facing)
        self.support = np.ones(len(pixels), np.int32)
        self.seen_through = np.zeros(len(pixels), np.int32)
        own_weight = own.weight[pixels]
        self.sum_weight = own_weight.copy()
        self.sum_depth = own_weight * self.depth
        self.sum_normal = own_weight * self.normal

    def compare(self, pair: _Pair, options: FuseOptions, stats: FilterStats) -> None:
        """Look into one more view."""
        V = pair.to_pixel[0] @ self.U + pair.to_pixel[1]
        camera = pair.source.view.camera
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            x, y = V[0] / V[2], V[1] / V[2]
            inside = (V[2] > 0) & (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
            number = int(np.count_nonzero(inside))
            if number == 0:
                return
            if number < 0.6 * len(inside):
                at: np.ndarray | slice = np.flatnonzero(inside)
                self._compare(pair, at, x[at], y[at], V[2, at], options, stats)
            else:
                x, y, z = np.where(inside, x, 0), np.where(inside, y, 0), np.where(inside, V[2], np.inf)
                self._compare(pair, slice(None), x, y, z, options, stats)

    def _compare(
        self,
        pair: _Pair,
        at: np.ndarray | slice,
        x: np.ndarray,
        y: np.ndarray,
        z: np.ndarray,
        options: FuseOptions,
        stats: FilterStats,
    ) -> None:
        """Look into one more view for the pixels ``at`` (m): they lie in it at (x, y) [px], depth z; inf is ignored."""
        tolerance = np.float32(options.max_relative_depth_error)
        pixel, inv_depth = _look_up(pair.source, x, y, tolerance)
        # The point moves along the source's ray, by this factor from the source's centre.
        ratio = 1 / (inv_depth * z)
        seen = (inv_depth > 0) & (ratio > 0)
        U = ratio * self.U[:, at] + (1 - ratio) * pair.center
        depth = self.depth[at]
        dx, dy = U[0] / U[2] - self.x[at], U[1] / U[2] - self.y[at]
        near = seen & (dx * dx + dy * dy <= np.float32(options.max_reprojection_px**2))
        near &= np.abs(U[2] - depth) <= tolerance * depth

        rows = pair.source.normal.take(pixel, axis=0)
        normal = pair.R_from_packed @ rows.T
        cosine = _dot(normal, self.normal[:, at])
        agree = cosine >= np.float32(np.cos(np.radians(options.max_normal_angle_deg)))
        agree |= self.no_normal[at] | (rows[:, 3] == 0)
        agree &= near

        # The pixel's own ray, cut with the surface through the returned point, is where that view puts the surface: the
        # point itself lies a little beside the ray, which on a slanted surface would count as a difference in depth.
        on_ray = _dot(self.plane[:, at], U) * self.inv_plane_at_ray[at]
        on_ray = np.where(self.tilted[at], U[2], on_ray)
        on_ray = np.clip(on_ray, (1 - 2 * tolerance) * depth, (1 + 2 * tolerance) * depth)
        weight = pair.source.weight[pixel] * np.square(depth * inv_depth)
        weight = np.where(agree, weight, 0)
        self.support[at] += agree
        self.seen_through[at] += seen & (ratio > 1 + np.float32(_SEE_THROUGH) * tolerance)
        self.sum_weight[at] += weight
        self.sum_depth[at] += weight * np.where(agree, on_ray, 0)
        self.sum_normal[:, at] += weight * normal
        stats.seen += int(np.count_nonzero(seen))
        stats.near += int(np.count_nonzero(near))
        stats.agreed += int(np.count_nonzero(agree))

    def averages(self, good: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return depth (m,), normal (m, 3) and weight (m,) of the pixels in the mask ``good`` (n,)."""
        weight = self.sum_weight[good]
        normal = self.sum_normal[:, good]
        length = np.sqrt(_dot(normal, normal))
        normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
        normal = np.where(_dot(normal, self.rays[:, good]) > 0, -normal, normal)
        return self.sum_depth[good] / weight, normal.T, weight


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the scalar products (n,) of vectors (3, n)."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _look_up(source: SourceMaps, x: np.ndarray, y: np.ndarray, step: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest pixel's flat index and the inverse depth (0 = none) at places (x, y) [px] in the source.

    Inverse depth is interpolated, which is exact on planes, as it is linear over their image; but across steps in depth
    (by more than the part ``step``) and beside holes the nearest pixel's value is taken.
    """
    width, height, inv_depth = source.view.camera.width, source.view.camera.height, source.inv_depth
    pixel = y.astype(np.intp) * width + x.astype(np.intp)
    nearest = inv_depth[pixel]
    if width < 2 or height < 2:
        return pixel, nearest
    x = x - np.float32(0.5)
    y = y - np.float32(0.5)
    left = np.minimum(x.astype(np.intp), width - 2)
    top = np.minimum(y.astype(np.intp), height - 2)
    corner = top * width + left
    a, b = inv_depth[corner], inv_depth[corner + 1]
    corner += width
    c, d = inv_depth[corner], inv_depth[corner + 1]
    x -= left
    y -= top
    low = np.minimum(np.minimum(a, b), np.minimum(c, d))
    high = np.maximum(np.maximum(a, b), np.maximum(c, d))
    upper = a + x * (b - a)
    lower = c + x * (d - c)
    smooth = (low > (1 - step) * high) & (nearest > 0)
    return pixel, np.where(smooth, upper + y * (lower - upper), nearest)
