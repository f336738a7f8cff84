"""A hash of all that the estimates of a scene depend on."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from nasrecon.types import Scene


def scene_digest(scene: Scene, given_poses: np.ndarray | None = None) -> str:
    """Return a hash of what the estimates of a scene depend on: names, cameras, sparse points, images, masks.

    Sources and depth ranges count where they were read with the scene, not where they were found in it. The place of
    the scene is not part of it. ``given_poses`` (N, 4, 4): those that were read, where poses were refined.
    """
    digest = hashlib.sha256()
    for i, view in enumerate(scene.views):
        digest.update(
            f"{view.name}|{view.camera.width}x{view.camera.height}|{file_digest(view.image.path)}|{view.image.lens}|".encode()
        )
        digest.update(view.camera.K.tobytes() + view.cam_from_world.tobytes())
        if given_poses is not None:
            digest.update(given_poses[i].tobytes())
        sources = scene.hints.sources.get(view.name)
        depth_range = view.depth_range or scene.hints.depth_ranges.get(view.name)
        if sources is not None or view.image.video_frame is not None or depth_range is not None:
            digest.update(f"{sources}|{view.image.video_frame}|{depth_range}".encode())
        if view.image.is_turned:
            digest.update(f"turned by EXIF orientation {view.image.orientation}".encode())
        if view.image.mask_path is not None:
            digest.update(view.image.mask_path.read_bytes() if view.image.mask_path.is_file() else b"no mask")
    if scene.points_in_world is not None:
        digest.update(np.ascontiguousarray(scene.points_in_world, dtype=np.float64).tobytes())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """Return the sha256 (hex) of the content of a file, "" without one; it is read once while it stays the same."""
    try:
        state = path.stat()
        return _digest_of(path, state.st_size, state.st_mtime_ns, state.st_ino) if path.is_file() else ""
    except OSError:
        return ""


@lru_cache(maxsize=100_000)
def _digest_of(path: Path, size: int, changed_at: int, inode: int) -> str:
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
