"""Frames of a video without cameras: sharp ones, from places that differ, written once."""

from __future__ import annotations

import struct

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image, ImageFilter
from recorder import Recorder

from nasrecon.errors import InputError
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.read import read_scene
from nasrecon.sfm.video_frames import MIN_MOTION, motion, write_frames

RANDOM = np.random.default_rng(0)
WALL = Image.fromarray(RANDOM.integers(0, 255, (40, 120, 3), dtype=np.uint8)).resize(
    (960, 320), Image.Resampling.BICUBIC
)
STILL_FROM, STILL_TO = 20, 30


def picture(number: int) -> Image.Image:
    """A camera that moves along a wall, stands still from frame 20 to 30, and is sharp in each fifth frame only."""
    at = 8 * (min(number, STILL_FROM) + max(number - STILL_TO, 0))
    frame = WALL.crop((at, 0, at + 320, 320))
    return frame if number % 5 == 3 else frame.filter(ImageFilter.GaussianBlur(4))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    pytest.importorskip("av", reason="PyAV is not installed")
    path = tmp_path_factory.mktemp("video") / "Gang 1.mp4"
    frames = np.stack([np.asarray(picture(i)) for i in range(50)])
    iio.imwrite(path, frames, plugin="pyav", codec="mpeg4", fps=10)
    return path


def test_the_sharpest_frames_of_a_moving_camera_are_taken(clip, tmp_path) -> None:
    notes = Recorder()
    folder = write_frames(clip, tmp_path / "out" / "frames", 1, notes)  # ten a second: one of five
    numbers = [int(path.stem) for path in sorted(folder.glob("*.jpg"))]
    assert numbers == [3, 8, 13, 18, 23, 33, 38, 43, 48]  # 28 shows what 23 shows
    assert "9 of 50 frames are taken, the sharpest of every 5" in notes.notes[-1]
    before = (folder / "000003.jpg").stat().st_mtime_ns
    write_frames(clip, folder, 1, notes)
    assert (folder / "000003.jpg").stat().st_mtime_ns == before and "in an earlier run" in notes.notes[-1]
    with pytest.raises(InputError, match="frames of another video, or of another --every"):
        write_frames(clip, folder, 10, notes)
    write_frames(clip, folder, 10, notes, redo=True)
    assert 4 <= len(list(folder.glob("*.jpg"))) <= 5


def test_motion_is_measured_in_widths_of_the_picture() -> None:
    def grey(number: int) -> np.ndarray:
        return np.asarray(picture(number).convert("L"), dtype=np.float32)[:256, :256]

    assert motion(grey(3), grey(3)) == 0
    assert abs(motion(grey(3), grey(8)) - 40 / 256) > MIN_MOTION  # beyond half a block it only counts as moved
    assert motion(grey(3), np.roll(grey(3), 8, axis=1)) == pytest.approx(8 / 256, abs=0.005)


def test_a_phone_held_upright_gives_upright_frames(tmp_path) -> None:
    """Its video is stored sideways, with a matrix that turns it clockwise for showing."""
    pytest.importorskip("av", reason="PyAV is not installed")
    upright = np.full((240, 160, 3), 60, np.uint8)
    upright[:80, :80] = 250  # bright at the top left
    path, stored = tmp_path / "a.mov", np.rot90(upright)
    iio.imwrite(path, np.stack([stored] * 4), plugin="pyav", codec="mpeg4", fps=10)
    content, one = path.read_bytes(), 1 << 16
    as_stored = struct.pack(">9i", one, 0, 0, 0, one, 0, 0, 0, 1 << 30)
    clockwise = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    at = content.index(as_stored, content.index(b"tkhd"))
    path.write_bytes(content[:at] + clockwise + content[at + len(clockwise) :])
    (frame,) = write_frames(path, tmp_path / "frames", 1, Recorder()).glob("*.jpg")
    rgb = np.asarray(Image.open(frame)).astype(int)
    assert rgb.shape == upright.shape and np.abs(rgb - upright).mean() < 12


def test_a_video_without_cameras_goes_to_structure_from_motion_by_its_frames(clip, tmp_path, monkeypatch) -> None:
    def reconstruct_cameras(images, folder, *, every, **_):
        raise InputError(f"{images.name}: {len(list(images.glob('*.jpg')))} images, every {every}, to {folder.name}")

    monkeypatch.setattr("nasrecon.prepare.read.reconstruct_cameras", reconstruct_cameras)
    for every, count in ((1, 9), (10, 5)):
        work_dir, notes = tmp_path / f"out {every}", Recorder()
        with pytest.raises(InputError, match=f"frames: {count} images, every 1, to sfm"):
            read_scene(clip, None, PrepareOptions(every=every), notes, work_dir=work_dir)
        assert f"{count} of 50 frames are taken" in notes.notes[-1]
    with pytest.raises(InputError, match="name a folder for its frames"):
        read_scene(clip, None, PrepareOptions(), Recorder())
