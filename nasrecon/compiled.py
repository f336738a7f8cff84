"""Functions that Numba compiles on their first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that compiles a function with Numba, without Python's lock, on the function's first call.

    What is compiled is cached on disk where there is a folder to write to. Divisions by 0 give inf or nan, as in NumPy.

    Raises:
        ImportError: if Numba is missing.
    """
    import numba

    options = {"nogil": True, "error_model": "numpy"} | options

    def compile(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            return numba.njit(**options)(function)

    return compile
