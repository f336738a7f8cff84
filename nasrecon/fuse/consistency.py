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

from nasrecon.fuse.maps import PlaneMap
from nasrecon.fuse.options import FilterStats
from nasrecon.geometry import relative_pose

CHUNK = 10_000
"""Pixels that are compared in one go, by one thread: they stay in the processor's second cache."""

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
    pixels = max(1, CHUNK // camera.width) * camera.width

    def work(first: int) -> tuple[int, int, int]:
        return _compare_rows(ref, pairs, tolerance, first, min(first + pixels, n), out)

    for counts in pool.map(work, range(0, n, pixels)):
        stats.comparisons += counts[0]
        stats.near += counts[1]
        stats.consistent += counts[2]
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


def _compare_rows(
    ref: PlaneMap, pairs: Sequence[_Pair], tolerance: Tolerance, first: int, last: int, out: Comparison
) -> tuple[int, int, int]:
    """Compare the pixels ``first`` to ``last``, whole rows, with all sources; writes into ``out``.

    Returns:
        numbers of pairs of a pixel and a source that could be compared, that agree in depth, and in the normal too.
    """
    from nasrecon.fuse import compare_kernel as kernel

    plane, K, width, near = ref.plane[first:last], ref.view.camera.K, ref.view.camera.width, 0
    blocks = np.empty(-(-len(plane) // kernel.STEP) * kernel.BLOCK, np.float32)
    at = np.empty(len(plane), np.int32)
    scales = np.float32(ref.scale), np.float32(ref.sigma_scale**2)
    matrices = K.astype(np.float32), np.linalg.inv(K).astype(np.float32)
    n = kernel.begin(plane, *scales, first // width, width, *matrices, blocks, at)
    least_cosine = np.cos(np.radians(tolerance.normal_angle_deg))
    limits = (tolerance.sigmas**2, tolerance.low**2, tolerance.high**2, least_cosine, HIDDEN)
    limits = tuple(np.float32(limit) for limit in limits)
    for pair in pairs if n else ():
        of_pair = (pair.plane, pair.size, pair.projection, pair.from_plane, pair.variance_scale)
        near += kernel.add_source(blocks, n, *of_pair, limits)
    whole = out.inv_depth, out.normal, out.weight, out.against, out.support, out.visible
    compared, agreeing = kernel.finish(blocks, at, n, *whole)
    return compared, near, agreeing
