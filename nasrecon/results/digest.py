"""A hash of all that the estimates of a scene depend on."""

from __future__ import annotations

import hashlib

import numpy as np

from nasrecon.types import Scene


def scene_digest(scene: Scene, given_poses: np.ndarray | None = None) -> str:
    """Return a hash of what the estimates of a scene depend on: names, cameras, sparse points, sizes of the files,
    masks.

    Sources and depth ranges count where they were read with the scene, not where they were found in it. The place of
    the scene is not part of it. ``given_poses`` (N, 4, 4): those that were read, where poses were refined.
    """
    digest = hashlib.sha256()
    for i, view in enumerate(scene.views):
        size = view.image_path.stat().st_size if view.image_path.exists() else -1
        digest.update(f"{view.name}|{view.camera.width}x{view.camera.height}|{size}|{view.lens}|".encode())
        digest.update(view.camera.K.tobytes() + view.cam_from_world.tobytes())
        if given_poses is not None:
            digest.update(given_poses[i].tobytes())
        if view.sources is not None or view.video_frame is not None or view.depth_range is not None:
            digest.update(f"{view.sources}|{view.video_frame}|{view.depth_range}".encode())
        if view.mask_path is not None:
            digest.update(view.mask_path.read_bytes() if view.mask_path.is_file() else b"no mask")
    if scene.points_in_world is not None:
        digest.update(np.ascontiguousarray(scene.points_in_world, dtype=np.float64).tobytes())
    return digest.hexdigest()
