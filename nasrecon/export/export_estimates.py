"""Estimates in other tools' formats: a COLMAP dense workspace, 16-bit PNG, PFM with MVSNet's cameras, EXR,
transforms.json.

Each format is a module with one function that writes into a folder and returns the remarks for the user. All keep
the size of the maps; pixel centres are stated in each module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nasrecon.atomic import replacing_folder
from nasrecon.errors import InputError
from nasrecon.export import colmap, exr, mvsnet, png16, transforms
from nasrecon.export.options import EXPORT_FORMATS, ExportFormat
from nasrecon.progress import LogProgress, Progress
from nasrecon.types import Estimate, Unit


def export_estimates(
    estimates: Sequence[Estimate],
    format: ExportFormat,
    out: str | Path,
    *,
    unit: Unit = "unknown",
    scale: float | None = None,
    progress: Progress | None = None,
) -> tuple[str, ...]:
    """Write estimates in another tool's format.

    Args:
        estimates: a results folder (``Results.open``), or any sequence of estimates; each is read a few times.
        format: one of ``EXPORT_FORMATS``.
        out: the folder to make.
        unit: of the scene.
        scale: scene units that one step of a 16-bit depth stands for (png16, transforms); default: a millimetre where
            the unit is known, else the finest power of ten that holds almost all depths.
        progress: receives the reports.

    Returns:
        lines for people: what was written, scales, pixels that did not fit.

    Raises:
        InputError: if there is no such format, nothing to export, the folder holds something already, or a scale is
            given that is not positive or that the format does not have.
    """
    out = Path(out)
    if format not in EXPORT_FORMATS:
        raise InputError(f"format must be one of {', '.join(EXPORT_FORMATS)}, found {format!r}")
    if not len(estimates):
        raise InputError("no view to export")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: it exists and is not empty; give another folder with --out, or remove it")
    if scale is not None and format not in ("png16", "transforms"):
        raise InputError(f"a scale is for 16-bit depth (png16, transforms); {format} holds float depth")
    if scale is not None and not 0 < scale < float("inf"):
        raise InputError(f"scale must be positive (scene units a step), found {scale}")
    with replacing_folder(out) as part:
        return _write(estimates, format, part, unit, scale, progress or LogProgress())


def _write(
    estimates: Sequence[Estimate], format: ExportFormat, part: Path, unit: Unit, scale: float | None, progress: Progress
) -> tuple[str, ...]:
    if format == "colmap":
        return colmap.write(estimates, part, progress)
    if format == "png16":
        return png16.write(estimates, part, unit, scale, progress)
    if format == "pfm":
        return mvsnet.write(estimates, part, progress)
    if format == "exr":
        return exr.write(estimates, part, unit, progress)
    return transforms.write(estimates, part, unit, scale, progress)
