"""Pure edits of intrinsics and transforms, which the fixes and the injected faults share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nasrecon.errors import InputError
from nasrecon.types import Camera, Scene, View

FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])


def with_K(view: View, K: np.ndarray) -> View:
    if view.image.lens is not None:
        raise InputError(f"{view.name}: its lens distortion was removed with its own K; repair the camera file instead")
    return replace(view, camera=Camera(width=view.camera.width, height=view.camera.height, K=K))


def transposed(cam_from_world: np.ndarray) -> np.ndarray:
    out = cam_from_world.copy()
    out[:3, :3] = cam_from_world[:3, :3].T
    return out


def from_center(cam_from_world: np.ndarray) -> np.ndarray:
    out = cam_from_world.copy()
    out[:3, 3] = -cam_from_world[:3, :3] @ cam_from_world[:3, 3]
    return out


def scaled_K(camera: Camera, width: float, height: float) -> np.ndarray:
    return np.diag([camera.width / width, camera.height / height, 1.0]) @ camera.K


def swapped_focal(view: View) -> View:
    K = view.camera.K.copy()
    K[0, 0], K[1, 1] = K[1, 1], K[0, 0]
    return with_K(view, K)


def swapped_center(view: View) -> View:
    K = view.camera.K.copy()
    K[0, 2], K[1, 2] = K[1, 2], K[0, 2]
    return with_K(view, K)


def with_order(scene: Scene, order: Sequence[int]) -> Scene:
    """Return the scene in which view i has the transform that view ``order[i]`` had; K stays with the image."""
    transforms = [scene.views[k].cam_from_world for k in order]
    return scene.replace_views(
        [replace(view, cam_from_world=T) for view, T in zip(scene.views, transforms, strict=True)]
    )


def natural_order(scene: Scene) -> list[int]:
    """Return which transform each view has if they were listed by number (2 before 10), and the images by letter."""

    def key(i: int) -> list[tuple[int, int | str]]:
        return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", scene.views[i].name)]

    by_number = sorted(range(len(scene.views)), key=key)
    out = [0] * len(by_number)
    for k, i in enumerate(by_number):
        out[i] = k
    return out
