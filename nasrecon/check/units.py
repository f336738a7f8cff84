"""Are the translations in the unit of the depths? From true depth maps or sparse points, where a set has them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nasrecon.check.findings import Finding
from nasrecon.errors import InputError
from nasrecon.geometry import transform
from nasrecon.ingest.true_depth import read_true_depth
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays
from nasrecon.types import Scene

# Units are compared where they differ by more than this factor; noise of poses and depth cameras stays far below it.
MIN_FACTOR = 2.5
# Within this factor of a power of ten it is that power of ten.
NEAR_POWER = 1.2
MIN_POINTS = 30
DEPTH_VIEWS = 6
# Sparse points: a match shows a point if it lies this near [searched px], at a depth that is the same to this factor.
NEAR_PX, SAME_DEPTH = 3.0, 1.25
FACTORS = (1.0, 1e-3, 1e3, 1e-2, 1e2, 1e-1, 1e1)
POINTS_A_VIEW = 1500
CLEARLY_MORE = 4


@dataclass(frozen=True, kw_only=True)
class DepthScale:
    """By what the translations are to be multiplied to be in the unit of the depths, and what says so."""

    factor: float
    points: int
    origin: str


def unit_finding(scene: Scene, matches: Matches) -> Finding | None:
    """Return the fault if translations and depths are in two units, a note where nothing can be compared."""
    cameras, arrays = Cameras.of(scene), MatchArrays(matches)
    depths, sound = arrays.depths(cameras)
    if sound.sum() < MIN_POINTS:
        return None
    scale = _from_depth_maps(scene, arrays, depths, sound) or _from_sparse_points(scene, matches, arrays, depths, sound)
    if scale is None and scene.unit != "unknown":
        return None
    if scale is None:
        return Finding(
            name="unit-unknown",
            kind="note",
            what="the set has neither depth maps nor enough sparse points: its unit may be metres or not",
        )
    if max(scale.factor, 1 / scale.factor) < MIN_FACTOR:
        return None
    factor = f"{scale.factor:.6g}"
    words = {
        "0.001": "the translations are in millimetres, the depths in metres",
        "1000": "the translations are in metres, the depths in millimetres",
    }
    return Finding(
        name="translation-scale",
        kind="fault",
        what=words.get(factor, "translations and depths are in different units"),
        evidence=(f"{scale.origin} are {factor} times what the cameras triangulate ({scale.points} points)",),
        fixes=(f"translation-scale={factor}",),
    )


def _from_depth_maps(scene: Scene, arrays: MatchArrays, depths: np.ndarray, sound: np.ndarray) -> DepthScale | None:
    """Compare triangulated depths with the depth maps of a few views."""
    ratios: list[np.ndarray] = []
    views = sorted(set(arrays.first.tolist()))
    for i in [views[k] for k in np.linspace(0, len(views) - 1, min(len(views), DEPTH_VIEWS)).round().astype(int)]:
        view = scene.views[i]
        try:
            true = None if view.image.lens is not None else read_true_depth(view)
        except InputError:
            continue  # eval is the one to report damaged depth maps
        if true is None:
            return None
        of_view = sound & (arrays.first[arrays.pair] == i)
        column, row = np.floor(arrays.x[of_view]).astype(int).T
        true_depth = true[np.clip(row, 0, true.shape[0] - 1), np.clip(column, 0, true.shape[1] - 1)]
        ratios.append((true_depth / depths[of_view, 0])[true_depth > 0])
    ratio = np.concatenate(ratios) if ratios else np.empty(0)
    if len(ratio) < MIN_POINTS:
        return None
    return DepthScale(factor=_rounded(float(np.median(ratio))), points=len(ratio), origin="the depth maps")


def _rounded(factor: float) -> float:
    power = 10.0 ** round(np.log10(factor))
    return power if max(factor / power, power / factor) < NEAR_POWER else float(f"{factor:.3g}")


def _from_sparse_points(
    scene: Scene, matches: Matches, arrays: MatchArrays, depths: np.ndarray, sound: np.ndarray
) -> DepthScale | None:
    """Count, for likely factors, the matches that show a sparse point where and as far away as it should be."""
    if scene.visible is None:
        return None
    counts = [_shown(scene, matches, arrays, depths, sound, factor) for factor in FACTORS]
    best = int(np.argmax(counts))
    if counts[best] < MIN_POINTS:
        return None
    if counts[best] < CLEARLY_MORE * (counts[0] + 1):
        best = 0
    return DepthScale(factor=FACTORS[best], points=counts[best], origin="the sparse points' depths")


def _shown(
    scene: Scene, matches: Matches, arrays: MatchArrays, depths: np.ndarray, sound: np.ndarray, factor: float
) -> int:
    if scene.points_in_world is None or scene.visible is None:
        return 0
    count = 0
    for i in sorted(set(arrays.first.tolist())):
        of_view = sound & (arrays.first[arrays.pair] == i)
        view = scene.views[i]
        cam_from_world = view.cam_from_world.copy()
        cam_from_world[:3, 3] *= factor
        points = scene.points_in_world[scene.visible[i][:POINTS_A_VIEW]]
        in_cam = transform(cam_from_world, points)
        in_cam = in_cam[in_cam[:, 2] > 0]
        if not of_view.any() or not len(in_cam):
            continue
        apart = np.linalg.norm(view.camera.project(in_cam)[:, None] - arrays.x[of_view], axis=-1)
        nearest = apart.argmin(axis=0)
        near = apart[nearest, np.arange(apart.shape[1])] <= NEAR_PX * matches.image_px_per_feature_px(i)
        ratio = in_cam[nearest, 2] / (factor * depths[of_view, 0])
        count += int((near & (np.abs(np.log(ratio)) < np.log(SAME_DEPTH))).sum())
    return count
