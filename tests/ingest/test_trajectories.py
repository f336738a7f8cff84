"""Redwood's and TUM's trajectories: which transform belongs to which image, and whose intrinsics."""

from __future__ import annotations

import json
import re
import warnings

import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.geometry import rotation_angle_deg
from nasrecon.ingest.formats.tum import FREIBURG
from nasrecon.ingest.open_scene import open_scene

from . import worlds


def assert_same(found, true, atol=1e-9) -> None:
    np.testing.assert_allclose(found.cam_from_world, true.cam_from_world, atol=atol)


def test_redwood_images_are_matched_by_their_numbers(tmp_path) -> None:
    truth = worlds.small_scene(6)
    worlds.write_redwood(truth, tmp_path)
    for i in (0, 2, 3, 5):
        (tmp_path / "image" / f"{i:04d}.png").unlink()
    scene = open_scene(tmp_path)
    assert [view.name for view in scene.views] == ["0001.png", "0004.png"]
    for view, i in zip(scene.views, (1, 4), strict=True):
        assert_same(view, truth.views[i])
    assert [name for name, _ in scene.dropped] == [f"trajectory.log block {i + 1}" for i in (0, 2, 3, 5)]


def test_redwood_blocks_go_by_their_own_numbers(tmp_path) -> None:
    truth = worlds.small_scene(3)
    worlds.write_redwood(truth, tmp_path)
    log = tmp_path / "trajectory.log"
    blocks = log.read_text()
    for i in range(3):
        (tmp_path / "image" / f"{i:04d}.png").rename(tmp_path / "image" / f"{10 * (2 - i):04d}.png")
        blocks = re.sub(rf"(?m)^{i} {i} {i + 1}$", f"{10 * (2 - i)} 7 7", blocks)
    log.write_text(blocks)
    for view, true in zip(open_scene(tmp_path).views, reversed(truth.views), strict=True):
        assert_same(view, true)


@pytest.mark.parametrize("rename", ["shot_{:03d}", "{:c}"], ids=["from 1", "letters"])
def test_redwood_images_with_other_numbers_are_matched_in_order(rename, tmp_path) -> None:
    truth = worlds.small_scene(4)
    worlds.write_redwood(truth, tmp_path)
    for i in range(4):
        path = tmp_path / "image" / f"{i:04d}.png"
        path.rename(path.with_name(rename.format(i + (1 if "shot" in rename else 97)) + ".png"))
    scene = open_scene(tmp_path)
    assert len(scene.views) == 4 and not scene.dropped
    for view, true in zip(scene.views, truth.views, strict=True):
        assert_same(view, true)


def test_redwood_refuses_to_guess_which_is_which(tmp_path) -> None:
    worlds.write_redwood(worlds.small_scene(4), tmp_path)
    for i in range(3):
        path = tmp_path / "image" / f"{i:04d}.png"
        path.rename(path.with_name(f"{'abc'[i]}.png"))
    (tmp_path / "image" / "0003.png").unlink()
    with pytest.raises(InputError, match="4 camera poses for 3 images"):
        open_scene(tmp_path)


def test_redwood_pixel_centres(tmp_path) -> None:
    worlds.write_redwood(worlds.small_scene(), tmp_path)
    path = tmp_path / "camera.json"
    fields = json.loads(path.read_text())
    K = np.array([[20.0, 0, 12], [0, 21, 8.25], [0, 0, 1]])
    for center, shift in ((0.0, 0.5), (0.5, 0.0), (None, 0.5)):
        fields["pixel_center_of_first"] = center
        path.write_text(json.dumps(fields))
        np.testing.assert_allclose(open_scene(tmp_path).views[0].camera.K[:2, 2], K[:2, 2] + shift)
    path.write_text(json.dumps({"width": 24, "height": 18, "intrinsic_matrix": K.T.ravel().tolist()}))  # Open3D
    K[:2, 2] += 0.5
    np.testing.assert_allclose(open_scene(tmp_path).views[0].camera.K, K)
    path.write_text('{"width": 24}')
    with pytest.raises(InputError, match=r"camera.json: expected JSON with fx"):
        open_scene(tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="Pass the intrinsics"):
        open_scene(tmp_path)


def test_a_log_that_is_cut_short_is_refused(tmp_path) -> None:
    worlds.write_redwood(worlds.small_scene(), tmp_path)
    log = tmp_path / "trajectory.log"
    log.write_text(log.read_text()[:-200])
    with pytest.raises(InputError, match=r"trajectory.log: expected blocks of 3 \+ 16"):
        open_scene(tmp_path)


def write_line(folder, times) -> None:
    """A camera that moves along x at 1 m/s and turns about z at 0.2 rad/s."""
    rows = [[t, t, 0, 0, 0, 0, np.sin(0.1 * t), np.cos(0.1 * t)] for t in times]
    rows[3] = [*rows[3][:4], *(-np.array(rows[3][4:]))]  # the same rotation
    np.savetxt(folder / "groundtruth.txt", rows[::-1], fmt="%.9f")


def test_tum_takes_the_transform_at_the_images_time(tmp_path) -> None:
    truth = worlds.small_scene(3)
    times = {"0000.png": 1.000, "0001.png": 1.512, "0002.png": 2.03}
    worlds.write_images(truth, tmp_path, lambda name: f"{times[name]:.3f}.png")
    write_line(tmp_path, [0.99, 1.015, 1.5, 1.52, 2.0])
    (tmp_path / "K.txt").write_text("20 21 12 8.25")
    scene = open_scene(tmp_path)
    assert [view.name for view in scene.views] == ["1.000.png", "1.512.png"]
    for view, time in zip(scene.views, (1.0, 1.512), strict=True):
        np.testing.assert_allclose(view.center_in_world, [time, 0, 0], atol=1e-9)
        np.testing.assert_allclose(rotation_angle_deg(view.cam_from_world[:3, :3]), np.degrees(0.2 * time), atol=1e-4)
        np.testing.assert_allclose(view.camera.K[:2, 2], [12.5, 8.75])
    assert scene.dropped == (("2.030.png", "no transform within 20 ms of its time in groundtruth.txt"),)
    assert scene.origin.intrinsics == "K.txt"


@pytest.mark.parametrize("which", [1, 2, 3])
def test_tum_knows_the_freiburg_cameras_by_the_header(which, tmp_path) -> None:
    worlds.write_tum(worlds.small_scene(), tmp_path)
    (tmp_path / "K.txt").unlink()
    path = tmp_path / "groundtruth.txt"
    with pytest.raises(InputError, match=r"freiburg1, 2 or 3. Pass the intrinsics"):
        open_scene(tmp_path)
    path.write_text(f"# file: 'rgbd_dataset_freiburg{which}_desk.bag'\n" + path.read_text())
    scene = open_scene(tmp_path)
    assert f"freiburg{which}" in scene.origin.intrinsics
    (fx, fy, cx, cy), distortion = FREIBURG[which]
    view = scene.views[0]
    np.testing.assert_allclose(np.diag(view.camera.K)[:2], [fx, fy])
    if distortion is None:
        np.testing.assert_allclose(view.camera.K[:2, 2], [cx + 0.5, cy + 0.5])
        assert view.image.lens is None
    else:
        assert view.image.lens.params[:4] == (fx, fy, cx + 0.5, cy + 0.5)
        assert view.image.lens.params[4:9] == distortion


def test_tum_without_any_match_says_so(tmp_path) -> None:
    worlds.write_tum(worlds.small_scene(), tmp_path)
    table = np.loadtxt(tmp_path / "groundtruth.txt")
    np.savetxt(tmp_path / "groundtruth.txt", table + np.array([1000, 0, 0, 0, 0, 0, 0, 0]))
    with pytest.raises(InputError, match="no image has both a file and a transform at its time"):
        open_scene(tmp_path)


def test_tum_rows_without_a_finite_position_are_left_out(tmp_path) -> None:
    """A row with an infinite position gives no pose; the frame at its time is named with the reason."""
    worlds.write_tum(worlds.small_scene(), tmp_path)
    path = next(tmp_path.rglob("groundtruth.txt"))
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    words = lines[first].split()
    lines[first] = " ".join([words[0], "1e400", *words[2:]])
    path.write_text("\n".join(lines))
    whole = len(worlds.small_scene().views)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scene = open_scene(tmp_path)
    assert len(scene.views) == whole - 1 and len(scene.dropped) == 1
