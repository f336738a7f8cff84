"""Files that are replaced only once they are complete."""

from __future__ import annotations

import glob
import os
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nasrecon.errors import InputError, NasReconError, in_words, is_place_at_fault

_PART = ".part"
_OLD_S = 3600.0
"""Age [s] from which the part of a process of another machine counts as left behind."""


def part_of(path: Path) -> Path:
    """Return the place beside a file or folder where this process writes it before it gets its name."""
    return path.with_name(f".{path.name}.{_machine()}-{os.getpid()}{_PART}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Hand out a place beside ``path`` to write a file to; at the end it takes the name, after an error it goes.

    Parts of the same file that a killed process has left are removed.
    """
    part = part_of(path)
    remove_stale_parts(path.parent, path.name)
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Write a file under another name in the same folder, then give it its name: at no time is a part of it there.

    Raises:
        InputError: if the place is one that cannot be written to.
        NasReconError: if the disk is full or fails; a file that was there stays as it was.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Hand out an empty folder that takes the place of ``folder`` (absent or empty) at the end of the ``with``.

    After an error nothing is left of it.

    Raises:
        InputError: if the place is one that cannot be written to.
        NasReconError: if the disk is full or fails.
    """
    part = part_of(folder)
    if folder.parent.is_dir():
        remove_stale_parts(folder.parent, folder.name)
    make_folder(part)
    try:
        yield part
        try:
            if folder.exists():
                folder.rmdir()
            part.replace(folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def cannot_write(path: Path, error: OSError) -> NasReconError:
    """Return the error for a file or a folder that could not be written: InputError where the place is at fault."""
    kind = InputError if is_place_at_fault(error) else NasReconError
    return kind(f"{path}: cannot be written: {in_words(error)}. What was finished before is complete on disk")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there.

    Raises:
        InputError: if the place is one that cannot be written to.
        NasReconError: if the disk is full or fails.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


def remove_stale_parts(folder: Path, name: str | None = None) -> None:
    """Remove the parts of files and folders that a process which was killed has left in a folder.

    Parts of processes that run stay: another rank, or another command, is writing them. ``name``: of the file whose
    parts are looked for; None: of all.
    """
    for path in folder.glob(f".{'*' if name is None else glob.escape(name) + '.*'}{_PART}"):
        if _is_stale(path):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_stale(part: Path) -> bool:
    """Return whether the process that the name of a part states is gone, or cannot be asked and the part is old."""
    machine, _, process = part.name.removesuffix(_PART).rpartition(".")[2].partition("-")
    if not process.isdecimal():
        return True  # no process of ours is writing it
    if machine == _machine():
        return not _runs(int(process))
    try:
        return time.time() - part.stat().st_mtime > _OLD_S
    except OSError:
        return False


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _machine() -> str:
    """Return the machine's name as eight digits: a name of a file must not become too long."""
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"
