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

CHUNK = 40_000
"""Pixels that are compared in one go, by one thread."""

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
        variance_scale: factor of the source's variances.
    """

    def __init__(self, ref: PlaneMap, source: PlaneMap) -> None:
        src_from_ref = relative_pose(source.view.cam_from_world, ref.view.cam_from_world)
        R, t = src_from_ref[:3, :3], src_from_ref[:3, 3]
        K = source.view.camera.K
        self.plane, self.variance_scale = source.plane, np.float32(source.sigma_scale**2)
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
        sums, counts: (6, n) and (2, n), as ``compare_kernel.add_source`` adds to them.
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
        self.sums = np.zeros((6, len(self.variance)), np.float32)
        self.sums[4] = 1 / self.variance
        np.multiply(self.sums[4], self.normal, out=self.sums[1:4])
        self.counts = np.zeros((2, len(self.variance)), np.int16)
        self.counts[0] = 1

    def store(self, out: Comparison) -> None:
        """Write the weighted averages of inverse depth and unit normal, and the counts, into ``out``."""
        shift, weight, against = self.sums[[0, 4, 5]]
        normal = self.sums[1:4]
        length = np.sqrt(dot(normal, normal))
        length[length == 0] = 1
        out.inv_depth[self.at] = self.place[3] * (1 + shift / weight)
        for k in range(3):
            out.normal[self.at, k] = normal[k] / length
        out.weight[self.at], out.against[self.at] = weight, against
        out.support[self.at], out.visible[self.at] = self.counts


def _compare_rows(
    ref: PlaneMap, pairs: Sequence[_Pair], tolerance: Tolerance, rays: np.ndarray, top: int, out: Comparison
) -> np.ndarray:
    """Compare the rows from ``top`` on, whose rays (3, h, W) are given, with all sources; writes into ``out``.

    Returns:
        numbers (3,) of pairs of a pixel and a source that could be compared, that agree in depth, and in the normal
        too.
    """
    from nasrecon.fuse.compare_kernel import add_source

    pixels, counts = _Pixels(ref, rays, top), np.zeros(3, np.int64)
    least_cosine = np.cos(np.radians(tolerance.normal_angle_deg))
    limits = (tolerance.sigmas**2, tolerance.low**2, tolerance.high**2, least_cosine, HIDDEN)
    limits = tuple(np.float32(limit) for limit in limits)
    of_pixels = (pixels.place, pixels.point, pixels.normal, pixels.variance, pixels.sums, pixels.counts)
    if len(pixels.variance):
        for pair in pairs:
            of_pair = (pair.plane, pair.size, pair.projection, pair.from_plane, pair.variance_scale)
            counts += add_source(*of_pixels, *of_pair, limits)
        pixels.store(out)
    return counts
