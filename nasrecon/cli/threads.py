"""How many threads compute, and how they wait for each other; set before torch is loaded."""

from __future__ import annotations

import os
import sys


def set_waiting() -> None:
    """Let idle threads of OpenMP sleep, unless the user has chosen how they wait.

    By default they spin, which takes the cores from another run on the same machine: each then needs several times as
    long, and ten times the processor time.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def set_threads(count: int | None) -> None:
    """Compute with so many threads; None leaves it to OMP_NUM_THREADS and the number of cores."""
    if count is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)
