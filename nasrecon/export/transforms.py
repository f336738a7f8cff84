"""``transforms.json`` with images and 16-bit depth, for nerfstudio (and instant-ngp).

``transform_matrix`` is world_from_cam with OpenGL's axes (x right, y up, z backward); each frame has its own
intrinsics. Pixel centres: cx and cy are for half-pixel centres, as nerfstudio shoots its rays through x + 0.5. Depth
is z in the camera, 16-bit PNG, 0 = no value: ``integer_depth_scale`` scene units a step, which nerfstudio takes as
``--depth-unit-scale-factor`` (its default is 0.001).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError, plural
from nasrecon.export.files import image_name, map_name, write_image
from nasrecon.export.png16 import DepthImages, choose_scale
from nasrecon.progress import Progress
from nasrecon.types import Estimate, Unit, View

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
NERFSTUDIO_SCALE = 1e-3


def write(
    estimates: Sequence[Estimate], out: Path, unit: Unit, given: float | None, progress: Progress
) -> tuple[str, ...]:
    """Write all views; returns lines for people."""
    depths = DepthImages(choose_scale(estimates, unit, given))
    frames, scale = [], depths.scale
    for i, estimate in enumerate(estimates):
        progress.update("views", i, len(estimates))
        image = f"images/{image_name(estimate.view.name)}"
        depth = f"depth/{map_name(estimate, '.png')}"
        write_image(out / image, estimate.rgb)
        depths.write(out / depth, estimate.depth)
        frames.append(frame(estimate.view) | {"file_path": image, "depth_file_path": depth, "depth_path": depth})
    progress.update("views", len(estimates), len(estimates))
    depths.refuse_lost()
    content = {"camera_model": "OPENCV", "integer_depth_scale": scale.units_per_step, "frames": frames}
    (out / "transforms.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = [f"{plural(len(frames), 'frame')} in transforms.json, depth as 16-bit PNG, {scale.words}"]
    if scale.units_per_step != NERFSTUDIO_SCALE:
        text.append(f"nerfstudio reads the depth with --depth-unit-scale-factor {scale.units_per_step:g}")
    return *text, *depths.saturation()


def frame(view: View) -> dict[str, Any]:
    """Return a view's intrinsics and ``transform_matrix``.

    Raises:
        InputError: if the camera has skew, which the format cannot say.
    """
    K = view.camera.K
    if K[0, 1] != 0:
        raise InputError(f"{view.name}: K has skew ({K[0, 1]:g}); transforms.json has no place for it")
    return {
        "w": view.camera.width,
        "h": view.camera.height,
        "fl_x": K[0, 0],
        "fl_y": K[1, 1],
        "cx": K[0, 2],
        "cy": K[1, 2],
        "transform_matrix": (view.world_from_cam @ OPENCV_FROM_OPENGL).tolist(),
    }
