"""Files that are replaced only once they are complete."""

from __future__ import annotations

import os
from pathlib import Path

from nasrecon.errors import InputError, NasReconError, in_words, is_place_at_fault

_PART = ".part"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name in the same folder, then give it its name: at no time is a part of it there.

    Raises:
        InputError: if the place is one that cannot be written to.
        NasReconError: if the disk is full or fails; a file that was there stays as it was.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}{_PART}")
    try:
        try:
            part.write_bytes(content)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error


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


def remove_stale_parts(folder: Path) -> None:
    """Remove the parts of files that a process which was killed has left in a folder."""
    for path in folder.glob(f".*{_PART}"):
        if path.is_file():
            path.unlink(missing_ok=True)
