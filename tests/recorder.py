"""A ``Progress`` that keeps what is reported to it."""

from __future__ import annotations


class Recorder:
    """Reports in lists: ``updates`` (task, done, total), ``notes``, ``skips`` (name, reason)."""

    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int]] = []
        self.notes: list[str] = []
        self.skips: list[tuple[str, str]] = []

    def update(self, task: str, done: int, total: int) -> None:
        self.updates.append((task, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def skipped(self, name: str, reason: str) -> None:
        self.skips.append((name, reason))
