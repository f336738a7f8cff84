"""Names of the export formats; without numpy, so that the command line reads them at no cost."""

from __future__ import annotations

from typing import Literal, get_args

ExportFormat = Literal["colmap", "png16", "pfm", "exr", "transforms"]
EXPORT_FORMATS: tuple[str, ...] = get_args(ExportFormat)
