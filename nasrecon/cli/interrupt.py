"""Ctrl-C and SIGTERM: both end a command in the same way, within two seconds also where a library does not return."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE_S = 1.2
"""Time for the command to end by itself; after it the process ends from another thread."""

EXIT_CODE = 130

_state: dict[str, Callable[[], str]] = {}
_came = threading.Event()


def on_interrupt(words: Callable[[], str]) -> None:
    """Set the function that says what is finished and how to go on."""
    _state["words"] = words


def was_interrupted() -> bool:
    """Return whether a signal has come: a library may have turned the interruption into an error of its own."""
    return _came.is_set()


def message() -> str:
    """Return the line that an interrupted command ends with."""
    words = _state.get("words")
    return words() if words else "interrupted: nothing was begun; files that were there are as they were"


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGINT and SIGTERM into KeyboardInterrupt; end the process where the main thread does not get to see it.

    Only in the main thread, and only where no other program has taken these signals; else nothing is changed.
    """
    _state.clear()
    _came.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    done = threading.Event()
    former = {number: signal.signal(number, _raise) for number in (signal.SIGINT, signal.SIGTERM)}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    watcher = threading.Thread(target=_watch, args=(reader, done), name="nasrecon-interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        signal.set_wakeup_fd(wakeup)
        for number, handler in former.items():
            signal.signal(number, handler)
        os.write(writer, b"\0")
        watcher.join()
        os.close(reader)
        os.close(writer)


def _raise(number: int, _: object) -> None:
    _came.set()
    raise KeyboardInterrupt


def _watch(reader: int, done: threading.Event) -> None:
    """Wait for a signal's byte; then give the main thread time, and end the process if it does not end."""
    while not done.is_set():
        number = os.read(reader, 1)
        if not number or number[0] not in (signal.SIGINT, signal.SIGTERM):
            continue
        if not done.wait(GRACE_S):
            print(f"\n{message()}", file=sys.stderr, flush=True)
            os._exit(EXIT_CODE)
