"""MVSNet's, Middlebury's, Strecha's and KITTI's files: sources and depth ranges that they list, and what is wrong in
them."""

from __future__ import annotations

import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.ingest.open_scene import open_scene
from nasrecon.results.digest import scene_digest
from nasrecon.results.writer import Run
from nasrecon.scene.depth_range import depth_range_source, with_depth_ranges
from nasrecon.scene.source_views import select_source_views, sources_origin

from . import worlds

PAIRS = "5\n0\n2 4 9.5 3 1.0\n1\n3 0 5 2 4 77 1\n2\n0\n3\n1 1 1\n4\n2 0 3 3 2\n"


@pytest.mark.parametrize(
    ("last_row", "expected"),
    [
        ("425 2.5", (425, 425 + 192 * 2.5)),
        ("425 2.5 256", (425, 425 + 256 * 2.5)),
        ("425 2.5 256 933.8", (425, 933.8)),
        ("-1 2.5", None),
        ("425 0", None),
        ("", None),
    ],
)
def test_depth_ranges_of_both_dialects(last_row, expected, tmp_path) -> None:
    worlds.write_mvsnet(worlds.small_scene(), tmp_path, last_row)
    scene = open_scene(tmp_path)
    for view in scene.views:
        assert scene.hints.depth_ranges.get(view.name) == (None if expected is None else pytest.approx(expected))
    if expected is None:
        assert "00000000_cam.txt" in scene.origin.notes[0] and scene.hints.depth_ranges_from == ""
        return
    ranged = with_depth_ranges(scene)
    assert depth_range_source(ranged) == "depth_min and depth_max of the camera files (5 of 5 views)"
    assert ranged.views[0].depth_range == scene.hints.depth_ranges[scene.views[0].name]
    assert with_depth_ranges(scene, 3.0).views[0].depth_range[0] == 3.0
    assert not open_scene(tmp_path, use_hints=False).hints.depth_ranges


def test_pair_txt_lists_the_sources_unless_they_are_to_be_chosen(tmp_path) -> None:
    worlds.write_mvsnet(worlds.small_scene(), tmp_path)
    (tmp_path / "pair.txt").write_text(PAIRS)
    scene = open_scene(tmp_path)
    assert "sources of 4 in pair.txt" in scene.origin.notes  # view 2 has none listed
    assert select_source_views(scene, 0, 4) == (4, 3)
    assert select_source_views(scene, 1, 4) == (0, 2) and select_source_views(scene, 1, 1) == (0,)  # 77 is not there
    assert sources_origin(scene) == "pair.txt (4 of 5 views); else overlap and angle"
    own_choice = open_scene(tmp_path, use_hints=False)
    assert select_source_views(scene, 2, 4) == select_source_views(own_choice, 2, 4) != ()
    assert sources_origin(own_choice) == "overlap and angle"
    some = scene.subset([0, 1, 2])
    assert select_source_views(some, 1, 4) == (0, 2) and sources_origin(some).startswith("pair.txt (1 of 3 views)")
    about = Run.describe(
        scene, digest="", sources_from=sources_origin(scene), network="n", weights_sha256="", options={}
    ).scene
    assert about["sources_from"] == sources_origin(scene)
    assert scene_digest(scene) != scene_digest(own_choice)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "the file is empty"),
        ("5\n0\n2 4 9.5\n", "says 5 views, and the row of view 1 is not whole"),
        ("5\n0\n1 4 9.5\n", "says 5 views, and the row of view 2 is not whole"),
        ("5\n0\n", "is 5, but the file has only 2 numbers"),
        ("-1\n", "its first number is -1, no number of views"),
    ],
)
def test_a_pair_txt_cut_short_is_named(text, fault, tmp_path) -> None:
    worlds.write_mvsnet(worlds.small_scene(), tmp_path)
    (tmp_path / "pair.txt").write_text(text)
    with pytest.raises(InputError, match=rf"pair.txt: .*{fault}"):
        open_scene(tmp_path)


def test_blended_mvs_folders(tmp_path) -> None:
    worlds.write_mvsnet(worlds.small_scene(), tmp_path, "1 0.1 128 13.8")
    (tmp_path / "images").rename(tmp_path / "blended_images")
    for path in sorted((tmp_path / "blended_images").iterdir()):
        path.with_name(f"{path.stem}_masked.png").write_bytes(path.read_bytes())
    (tmp_path / "cams" / "pair.txt").write_text(PAIRS)
    scene = open_scene(tmp_path)
    assert len(scene.views) == 5 and not scene.dropped and scene.hints.sources_from == "pair.txt"


def test_a_broken_camera_file_is_named(tmp_path) -> None:
    worlds.write_mvsnet(worlds.small_scene(), tmp_path)
    path = tmp_path / "cams" / "00000002_cam.txt"
    path.write_text(path.read_text().replace("intrinsic", "K"))
    with pytest.raises(InputError, match=r"00000002_cam.txt: expected the word extrinsic"):
        open_scene(tmp_path)


def test_two_images_for_one_camera_file_are_refused(tmp_path) -> None:
    worlds.write_mvsnet(worlds.small_scene(), tmp_path)
    (tmp_path / "images" / "00000001.jpg").write_bytes((tmp_path / "images" / "00000001.png").read_bytes())
    with pytest.raises(InputError, match=r"00000001.jpg and 00000001.png both go with 00000001_cam.txt"):
        open_scene(tmp_path)


def test_strecha_files_are_matched_across_endings(tmp_path) -> None:
    worlds.write_strecha(worlds.small_scene(), tmp_path)
    for i, path in enumerate(sorted((tmp_path / "cameras").iterdir())):
        path.rename(path.with_name(f"{i:04d}.jpg.camera" if i % 2 else f"{i:04d}.camera"))
    assert len(open_scene(tmp_path / "images", tmp_path / "cameras").views) == 5
    path = tmp_path / "cameras" / "0002.camera"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "0.1 0 0", *lines[4:]]))
    with pytest.raises(InputError, match=r"0002.camera: the three numbers after K should be zeros"):
        open_scene(tmp_path)
    path.write_text("\n".join(lines[:5]))
    with pytest.raises(InputError, match=r"0002.camera: expected K .9 numbers.*found 15"):
        open_scene(tmp_path)


def test_a_strecha_camera_of_another_image_size_is_kept_as_it_says(tmp_path) -> None:
    """The image is then refused when it is read, with both sizes: K is never scaled in silence."""
    worlds.write_strecha(worlds.small_scene(), tmp_path)
    worlds.write_images(worlds.small_scene(), tmp_path / "images", size=(12, 9))
    assert open_scene(tmp_path).views[0].camera.width == 24


@pytest.mark.parametrize("change", [lambda t: t.replace("5\n", "6\n", 1), lambda t: t + "one more\n", lambda t: ""])
def test_a_middlebury_file_that_is_not_whole_is_named(change, tmp_path) -> None:
    worlds.write_middlebury(worlds.small_scene(), tmp_path)
    path = tmp_path / "dino_par.txt"
    path.write_text(change(path.read_text()))
    with pytest.raises(InputError, match=r"dino_par.txt"):
        open_scene(tmp_path)


def test_kitti_finds_the_poses_and_reads_one_camera_or_all(tmp_path) -> None:
    truth = worlds.small_scene()
    worlds.write_kitti(truth, tmp_path)
    sequence = tmp_path / "sequences" / "07"
    worlds.write_images(truth, sequence / "image_0", lambda name: f"00{name}")
    scene = open_scene(sequence)
    assert [view.name for view in scene.views[::5]] == ["image_0/000000.png", "image_2/000000.png"]
    side = scene.views[7].cam_from_world @ scene.views[2].world_from_cam
    np.testing.assert_allclose(side[:3, 3], (-0.4, 0, 0), atol=1e-9)
    np.testing.assert_allclose(scene.views[7].cam_from_world, truth.views[2].cam_from_world, atol=1e-9)
    assert len(open_scene(sequence / "image_0").views) == 5
    moved = (tmp_path / "poses" / "07.txt").rename(tmp_path / "mine.txt")
    with pytest.raises(InputError, match="no cameras found"):
        open_scene(sequence)
    assert len(open_scene(sequence / "image_2", moved).views) == 5
    text = (sequence / "calib.txt").read_text()
    (sequence / "calib.txt").write_text(text.replace("P2:", "P3:"))
    with pytest.raises(InputError, match="there is no P2, but image_2/ has images"):
        open_scene(sequence, moved)
    (sequence / "calib.txt").write_text("P0: 1e307 0 0 0 0 6 0 0 0 0 3 0\n")
    with pytest.raises(InputError, match=r"calib\.txt, P0: expected numbers below"):
        open_scene(sequence, moved)


def test_messages_name_the_poses_of_a_kitti_sequence_as_its_images_were_given(tmp_path, monkeypatch) -> None:
    worlds.write_kitti(worlds.small_scene(), tmp_path)
    poses = tmp_path / "poses" / "07.txt"
    rows = poses.read_text().splitlines()
    poses.write_text("\n".join(["9 " * 12, *rows[1:]]))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^poses/07.txt, row 1: expected a rotation"):
        open_scene("sequences/07/image_2")
    with pytest.raises(InputError, match=rf"^{tmp_path}/poses/07.txt, row 1: expected a rotation"):
        open_scene(tmp_path / "sequences/07/image_2")
    poses.write_text("\n".join([rows[0], "nan " * 12, *rows[2:]]))
    (lost,) = open_scene("sequences/07").dropped
    assert lost[1].startswith("poses/07.txt, row 2: the transform is not finite")


def test_a_lost_scannet_frame_is_dropped_and_numbers_count_as_numbers(tmp_path) -> None:
    worlds.write_scannet(worlds.small_scene(), tmp_path)
    np.savetxt(tmp_path / "pose" / "5.txt", np.full((4, 4), -np.inf))
    scene = open_scene(tmp_path / "color", tmp_path / "pose")
    assert [view.name for view in scene.views] == ["0.png", "10.png", "15.png", "20.png"]
    assert scene.dropped[0][0] == "5.png" and "not finite" in scene.dropped[0][1]
