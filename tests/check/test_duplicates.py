"""Pictures that are there twice: which of two stays, and that a video's repeated frames are one note with one fix."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from check.seen import POINTS, bent_path, seen_by
from nasrecon.check.duplicates import duplicates
from nasrecon.check.fixes import apply_fixes
from nasrecon.ingest.open_scene import open_scene
from nasrecon.types import ImageSource, Scene

ROOM = Path(__file__).parents[2] / "examples" / "room"


def test_the_fix_leaves_out_the_copy_whose_pose_does_not_fit(tmp_path: Path) -> None:
    """A copy of the second image comes first, under the pose of the fourth."""
    views = open_scene(ROOM / "images", ROOM / "sparse" / "0").views[3:7]
    shutil.copyfile(views[1].image.path, tmp_path / "copy.jpg")
    image = ImageSource(path=tmp_path / "copy.jpg")
    copy = replace(views[1], name="copy.jpg", image=image, cam_from_world=views[3].cam_from_world)
    scene = Scene(root=tmp_path, views=(copy, *views[:3]))
    fixed = apply_fixes(scene, ["drop-duplicates"])
    assert [view.name for view in fixed.views] == [view.name for view in views[:3]]
    for view, own in zip(fixed.views, views, strict=False):
        np.testing.assert_array_equal(view.cam_from_world, own.cam_from_world)
    name, reason = fixed.dropped[-1]
    assert name == "copy.jpg" and "shows the picture of another view" in reason
    again = apply_fixes(fixed, ["drop-duplicates"])
    assert len(again.views) == 3 and again.dropped == fixed.dropped


def test_repeated_frames_are_one_note_with_a_count_and_one_fix() -> None:
    scene = bent_path()
    matches = replace(seen_by(scene, POINTS), same_file=((0, 1), (2, 3), (5, 6), (7, 8)))
    (note,) = duplicates(scene, matches, None)
    assert (note.name, note.kind, note.fixes) == ("repeated-frames", "note", ("drop-duplicates",))
    assert note.what.startswith("4 frames") and len(note.evidence) == 4 and note.evidence[-1] == "... and 1 more"
    few = replace(matches, same_file=((0, 8),))
    (fault,) = duplicates(scene, few, None)
    assert (fault.name, fault.kind, fault.fixes) == ("duplicates", "fault", ("drop-duplicates",))
