"""True depth: units, invalid values, sizes, lenses, and the depth camera of 7-Scenes."""

from __future__ import annotations

import json
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.ingest.true_depth import read_true_depth
from nasrecon.ingest.undistort import file_pixels, pinhole_camera
from nasrecon.types import Camera, ImageSource, Lens, View

MM = np.arange(1, 49, dtype=np.uint16).reshape(6, 8) * 100


def view_of(path, camera: Camera | None = None, lens: Lens | None = None) -> View:
    camera = camera or Camera(width=8, height=6, K=np.array([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]]))
    return View(name=path.name, image=ImageSource(path=path, lens=lens), camera=camera, cam_from_world=np.eye(4))


def test_seven_scenes(tmp_path) -> None:
    stored = MM.copy()
    stored[0, :2] = 0, 65535
    iio.imwrite(tmp_path / "frame-1.depth.png", stored)
    view = view_of(tmp_path / "frame-1.color.png")
    depth = read_true_depth(view)
    assert depth.dtype == np.float32 and depth.shape == (6, 8)
    assert depth[0, 0] == depth[0, 1] == 0
    np.testing.assert_allclose(depth[1:], MM[1:] / 1000)


def test_seven_scenes_depth_is_moved_to_the_colour_camera(tmp_path) -> None:
    """A slanted plane seen by the depth camera (f 585) must be the same plane in the colour camera (f 525)."""
    depth_camera = Camera(width=640, height=480, K=np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]]))
    color_camera = Camera(width=640, height=480, K=np.array([[525.0, 0, 320], [0, 525, 240], [0, 0, 1]]))

    def plane(camera: Camera) -> np.ndarray:
        rays = camera.unproject(camera.pixel_centers(), np.ones((480, 640)))
        return 2.0 / (rays @ [0.3, -0.2, 1.0])

    iio.imwrite(tmp_path / "frame-1.depth.png", (plane(depth_camera) * 1000).round().astype(np.uint16))
    np.savetxt(tmp_path / "camera-intrinsics.txt", depth_camera.K)
    np.savetxt(tmp_path / "camera-intrinsics-color.txt", color_camera.K)
    found = read_true_depth(view_of(tmp_path / "frame-1.color.png", color_camera))
    known = found > 0
    # the depth camera sees 585/525 less: 80 % of the pixels, and shrinking leaves no holes
    assert 0.79 < known.mean() < 0.81 and known[60:420, 60:580].all()
    # half a pixel on this slope is 0.3 mm, a millimetre the rounding
    assert np.abs(found - plane(color_camera))[known].max() < 0.0025


def test_depth_folder_and_its_unit(tmp_path) -> None:
    (tmp_path / "depth").mkdir()
    iio.imwrite(tmp_path / "depth" / "0.png", MM)
    view = view_of(tmp_path / "image" / "0.jpg")
    np.testing.assert_allclose(read_true_depth(view), MM / 1000)
    (tmp_path / "camera.json").write_text(json.dumps({"depth_unit_m": 0.0002}))
    np.testing.assert_allclose(read_true_depth(view), MM / 5000)
    assert read_true_depth(view_of(tmp_path / "image" / "1.jpg")) is None


def test_demon_and_invalid_values(tmp_path) -> None:
    stored = (MM / 100).astype(np.float32)
    stored[0, :3] = np.nan, -1, np.inf
    np.save(tmp_path / "0000.npy", stored)
    depth = read_true_depth(view_of(tmp_path / "0000.jpg"))
    assert (depth[0, :3] == 0).all()
    np.testing.assert_array_equal(depth[1:], stored[1:])


def test_tum_takes_the_nearest_in_time(tmp_path) -> None:
    for folder in ("rgb", "depth"):
        (tmp_path / folder).mkdir()
    iio.imwrite(tmp_path / "depth" / "1.01.png", MM)
    iio.imwrite(tmp_path / "depth" / "1.03.png", 2 * MM)
    (tmp_path / "depth.txt").write_text("# depth\n1.01 depth/1.01.png\n1.03 depth/1.03.png\n")
    np.testing.assert_allclose(read_true_depth(view_of(tmp_path / "rgb" / "1.022.png")), 2 * MM / 5000)
    assert read_true_depth(view_of(tmp_path / "rgb" / "1.06.png")) is None


def test_a_resized_view_takes_the_nearest_pixel(tmp_path) -> None:
    np.save(tmp_path / "0.npy", MM.astype(np.float32))
    view = view_of(tmp_path / "0.jpg")
    np.testing.assert_array_equal(read_true_depth(replace(view, camera=view.camera.resized(4, 2))), MM[1::3, 1::2])
    large = read_true_depth(replace(view, camera=view.camera.resized(16, 12)))
    np.testing.assert_array_equal(large, MM.repeat(2, 0).repeat(2, 1))


def test_a_lens_bends_the_depth_map_as_it_bends_the_image(tmp_path) -> None:
    lens = Lens(model="OPENCV", width=320, height=240, params=(260.0, 262, 161, 119, -0.15, 0.04, 0.002, -0.003))
    columns = np.tile(np.arange(320, dtype=np.float32) + 1, (240, 1))
    np.save(tmp_path / "0.npy", columns)
    for width, height in ((None, None), (100, 80)):
        camera = pinhole_camera(lens)
        camera = camera if width is None else camera.resized(width, height)
        depth = read_true_depth(view_of(tmp_path / "0.jpg", camera, lens))
        assert depth.shape == (camera.height, camera.width)
        at = file_pixels(lens, camera)[..., 0]
        known = depth > 0
        assert known.mean() > 0.95
        assert np.abs(depth - 0.5 - at)[known].max() <= 0.5  # the pixel whose square the centre falls in


def test_damaged_depth_is_named(tmp_path) -> None:
    (tmp_path / "0.npy").write_bytes(b"x")
    with pytest.raises(InputError, match=r"0\.npy: cannot be read"):
        read_true_depth(view_of(tmp_path / "0.jpg"))
    np.save(tmp_path / "1.npy", np.zeros((2, 3, 4)))
    with pytest.raises(InputError, match=r"1\.npy: expected a depth map"):
        read_true_depth(view_of(tmp_path / "1.jpg"))
    iio.imwrite(tmp_path / "frame-1.depth.png", np.zeros((6, 8, 3), dtype=np.uint8))
    with pytest.raises(InputError, match=r"frame-1.depth.png: expected a 16-bit grey"):
        read_true_depth(view_of(tmp_path / "frame-1.color.png"))
