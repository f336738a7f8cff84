"""Images that give no depth: the same one twice, a camera that stood still, a camera that only turned."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from nasrecon.check.findings import Finding
from nasrecon.check.motion import is_still, pairs_in_words
from nasrecon.errors import plural
from nasrecon.geometry import relative_pose, rotation_angle_deg
from nasrecon.matching.match_scene import match_scene
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays, Residuals
from nasrecon.matching.sampling import MatchOptions
from nasrecon.types import Scene

# Poses are of one place within this share of the median distance between cameras, and this angle.
SAME_PLACE, SAME_ANGLE_DEG = 0.02, 0.2

MIN_REPEATED, MAX_STEPS = 3, 3
"""So many pictures that repeat one at most so many places before are the repeated frames of a video."""

EXAMPLES = 3
"""Pairs that a finding names."""


def duplicates(scene: Scene, matches: Matches, residuals: Residuals | None) -> list[Finding]:
    """Return findings on images that show the same picture.

    It is a fault where the poses differ, or the files are copies. Repeated frames of a video (neighbours in the order
    of the set, ``MIN_REPEATED`` or more) and views of a camera that stood still are a note.

    Args:
        scene, matches: the set.
        residuals: how well the cameras fit, which decides which of two poses is the image's own.
    """
    wrong, harmless = repeated_pictures(scene, matches, residuals)
    near = [(i, keep) for i, keep in wrong if abs(i - keep) <= MAX_STEPS]
    if len(near) >= MIN_REPEATED:
        far = [pair for pair in wrong if pair not in near]
        what = f"{len(near)} frames repeat the frame before under another pose; they give no depth"
        notes = [_finding(scene, near, "repeated-frames", "note", what)]
    else:
        far, notes = wrong, []
    if far:
        what = f"there twice under other poses, or as copies of one file: {plural(len(far), 'image')}"
        notes.append(_finding(scene, far, "duplicates", "fault", what))
    if harmless:
        what = f"the camera stood still: {plural(len(harmless), 'image')} repeat another, and add nothing"
        finding = _finding(scene, harmless, "still-views", "note", what)
        notes.append(replace(finding, fixes=()))
    return notes


def _finding(
    scene: Scene, pairs: list[tuple[int, int]], name: str, kind: Literal["fault", "note"], what: str
) -> Finding:
    names = tuple(scene.views[i].name for i, _ in pairs)
    evidence = [f"{scene.views[i].name} is the same picture as {scene.views[k].name}" for i, k in pairs]
    if len(evidence) > EXAMPLES:
        evidence[EXAMPLES:] = [f"... and {len(evidence) - EXAMPLES} more"]
    return Finding(name=name, kind=kind, what=what, evidence=tuple(evidence), fixes=("drop-duplicates",), views=names)


def without_duplicates(scene: Scene) -> Scene:
    """Return the scene without the views that show the picture of another; of each picture the first one stays.

    Raises:
        InputError: if fewer than two images can be read.
    """
    matches = match_scene(scene, MatchOptions(views=len(scene.views)))
    residuals = MatchArrays(matches).evaluate(Cameras.of(scene)) if matches.pairs else None
    wrong, harmless = repeated_pictures(scene, matches, residuals)
    lost = {i for i, _ in (*wrong, *harmless)}
    kept = scene.subset([i for i in range(len(scene.views)) if i not in lost])
    reasons = [
        (scene.views[i].name, "it shows the picture of another view (--fix drop-duplicates)") for i in sorted(lost)
    ]
    return replace(kept, dropped=(*scene.dropped, *reasons))


def repeated_pictures(
    scene: Scene, matches: Matches, residuals: Residuals | None
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return (view, the view whose picture it shows) of those with another pose or as copies, and of harmless ones."""
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
    return wrong, harmless


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
