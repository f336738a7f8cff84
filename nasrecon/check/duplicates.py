"""Images that give no depth: the same one twice, a camera that stood still, a camera that only turned."""

from __future__ import annotations

import numpy as np

from nasrecon.check.findings import Finding
from nasrecon.check.motion import is_still, pair_names, pairs_in_words
from nasrecon.geometry import relative_pose, rotation_angle_deg
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, Residuals
from nasrecon.types import Scene

# Poses are of one place within this share of the median distance between cameras, and this angle.
SAME_PLACE, SAME_ANGLE_DEG = 0.02, 0.2


def duplicates(scene: Scene, matches: Matches, residuals: Residuals | None) -> list[Finding]:
    """Return findings on images that are there twice; a fault where their poses differ, or their files do not.

    Args:
        scene, matches: the set. fit: how well the cameras fit, to tell which of two poses is the image's own.
    """
    groups = _merged([*matches.same_file, *((p.first, p.second) for p in matches.pairs if is_still(p, matches))])
    same = {frozenset(pair) for group in matches.same_file for pair in pairs_in_words(group)}
    baseline = _median_baseline(Cameras.of(scene))
    wrong, harmless = [], []
    for group in groups:
        keep = min(group, key=lambda i: (_misfit(i, matches, residuals, set(group)), i))
        for i in group:
            if i != keep:
                bad = frozenset((i, keep)) in same or not _one_place(scene, i, keep, baseline)
                (wrong if bad else harmless).append((i, keep))
    return [*pair_names(scene, wrong, "fault"), *pair_names(scene, harmless, "note")]


def _merged(groups: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Join groups that share a member."""
    merged: list[set[int]] = []
    for group in map(set, groups):
        for other in [known for known in merged if known & group]:
            merged.remove(other)
            group |= other
        merged.append(group)
    return sorted(tuple(sorted(group)) for group in merged)


def _misfit(i: int, matches: Matches, residuals: Residuals | None, group: set[int]) -> float:
    """Return the median error of a view's pairs with views outside its group."""
    if residuals is None:
        return 0.0
    errors = [
        residuals.pair_px[p]
        for p, pair in enumerate(matches.pairs)
        if i in (pair.first, pair.second) and not {pair.first, pair.second} <= group
    ]
    return float(np.median(errors)) if errors else 0.0


def _median_baseline(cameras: Cameras) -> float:
    centers = np.linalg.inv(cameras.cam_from_world)[:, :3, 3]
    distances = np.linalg.norm(centers[:, None] - centers, axis=-1)
    return float(np.median(distances[np.triu_indices(len(centers), 1)]))


def _one_place(scene: Scene, i: int, j: int, baseline: float) -> bool:
    relative = relative_pose(scene.views[i].cam_from_world, scene.views[j].cam_from_world)
    near = np.linalg.norm(relative[:3, 3]) <= SAME_PLACE * baseline
    return bool(near and rotation_angle_deg(relative[:3, :3]) <= SAME_ANGLE_DEG)
