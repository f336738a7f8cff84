"""The frames of a video, through imageio: GIF by Pillow, all else by PyAV, which is an extra (``nasrecon[video]``)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError, in_words

ENDINGS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".gif")


def is_video(path: Path) -> bool:
    """Say whether a file is a video, by its ending."""
    return path.suffix.lower() in ENDINGS


def frame_count(path: Path) -> int:
    """Return how many frames a video has.

    Raises:
        InputError: if it cannot be read, or PyAV is missing.
    """
    return _properties(path)[0]


def frame_size(path: Path) -> tuple[int, int]:
    """Return (width, height) [px] of a video's frames.

    Raises:
        InputError: if it cannot be read, or PyAV is missing.
    """
    _, width, height = _properties(path)
    return width, height


def read_frame(path: Path, number: int) -> np.ndarray:
    """Read one frame, counted from 0, as rgb (H, W, 3) uint8.

    Raises:
        InputError: if there is no such frame, the video cannot be read, or PyAV is missing.
    """
    import imageio.v3 as iio

    plugin = _plugin(path)
    wanted = {"mode": "RGB"} if plugin == "pillow" else {"format": "rgb24"}
    try:
        return np.ascontiguousarray(iio.imread(path, plugin=plugin, index=number, **wanted))
    except (OSError, ValueError, IndexError, EOFError, StopIteration) as error:
        raise InputError(f"{path}: frame {number} cannot be read ({in_words(error)})") from error


def frame_rate(path: Path) -> float:
    """Return the frames a second of a video; 10 where it does not state them.

    Raises:
        InputError: if it cannot be read, or PyAV is missing.
    """
    import imageio.v3 as iio

    plugin = _plugin(path)
    try:
        about = iio.immeta(path, plugin=plugin)
    except (OSError, ValueError, IndexError, StopIteration) as error:
        raise InputError(f"{path}: cannot be read as a video ({in_words(error)})") from error
    if plugin == "pillow":
        return 1000 / duration if (duration := float(about.get("duration") or 0)) > 0 else 10.0
    rate = float(about.get("fps") or 10)
    return rate if 0 < rate < 10_000 else 10.0


def iterate_frames(path: Path) -> Iterator[np.ndarray]:
    """Yield the frames of a video in order, as rgb (H, W, 3) uint8, turned upright as the video says; decoded once.

    Raises:
        InputError: if it cannot be read, or PyAV is missing.
    """
    import imageio.v3 as iio

    try:
        if _plugin(path) == "pillow":
            for rgb in iio.imiter(path, plugin="pillow", mode="RGB"):
                yield np.ascontiguousarray(rgb)
            return
        import av

        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for frame in container.decode(video=0):
                rgb = frame.to_ndarray(format="rgb24")
                yield np.ascontiguousarray(np.rot90(rgb, round(getattr(frame, "rotation", 0) / 90)))
    except (OSError, ValueError, IndexError, EOFError, StopIteration) as error:
        raise InputError(f"{path}: cannot be read as a video ({in_words(error)})") from error


def _properties(path: Path) -> tuple[int, int, int]:
    """Return the number of frames, and their width and height [px]."""
    return _properties_at(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache(maxsize=16)  # every frame of a video asks for its size
def _properties_at(path: Path, changed_at: int) -> tuple[int, int, int]:
    import imageio.v3 as iio

    try:
        if _plugin(path) == "pillow":
            from PIL import Image

            with Image.open(path) as image:
                return (getattr(image, "n_frames", 1), *image.size)
        count, height, width = iio.improps(path, plugin="pyav").shape[:3]
        return count or _packet_count(path), width, height
    except (OSError, ValueError, IndexError, StopIteration) as error:
        what = "cannot be read as a video" if path.is_file() else "no such file"
        by_pyav = path.is_file() and _plugin(path) != "pillow"  # whose own words name the library's insides
        reason = "PyAV finds no video in it: is the file whole?" if by_pyav else in_words(error)
        raise InputError(f"{path}: {what} ({reason})") from error


def _packet_count(path: Path) -> int:
    """Count the frames of a container whose header does not say (mkv, webm): nothing is decoded for it."""
    import av

    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def _plugin(path: Path) -> str:
    """Return imageio's plugin for a video."""
    if path.suffix.lower() == ".gif":
        return "pillow"
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{path}: reading a video needs PyAV, which is not installed: pip install av (or nasrecon[video]); "
            "or take its frames out as images"
        ) from error
    return "pyav"
