"""Progress of long work: one protocol for every stage; libraries report through it, only the command line prints."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

logger = logging.getLogger("nasrecon")


class Progress(Protocol):
    """Receives reports; its methods may be called from another thread than the one that started the work."""

    def update(self, task: str, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` steps of a task are finished."""

    def note(self, text: str) -> None:
        """Report one fact about the run, one line for people."""

    def skipped(self, name: str, reason: str) -> None:
        """Report that an input is left out, and why."""


@contextmanager
def under_way(progress: Progress, task: str) -> Iterator[None]:
    """Report a task of one step, which begins and ends with the block."""
    progress.update(task, 0, 1)
    yield
    progress.update(task, 1, 1)


class LogProgress:
    """Write reports to the log ``nasrecon``: steps as DEBUG, notes as INFO, skipped inputs as WARNING."""

    def update(self, task: str, done: int, total: int) -> None:
        """Log a step."""
        logger.debug("%s: %d of %d", task, done, total)

    def note(self, text: str) -> None:
        """Log a fact."""
        logger.info("%s", text)

    def skipped(self, name: str, reason: str) -> None:
        """Log an input that is left out."""
        logger.warning("%s: left out: %s", name, reason)


class Quiet:
    """Drop all reports."""

    def update(self, task: str, done: int, total: int) -> None:
        """Drop a step."""

    def note(self, text: str) -> None:
        """Drop a fact."""

    def skipped(self, name: str, reason: str) -> None:
        """Drop an input that is left out."""
