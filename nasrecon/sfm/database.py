"""Features and matches of image files in a COLMAP database, through pycolmap, on the CPU.

The images are staged first (``sfm.photos``): under plain names (000000.jpg ...) in one folder, because they may lie
anywhere and COLMAP's lists of pairs break at a space in a name.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasrecon.matching.pairs import LARGEST_FEATURES, pairs_without_cameras
from nasrecon.progress import Progress

MAX_IMAGE_SIDE_PX = 1600
MAX_FEATURES = 6000

LOG = "colmap.log"
POLL_S = 0.5
REPORTS, MIN_PAIRS_AT_ONCE = 40, 16
"""Pairs are matched in so many parts, of so many pairs at least, with a report after each."""


@dataclass(frozen=True, kw_only=True)
class CameraGroup:
    """Images that share a camera: positions among the staged ones, COLMAP's model, and its parameters [px] if known."""

    members: tuple[int, ...]
    model: str = "SIMPLE_RADIAL"
    params: tuple[float, ...] | None = None


@contextmanager
def quiet(log: Path) -> Iterator[None]:
    """Send what C++ code prints to stderr to the end of a file; pycolmap's log lines cannot be switched off."""
    sys.stderr.flush()
    kept = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)


@contextmanager
def counted(log: Path, mark: bytes, task: str, total: int, progress: Progress) -> Iterator[None]:
    """Report how many lines with a mark COLMAP's log gains, once every ``POLL_S``.

    The database itself cannot be asked: two copies of SQLite in one process lose each other's locks.
    """
    ended = threading.Event()
    start = log.stat().st_size if log.is_file() else 0

    def watch() -> None:
        while not ended.wait(POLL_S):
            if log.is_file():
                with log.open("rb") as opened:
                    opened.seek(start)
                    progress.update(task, min(opened.read().count(mark), total), total)

    progress.update(task, 0, total)
    watcher = threading.Thread(target=watch, name="nasrecon-sfm-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
    progress.update(task, total, total)


def extract(
    database: Path, folder: Path, names: Sequence[str], groups: Sequence[CameraGroup], progress: Progress
) -> None:
    """Find SIFT features in staged images, at most ``MAX_IMAGE_SIDE_PX`` wide; each group gets a camera of its own."""
    with counted(database.with_name(LOG), b"Processed file [", "features", len(names), progress):
        _extract(database, folder, names, groups)


def _extract(database: Path, folder: Path, names: Sequence[str], groups: Sequence[CameraGroup]) -> None:
    import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.max_image_size = MAX_IMAGE_SIDE_PX
    options.sift.max_num_features = MAX_FEATURES
    options.num_threads = _threads()
    for group in groups:
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = group.model
        if group.params is not None:
            reader.camera_params = ",".join(f"{value:.17g}" for value in group.params)
        pycolmap.extract_features(
            database,
            folder,
            image_names=[names[i] for i in group.members],
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )


def match(database: Path, pairs: Sequence[tuple[str, str]], progress: Progress) -> None:
    """Match the features of pairs of staged images and keep the matches that one motion explains."""
    import pycolmap

    listed = database.with_name("pairs.txt")
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = listed
    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = _threads()
    step = max(MIN_PAIRS_AT_ONCE, -(-len(pairs) // REPORTS))
    for start in range(0, len(pairs), step):
        progress.update("pairs matched", start, len(pairs))
        listed.write_text("".join(f"{a} {b}\n" for a, b in pairs[start : start + step]))
        pycolmap.match_image_pairs(
            database, matching_options=options, pairing_options=pairing, device=pycolmap.Device.cpu
        )
    progress.update("pairs matched", len(pairs), len(pairs))


def _threads() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_pairs(database: Path, names: Sequence[str]) -> list[tuple[str, str]]:
    """Choose the pairs of staged images to match (``matching.pairs``)."""
    pairs = pairs_without_cameras(len(names), lambda i: _largest_descriptors(database, names[i]))
    return [(names[i], names[j]) for i, j in sorted(pairs)]


def _largest_descriptors(database: Path, name: str) -> np.ndarray:
    """Return the unit descriptors (at most LARGEST_FEATURES, 128) float32 of an image's largest features."""
    import pycolmap

    with pycolmap.Database.open(database) as opened:
        image = opened.read_image_with_name(name)
        if image is None or not opened.exists_descriptors(image.image_id):
            return np.empty((0, 128), dtype=np.float32)
        keypoints = np.asarray(opened.read_keypoints(image.image_id))
        descriptors = np.asarray(opened.read_descriptors(image.image_id).data, dtype=np.float32)
    largest = np.argsort(-np.hypot(keypoints[:, 2], keypoints[:, 4]), kind="stable")[:LARGEST_FEATURES]
    chosen = descriptors[largest]
    return chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1e-9)


def verified_pairs(database: Path) -> list[tuple[str, str]]:
    """Return the pairs of staged images that have matches that one motion explains."""
    import pycolmap

    with pycolmap.Database.open(database) as opened:
        names = {image.image_id: image.name for image in opened.read_all_images()}
        pair_ids, inliers = opened.read_two_view_geometry_num_inliers()
    pairs = [pair for pair, count in zip(pair_ids, inliers, strict=True) if count]
    ids = [pair if isinstance(pair, tuple) else pycolmap.pair_id_to_image_pair(pair) for pair in pairs]
    return [(names[a], names[b]) for a, b in ids]
