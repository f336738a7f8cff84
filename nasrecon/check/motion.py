"""Images without parallax: a camera that stands still, or one that only turns."""

from __future__ import annotations

import numpy as np

from nasrecon.check.findings import Finding
from nasrecon.matching.matches import Matches, PairMatches
from nasrecon.types import Scene

# Two images are one if their features moved by no more than this [searched px], and so many are the same.
STILL_PX = 0.3


STILL_SHARE = 0.5


# A camera only turned if a rotation explains the matches of a pair to within this [searched px] (what is left gives no
# depth), in this share of the pairs.
TURNED_PX = 0.8


TURNED_SHARE = 0.85


def nothing_moves(scene: Scene, matches: Matches) -> Finding | None:
    """Return the fault that leaves no depth in the whole set, if there is one: still images, or pure rotation."""
    if not matches.pairs:
        return None
    still = [is_still(pair, matches) for pair in matches.pairs]
    moved = float(np.median([pair.median_flow_px for pair in matches.pairs]))
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
    return pair.median_flow_px <= STILL_PX and pair.count >= STILL_SHARE * fewest


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
    return float(
        np.median(np.linalg.norm(at[:, :2] / at[:, 2:] - pair.y, axis=1)) / matches.image_px_per_feature_px(pair.second)
    )


def pairs_in_words(group: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(i, j) for i in group for j in group if i < j]
