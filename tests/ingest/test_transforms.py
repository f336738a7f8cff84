"""transforms.json: the dialects of intrinsics and lenses, where images are found, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nasrecon.errors import InputError
from nasrecon.ingest.open_scene import open_scene
from nasrecon.types import Lens

from . import worlds


def write(folder, **changes):
    """Write a set of four images; changes go to the top of the file (None takes an entry out)."""
    worlds.write_instant_ngp(worlds.small_scene(4), folder)
    edit(folder, lambda fields: fields.update(changes))


def edit(folder, change, name="transforms.json"):
    fields = json.loads((folder / name).read_text())
    change(fields)
    (folder / name).write_text(json.dumps({key: value for key, value in fields.items() if value is not None}))


def without_frame_intrinsics(fields):
    for frame in fields["frames"]:
        for key in ("fl_x", "fl_y", "cx", "cy", "w", "h"):
            del frame[key]


def test_blender_has_nothing_but_an_angle(tmp_path) -> None:
    write(tmp_path, camera_angle_x=0.8, fl_x=None)
    edit(tmp_path, without_frame_intrinsics)
    focal = 12 / np.tan(0.4)
    for view in open_scene(tmp_path).views:
        np.testing.assert_allclose(view.camera.K, [[focal, 0, 12], [0, focal, 9], [0, 0, 1]], rtol=1e-12)
    edit(tmp_path, lambda fields: fields.update(camera_angle_y=1.0))
    assert open_scene(tmp_path).views[0].camera.K[1, 1] == pytest.approx(9 / np.tan(0.5))
    edit(tmp_path, lambda fields: fields.update(camera_angle_x=None, camera_angle_y=None))
    with pytest.raises(InputError, match="no focal length: neither fl_x nor camera_angle_x"):
        open_scene(tmp_path)


def test_the_splits_of_a_nerf_scene_are_not_chosen_among(tmp_path) -> None:
    write(tmp_path)
    (tmp_path / "transforms.json").rename(tmp_path / "transforms_train.json")
    assert len(open_scene(tmp_path).views) == 4
    edit(tmp_path, lambda fields: fields["frames"].pop(), "transforms_train.json")
    (tmp_path / "transforms_test.json").write_text((tmp_path / "transforms_train.json").read_text())
    with pytest.raises(InputError, match=r"transforms_test.json, transforms_train.json; pass the one to read"):
        open_scene(tmp_path)
    scene = open_scene(tmp_path, tmp_path / "transforms_train.json")
    assert len(scene.views) == 3 and scene.dropped == (("0003.png", "not named by transforms_train.json"),)


LENSES = {
    "OPENCV": ({"k1": -0.15, "k2": 0.04, "p1": 0.002, "p2": -0.003}, (-0.15, 0.04, 0.002, -0.003)),
    "FULL_OPENCV": (
        {"k1": -0.15, "k2": 0.04, "k3": 0.01, "p1": 0.002, "p2": -0.003, "camera_model": "OPENCV"},
        (-0.15, 0.04, 0.002, -0.003, 0.01, 0, 0, 0),
    ),
    "OPENCV_FISHEYE": (
        {"k1": 0.02, "k2": -0.01, "k3": 0.004, "k4": -0.001, "camera_model": "OPENCV_FISHEYE"},
        (0.02, -0.01, 0.004, -0.001),
    ),
}


@pytest.mark.parametrize("model", LENSES)
@pytest.mark.parametrize("in_frames", [False, True])
def test_lenses_are_those_of_the_same_colmap_model(model, in_frames, tmp_path) -> None:
    fields, distortion = LENSES[model]
    lens = Lens(model=model, width=24, height=18, params=(20.0, 21.0, 12.5, 8.75, *map(float, distortion)))
    base = worlds.small_scene(4)
    worlds.write_colmap(replace(base, views=[view.with_image(lens=lens) for view in base.views]), tmp_path / "colmap")
    write(tmp_path / "json")
    edit(tmp_path / "json", lambda top: [place.update(fields) for place in (top["frames"] if in_frames else [top])])
    expected, found = open_scene(tmp_path / "colmap"), open_scene(tmp_path / "json")
    assert [view.name for view in found.views] == [view.name for view in expected.views]
    assert model in found.origin.notes[0]
    for a, b in zip(found.views, expected.views, strict=True):
        assert a.image.lens == b.image.lens == lens
        assert (a.camera.width, a.camera.height) == (b.camera.width, b.camera.height)
        np.testing.assert_allclose(a.camera.K, b.camera.K, rtol=1e-12)
        np.testing.assert_allclose(a.cam_from_world, b.cam_from_world, atol=1e-9)


def test_instant_ngps_fisheye_is_one_even_without_distortion(tmp_path) -> None:
    write(tmp_path, is_fisheye=True)
    assert open_scene(tmp_path).views[0].image.lens.model == "OPENCV_FISHEYE"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k4": 0.1}, "k4 belongs to OPENCV_FISHEYE"),
        ({"camera_model": "OPENCV_FISHEYE", "p1": 0.1}, "found p1 = 0.1: a fisheye has no p1 and p2"),
        ({"k1": "much"}, "k1 must be a number"),
        ({"applied_scale": 0}, "applied_scale must be positive"),
        ({"applied_transform": [[1, 0, 0], [0, 1, 0]]}, "applied_transform: expected a 4x4 or 3x4 matrix"),
        ({"frames": None}, "expected a list of frames"),
        ({"frames": [{"transform_matrix": np.eye(4).tolist()}]}, "frame 1: there is no file_path"),
        ({"frames": [{"file_path": "images/0000"}]}, "there is no transform_matrix"),
        ({"frames": [{"file_path": "nowhere/1.png"}]}, "none of its 1 images is there"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, said, tmp_path) -> None:
    write(tmp_path, **changes)
    with pytest.raises(InputError, match=said):
        open_scene(tmp_path)


def test_other_camera_models_are_dropped_frame_by_frame(tmp_path) -> None:
    write(tmp_path)
    edit(tmp_path, lambda fields: fields["frames"][1].update(camera_model="EQUIRECTANGULAR"))
    scene = open_scene(tmp_path)
    assert [view.name for view in scene.views] == ["0000.png", "0002.png", "0003.png"]
    assert scene.dropped[0][0] == "0001.png" and "EQUIRECTANGULAR" in scene.dropped[0][1]


def test_given_intrinsics_and_the_other_convention_are_refused(tmp_path) -> None:
    write(tmp_path)
    (tmp_path / "K.txt").write_text("1 1 1 1")
    with pytest.raises(InputError, match="has its own intrinsics"):
        open_scene(tmp_path, intrinsics=tmp_path / "K.txt")
    with pytest.raises(InputError, match="world_from_cam by definition"):
        open_scene(tmp_path, convention="cam-from-world")


def test_images_are_found_from_the_file_and_from_the_images_folder(tmp_path) -> None:
    write(tmp_path / "set")
    edit(tmp_path / "set", lambda fields: fields["frames"][0].update(file_path="images\\0000.png"))
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "set" / "transforms.json").rename(tmp_path / "elsewhere" / "mine.json")
    for images in ("set", "set/images"):
        scene = open_scene(tmp_path / images, moved)
        assert [view.name for view in scene.views] == [f"{i:04d}.png" for i in range(4)] and not scene.dropped
    with pytest.raises(InputError, match="none of its 4 images is there"):
        open_scene(tmp_path / "elsewhere", moved)


def test_subfolders_stay_in_the_names_and_an_ending_is_not_guessed(tmp_path) -> None:
    base = worlds.small_scene(4)
    names = ("left/0.png", "left/1.png", "right/0.png", "right/1.png")
    worlds.write_instant_ngp(base, tmp_path)
    worlds.write_images(
        replace(base, views=[replace(v, name=n) for v, n in zip(base.views, names, strict=True)]), tmp_path / "images"
    )
    edit(
        tmp_path,
        lambda top: [f.update(file_path=f"images/{n[:-4]}") for f, n in zip(top["frames"], names, strict=True)],
    )
    scene = open_scene(tmp_path)
    assert [view.name for view in scene.views] == list(names)
    Image.new("RGB", (24, 18)).save(tmp_path / "images" / "left" / "0.jpg")
    with pytest.raises(InputError, match=r"images/left/0 may mean 0.jpg, 0.png"):
        open_scene(tmp_path)


def test_a_scaled_blender_camera_is_normalised_and_said(tmp_path) -> None:
    write(tmp_path)

    def scale(fields):
        for frame in fields["frames"]:
            matrix = np.array(frame["transform_matrix"])
            matrix[:3, :3] *= (2, 2, 0.5)
            frame["transform_matrix"] = matrix.tolist()

    edit(tmp_path, scale)
    scene = open_scene(tmp_path)
    assert "scaled rotations normalised" in scene.origin.notes
    for found, true in zip(scene.views, worlds.small_scene(4).views, strict=True):
        np.testing.assert_allclose(found.cam_from_world, true.cam_from_world, atol=1e-9)


def test_masks_of_the_frames_are_read(tmp_path) -> None:
    write(tmp_path)
    (tmp_path / "masks").mkdir()
    Image.new("L", (24, 18), 255).save(tmp_path / "masks" / "1.png")
    edit(tmp_path, lambda fields: fields["frames"][1].update(mask_path="masks/1.png"))
    scene = open_scene(tmp_path)
    assert [view.image.mask_path is not None for view in scene.views] == [False, True, False, False]
    assert "masks of 1 frames" in scene.origin.notes
    edit(tmp_path, lambda fields: fields["frames"][2].update(mask_path="masks/2.png"))
    with pytest.raises(InputError, match=r"mask_path masks/2.png: no such file"):
        open_scene(tmp_path)
