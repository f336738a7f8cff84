"""Refuse sizes that memory cannot hold before any work is done."""

from __future__ import annotations

from pathlib import Path

from nasrecon.errors import InputError
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.sizes import working_size
from nasrecon.types import Scene

BYTES_PER_PIXEL = 500
"""At least this much memory is used for each pixel of a view; measured were 515 to 2150 bytes, by network, size and
number of sources."""


def refuse_too_large(scene: Scene, options: EstimateOptions) -> None:
    """Refuse sizes whose maps do not fit into the memory that is free; a lower bound, so nothing that fits is refused.

    Raises:
        InputError: with the memory that is needed and the memory that is free.
    """
    free = free_memory()
    if free is None or not scene.views:
        return
    width, height = max(
        (working_size(view.camera, options) for view in scene.views), key=lambda side: side[0] * side[1]
    )
    needed = width * height * BYTES_PER_PIXEL
    if needed > free:
        raise InputError(
            f"maps of {width}x{height} need {needed / 1e9:.3g} GB of memory or more, {free / 1e9:.3g} GB are free; "
            "use a smaller --size or --max-side"
        )


def free_memory() -> int | None:
    """Return the memory that is available [bytes], None where the system does not say."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None
