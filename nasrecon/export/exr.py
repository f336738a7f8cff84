"""Depth and normals as EXR: ``exr/<name>.exr``, float32 channels Z and N.X, N.Y, N.Z, and ``cameras.json``.

Pixel centres as here: K is for half-pixel centres (the first at 0.5), and each value belongs to its pixel's centre.
Z is the depth [scene units]; normals are unit, in the camera frame (x right, y down, z forward), facing the camera.
0 = no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nasrecon.export.files import camera_entry, map_name, write_cameras
from nasrecon.progress import Progress
from nasrecon.types import Estimate, Unit


def write(estimates: Sequence[Estimate], out: Path, unit: Unit, progress: Progress) -> tuple[str, ...]:
    """Write all views; returns the remarks for the user."""
    import OpenEXR

    (out / "exr").mkdir()
    entries = []
    for i, estimate in enumerate(estimates):
        progress.update("views", i, len(estimates))
        name = f"exr/{map_name(estimate, '.exr')}"
        channels = {"Z": np.ascontiguousarray(estimate.depth, dtype=np.float32)}
        for k, axis in enumerate("XYZ"):
            channels[f"N.{axis}"] = np.ascontiguousarray(estimate.normal[..., k], dtype=np.float32)
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, channels) as file:
            file.write(str(out / name))
        entries.append(camera_entry(estimate.view) | {"exr_file": name})
    progress.update("views", len(estimates), len(estimates))
    write_cameras(out / "cameras.json", entries, unit, channels="Z; N.X N.Y N.Z in the camera frame")
    return (f"{len(entries)} EXR files: Z [scene units] and N.X, N.Y, N.Z, float32",)
