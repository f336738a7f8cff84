"""The errors that nasrecon raises on purpose, and words of its messages; the command line gives each an exit code."""

from __future__ import annotations

import errno
import json
import re


class NasReconError(Exception):
    """Base of all errors of this package: the run failed for a reason that the message explains (exit code 1)."""

    exit_code = 1


class InputError(NasReconError):
    """Report input that cannot be used: names the file, what was found, what was expected and what to do
    (exit code 2)."""

    exit_code = 2


class NoPosesError(InputError):
    """Report images without cameras: none were named, and no known layout is there; they can be found (exit code 2)."""


class WeightsError(InputError):
    """Report weights that are missing, damaged, or belong to another network (exit code 2)."""


class EmptyResultError(NasReconError):
    """Report a stage that dropped everything; the message names the stage and how to loosen it (exit code 1)."""


LINE_WIDTH = 100
"""Columns of a terminal that lines are made for where they can be broken."""

_SYSTEM_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "access is not permitted",
    errno.EPERM: "access is not permitted",
    errno.EROFS: "the disk is read-only",
    errno.ENOENT: "no such file or folder",
    errno.EEXIST: "it is there already, as a file",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EMFILE: "too many files are open",
    errno.EIO: "the disk reports a fault",
}


_PLACE_ERRORS = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
)


_JSON_ERRORS = {
    "Expecting value": "a value is missing",
    "Expecting property name": "a name in double quotes is missing",
    "Expecting ':' delimiter": "a colon is missing",
    "Expecting ',' delimiter": "a comma or a closing bracket is missing",
    "Illegal trailing comma": "a comma is there with nothing after it",
    "Unterminated string": "a text begins here whose closing quotation mark is missing",
    "Extra data": "expected the end of the file, found more",
    "Invalid": "a text holds a character that JSON does not permit",
    "Unexpected UTF-8 BOM": "the file begins with a byte order mark; save it as UTF-8 without one",
}
"""What Python's reader of JSON refuses, by the beginning of its message."""


def plural(count: int, noun: str) -> str:
    """Write a count with its noun: "1 pair", "2 pairs"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def broken(text: str, width: int = LINE_WIDTH) -> list[str]:
    """Break a line that is longer than a width at its semicolons, into as few lines as fit."""
    lines: list[str] = []
    for part in text.split("; "):
        if lines and len(lines[-1]) + len(part) + 3 <= width:
            lines[-1] += f"; {part}"
        else:
            lines.append(part)
    return [f"{line};" for line in lines[:-1]] + lines[-1:]


def is_place_at_fault(error: OSError) -> bool:
    """Return whether an error of the system is about a path that the user can choose anew, no failure of the disk."""
    return error.errno in _PLACE_ERRORS


def in_words(error: BaseException) -> str:
    """Return the reason of an error of the system or a library as one line, without error numbers and class names."""
    if isinstance(error, OSError) and error.errno is not None:
        return _SYSTEM_ERRORS.get(error.errno, (error.strerror or "the system refused it").lower())
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not text in UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return _json_reason(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"{error.args[0]} is missing" if error.args else "an entry is missing"
    if isinstance(error, (AttributeError, TypeError)):
        return "a value is of another kind than expected"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if word := re.fullmatch(r"could not convert string to float: (.*)", str(error)):
        return f"{word[1]} is not a number"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _json_reason(error: json.JSONDecodeError) -> str:
    if not error.doc.strip():
        return "the file is empty"
    place = f"line {error.lineno}, column {error.colno}"
    if error.pos >= len(error.doc.rstrip()):
        return f"it ends at {place}, before its last closing bracket; is it cut short?"
    reason = next((text for start, text in _JSON_ERRORS.items() if error.msg.startswith(start)), "it is no JSON")
    return f"at {place}: {reason}"
