"""Images that give no depth: the same one twice, a camera that stood still, a camera that only turned."""

from __future__ import annotations

import numpy as np

from nasrecon.doctor.findings import Finding
from nasrecon.doctor.fit import Cameras, Fit
from nasrecon.doctor.matches import Matches, PairMatches
from nasrecon.geometry import relative_pose, rotation_angle_deg
from nasrecon.types import Scene

# Two images are one if their features moved by no more than this [searched px], and so many are the same.
STILL_PX = 0.3
STILL_SHARE = 0.5
# A camera only turned if a rotation explains the matches of a pair to within this [searched px] (what is left gives no
# depth), in this share of the pairs.
TURNED_PX = 0.8
TURNED_SHARE = 0.85
# Poses are of one place within this share of the median distance between cameras, and this angle.
SAME_PLACE, SAME_ANGLE_DEG = 0.02, 0.2


def nothing_moves(scene: Scene, matches: Matches) -> Finding | None:
    """Return the fault that leaves no depth in the whole set, if there is one: still images, or pure rotation."""
    if not matches.pairs:
        return None
    still = [is_still(pair, matches) for pair in matches.pairs]
    moved = float(np.median([pair.moved_px for pair in matches.pairs]))
    if np.mean(still) >= TURNED_SHARE:
        return Finding(
            name="still-images",
            kind="fault",
            what="all images are taken from one place in one direction: there is no depth in them",
            evidence=(
                f"features move by {moved:.2f} px (median); {sum(still)} of {len(still)} pairs do not move at all",
            ),
        )
    left = np.array([rotation_residual_px(scene, pair, matches) for pair in matches.pairs])
    if (left <= TURNED_PX).mean() < TURNED_SHARE:
        return None
    return Finding(
        name="pure-rotation",
        kind="fault",
        what="the camera only turned (or moved too little to be seen): there is no depth in these images",
        evidence=(
            f"a rotation alone explains the matches to {np.median(left):.2f} px (median) in "
            f"{(left <= TURNED_PX).sum()} of {len(left)} pairs, while features move by {moved:.0f} px",
        ),
    )


def is_still(pair: PairMatches, matches: Matches) -> bool:
    """Say whether two images are the same picture."""
    fewest = min(len(matches.features[i].pixels) for i in (pair.first, pair.second))
    return pair.moved_px <= STILL_PX and pair.count >= STILL_SHARE * fewest


def rotation_residual_px(scene: Scene, pair: PairMatches, matches: Matches) -> float:
    """Return what a turn of the camera leaves of a pair's displacements: median [searched px]; inf if none is near."""
    if pair.homography is None:
        return float("inf")
    K1, K2 = scene.views[pair.first].camera.K, scene.views[pair.second].camera.K
    R = np.linalg.inv(K2) @ pair.homography @ K1
    det = np.linalg.det(R)
    if abs(det) < 1e-12:
        return float("inf")
    U, _, Vt = np.linalg.svd(R / np.cbrt(det))
    H = K2 @ (U @ Vt) @ np.linalg.inv(K1)
    at = np.concatenate([pair.x, np.ones((len(pair.x), 1))], axis=1) @ H.T
    return float(np.median(np.linalg.norm(at[:, :2] / at[:, 2:] - pair.y, axis=1)) / matches.px(pair.second))


def duplicates(scene: Scene, matches: Matches, fit: Fit | None) -> list[Finding]:
    """Return findings on images that are there twice; a fault where their poses differ, or their files do not.

    Args:
        scene, matches: the set. fit: how well the cameras fit, to tell which of two poses is the image's own.
    """
    groups = _merged([*matches.same_file, *((p.first, p.second) for p in matches.pairs if is_still(p, matches))])
    same = {frozenset(pair) for group in matches.same_file for pair in _pairs(group)}
    baseline = _median_baseline(Cameras.of(scene))
    wrong, harmless = [], []
    for group in groups:
        keep = min(group, key=lambda i: (_misfit(i, matches, fit, set(group)), i))
        for i in group:
            if i != keep:
                bad = frozenset((i, keep)) in same or not _one_place(scene, i, keep, baseline)
                (wrong if bad else harmless).append((i, keep))
    return [*_told(scene, wrong, "fault"), *_told(scene, harmless, "note")]


def _told(scene: Scene, pairs: list[tuple[int, int]], kind: str) -> list[Finding]:
    if not pairs:
        return []
    names = tuple(scene.views[i].name for i, _ in pairs)
    evidence = tuple(f"{scene.views[i].name} is the same picture as {scene.views[k].name}" for i, k in pairs)
    if kind == "fault":
        what = f"{len(pairs)} image(s) are there twice under other poses, or as copies of one file"
        fixes = tuple(f"drop={name}" for name in names)
        return [Finding(name="duplicates", kind="fault", what=what, evidence=evidence, fixes=fixes, views=names)]
    what = f"the camera stood still: {len(pairs)} image(s) show what another shows, and add nothing"
    return [Finding(name="still-views", kind="note", what=what, evidence=evidence, views=names)]


def _pairs(group: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(i, j) for i in group for j in group if i < j]


def _merged(groups: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Join groups that share a member."""
    merged: list[set[int]] = []
    for group in map(set, groups):
        for other in [known for known in merged if known & group]:
            merged.remove(other)
            group |= other
        merged.append(group)
    return sorted(tuple(sorted(group)) for group in merged)


def _misfit(i: int, matches: Matches, fit: Fit | None, group: set[int]) -> float:
    """Return the median error of a view's pairs with views outside its group."""
    if fit is None:
        return 0.0
    errors = [
        fit.pair_px[p]
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
