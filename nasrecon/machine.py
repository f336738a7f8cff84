"""The memory of the machine and of this process."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path


def free_memory() -> int | None:
    """Return the memory that is available [bytes], None where the system does not say."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):
        return None


def physical_memory() -> float:
    """Return the machine's memory [bytes]; infinity where the system does not say."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")


def release_freed_memory() -> None:
    """Hand memory that was freed back to the system, where the C library is glibc."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:
        trim(0)
