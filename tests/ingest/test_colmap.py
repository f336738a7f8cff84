"""COLMAP models made by pycolmap with known cameras: poses, points, lenses, and what is missing or damaged."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.geometry import transform
from nasrecon.ingest.images import read_view
from nasrecon.ingest.open_scene import open_scene
from nasrecon.ingest.undistort import file_pixels, pinhole_camera
from nasrecon.scene.source_views import sees
from nasrecon.types import ImageSource, Lens, Scene

from . import worlds

ENDINGS = (".bin", ".txt")
# Distortions of a wide lens, of the size that photographs have: 10 to 40 px at the corners of 320x240.
LENSES = {
    "SIMPLE_RADIAL": (260.0, 161, 119, -0.12),
    "RADIAL": (260.0, 161, 119, -0.12, 0.03),
    "OPENCV": (260.0, 262, 161, 119, -0.15, 0.04, 0.002, -0.003),
    "FULL_OPENCV": (260.0, 262, 161, 119, -0.15, 0.04, 0.002, -0.003, 0.01, 0.02, -0.01, 0.003),
    "OPENCV_FISHEYE": (220.0, 222, 161, 119, 0.02, -0.01, 0.004, -0.001),
    "FOV": (240.0, 242, 161, 119, 0.7),
    "THIN_PRISM_FISHEYE": (220.0, 222, 161, 119, 0.02, -0.01, 0.001, -0.001, 0.003, -0.001, 0.001, 0.002),
    "SIMPLE_DIVISION": (260.0, 161, 119, -0.1),
    "EUCM": (240.0, 242, 161, 119, 0.4, 1.1),
}


def scene_with_points(count: int = 5) -> Scene:
    scene = worlds.small_scene(count)
    points = np.random.default_rng(3).uniform([-2.5, -2, 2.5], [2.5, 2.2, 4.5], (60, 3))
    visible = tuple(np.flatnonzero(sees(view, points)) for view in scene.views)
    seen = np.unique(np.concatenate(visible))
    number = np.cumsum(np.isin(np.arange(60), seen)) - 1  # COLMAP keeps no point that nobody sees
    return replace(scene, points_in_world=points[seen], visible=tuple(number[indices] for indices in visible))


@pytest.mark.parametrize("ending", ENDINGS)
def test_points_and_who_sees_them(ending, tmp_path) -> None:
    truth = scene_with_points()
    worlds.write_colmap(truth, tmp_path, ending)
    scene = open_scene(tmp_path)
    assert scene.root == tmp_path / "images"
    assert f"{len(truth.points_in_world)} sparse points" in scene.origin.notes and "PINHOLE" in scene.origin.notes[1]
    np.testing.assert_allclose(scene.points_in_world, truth.points_in_world, atol=1e-12)
    assert len({len(indices) for indices in truth.visible}) > 1
    for found, true in zip(scene.visible, truth.visible, strict=True):
        np.testing.assert_array_equal(found, true)


@pytest.mark.parametrize("ending", ENDINGS)
def test_several_cameras_and_subfolders(ending, tmp_path) -> None:
    base = worlds.small_scene(4)
    half = base.views[0].camera.resized(12, 9)
    names = ("left/0.png", "left/1.png", "right/0.png", "right/deep/0.png")
    views = [replace(view, name=name) for view, name in zip(base.views, names, strict=True)]
    views[2:] = [replace(view, camera=half) for view in views[2:]]
    truth = replace(base, views=tuple(views))
    worlds.write_colmap(truth, tmp_path, ending)
    scene = open_scene(tmp_path / "images", tmp_path / "sparse")
    assert [view.name for view in scene.views] == list(names)
    assert "2 cameras" in scene.origin.notes[1]
    for found, true in zip(scene.views, truth.views, strict=True):
        np.testing.assert_allclose(found.cam_from_world, true.cam_from_world, atol=1e-12)
        np.testing.assert_allclose(found.camera.K, true.camera.K, atol=1e-12)
        assert read_view(found)[0].shape == (true.camera.height, true.camera.width, 3)


def test_what_is_left_out_is_told(tmp_path) -> None:
    truth = scene_with_points()
    worlds.write_colmap(truth, tmp_path)
    worlds.write_model(truth, tmp_path / "sparse" / "1")
    (tmp_path / "images" / "0002.png").rename(tmp_path / "images" / "new.png")
    scene = open_scene(tmp_path)
    kept = [0, 1, 3, 4]
    assert [view.name for view in scene.views] == [truth.views[i].name for i in kept]
    for found, i in zip(scene.visible, kept, strict=True):
        np.testing.assert_array_equal(found, truth.visible[i])
    assert dict(scene.dropped) == {
        "0002.png": "in the COLMAP model, but no such image file",
        "new.png": "not in the COLMAP model",
        "1": "another model; 0 was read",
    }


def test_an_image_without_a_pose_is_dropped(tmp_path) -> None:
    import pycolmap

    worlds.write_colmap(scene_with_points(), tmp_path)
    reconstruction = pycolmap.Reconstruction(tmp_path / "sparse" / "0")
    reconstruction.deregister_frame(reconstruction.images[2].frame_id)
    reconstruction.write(tmp_path / "sparse" / "0")
    scene = open_scene(tmp_path)
    assert [view.name for view in scene.views] == ["0000.png", "0002.png", "0003.png", "0004.png"]
    assert [name for name, _ in scene.dropped] == ["0001.png"]


def test_no_image_on_disk_is_an_error_that_compares_names(tmp_path) -> None:
    worlds.write_model(worlds.small_scene(), tmp_path / "sparse")
    worlds.write_images(worlds.small_scene(), tmp_path / "images", lambda name: f"sub/{name}")
    with pytest.raises(InputError, match=r"names 0000.png, .* holds sub/0000.png"):
        open_scene(tmp_path / "images", tmp_path / "sparse")


def test_what_a_model_does_not_need_is_refused(tmp_path) -> None:
    worlds.write_colmap(worlds.small_scene(), tmp_path)
    with pytest.raises(InputError, match="cam_from_world by definition"):
        open_scene(tmp_path, convention="world-from-cam")
    (tmp_path / "K.txt").write_text("1 1 1 1")
    with pytest.raises(InputError, match="has its own intrinsics"):
        open_scene(tmp_path, intrinsics=tmp_path / "K.txt")


@pytest.mark.parametrize("part", ["cameras.bin", "images.bin", "points3D.bin", "rigs.bin", "frames.bin"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95, 1.05])
def test_a_file_cut_short_or_too_long_is_an_error_and_no_hang(part, keep, tmp_path) -> None:
    worlds.write_colmap(scene_with_points(), tmp_path)
    path = tmp_path / "sparse" / "0" / part
    data = path.read_bytes()
    path.write_bytes((data + data)[: int(keep * len(data))])
    with pytest.raises(InputError, match=f"{part}: the file is cut short or damaged"):
        open_scene(tmp_path)


def test_a_rig_of_two_cameras_is_read_whole(tmp_path) -> None:
    """As COLMAP's rig bundle adjustment leaves it: frames of two images, the second camera posed in the rig."""
    import pycolmap

    config = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_cameras_per_rig=2, num_frames_per_rig=3, num_points3D=30)
    reconstruction = pycolmap.synthesize_dataset(config)
    (tmp_path / "sparse").mkdir()
    reconstruction.write_binary(tmp_path / "sparse")
    for image in reconstruction.images.values():
        path = tmp_path / "images" / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        iio.imwrite(path.with_suffix(".png"), np.zeros((4, 4, 3), np.uint8))
        path.with_suffix(".png").rename(path)
    scene = open_scene(tmp_path / "images", tmp_path / "sparse")
    assert len(scene.views) == 6
    for view in scene.views:
        expected = reconstruction.find_image_with_name(view.name).cam_from_world().matrix()
        np.testing.assert_allclose(view.cam_from_world[:3], expected, atol=1e-12)


def test_a_missing_part_is_named(tmp_path) -> None:
    worlds.write_colmap(scene_with_points(), tmp_path)
    (tmp_path / "sparse" / "0" / "points3D.bin").unlink()
    with pytest.raises(InputError, match=r"lacks points3D.bin"):
        open_scene(tmp_path)


def test_a_panorama_is_dropped_with_its_model(tmp_path) -> None:
    base = worlds.small_scene(2)
    panorama = Lens(model="EQUIRECTANGULAR", width=64, height=32, params=(64.0, 32.0))
    worlds.write_colmap(replace(base, views=(base.views[0], base.views[1].with_image(lens=panorama))), tmp_path)
    scene = open_scene(tmp_path)
    assert [view.name for view in scene.views] == ["0000.png"]
    assert "EQUIRECTANGULAR" in scene.dropped[0][1]


def test_a_lens_without_distortion_stays_a_pinhole(tmp_path) -> None:
    base = worlds.small_scene(2)
    lens = Lens(model="OPENCV", width=24, height=18, params=(20.0, 21, 12.5, 8.75, 0, 0, 0, 0))
    worlds.write_colmap(replace(base, views=tuple(view.with_image(lens=lens) for view in base.views)), tmp_path)
    for view in open_scene(tmp_path).views:
        assert view.image.lens is None
        np.testing.assert_array_equal(view.camera.K, base.views[0].camera.K)


def draw_dots(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Draw a soft dot (sigma 1.5 px) at each pixel position (P, 2), (H, W) in [0, 1]; dots do not touch."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    image = np.zeros((height, width))
    for u, v in pixels:
        image += np.exp(-0.5 * ((x[None, :] - u) ** 2 + (y[:, None] - v) ** 2) / 1.5**2)
    return image


def centroid(image: np.ndarray, near: np.ndarray, reach: int = 5) -> np.ndarray:
    """Return the centroid (2,) [px] of a grey image about a pixel position."""
    column, row = np.floor(near).astype(int)
    rows, columns = slice(row - reach, row + reach + 1), slice(column - reach, column + reach + 1)
    weight = image[rows, columns]
    y, x = np.mgrid[rows, columns] + 0.5
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize("model", LENSES)
def test_undistorted_dots_lie_where_the_pinhole_camera_projects_them(model, tmp_path) -> None:
    """A wall of dots seen through a lens: after reading, dot and projection agree, which closes the whole chain."""
    import pycolmap

    lens = Lens(model=model, width=320, height=240, params=tuple(map(float, LENSES[model])))
    base = worlds.small_scene(1)
    cam_from_world = base.views[0].cam_from_world
    grid = np.stack(np.meshgrid(np.linspace(-1.8, 1.8, 9), np.linspace(-1.3, 1.3, 7)), axis=-1).reshape(-1, 2)
    in_cam = np.concatenate([grid, np.full((63, 1), 3.5)], axis=1)
    colmap_camera = pycolmap.Camera(model=model, width=320, height=240, params=list(lens.params))
    dots = np.asarray(colmap_camera.img_from_cam(in_cam))
    inside = ((dots > 8) & (dots < (312, 232))).all(axis=1)
    picture = np.round(255 * draw_dots(dots[inside], 320, 240)).astype(np.uint8)

    truth = replace(base, views=(base.views[0].with_image(lens=lens),))
    worlds.write_colmap(truth, tmp_path, ".txt")
    iio.imwrite(tmp_path / "images" / "0000.png", np.repeat(picture[..., None], 3, axis=-1))
    (view,) = open_scene(tmp_path).views
    assert view.image.lens == lens
    rgb, read = read_view(view)
    assert rgb.shape[:2] == (read.camera.height, read.camera.width) != (240, 320)

    in_world = transform(np.linalg.inv(cam_from_world), in_cam[inside])
    expected = read.camera.project(transform(read.cam_from_world, in_world))
    checked = ((expected > 8) & (expected < np.array([read.camera.width, read.camera.height]) - 8)).all(axis=1)
    assert checked.sum() >= 25
    found = np.array([centroid(rgb[..., 0].astype(float), at) for at in expected[checked]])
    # 8-bit dots resampled bilinearly: a few hundredths of a pixel; half a pixel of a wrong convention would show
    assert np.abs(found - expected[checked]).max() < 0.1
    assert np.abs(dots[inside] - expected).max() > 2  # there was something to undo


def test_file_pixels_say_where_the_undistorted_pixels_come_from(tmp_path) -> None:
    lens = Lens(model="OPENCV", width=320, height=240, params=LENSES["OPENCV"])
    base = worlds.small_scene(1).views[0]
    view = replace(base, image=ImageSource(path=tmp_path / "x.png", lens=lens), camera=pinhole_camera(lens))
    ramp = np.zeros((240, 320, 3), dtype=np.uint8)
    ramp[..., 0] = np.round((np.arange(320) + 0.5) * 0.75)
    ramp[..., 1] = np.round((np.arange(240) + 0.5) * 0.75)[:, None]
    iio.imwrite(view.image.path, ramp)
    for size in ((None, None), (view.camera.width // 2, view.camera.height // 2)):
        rgb, read = read_view(view, *size)
        at = file_pixels(lens, read.camera)
        inside = slice(4, -4), slice(4, -4)
        # grey levels of 4/3 px, and the rounding of two resamplings
        assert np.abs(rgb[..., :2] / 0.75 - at)[inside].max() < 1.6
        assert np.abs((rgb[..., :2] / 0.75 - at)[inside].mean(axis=(0, 1))).max() < 0.05


def test_a_model_file_may_stand_for_its_folder(tmp_path) -> None:
    worlds.write_colmap(worlds.small_scene(), tmp_path)
    shutil.copytree(tmp_path / "sparse" / "0", tmp_path / "model")
    scene = open_scene(tmp_path / "images", Path(tmp_path / "model" / "images.bin"))
    assert len(scene.views) == 5


def test_the_sets_folder_may_stand_for_its_images(tmp_path) -> None:
    worlds.write_colmap(worlds.small_scene(), tmp_path)
    scene = open_scene(tmp_path, tmp_path / "sparse" / "0")
    assert len(scene.views) == 5 and scene.root == tmp_path / "images"
