"""One scene, written in each layout, is read as the same scene; what is wrong or left out is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nasrecon.errors import InputError, NoPosesError
from nasrecon.ingest.images import read_view
from nasrecon.ingest.open_scene import open_scene
from nasrecon.types import Camera

from . import worlds

WRITERS = {
    "COLMAP model (bin)": worlds.write_colmap,
    "COLMAP model (txt)": lambda scene, folder: worlds.write_colmap(scene, folder, ".txt"),
    "Redwood trajectory": worlds.write_redwood,
    "TUM trajectory": worlds.write_tum,
    "7-Scenes folder": worlds.write_seven_scenes,
    "DeMoN folder": worlds.write_demon,
    "plain matrices, a file each": worlds.write_plain_file_each,
    "plain matrices, one file": worlds.write_plain_one_file,
    "plain matrices, named rows": worlds.write_plain_named_rows,
    "plain matrices, a K each": worlds.write_plain_K_each,
    "transforms.json, nerfstudio": worlds.write_nerfstudio,
    "transforms.json, instant-ngp": worlds.write_instant_ngp,
    "ScanNet folder": worlds.write_scannet,
    "KITTI sequence": worlds.write_kitti,
    "MVSNet cams, two numbers": worlds.write_mvsnet,
    "MVSNet cams, four numbers": lambda scene, folder: worlds.write_mvsnet(scene, folder, "1.5 0.01 192 3.42"),
    "Middlebury cameras": worlds.write_middlebury,
    "Strecha cameras": worlds.write_strecha,
}


def opened(folder, given):
    return open_scene(**{"images": folder, **given})


@pytest.mark.parametrize("format", WRITERS)
def test_the_same_scene_in_every_layout(format, tmp_path) -> None:
    truth = worlds.small_scene()
    scene = opened(tmp_path, WRITERS[format](truth, tmp_path))
    assert scene.origin.format == format.partition(",")[0].partition(" (")[0]
    assert scene.origin.images.startswith("5 ")
    assert scene.origin.poses and scene.origin.intrinsics
    assert scene.dropped == ()
    assert len(scene.views) == len(truth.views)
    for found, true in zip(scene.views, truth.views, strict=True):
        np.testing.assert_allclose(found.cam_from_world, true.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(found.camera.K, true.camera.K, atol=1e-9)
        assert (found.camera.width, found.camera.height) == (24, 18)
        assert found.image.lens is None and found.image.path.is_file()
    metric = format.split()[0] in ("Redwood", "TUM", "7-Scenes", "ScanNet", "KITTI")
    assert scene.unit == ("m" if metric else "unknown")


@pytest.mark.parametrize("format", WRITERS)
def test_one_unreadable_or_missing_image_is_dropped_with_its_name(format, tmp_path) -> None:
    truth = worlds.small_scene()
    given = WRITERS[format](truth, tmp_path)
    victim = sorted(tmp_path.rglob("*.png"), key=lambda path: (len(path.name), path.name))[2]
    victim.unlink()
    if format in ("DeMoN folder", "plain matrices, one file"):  # rows without names: nobody can tell which is missing
        with pytest.raises(InputError, match=r"(all|poses)\.txt: expected one"):
            opened(tmp_path, given)
        return
    scene = opened(tmp_path, given)
    assert len(scene.views) == 4
    assert len(scene.dropped) == 1
    kept = [0, 1, 3, 4]
    for found, i in zip(scene.views, kept, strict=True):
        np.testing.assert_allclose(found.cam_from_world, truth.views[i].cam_from_world, atol=1e-9)
    name, reason = scene.dropped[0]
    assert "no such image" in reason or "no image" in reason or "no colour image" in reason
    assert victim.stem in name or "2" in name or "3" in name  # the image, its transform, or the third block or row


def test_nothing_found_lists_what_was_looked_for(tmp_path) -> None:
    worlds.write_images(worlds.small_scene(), tmp_path / "images")
    with pytest.raises(InputError) as error:
        open_scene(tmp_path / "images")
    for word in ("COLMAP", "sparse/0", "trajectory.log", "groundtruth.txt", ".pose.txt", "cam.txt", "K.txt"):
        assert word in str(error.value)
    worlds.write_model(worlds.small_scene(), tmp_path / "sparse" / "0")
    with pytest.raises(InputError, match=r"COLMAP model beside the images: pass .*sparse/0"):
        open_scene(tmp_path / "images")
    assert len(open_scene(tmp_path / "images", tmp_path / "sparse" / "0").views) == 5
    assert len(open_scene(tmp_path / "images", tmp_path / "sparse").views) == 5
    for path in (tmp_path / "images").iterdir():  # the model is of another set: it is not in the way
        path.rename(path.with_name(f"other {path.name}"))
    with pytest.raises(NoPosesError, match="find the cameras of such images themselves"):
        open_scene(tmp_path / "images")


def test_missing_paths_are_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"nowhere: no such file or folder .images"):
        open_scene(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"nowhere: no such file or folder .poses"):
        open_scene(tmp_path, tmp_path / "nowhere")
    with pytest.raises(InputError, match="convention must be"):
        open_scene(tmp_path, convention="c2w")


def test_plain_matrices_need_the_convention_and_the_error_explains_both(tmp_path) -> None:
    given = worlds.write_plain_file_each(worlds.small_scene(), tmp_path)
    given.pop("convention")
    with pytest.raises(InputError) as error:
        open_scene(**given)
    for word in ("cam-from-world", "world-from-cam", "position", "COLMAP"):
        assert word in str(error.value)


def test_convention_turns_the_transforms_round(tmp_path) -> None:
    truth = worlds.small_scene()
    given = worlds.write_plain_file_each(truth, tmp_path)
    scene = open_scene(**given | {"convention": "world-from-cam"})
    for found, true in zip(scene.views, truth.views, strict=True):
        np.testing.assert_allclose(found.cam_from_world, true.world_from_cam, atol=1e-12)
    worlds.write_seven_scenes(truth, tmp_path / "7")
    scene = open_scene(tmp_path / "7", convention="cam-from-world")
    np.testing.assert_allclose(scene.views[1].cam_from_world, truth.views[1].world_from_cam, atol=1e-12)
    assert scene.origin.convention_given


def test_a_transform_that_is_not_finite_is_dropped_and_one_that_is_not_rigid_is_refused(tmp_path) -> None:
    worlds.write_seven_scenes(worlds.small_scene(), tmp_path)
    np.savetxt(tmp_path / "frame-0001.pose.txt", np.full((4, 4), -np.inf))  # as ScanNet marks lost frames
    scene = open_scene(tmp_path)
    assert len(scene.views) == 4
    (dropped,) = scene.dropped
    assert dropped[0] == "frame-0001.color.png" and "not finite" in dropped[1]
    np.savetxt(tmp_path / "frame-0002.pose.txt", np.diag([2.0, 2, 2, 1]))
    with pytest.raises(InputError, match=r"frame-0002.pose.txt: expected a rotation"):
        open_scene(tmp_path)
    np.savetxt(tmp_path / "frame-0002.pose.txt", np.diag([1.0, 1, -1, 1]))
    with pytest.raises(InputError, match=r"(?s)frame-0002.pose.txt: expected a rotation.*det R = -1"):
        open_scene(tmp_path)
    (tmp_path / "frame-0002.pose.txt").write_text("1 0 0 0 1 0 0 0 1\n")
    with pytest.raises(InputError, match=r"frame-0002.pose.txt: .*16 or 12 numbers.*found 9"):
        open_scene(tmp_path)


def test_rounded_rotations_are_made_orthonormal(tmp_path) -> None:
    truth = worlds.small_scene()
    worlds.write_seven_scenes(truth, tmp_path)
    for view in truth.views:
        np.savetxt(tmp_path / f"frame-{view.name[:4]}.pose.txt", view.world_from_cam, fmt="%.3f")
    for found, true in zip(open_scene(tmp_path).views, truth.views, strict=True):
        R = found.cam_from_world[:3, :3]
        np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-14)
        np.testing.assert_allclose(R, true.cam_from_world[:3, :3], atol=1e-3)  # three digits were written


def test_seven_scenes_tells_of_images_and_transforms_alone(tmp_path) -> None:
    worlds.write_seven_scenes(worlds.small_scene(), tmp_path)
    (tmp_path / "frame-0001.pose.txt").rename(tmp_path / "frame-0007.pose.txt")
    scene = open_scene(tmp_path)
    assert len(scene.views) == 4
    assert [name for name, _ in scene.dropped] == ["frame-0001.color.png", "frame-0007.pose.txt"]


def test_seven_scenes_prefers_the_colour_cameras_intrinsics(tmp_path) -> None:
    truth = worlds.small_scene()
    worlds.write_seven_scenes(truth, tmp_path)
    assert open_scene(tmp_path).origin.intrinsics == "camera-intrinsics-color.txt"
    (tmp_path / "camera-intrinsics-color.txt").unlink()
    scene = open_scene(tmp_path)
    assert scene.origin.intrinsics == "camera-intrinsics.txt" and scene.views[0].camera.K[0, 0] == 99
    (tmp_path / "camera-intrinsics.txt").unlink()
    with pytest.raises(InputError, match="Pass the intrinsics of the colour camera"):
        open_scene(tmp_path)
    (tmp_path.parent / "mine.txt").write_text("30 31 12 9")
    scene = open_scene(tmp_path, intrinsics=tmp_path.parent / "mine.txt")
    np.testing.assert_array_equal(scene.views[0].camera.K, [[30, 0, 12], [0, 31, 9], [0, 0, 1]])


@pytest.mark.parametrize("text", ["1 2 3", "1 2 x 4", "", "500 500 -1 nan", "0 500 320 240"])
def test_bad_intrinsics_are_named(text, tmp_path) -> None:
    worlds.write_seven_scenes(worlds.small_scene(), tmp_path)
    (tmp_path / "camera-intrinsics-color.txt").write_text(text)
    with pytest.raises(InputError, match=r"camera-intrinsics-color.txt: "):
        open_scene(tmp_path)


def test_a_plain_pose_without_an_image_and_an_image_without_a_pose_are_dropped(tmp_path) -> None:
    given = worlds.write_plain_file_each(worlds.small_scene(), tmp_path)
    (tmp_path / "cams" / "0001.txt").rename(tmp_path / "cams" / "0009.txt")
    scene = open_scene(**given)
    assert [view.name for view in scene.views] == ["0000.png", "0002.png", "0003.png", "0004.png"]
    assert [name for name, _ in scene.dropped] == ["0001.png", "0009.txt"]


def test_plain_files_follow_subfolders(tmp_path) -> None:
    truth = worlds.small_scene(2)
    for side, view in zip(("left", "right"), truth.views, strict=True):
        worlds.write_images(truth.subset([0]), tmp_path / "images" / side)
        (tmp_path / "cams" / side).mkdir(parents=True)
        np.savetxt(tmp_path / "cams" / side / "0000.txt", view.cam_from_world)
    np.savetxt(tmp_path / "cams" / "K.txt", truth.views[0].camera.K)
    scene = open_scene(tmp_path / "images", tmp_path / "cams", convention="cam-from-world")
    assert [view.name for view in scene.views] == ["left/0000.png", "right/0000.png"]
    for found, true in zip(scene.views, truth.views, strict=True):
        np.testing.assert_allclose(found.cam_from_world, true.cam_from_world, atol=1e-12)


def test_two_images_that_ask_for_one_pose_file_are_refused(tmp_path) -> None:
    truth = worlds.small_scene(1)
    for side in ("left", "right"):
        worlds.write_images(truth, tmp_path / "images" / side)
    (tmp_path / "cams").mkdir()
    np.savetxt(tmp_path / "cams" / "0000.txt", np.eye(4))
    np.savetxt(tmp_path / "cams" / "K.txt", truth.views[0].camera.K)
    with pytest.raises(InputError, match="two images ask for this file"):
        open_scene(tmp_path / "images", tmp_path / "cams", convention="cam-from-world")


def test_two_layouts_that_fit_are_an_error_until_one_is_chosen(tmp_path) -> None:
    truth = worlds.small_scene()
    worlds.write_nerfstudio(truth, tmp_path)
    worlds.write_model(worlds.in_unit(truth, 2.0), tmp_path / "sparse" / "0")
    with pytest.raises(InputError) as error:
        open_scene(tmp_path)
    for words in ("COLMAP model (", "transforms.json (", "--format colmap or --format transforms", "sparse/0"):
        assert words in str(error.value)
    for given, scale in (
        ({"format": "transforms"}, 1),
        ({"format": "colmap"}, 2),
        ({"poses": tmp_path / "transforms.json"}, 1),
        ({"poses": tmp_path / "sparse"}, 2),
    ):
        found = open_scene(tmp_path, **given).views[3].cam_from_world
        np.testing.assert_allclose(found[:3, 3], scale * truth.views[3].cam_from_world[:3, 3], atol=1e-9)
    with pytest.raises(InputError, match=r"--format kitti reads KITTI sequence, but there is no calib.txt"):
        open_scene(tmp_path, format="kitti")
    with pytest.raises(InputError, match=r"format 'colmapp' is not known; known are colmap, transforms, .*matrices"):
        open_scene(tmp_path, format="colmapp")


def test_plain_matrices_are_never_the_second_layout_but_can_be_chosen(tmp_path) -> None:
    truth = worlds.small_scene()
    worlds.write_demon(truth, tmp_path)
    assert open_scene(tmp_path).origin.format.startswith("DeMoN")
    scene = open_scene(tmp_path, format="matrices", convention="world-from-cam")
    np.testing.assert_allclose(scene.views[1].cam_from_world, truth.views[1].world_from_cam, atol=1e-9)
    (tmp_path / "cam.txt").rename(tmp_path.parent / "K_of_mine.txt")
    with pytest.raises(InputError, match="do not say which way they go"):  # rows of 12 numbers may be anything's
        open_scene(tmp_path, intrinsics=tmp_path.parent / "K_of_mine.txt")


EACH_ITS_OWN = {
    "COLMAP": worlds.write_colmap,
    "transforms.json": worlds.write_instant_ngp,
    "MVSNet": worlds.write_mvsnet,
    "Middlebury": worlds.write_middlebury,
    "Strecha": worlds.write_strecha,
    "plain, a file each": worlds.write_plain_K_each,
    "plain, named rows": lambda scene, folder: worlds.write_plain_K_each(scene, folder, named_rows=True),
}


@pytest.mark.parametrize("format", EACH_ITS_OWN)
def test_each_view_has_its_own_camera_and_size(format, tmp_path) -> None:
    base = worlds.small_scene()
    cameras = [
        Camera(width=24 + 2 * i, height=18 + i, K=[[20 + i, 0, 12 + i], [0, 21, 9], [0, 0, 1]]) for i in range(5)
    ]
    truth = replace(base, views=[replace(v, camera=c) for v, c in zip(base.views, cameras, strict=True)])
    scene = opened(tmp_path, EACH_ITS_OWN[format](truth, tmp_path))
    assert scene.dropped == ()
    for found, true in zip(scene.views, truth.views, strict=True):
        np.testing.assert_allclose(found.camera.K, true.camera.K, atol=1e-12)
        np.testing.assert_allclose(found.cam_from_world, true.cam_from_world, atol=1e-9)
        rgb, _ = read_view(found)
        assert rgb.shape[:2] == (true.camera.height, true.camera.width)


def test_views_without_intrinsics_are_dropped_and_bad_rows_named(tmp_path) -> None:
    given = worlds.write_plain_K_each(worlds.small_scene(), tmp_path)
    (tmp_path / "K" / "0002.png.txt").unlink()
    scene = opened(tmp_path, given)
    assert len(scene.views) == 4 and scene.dropped[0][0] == "0002.png" and "no intrinsics" in scene.dropped[0][1]
    text = (tmp_path / "Ks.txt").read_text()
    (tmp_path / "Ks.txt").write_text(text + "0009.png 1 2 3\n")
    with pytest.raises(InputError, match=r"Ks.txt, row 6: expected an image's name and 4"):
        opened(tmp_path, given | {"intrinsics": tmp_path / "Ks.txt"})
    (tmp_path / "Ks.txt").write_text(text + text)
    with pytest.raises(InputError, match=r"Ks.txt, row 6: 0000.png is there twice"):
        opened(tmp_path, given | {"intrinsics": tmp_path / "Ks.txt"})


def test_every_layout_takes_other_intrinsics_for_each_view_where_it_has_none_of_its_own(tmp_path) -> None:
    truth = worlds.small_scene()
    for name, write in (("7", worlds.write_seven_scenes), ("t", worlds.write_tum), ("s", worlds.write_scannet)):
        write(truth, tmp_path / name)
        names = [view.name for view in open_scene(tmp_path / name).views]
        rows = [f"{name} {30 + i} 31 12 9" for i, name in enumerate(names)]
        (tmp_path / "Ks.txt").write_text("\n".join(rows))
        scene = open_scene(tmp_path / name, intrinsics=tmp_path / "Ks.txt")
        assert [view.camera.K[0, 0] for view in scene.views] == [30, 31, 32, 33, 34]
        assert scene.origin.intrinsics == "each view in Ks.txt"


@pytest.mark.parametrize("format", ["7-Scenes folder", "transforms.json, instant-ngp", "MVSNet cams, two numbers"])
def test_an_image_that_is_none_is_dropped_with_its_name(format, tmp_path) -> None:
    given = WRITERS[format](worlds.small_scene(), tmp_path)
    victim = sorted(tmp_path.rglob("*.png"))[2]
    victim.write_bytes(b"")
    scene = opened(tmp_path, given)
    assert len(scene.views) == 4
    assert [name for name, _ in scene.dropped] == [victim.name] and "cannot be read as an image" in scene.dropped[0][1]
