"""Threads and memory of the process: how they are used is set before torch is loaded."""

from __future__ import annotations

import ctypes
import os
import sys

_SPINS = 1000
"""Iterations that an idle thread of GNU's OpenMP spins before it sleeps: some microseconds."""


def set_waiting() -> None:
    """Let idle threads of OpenMP sleep after some microseconds, unless the user has chosen how they wait.

    By default they spin for milliseconds, which takes the cores from another run on the same machine, and from kernels
    of Numba in this one. If they sleep at once, waking them takes a tenth of a forward pass.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": str(_SPINS)}


_KEEP_FREED = ((-1, 2**31 - 1), (-2, 2**26), (-4, 0))  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of mallopt


def _keep_freed_memory() -> None:
    """Let glibc keep what tensors free for the tensors to come, unless the user has set its parameters.

    By default each large tensor is fresh memory from the system, page by page: inference takes a tenth to a fifth
    longer, at the same peak of memory.
    """
    if not sys.platform.startswith("linux") or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        for parameter, value in _KEEP_FREED:
            mallopt(parameter, value)


def prepare_for_networks(threads: int | None) -> None:
    """Compute with so many threads (None leaves it to OMP_NUM_THREADS and the number of cores); keep freed memory."""
    _keep_freed_memory()
    if threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
