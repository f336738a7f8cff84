"""Poses that are a little off come back towards the truth; good ones stay, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from check.seen import POINTS, bent_path, seen_by

from nasrecon.check.fixes import apply_fixes
from nasrecon.geometry import relative_pose, rotation_angle_deg, rotation_from_vector
from nasrecon.ingest.open_scene import open_scene
from nasrecon.ingest.true_depth import read_true_depth
from nasrecon.matching.match_scene import match_pairs
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, Observations
from nasrecon.refine.poses import PAIR_TURN, refine_poses, refine_scene
from nasrecon.refine.solver import TURNS
from nasrecon.results.digest import scene_digest
from nasrecon.types import Scene

DATA = Path(__file__).parents[3] / "shared" / "data"
ROOM = Path(__file__).parents[2] / "examples" / "room"


def shaken(scene: Scene, turn: float, move: float, seed: int = 0) -> Scene:
    """Every camera turned by about ``turn`` [rad] and moved by about ``move``."""
    rng = np.random.default_rng(seed)
    views = []
    for view in scene.views:
        step = np.eye(4)
        step[:3, :3] = rotation_from_vector(turn * rng.normal(size=3) / np.sqrt(3))
        step[:3, 3] = move * rng.normal(size=3) / np.sqrt(3)
        views.append(replace(view, cam_from_world=step @ view.cam_from_world))
    return scene.replace_views(views)


def relative_errors(scene: Scene, true: Scene) -> tuple[float, float]:
    """Median error of the poses of neighbours to each other: turn [rad], direction and length of the baseline [share]."""
    turns, moves = [], []
    for i in range(len(scene.views) - 1):
        found, right = (relative_pose(s.views[i + 1].cam_from_world, s.views[i].cam_from_world) for s in (scene, true))
        turns.append(np.radians(rotation_angle_deg(found[:3, :3] @ right[:3, :3].T)))
        moves.append(np.linalg.norm(found[:3, 3] - right[:3, 3]) / np.linalg.norm(right[:3, 3]))
    return float(np.median(turns)), float(np.median(moves))


def depth_errors(scene: Scene, matches: Matches) -> np.ndarray:
    """Relative errors of the depths that matches of POINTS triangulate to, of the first view of each pair."""
    seen = Observations(matches)
    depths, _ = seen.depths(Cameras.of(scene))
    first = seen.first[seen.pair]
    true = np.array(
        [(POINTS @ view.cam_from_world[:3, :3].T + view.cam_from_world[:3, 3])[:, 2] for view in bent_path().views]
    )
    return np.abs(depths[:, 0] / true[first, seen.ids[:, 0].astype(int)] - 1)


@pytest.mark.parametrize(("turn", "left"), [(0.004, 0.6), (0.015, 0.3)])
def test_poses_that_are_off_come_back(turn: float, left: float) -> None:
    """What matches of 0.3 px leave to be off is the same, whatever the poses were off by before."""
    true = bent_path()
    matches = seen_by(true, POINTS, noise_px=0.3)
    given = shaken(true, turn, 5 * turn)
    refined = refine_poses(given, matches)
    assert refined.changed and refined.turn_rad > TURNS[0]
    assert refined.after_px < 0.3 < 0.8 < refined.before_px
    (turn_before, move_before), (turn_after, move_after) = (relative_errors(s, true) for s in (given, refined.scene))
    assert turn_after < left * turn_before and move_after < left * move_before
    before, after = (np.median(depth_errors(s, matches)) for s in (given, refined.scene))
    assert after < before
    # The frame and the unit are those of the poses given: nothing drifts away as a whole.
    centers = [np.array([view.center_in_world for view in s.views]) for s in (given, refined.scene)]
    assert np.linalg.norm((centers[1] - centers[0]).mean(axis=0)) < 1e-4
    assert "refined by the matches of 36 pairs: 9 views" in refined.in_words()


def test_exact_poses_stay_to_the_last_bit() -> None:
    true = bent_path()
    refined = refine_poses(true, seen_by(true, POINTS, noise_px=0.3))
    assert not refined.changed and refined.scene is true
    assert not refined.moved.any() and not refined.turned_deg.any()
    assert refined.before_px == refined.after_px < 0.4
    assert refined.in_words() == "poses as given: the matches ask for no others"


def first_pair(scene: Scene, matches: Matches) -> tuple[Scene, Matches]:
    return scene.subset([0, 1]), replace(matches, views=(0, 1), pairs=matches.pairs[:1])


def test_a_single_pair_is_given_room_and_called_uncertain() -> None:
    true = bent_path()
    given = shaken(true, 0.004, 0.02)
    scene, matches = first_pair(given, seen_by(true, POINTS, noise_px=0.3))
    refined = refine_poses(scene, matches)
    assert refined.changed and refined.turn_rad >= PAIR_TURN
    for new, old in zip(refined.scene.views, scene.views, strict=True):
        assert (new.cam_from_world != old.cam_from_world).any()
    assert refined.after_px < 0.3 < 0.7 < refined.before_px
    assert "depth is estimated under the poses given, too" in refined.in_words()
    assert scene_digest(refined.scene) != scene_digest(scene)
    # A pair with good poses stays as it is.
    scene, matches = first_pair(true, seen_by(true, POINTS, noise_px=0.3))
    refined = refine_poses(scene, matches)
    assert refined.scene is scene and not refined.changed


def test_wrong_matches_do_not_pull(seed: int = 5) -> None:
    """A tenth of the matches lead to other points; the poses come back nevertheless."""
    true = bent_path()
    matches = seen_by(true, POINTS, noise_px=0.3)
    rng = np.random.default_rng(seed)
    wrong = [
        replace(pair, y=np.where(rng.random((len(pair.y), 1)) < 0.1, rng.permutation(pair.y), pair.y))
        for pair in matches.pairs
    ]
    given = shaken(true, 0.008, 0.04)
    refined = refine_poses(given, replace(matches, pairs=tuple(wrong)))
    before, after = (relative_errors(s, true)[0] for s in (given, refined.scene))
    assert refined.changed and after < 0.3 * before


def test_the_lens_does_not_bend_the_poses() -> None:
    """Distortion that is left in the matches is not made up for by poses, which are exact here."""
    true = bent_path()
    matches = seen_by(true, POINTS, noise_px=0.2)
    bent = []
    for pair in matches.pairs:
        moved = []
        for pixels in (pair.x, pair.y):
            radius = (pixels - (320, 240)) / 500
            moved.append((320, 240) + 500 * radius * (1 + 0.04 * (radius**2).sum(axis=1, keepdims=True)))
        bent.append(replace(pair, x=moved[0], y=moved[1]))
    refined = refine_poses(true, replace(matches, pairs=tuple(bent)))
    assert relative_errors(refined.scene, true)[0] < 5e-4


def test_without_matches_nothing_is_changed() -> None:
    scene = bent_path()
    empty = Matches(views=(), features={}, pairs=(), tried=0)
    refined = refine_poses(scene, empty)
    assert refined.scene is scene and not refined.changed and refined.pairs == 0 and np.isnan(refined.before_px)


def test_cameras_at_one_place_are_left_alone() -> None:
    scene = bent_path()
    still = scene.replace_views([replace(v, cam_from_world=np.diag([1.0, 1, 1, 1])) for v in scene.views])
    refined = refine_poses(still, seen_by(scene, POINTS))
    assert refined.scene is still and not refined.changed


def test_real_poses_of_a_tracker(every: int = 3) -> None:
    """Depths triangulated from two views, against those of a sensor that no pose comes into."""
    folder = DATA / "redkitchen_sample"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    scene = open_scene(folder)
    scene = scene.subset(range(0, 15))
    refined = refine_scene(scene)
    assert refined.changed
    matches = match_pairs(scene, [(i, i + 1) for i in range(14)])
    seen = Observations(matches)
    true = [read_true_depth(view) for view in scene.views]
    errors = []
    for cameras in (Cameras.of(scene), Cameras.of(refined.scene)):
        depths, _ = seen.depths(cameras)
        found = []
        for pair in range(len(seen)):
            own = seen.own[pair]
            x, y = seen.x[own].astype(int).T
            z = true[seen.first[pair]][y.clip(0, 479), x.clip(0, 639)]
            found.append(np.median(np.abs(depths[own, 0][z > 0] / z[z > 0] - 1)))
        errors.append(np.mean(found))
    assert errors[1] < 0.7 * errors[0], errors


def test_refine_poses_is_a_fix() -> None:
    scene = open_scene(ROOM / "images", ROOM / "sparse" / "0").subset([3, 4, 5, 6])
    given = shaken(scene, 0.01, 0.02)
    repaired = apply_fixes(given, ["refine-poses"])
    assert relative_errors(repaired, scene)[0] < 0.4 * relative_errors(given, scene)[0]
    assert apply_fixes(scene, ["refine-poses"]).views == scene.views
