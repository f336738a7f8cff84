"""A video's frames with transforms by their numbers: GIF always, other containers where PyAV is installed."""

from __future__ import annotations

import sys

import imageio.v3 as iio
import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.ingest import video
from nasrecon.ingest.images import read_view
from nasrecon.ingest.open_scene import open_scene

from . import worlds

COUNT = 40


def write_video(path, count=COUNT) -> None:
    """A clip of 32x24 whose frame number can be read from its brightness: 6 grey levels a frame."""
    frames = np.repeat(np.arange(count, dtype=np.uint8) * 6, 24 * 32 * 3).reshape(count, 24, 32, 3)
    if path.suffix == ".gif":
        iio.imwrite(path, frames)
    else:
        pytest.importorskip("av", reason="PyAV is not installed")
        iio.imwrite(path, frames, plugin="pyav", codec="mpeg4", fps=10)


def brightness(view) -> int:
    rgb, _ = read_view(view)
    assert rgb.shape == (24, 32, 3) and rgb.dtype == np.uint8
    return round(float(rgb.mean()) / 6)


def transforms(count=COUNT):
    views = worlds.small_scene(5).views
    out = np.tile(np.eye(4), (count, 1, 1))
    out[:, :3] = [views[i % 5].cam_from_world[:3] for i in range(count)]
    out[:, 0, 3] = np.arange(count)
    return out


@pytest.mark.parametrize("ending", [".gif", ".mp4", ".mkv"])
def test_frames_of_one_file_of_matrices(ending, tmp_path) -> None:
    clip = tmp_path / f"clip{ending}"
    write_video(clip)
    matrices = transforms()
    np.savetxt(tmp_path / "poses.txt", matrices.reshape(-1, 16))
    (tmp_path / "K.txt").write_text("30 30 16 12")
    scene = open_scene(clip, convention="cam-from-world")
    assert scene.origin.images == f"40 of 40 frames of clip{ending}" and scene.root == tmp_path
    for i in (17, 39):
        view = scene.views[i]
        assert (view.name, view.image.video_frame, view.camera.width) == (f"{i:06d}", i, 32)
        np.testing.assert_allclose(view.cam_from_world, matrices[i], atol=1e-12)
        assert brightness(view) == i
    np.savetxt(tmp_path / "poses.txt", matrices[1:].reshape(-1, 16))
    with pytest.raises(InputError, match=r"poses.txt: expected one 4x4 or 3x4 matrix for each of the 40 images"):
        open_scene(clip, convention="cam-from-world")


def test_frames_by_the_numbers_of_files_and_of_a_trajectory(tmp_path) -> None:
    clip = tmp_path / "clip.gif"
    write_video(clip)
    matrices = transforms()
    (tmp_path / "cams").mkdir()
    for i in (4, 12, 31):
        np.savetxt(tmp_path / "cams" / f"{i:06d}.txt", matrices[i])
    blocks = [
        f"{i} {i} {i}\n" + "\n".join(" ".join(map(repr, row.tolist())) for row in matrices[i]) for i in (4, 12, 31)
    ]
    (tmp_path / "trajectory.log").write_text("\n".join(blocks) + "\n")
    (tmp_path / "K.txt").write_text("30 30 16 12")
    given = {"intrinsics": tmp_path / "K.txt", "convention": "cam-from-world"}
    for poses in ("cams", "trajectory.log"):
        scene = open_scene(clip, tmp_path / poses, **given)
        assert [view.image.video_frame for view in scene.views] == [4, 12, 31]
        assert [brightness(view) for view in scene.views] == [4, 12, 31]
        np.testing.assert_allclose(scene.views[1].cam_from_world, matrices[12], atol=1e-12)
        assert len(scene.dropped) == 37


def test_what_a_video_cannot_be_is_said(tmp_path, monkeypatch) -> None:
    write_video(tmp_path / "clip.gif")
    np.savetxt(tmp_path / "poses.txt", transforms().reshape(-1, 16))
    with pytest.raises(InputError, match="a video; COLMAP model is read with a folder of images only"):
        open_scene(tmp_path / "clip.gif", format="colmap")
    with pytest.raises(InputError, match="frame 40 cannot be read"):
        video.read_frame(tmp_path / "clip.gif", 40)
    (tmp_path / "bad.gif").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"bad.gif: cannot be read as a video"):
        open_scene(tmp_path / "bad.gif", convention="cam-from-world")
    (tmp_path / "notes.pdf").write_bytes(b"")
    with pytest.raises(InputError, match="expected a folder of images or a video, found a file"):
        open_scene(tmp_path / "notes.pdf")
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "clip.mp4").write_bytes(b"")
    with pytest.raises(InputError, match=r"needs PyAV, which is not installed: pip install av"):
        open_scene(tmp_path / "clip.mp4", convention="cam-from-world")


def test_a_broken_container_is_named(tmp_path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match=r"clip.mp4: cannot be read as a video"):
        video.frame_count(tmp_path / "clip.mp4")
