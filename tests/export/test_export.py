"""Every format read back as its own tools read it: the depths lie on the plane that was photographed, to a part of a
pixel."""

from __future__ import annotations

import json
from dataclasses import replace

import imageio.v3 as iio
import numpy as np
import pytest
from plane_world import PLANE_NORMAL_IN_WORLD, PLANE_POINT_IN_WORLD, make_view, photograph, plane_depth, plane_in_cam

from nasrecon.errors import InputError
from nasrecon.export.colmap import shared_points
from nasrecon.export.export_estimates import export_estimates
from nasrecon.export.files import image_name
from nasrecon.export.options import EXPORT_FORMATS
from nasrecon.fuse.overlap import CoarseDepth
from nasrecon.geometry import transform
from nasrecon.types import Camera, Estimate

WIDTH, HEIGHT = 96, 64
# The plane is tilted: read half a pixel off in x and y, the points of all views lie on average 0.0013 units beside it.
OFF_BY_HALF_A_PIXEL = 1.2e-3


def without_skew(view):
    K = view.camera.K.copy()
    K[0, 1] = 0
    return replace(view, camera=Camera(width=view.camera.width, height=view.camera.height, K=K))


def estimate(i: int, name: str) -> Estimate:
    view = without_skew(
        make_view(name, WIDTH, HEIGHT, 95, (1, 3.0 * (2 - i), 0), (0.15 * (i - 2), 0.02 * (-1) ** i, 0))
    )
    depth = plane_depth(view).astype(np.float32)
    depth[:4] = 0  # no value there
    normal = np.where(depth[..., None] > 0, plane_in_cam(view)[0], 0).astype(np.float32)
    ones = (depth > 0).astype(np.float32)
    others = tuple(NAMES[j] for j in (i - 1, i + 1) if 0 <= j < len(NAMES))
    return Estimate(
        view=view,
        depth=depth,
        normal=normal,
        confidence=0.9 * ones,
        sigma=0.01 * depth,
        rgb=photograph(view),
        sources=others,
    )


NAMES = ("left/0 a.jpg", "left/1.png", "2.png", "3.tif", "../4.png")


@pytest.fixture(scope="module")
def estimates() -> list[Estimate]:
    return [estimate(i, name) for i, name in enumerate(NAMES)]


def off_plane(points_in_world: np.ndarray) -> np.ndarray:
    return (points_in_world - PLANE_POINT_IN_WORLD) @ PLANE_NORMAL_IN_WORLD


def pixels(depth: np.ndarray, first_center=(0.5, 0.5)) -> tuple[np.ndarray, np.ndarray]:
    """The pixels (N, 2) with a value, x before y, and their depths."""
    row, column = np.nonzero(depth)
    return np.stack([column, row], axis=-1) + first_center, depth[row, column].astype(np.float64)


def assert_on_plane(lift, depth: np.ndarray, tolerance: float) -> None:
    """Lifted from the pixels' centres the depths lie on the plane; from half a pixel below or beside them they do
    not."""
    assert (depth > 0).sum() == WIDTH * (HEIGHT - 4)
    assert np.abs(off_plane(lift(*pixels(depth)))).max() < tolerance
    beside, below = (abs(off_plane(lift(*pixels(depth, center))).mean()) for center in ((0.0, 0.5), (0.5, 0.0)))
    assert max(beside, below) > OFF_BY_HALF_A_PIXEL > 2 * tolerance


def lifted(K: np.ndarray, cam_from_world: np.ndarray):
    """OpenCV axes, x right, y down, z forward."""
    world_from_cam = np.linalg.inv(cam_from_world)
    return lambda at, z: transform(
        world_from_cam, np.concatenate([at, np.ones((len(at), 1))], axis=1) @ np.linalg.inv(K).T * z[:, None]
    )


def fused(folder):
    import pycolmap

    options = pycolmap.StereoFusionOptions()
    options.min_num_pixels = 3
    made = pycolmap.stereo_fusion(folder.parent / "fused.ply", folder, options=options, output_type="PLY")
    return np.array([point.xyz for point in made.points3D.values()])


def test_colmap_fuses_the_workspace_onto_the_surface(estimates, tmp_path, monkeypatch) -> None:
    said = export_estimates(estimates, "colmap", tmp_path / "ws")
    assert said[0].startswith("COLMAP workspace of 5 images")
    points = fused(tmp_path / "ws")
    assert len(points) > 500
    assert abs(off_plane(points).mean()) < 0.2 * OFF_BY_HALF_A_PIXEL
    # COLMAP's own convention, proven: depths of the pixels' centres, taken as they are, come out beside the plane.
    monkeypatch.setattr("nasrecon.export.colmap.depth_at_corners", lambda estimate: estimate.depth)
    export_estimates(estimates, "colmap", tmp_path / "centers")
    assert abs(off_plane(fused(tmp_path / "centers")).mean()) > 0.6 * OFF_BY_HALF_A_PIXEL

    stored = read_array(tmp_path / "ws/stereo/depth_maps/left/0 a.jpg.geometric.bin")[..., 0]
    lift = lifted(estimates[0].view.camera.K, estimates[0].view.cam_from_world)
    assert np.abs(off_plane(lift(*pixels(stored, (0, 0))))).max() < 1e-5
    normal = read_array(tmp_path / "ws/stereo/normal_maps/2.png.geometric.bin")
    np.testing.assert_array_equal(normal, estimates[2].normal)


def read_array(path) -> np.ndarray:
    """COLMAP's binary array: "width&height&channels&", then float32, channel by channel, row by row: (H, W, C)."""
    width, height, channels, values = path.read_bytes().split(b"&", 3)
    shape = int(channels), int(height), int(width)
    return np.moveaxis(np.frombuffer(values, "<f4").reshape(shape), 0, -1)


def test_the_workspaces_model_is_that_of_the_views(estimates, tmp_path) -> None:
    from nasrecon.ingest.open_scene import open_scene

    export_estimates(estimates, "colmap", tmp_path / "ws")
    scene = open_scene(tmp_path / "ws" / "images", tmp_path / "ws" / "sparse")
    named = {image_name(found.view.name): found.view for found in estimates}
    assert {view.name for view in scene.views} == set(named) and not scene.dropped
    for view in scene.views:
        np.testing.assert_allclose(view.camera.K, named[view.name].camera.K, rtol=1e-12)
        np.testing.assert_allclose(view.cam_from_world, named[view.name].cam_from_world, atol=1e-12)
        np.testing.assert_array_equal(iio.imread(view.image.path).shape, (HEIGHT, WIDTH, 3))
    assert np.abs(off_plane(scene.points_in_world)).max() < 1e-6
    configuration = (tmp_path / "ws/stereo/patch-match.cfg").read_text().splitlines()
    assert configuration[:4] == ["left/0 a.jpg", "left/1.png", "left/1.png", "left/0 a.jpg, 2.png"]
    assert (tmp_path / "ws/stereo/fusion.cfg").read_text().splitlines() == configuration[::2]


def test_points_are_not_shared_through_what_hides_them(estimates) -> None:
    sketches = [CoarseDepth.of(found.view, found.depth) for found in estimates]
    wall = replace(sketches[2], depth=0.5 * sketches[2].depth, points_in_world=np.empty((0, 3)))
    for third, seen in ((sketches[2], True), (wall, False)):
        points, tracks = shared_points([*sketches[:2], third, *sketches[3:]])
        assert len(points) == len(tracks) > 1000 and np.abs(off_plane(points)).max() < 1e-6
        assert any(2 in track for track in tracks) == seen and min(map(len, tracks)) >= 2


def test_png16(estimates, tmp_path) -> None:
    said = export_estimates(estimates, "png16", tmp_path / "o", unit="m", scale=1e-4)
    assert said == ("5 depth maps, 16-bit PNG, 0.0001 m a step, as given",)
    told = json.loads((tmp_path / "o" / "cameras.json").read_text())
    assert told["pixel_center_of_first"] == 0.5 and told["unit"] == "m"
    for entry, found in zip(told["views"], estimates, strict=True):
        stored = iio.imread(tmp_path / "o" / entry["depth_file"])
        assert stored.dtype == np.uint16 and entry["name"] == found.view.name
        depth = stored * told["depth_units_per_step"]
        assert_on_plane(lifted(np.array(entry["K"]), np.array(entry["cam_from_world"])), depth, 1e-4)


def test_png16_says_its_scale_and_what_does_not_fit(estimates, tmp_path) -> None:
    assert "1 mm a step" in export_estimates(estimates, "png16", tmp_path / "m", unit="m")[0]
    assert json.loads((tmp_path / "m" / "cameras.json").read_text())["depth_units_per_step"] == 1e-3
    far = [replace(found, depth=found.depth * 1000) for found in estimates]  # 2 to 5 thousand units
    assert "0.1 scene units a step" in export_estimates(far, "png16", tmp_path / "u")[0]
    assert "1 mm a step" in export_estimates(far, "png16", tmp_path / "mm", unit="mm")[0]
    said = export_estimates(estimates, "png16", tmp_path / "s", unit="m", scale=5e-5)  # ends at 3.27
    stored = [iio.imread(path) for path in sorted((tmp_path / "s" / "depth").iterdir())]
    lost = sum(int((found.depth > 65535.5 * 5e-5).sum()) for found in estimates)
    kept = sum(int((steps > 0).sum()) for steps in stored)
    assert lost > 0 and kept == 5 * WIDTH * (HEIGHT - 4) - lost
    assert said[1].startswith(f"{lost} of {5 * WIDTH * (HEIGHT - 4)} depths lie beyond 3.27675")


def read_pfm(path) -> np.ndarray:
    kind, size, scale, values = path.read_bytes().split(b"\n", 3)
    width, height = map(int, size.split())
    assert kind == b"Pf" and float(scale) < 0  # grey, little endian
    return np.frombuffer(values, "<f4").reshape(height, width)[::-1]


def test_pfm_with_cams_and_pairs(estimates, tmp_path) -> None:
    export_estimates(estimates, "pfm", tmp_path / "o")
    for i, found in enumerate(estimates):
        words = (tmp_path / "o" / "cams" / f"{i:08d}_cam.txt").read_text().split()
        assert words[0] == "extrinsic" and words[17] == "intrinsic" and len(words) == 31
        cam_from_world, K = np.array(words[1:17], float).reshape(4, 4), np.array(words[18:27], float).reshape(3, 3)
        near, interval, number, far = map(float, words[27:])
        assert near + (number - 1) * interval == pytest.approx(far) and (near, far) == found.view.depth_range
        depth = read_pfm(tmp_path / "o" / "depth_est" / f"{i:08d}.pfm")
        assert_on_plane(lifted(K, cam_from_world), depth, 1e-6)
        np.testing.assert_array_equal(read_pfm(tmp_path / "o" / "confidence" / f"{i:08d}.pfm"), found.confidence)
        assert iio.imread(tmp_path / "o" / "images" / f"{i:08d}.jpg").shape == (HEIGHT, WIDTH, 3)
    pairs = (tmp_path / "o" / "pair.txt").read_text().splitlines()
    assert pairs[:5] == ["5", "0", "1 1 1.0", "1", "2 0 2.0 2 1.0"]
    assert (tmp_path / "o" / "names.txt").read_text().splitlines()[0] == "00000000 left/0 a.jpg"


def test_exr(estimates, tmp_path) -> None:
    import OpenEXR

    export_estimates(estimates, "exr", tmp_path / "o", unit="m")
    told = json.loads((tmp_path / "o" / "cameras.json").read_text())
    for entry, found in zip(told["views"], estimates, strict=True):
        with OpenEXR.File(str(tmp_path / "o" / entry["exr_file"]), separate_channels=True) as file:
            channels = {name: channel.pixels for name, channel in file.channels().items()}
        assert channels.keys() == {"Z", "N.X", "N.Y", "N.Z"}
        assert {values.dtype for values in channels.values()} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(np.stack([channels[f"N.{axis}"] for axis in "XYZ"], axis=-1), found.normal)
        assert_on_plane(lifted(np.array(entry["K"]), np.array(entry["cam_from_world"])), channels["Z"], 1e-6)


def test_transforms(estimates, tmp_path) -> None:
    said = export_estimates(estimates, "transforms", tmp_path / "o", unit="m", scale=1e-4)
    assert said[1] == "nerfstudio reads the depth with --depth-unit-scale-factor 0.0001"
    told = json.loads((tmp_path / "o" / "transforms.json").read_text())
    for frame in told["frames"]:
        assert (tmp_path / "o" / frame["file_path"]).is_file() and (frame["w"], frame["h"]) == (WIDTH, HEIGHT)
        depth = iio.imread(tmp_path / "o" / frame["depth_file_path"]) * told["integer_depth_scale"]
        world_from_gl = np.array(frame["transform_matrix"])

        def lift(at, z, frame=frame, world_from_gl=world_from_gl):
            """OpenGL axes: x right, y up, z backward; depth along -z."""
            x, y = (at[:, 0] - frame["cx"]) / frame["fl_x"], -(at[:, 1] - frame["cy"]) / frame["fl_y"]
            return transform(world_from_gl, np.stack([x * z, y * z, -z], axis=-1))

        assert_on_plane(lift, depth, 1e-4)


def test_images_keep_their_names_where_these_are_safe(estimates, tmp_path) -> None:
    names = [image_name(name) for name in NAMES]
    assert names[:3] == list(NAMES[:3]) and names[3] == "3.tif.png"
    assert "/" not in names[4] and image_name("a,b.png") != "a,b.png" and image_name("/a.png") != "/a.png"


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_a_folder_that_holds_something_is_left_alone(estimates, tmp_path, format) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        export_estimates(estimates, format, tmp_path / "o")
    assert [path.name for path in tmp_path.rglob("*")] == ["o", "mine.txt"]


def test_bad_requests(estimates, tmp_path) -> None:
    for arguments, message in (
        ({"format": "obj"}, "format must be one of colmap"),
        ({"format": "exr", "scale": 0.1}, "a scale is for 16-bit depth"),
        ({"format": "png16", "scale": -1}, "scale must be positive"),
    ):
        with pytest.raises(InputError, match=message):
            export_estimates(estimates, out=tmp_path / "o", **arguments)
    skewed = [replace(estimates[0], view=make_view("a.png", WIDTH, HEIGHT, 95, (0, 0, 0), (0, 0, 0)))]
    for format in ("colmap", "transforms"):
        with pytest.raises(InputError, match="skew"):
            export_estimates(skewed, format, tmp_path / "o")
    assert not list(tmp_path.iterdir())
