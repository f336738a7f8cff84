"""Cameras from images alone, and points under known cameras: on the example room, whose cameras and depths are
known."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from ingest.worlds import REPO, in_unit
from recorder import Recorder

from nasrecon.errors import InputError, NoPosesError
from nasrecon.geometry import relative_pose, rotation_angle_deg, transform
from nasrecon.ingest.open_scene import open_scene
from nasrecon.ingest.true_depth import read_true_depth
from nasrecon.matching.pairs import similar_pairs
from nasrecon.scene.depth_range import depth_range_source, with_depth_ranges
from nasrecon.sfm.reconstruct import reconstruct_cameras
from nasrecon.sfm.triangulate import triangulate
from nasrecon.types import Scene

ROOM = REPO / "examples" / "room"
COUNT = 7


@pytest.fixture(scope="module")
def truth() -> Scene:
    scene = open_scene(ROOM)
    return replace(scene.subset(range(COUNT)), points_in_world=None, visible=None)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, truth) -> Path:
    """Photographs without cameras; one with a space in its name, and one of nothing."""
    folder = tmp_path_factory.mktemp("photos")
    for view in truth.views:
        shutil.copy(view.image.path, folder / view.name.replace("_", " "))
    iio.imwrite(folder / "zzz blank.jpg", np.full((480, 640, 3), 128, dtype=np.uint8))
    return folder


@pytest.fixture(scope="module")
def found(photos, tmp_path_factory):
    """The cameras found, by the way of choosing pairs that large sets go."""
    out = tmp_path_factory.mktemp("results")
    said = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nasrecon.sfm.reconstruct.run_in_child", lambda work, *args, progress: work(*args, progress))
        patch.setattr("nasrecon.matching.pairs.COLMAP_ALL_UP_TO", 3)
        model, root, dropped = reconstruct_cameras(photos, out / "sfm", progress=said)
    return out / "sfm", model, open_scene(root, model), dropped, said


def test_the_cameras_are_found(found, truth) -> None:
    """Up to a similarity: relative rotations, directions and ratios of the baselines are those of the true cameras."""
    _folder, _model, scene, dropped, said = found
    assert [view.name.replace(" ", "_") for view in scene.views] == [view.name for view in truth.views]
    assert dropped == (
        ("zzz blank.jpg", "no other image shows the same things (blurred, without texture, or of another place)"),
    )
    assert "7 of 8 images have cameras" in said.notes[-1] and "largest features match" in said.notes[1]
    steps = {task: (done, total) for task, done, total in said.updates}
    assert steps["features"] == (8, 8) and steps["cameras found"] == (8, 8) and "pairs matched" in steps
    first, true_first = scene.views[0], truth.views[0]
    scale = None
    for view, true in zip(scene.views[1:], truth.views[1:], strict=True):
        moved = relative_pose(view.cam_from_world, first.cam_from_world)
        true_moved = relative_pose(true.cam_from_world, true_first.cam_from_world)
        assert rotation_angle_deg(moved[:3, :3] @ true_moved[:3, :3].T) < 0.5
        scale = scale or np.linalg.norm(true_moved[:3, 3]) / np.linalg.norm(moved[:3, 3])
        np.testing.assert_allclose(
            moved[:3, 3] * scale, true_moved[:3, 3], atol=0.03 * np.linalg.norm(true_moved[:3, 3])
        )
    assert len(scene.points_in_world) > 300 and min(map(len, scene.visible)) > 50
    assert abs(scene.views[0].camera.K[0, 0] / true_first.camera.K[0, 0] - 1) < 0.03


def test_the_model_is_kept_and_used_again(found, photos) -> None:
    folder, model, _scene, dropped, _ = found
    assert {path.name for path in folder.iterdir()} == {"sparse", "made_from.json", "colmap.log"}
    before = (model / "images.bin").stat().st_mtime_ns
    said = Recorder()
    again = reconstruct_cameras(photos, folder, progress=said)
    assert (again[0], again[2]) == (model, dropped) and "in an earlier run" in said.notes[0]
    assert (model / "images.bin").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="made from other images"):
        reconstruct_cameras(photos, folder, every=2)
    assert len(open_scene(photos, folder).views) == COUNT  # --poses can point at it


def test_images_of_nothing_are_a_clear_error(tmp_path) -> None:
    for i in range(3):
        iio.imwrite(tmp_path / f"{i}.png", np.full((60, 80, 3), 100 + i, dtype=np.uint8))
    with pytest.raises(NoPosesError, match="no cameras found"):
        open_scene(tmp_path)
    with pytest.raises(InputError, match=r"found no cameras for its 3 images .0 pairs of them match"):
        reconstruct_cameras(tmp_path, tmp_path / "out" / "sfm")
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(InputError, match="two images or more, found 1"):
        reconstruct_cameras(tmp_path, tmp_path / "out" / "sfm", every=3)


def test_a_model_beside_the_images_is_named_not_replaced() -> None:
    with pytest.raises(InputError, match=r"pass .*sparse") as caught:
        open_scene(ROOM / "images")
    assert not isinstance(caught.value, NoPosesError)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_points_are_triangulated_onto_the_surfaces(truth, tmp_path, unit) -> None:
    scene = in_unit(truth.subset(range(4)), unit)
    made = triangulate(scene, tmp_path / "triangulated")
    assert "points triangulated" in made.origin.notes[-1] and len(made.points_in_world) > 300
    for view, true, seen in zip(made.views, scene.views, made.visible, strict=True):
        assert view.camera is true.camera and view.cam_from_world is true.cam_from_world
        in_cam = transform(view.cam_from_world, made.points_in_world[seen]) / unit
        at = view.camera.project(in_cam)
        inside = ((at >= 0) & (at < (view.camera.width, view.camera.height))).all(axis=1)
        column, row = at[inside].astype(int).T
        there = read_true_depth(view)[row, column]
        known = there > 0
        off = np.abs(in_cam[inside, 2] / np.where(known, there, 1) - 1)[known]
        assert len(off) > 50 and np.median(off) < 0.01
    assert depth_range_source(with_depth_ranges(made)) == "sparse points (4 of 4 views)"
    said = Recorder()
    again = triangulate(scene, tmp_path / "triangulated", progress=said)
    assert "in an earlier run" in said.notes[0]
    np.testing.assert_array_equal(again.points_in_world, made.points_in_world)
    with pytest.raises(InputError, match="other images or cameras"):
        triangulate(scene.subset(range(3)), tmp_path / "triangulated")


def test_a_pair_is_enough_to_triangulate(truth, tmp_path) -> None:
    made = triangulate(truth.subset([0, 1]), tmp_path / "triangulated")
    assert min(map(len, made.visible)) > 50


def test_similar_pairs_are_those_that_share_features() -> None:
    rng = np.random.default_rng(0)
    pool = np.abs(rng.normal(size=(60, 128))).astype(np.float32)
    pool /= np.linalg.norm(pool, axis=1, keepdims=True)

    def image(indices):
        seen = pool[list(indices)] + rng.normal(0, 0.005, (len(list(indices)), 128)).astype(np.float32)
        return seen / np.linalg.norm(seen, axis=1, keepdims=True)

    images = [image(range(0, 20)), image(range(10, 30)), image(range(20, 40)), image(range(38, 60)), np.empty((0, 128))]
    assert similar_pairs(images) == {(0, 1), (1, 2)}  # 2 and 3 share two features only
