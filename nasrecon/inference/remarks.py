"""What is odd about a scene or an estimate although nothing failed: named in the summary of a run."""

from __future__ import annotations

from collections import Counter

import numpy as np

from nasrecon.types import Estimate, Scene

MIN_CONFIDENCE = 0.2
FLAT_LEVELS = 2
DARK, BRIGHT = 4, 251
SAME_POSE = 1e-9

Remark = tuple[str, str]


def scene_remarks(scene: Scene) -> list[Remark]:
    """Return (name, remark) of the views whose pose is that of an earlier view."""
    first: dict[bytes, str] = {}
    remarks = []
    for view in scene.views:
        scale = max(1.0, float(np.abs(view.cam_from_world[:3, 3]).max()))
        key = np.rint(view.cam_from_world / (SAME_POSE * scale)).tobytes()
        if key in first:
            remarks.append((view.name, f"it has one pose with {first[key]}; there is no depth between the two"))
        first.setdefault(key, view.name)
    return remarks + _size_remarks(scene)


def _size_remarks(scene: Scene) -> list[Remark]:
    """Name the images that share K with others but not their size; K belongs to one size."""
    sizes: dict[bytes, Counter[tuple[int, int]]] = {}
    for view in scene.views:
        sizes.setdefault(view.camera.K.tobytes(), Counter())[view.camera.width, view.camera.height] += 1
    remarks = []
    for view in scene.views:
        (width, height), _ = sizes[view.camera.K.tobytes()].most_common(1)[0]
        if (view.camera.width, view.camera.height) != (width, height):
            camera_size = f"{view.camera.width}x{view.camera.height}"
            remarks.append((view.name, f"the image is {camera_size}, most images with the same K are {width}x{height}"))
    return remarks


def estimate_remarks(estimate: Estimate) -> list[Remark]:
    """Return (name, remark) of an image without texture, an empty mask, and maps without a confident pixel."""
    rgb, name = estimate.rgb, estimate.view.name
    remarks = []
    low, high = int(rgb.min()), int(rgb.max())
    if high <= DARK:
        remarks.append((name, "the image is black"))
    elif low >= BRIGHT:
        remarks.append((name, "the image is white (blown out)"))
    elif int(np.ptp(rgb.reshape(-1, 3), axis=0).max()) <= FLAT_LEVELS:
        remarks.append((name, "the image has one colour only"))
    if not (estimate.depth > 0).any():
        why = "its mask keeps no pixel" if estimate.view.image.mask_path is not None else "no pixel has a depth"
        remarks.append((name, why))
    elif not (estimate.confidence >= MIN_CONFIDENCE).any():
        remarks.append((name, f"no pixel has a confidence of {MIN_CONFIDENCE:g} or more"))
    return remarks
