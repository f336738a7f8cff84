"""One scale for the depths of each view, and one for its sigma, from the differences between views.

A network's depths of one view are often too large or too small by a common factor, which differs from view to view by
more than the views' fine errors. Where views overlap, the factors show: at the points of view i, view j puts the
surface at g_j a_j - a_i further in log inverse depth, where a are the views' errors and g is how the cut of a ray with
a plane follows the plane's scale (1 for views from one place). The a are solved by least squares, robustly, with a
prior: what all views have in common cannot be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from nasrecon.fuse.ahead import ahead, in_parts
from nasrecon.fuse.maps import PlaneMap
from nasrecon.fuse.pair_equations import PairEquations
from nasrecon.geometry import relative_pose
from nasrecon.types import View

_COLUMNS = 80
_MIN_SHARE = 0.13
_WINDOWS = (0.5, 0.1)
_PRIOR = 0.03
_PAIR_ERROR = 0.003
_SURE_SIGMAS = 3.0
_MAD_TO_SIGMA = 1.4826
_FAR_PAIRS = 42
_ROUNDS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class PlaneSamples:
    """Every ``step``-th pixel of a view's planes, in both directions: plane (4, h, w), x (w,) and y (h, 1) [px]."""

    view: View
    step: int
    plane: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @staticmethod
    def of(maps: PlaneMap) -> PlaneSamples:
        """Sample the planes of a view, in about 80 columns."""
        camera = maps.view.camera
        step = max(1, round(camera.width / _COLUMNS))
        rows = np.arange(min(step // 2, camera.height - 1), camera.height, step)
        columns = np.arange(min(step // 2, camera.width - 1), camera.width, step)
        plane = maps.plane[:-1].reshape(camera.height, camera.width, 4)[np.ix_(rows, columns)]
        return PlaneSamples(
            view=maps.view,
            step=step,
            plane=np.ascontiguousarray(np.moveaxis(plane, -1, 0)),
            x=columns.astype(np.float32) + np.float32(0.5),
            y=rows.astype(np.float32)[:, None] + np.float32(0.5),
        )


@dataclass(frozen=True, kw_only=True)
class PairOffset:
    """Where view ``source`` puts the surface that ``ref`` sees: the median difference of log inverse depth.

    Attributes:
        ref, source: the views' numbers.
        offset: the median over the pixels.
        gain: how the offset follows the source's scale.
        error: how far the offset may be off: 0.003 where the pixels are as near to it, more where they scatter.
        excess: the scatter of the differences over what the two views' sigmas let expect.
    """

    ref: int
    source: int
    offset: float
    gain: float
    error: float
    excess: float


def pair_offset(samples: Sequence[PlaneSamples], ref: int, source: int) -> PairOffset | None:
    """Compare two views; None where they share too little."""
    from nasrecon.fuse.pair_kernel import surface_differences

    a, b = samples[ref], samples[source]
    src_from_ref = relative_pose(b.view.cam_from_world, a.view.cam_from_world)
    K = b.view.camera.K
    A = (K @ src_from_ref[:3, :3] @ np.linalg.inv(a.view.camera.K)).astype(np.float32)
    t = (K @ src_from_ref[:3, 3]).astype(np.float32)
    samples_of_a = a.plane[0].size
    off, gain, variance = np.empty((3, samples_of_a), np.float32)
    of_b = np.ascontiguousarray(A), np.ascontiguousarray(t), b.plane, np.float32(b.step)
    inside, known = surface_differences(a.plane, a.x, a.y.ravel(), *of_b, off, gain, variance)
    least = _MIN_SHARE * samples_of_a
    if inside < least:
        return None
    off, gain, variance = off[:known], gain[:known], variance[:known]
    middle = 0.0
    for window in _WINDOWS:
        near = np.flatnonzero(np.abs(off - middle) < window)
        if len(near) < least:
            return None
        middle = _median(off[near])
    residual = np.abs(off[near] - middle)
    scatter = max(_PAIR_ERROR, _median(residual))
    excess = _MAD_TO_SIGMA * _median(residual / np.sqrt(variance[near]))
    # Most of the scatter is fine noise, which the median is free of.
    error = float(np.sqrt(_PAIR_ERROR * scatter))
    return PairOffset(ref=ref, source=source, offset=middle, gain=_median(gain[near]), error=error, excess=excess)


def _median(values: np.ndarray) -> float:
    """Return ``np.median`` of finite values (n,), n > 0, without its overhead."""
    half = len(values) // 2
    if len(values) % 2:
        return float(np.partition(values, half)[half])
    ordered = np.partition(values, (half - 1, half))
    return float((ordered[half - 1] + ordered[half]) / 2)


def choose_pairs(neighbors: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return the pairs of views to compare: neighbours, and of all others 42 a view, spread evenly."""
    views = len(neighbors)
    pairs = set()
    for i, near in enumerate(neighbors):
        far = np.linspace(1, views - 1, min(views - 1, _FAR_PAIRS)).round().astype(int) if views > 1 else []
        pairs |= {(i, j) for j in near} | {(i, int((i + k) % views)) for k in far}
    return sorted(pairs)


def pair_offsets(samples: Sequence[PlaneSamples], neighbors: Sequence[Sequence[int]]) -> list[PairOffset]:
    """Compare the pairs of views of ``choose_pairs``; those that share too little are left out."""

    def compare(part: Sequence[tuple[int, int]]) -> list[PairOffset]:
        return [pair for i, j in part if (pair := pair_offset(samples, i, j)) is not None]

    parts = in_parts(choose_pairs(neighbors))
    return [pair for some in ahead(partial(compare, part) for part in parts) for pair in some]


def sigma_scales(offsets: Sequence[PairOffset], views: int) -> np.ndarray:
    """Return the factor (V,) by which each view's sigma is too small, from the scatter of its pairs; 1 or more.

    A scatter below what sigma lets expect proves nothing: errors of views may be correlated.
    """
    excess: list[list[float]] = [[] for _ in range(views)]
    for pair in offsets:
        excess[pair.ref].append(pair.excess)
        excess[pair.source].append(pair.excess)
    return np.array([max(1.0, float(np.median(values))) if values else 1.0 for values in excess])


def view_scales(offsets: Sequence[PairOffset], views: int) -> np.ndarray:
    """Return the factor (V,) by which each view's inverse depths are too large; 1 where that is not certain."""
    if not offsets:
        return np.ones(views)
    source, ref = np.array([(p.source, p.ref) for p in offsets]).T
    pairs = PairEquations(source, ref, np.array([p.gain for p in offsets]), views)
    offset = np.array([p.offset for p in offsets])
    error = np.array([p.error for p in offsets])
    weight = 1 / error**2
    for _ in range(_ROUNDS):
        information = pairs.information(weight) + np.eye(views) / _PRIOR**2
        a = np.linalg.solve(information, pairs.right_side(weight * offset))
        left = np.abs(offset - pairs.differences(a)) / error
        spread = max(1.0, 1.5 * float(np.median(left)))
        weight = 1 / (np.maximum(1, left / (2 * spread)) * (spread * error) ** 2)
    uncertainty = np.sqrt(np.diag(np.linalg.inv(information)))
    return np.where(np.abs(a) > _SURE_SIGMAS * uncertainty, np.exp(a), 1.0)
