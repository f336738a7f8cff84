"""One run at a time in a results folder: a lock that names its owner, and that ends with the process that holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nasrecon.atomic import cannot_write, make_folder
from nasrecon.errors import InputError

LOCK_FILE = ".lock"

_held: set[Path] = set()


@contextmanager
def locked(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a results folder; the folder is made, and goes again at the end if it is empty.

    The system releases the lock when the process ends, also by SIGKILL, so a file of a process that is gone
    holds nothing.
    Nested calls of one process are allowed. Where the system has no ``flock`` (Windows) nothing is locked.

    Raises:
        InputError: if another run holds it (named with host, process and start), or the folder cannot be written to.
    """
    folder = Path(folder)
    key = folder.resolve()
    if key in _held:
        yield
        return
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: it is a file; give a folder with --out")
    make_folder(folder)
    path = folder / LOCK_FILE
    try:
        handle = _acquired(path)
    except OSError as error:
        raise cannot_write(path, error) from error
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        path.unlink(missing_ok=True)
        os.close(handle)
        for made in missing:
            if made.is_dir() and not any(made.iterdir()):
                made.rmdir()


def _acquired(path: Path) -> int:
    """Return the open, locked file; it is opened again where its former owner removed it in between."""
    try:
        import fcntl
    except ImportError:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(handle, 1000)
            os.close(handle)
            raise InputError(
                f"{path.parent}: another run writes to this folder ({_owner_in_words(owner)}); wait for it, or give "
                "another folder with --out"
            ) from error
        try:
            same = os.path.samestat(os.fstat(handle), path.stat())
        except FileNotFoundError:
            same = False
        if same:
            owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(owner).encode())
            return handle
        os.close(handle)


def _owner_in_words(content: bytes) -> str:
    try:
        owner = json.loads(content)
        return f"process {owner['process']} on {owner['host']}, since {owner['since']}"
    except (ValueError, LookupError, TypeError):
        return "its owner is unknown"
