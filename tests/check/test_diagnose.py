"""Faults are injected into sound sets, and the doctor must name each of them and its repair, and nothing in the
sound ones.

A fast part of what ``nasrecon bench doctor`` does on all sets.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from nasrecon.bench.faults import FAULTS
from nasrecon.bench.run import Trial, passed, run_trials, summary
from nasrecon.check.diagnose import check_scene, diagnose
from nasrecon.check.fixes import apply_fixes
from nasrecon.errors import InputError
from nasrecon.ingest.open_scene import open_scene
from nasrecon.matching.match_scene import match_scene
from nasrecon.matching.residuals import Cameras, MatchArrays
from nasrecon.matching.sampling import MatchOptions
from nasrecon.types import ImageSource, Scene

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
ROOM = ROOT / "examples" / "room"
FEW = MatchOptions(views=7)


def the_room() -> Scene:
    scene = open_scene(ROOM / "images", ROOM / "sparse" / "0")
    return scene.subset(range(3, 9))


def reported(trials: list[Trial]) -> list[tuple]:
    return [(trial.fault, trial.named_faults, trial.fixes, trial.repaired) for trial in trials if not trial.correct]


# Of each set the faults that are least like each other there: together every kind once. The bench tries all on all.
REAL = {
    "fountain": (2, ["cx and cy exchanged", "one wrong pose", "metres for millimetres"]),
    "livingroom1": (20, ["x y z w of world_from_cam read as w x y z", "two images exchanged", "OpenGL axes"]),
    "redkitchen_sample": (4, ["rotations transposed", "principal point off by 12 % to the right", "K of half size"]),
}


def test_faults_of_the_example_set_are_named_and_repaired() -> None:
    elsewhere = {name for _, names in REAL.values() for name in names}
    faults = [fault for fault in FAULTS if fault.name not in elsewhere]
    trials = run_trials("room", the_room(), faults)
    assert reported(trials) == [] and len(trials) >= len(faults) - 1  # fx is fy here, and half a pixel cannot be told
    assert passed(trials) and summary(trials).startswith(f"room         {len(trials) - 1} of {len(trials) - 1} faults")


@pytest.mark.parametrize("name", REAL)
def test_faults_of_real_sets_are_named_and_sound_ones_are_fine(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"needs the development set {name} at ../shared/data")
    step, faults = REAL[name]
    scene = open_scene(DATA / name)
    scene = scene.subset(range(0, len(scene.views), step))
    trials = run_trials(name, scene, [fault for fault in FAULTS if fault.name in faults])
    assert reported(trials) == [] and len(trials) == 1 + len(faults)


@cache
def matched_room() -> tuple[Scene, object]:
    scene = the_room()
    return scene, match_scene(scene, FEW)


def test_the_unit_and_the_frame_of_the_world_are_no_faults() -> None:
    scene, matches = matched_room()
    turn = np.eye(4)
    turn[:3, :3] = [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    turn[:3, 3] = 10, -20, 30
    views = []
    for view in scene.views:
        cam_from_world = view.cam_from_world @ turn
        cam_from_world[:3, 3] *= 1000
        views.append(replace(view, cam_from_world=cam_from_world))
    points = 1000 * (scene.points_in_world - turn[:3, 3]) @ turn[:3, :3]
    moved = replace(scene, views=tuple(views), points_in_world=points)
    # The depth maps beside the images stay in metres, and tell that the cameras are now in millimetres.
    (fault,) = diagnose(moved, matches).faults
    assert fault.fixes == ("translation-scale=0.001",)
    assert diagnose(apply_fixes(moved, fault.fixes), matches).faults == ()


def test_two_faults_at_once_are_two_findings() -> None:
    scene, matches = matched_room()
    kinds = {fault.name: fault for fault in FAULTS}
    broken = scene
    for name in ("OpenGL axes", "millimetres for metres", "one wrong pose"):
        broken = kinds[name].inject(broken, np.random.default_rng(0), Path("x"))
    found = diagnose(broken, matches)
    assert sorted(fault.name for fault in found.faults) == ["opengl-axes", "translation-scale", "wrong-poses"]
    fixed = apply_fixes(broken, found.fixes)
    fit = MatchArrays(matches.reindexed(scene, fixed)).evaluate(Cameras.of(fixed))
    assert fit.median_px < 0.3 and fit.cheirality_share > 0.98 and len(fixed.views) == 5


def test_cameras_that_nothing_explains_are_called_so() -> None:
    scene, matches = matched_room()
    rng = np.random.default_rng(1)
    views = []
    for view in scene.views:
        cam_from_world = view.cam_from_world.copy()
        cam_from_world[:3, 3] = rng.normal(size=3)
        views.append(replace(view, cam_from_world=cam_from_world))
    (fault,) = diagnose(scene.replace_views(views), matches).faults
    assert fault.name == "unexplained" and fault.fixes == ()


def test_images_without_texture_are_not_judged(tmp_path: Path) -> None:
    from PIL import Image

    views = []
    for i, view in enumerate(the_room().views[:3]):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (640, 480), (90, 90, 90 + i)).save(path)
        views.append(replace(view, image=ImageSource(path=path)))
    found = check_scene(Scene(root=tmp_path, views=views))
    assert found.faults == () and found.given is None
    assert [finding.name for finding in found.findings] == ["no-matches"]


def test_fewer_than_two_images_are_bad_input(tmp_path: Path) -> None:
    scene = the_room()
    gone = [replace(view, image=ImageSource(path=tmp_path / view.name)) for view in scene.views[1:]]
    with pytest.raises(InputError, match="fewer than two images"):
        check_scene(scene.replace_views([scene.views[0], *gone]))


def test_matching_believes_the_images_alone() -> None:
    """The same matches come out whatever the cameras are; long gaps are closed by looking half-way."""
    scene = the_room()
    broken = scene.replace_views([replace(view, cam_from_world=np.eye(4)) for view in scene.views])
    a, b = match_scene(scene.subset(range(3)), FEW), match_scene(broken.subset(range(3)), FEW)
    assert [p.count for p in a.pairs] == [p.count for p in b.pairs] and len(a.pairs) == 3
    some = match_scene(scene, MatchOptions(views=4, pairs=3))
    assert len(some.views) == 4 and {some.views[0], some.views[-1]} == {0, 5} and some.tried == 3
