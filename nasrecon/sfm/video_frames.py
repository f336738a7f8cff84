"""Frames of a video that structure from motion can use: sharp ones, from places that differ.

The video is decoded once. Of every stretch of frames the sharpest is a candidate; a candidate whose picture has moved
less than ``MIN_MOTION`` of its width since the last frame that was taken is passed over.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest import video
from nasrecon.progress import Progress

PER_SECOND, MAX_FRAMES = 2.0, 200
MIN_MOTION = 0.01
THUMB_SIDE_PX, BLOCK_PX = 256, 64
MADE_FROM = "frames.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Candidate:
    number: int
    laplacian: float
    thumb: np.ndarray
    rgb: np.ndarray


def write_frames(path: Path, folder: Path, every: int, progress: Progress, *, redo: bool = False) -> Path:
    """Write the frames of a video that are worth taking as images into a folder, and return it.

    Args:
        path: the video.
        folder: where they go, under the frames' numbers (``000012.jpg``); used again where it holds those of the same
            video.
        every: the length of the stretches of which one frame is taken; 1: about ``PER_SECOND`` frames a second,
            ``MAX_FRAMES`` at most.
        progress: receives the reports.
        redo: write them anew where the folder holds those of another video.

    Raises:
        InputError: if the video cannot be read, or the folder holds other files.
    """
    count, rate = video.frame_count(path), video.frame_rate(path)
    stretch = every if every > 1 else max(1, round(rate / PER_SECOND), -(-count // MAX_FRAMES))
    made_from = {"video": path.name, "bytes": path.stat().st_size, "frames": count, "stretch": stretch}
    if folder.exists():
        if _made_from(folder) == made_from:
            progress.note(f"frames of {path.name}: {len(list(folder.glob('*.jpg')))} taken in an earlier run")
            return folder
        if not redo:
            raise InputError(
                f"{folder}: it holds frames of another video, or of another --every; give another --out, or "
                "--overwrite to take them anew"
            )
        shutil.rmtree(folder)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        taken = _take(path, part, count, stretch, progress)
        (part / MADE_FROM).write_text(json.dumps(made_from) + "\n", encoding="utf-8")
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    progress.note(
        f"{path.name}: {taken} of {count} frames are taken, the sharpest of every {stretch}, "
        f"without those that hardly differ from the one before"
    )
    return folder


def _made_from(folder: Path) -> object:
    try:
        return json.loads((folder / MADE_FROM).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _take(path: Path, folder: Path, count: int, stretch: int, progress: Progress) -> int:
    """Write the chosen frames; return how many."""
    from PIL import Image

    best: _Candidate | None = None
    last: np.ndarray | None = None
    taken = 0
    for number, rgb in enumerate(video.iterate_frames(path)):
        thumb = _thumb(rgb)
        laplacian = _laplacian(thumb)
        if best is None or laplacian > best.laplacian:
            best = _Candidate(number=number, laplacian=laplacian, thumb=thumb, rgb=rgb)
        if (number + 1) % stretch and number + 1 < count:
            continue
        if last is None or motion(last, best.thumb) >= MIN_MOTION:
            Image.fromarray(best.rgb).save(folder / f"{best.number:06d}.jpg", quality=95, subsampling=0)
            last, taken = best.thumb, taken + 1
        best = None
        progress.update("frames", min(number + 1, count), count)
    return taken


def _thumb(rgb: np.ndarray) -> np.ndarray:
    """Return a grey float32 picture whose longer side is ``THUMB_SIDE_PX`` at most, by pixel areas."""
    step = -(-max(rgb.shape[:2]) // THUMB_SIDE_PX)
    height, width = (side // step * step for side in rgb.shape[:2])
    blocks = rgb[:height, :width, 1].reshape(height // step, step, width // step, step)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def _laplacian(thumb: np.ndarray) -> float:
    """Return the variance of the Laplacian."""
    inner = thumb[1:-1, 1:-1]
    if not inner.size:
        return 0.0
    return float(np.var(thumb[:-2, 1:-1] + thumb[2:, 1:-1] + thumb[1:-1, :-2] + thumb[1:-1, 2:] - 4 * inner))


def motion(before: np.ndarray, after: np.ndarray) -> float:
    """Return how far the blocks of a picture (h, w) moved: the upper quartile, as a part of its width.

    Blocks are found again by phase correlation. What is near moves more than what is far, so the upper quartile also
    finds a camera that moves past a still background.
    """
    side = min(BLOCK_PX, *before.shape)
    window = np.outer(np.hanning(side), np.hanning(side))
    shifts = []
    for y in range(0, before.shape[0] - side + 1, side):
        for x in range(0, before.shape[1] - side + 1, side):
            a, b = (picture[y : y + side, x : x + side] for picture in (before, after))
            if a.std() < 2 or b.std() < 2:  # nothing to be found again
                continue
            cross = np.fft.rfft2((b - b.mean()) * window) * np.conj(np.fft.rfft2((a - a.mean()) * window))
            peak = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-6), s=(side, side))
            row, column = np.unravel_index(int(peak.argmax()), peak.shape)
            shifts.append(np.hypot(min(row, side - row), min(column, side - column)))
    return float(np.quantile(shifts, 0.75)) / before.shape[1] if shifts else 1.0
