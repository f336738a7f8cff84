"""What people see in the terminal: progress on stderr, closing tables for stdout."""

from __future__ import annotations

import itertools
import os
import shlex
import sys
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from nasrecon.errors import LINE_WIDTH, plural

if TYPE_CHECKING:
    from nasrecon.fuse.fusion import Fusion
    from nasrecon.nas.manifest import WeightsEntry

_REASONS_SHOWN = 10
_TABLE_WIDTH = 10_000
_WORST_SHOWN, _WORST_ROOM, _NAME_SHOWN = 3, 60, 48
LINE_EVERY_S = 10.0
"""Where stderr is no terminal, the task under way gets a line this often."""

TASKS = {
    "features": ("images searched for features", "image"),
    "pairs matched": ("pairs of images compared", "pair"),
    "matches": ("pairs of images compared", "pair"),
    "cameras found": ("cameras found", "camera"),
    "frames": ("frames read", "frame"),
    "infer": ("depth of views", "view"),
    "survey": ("views read", "view"),
    "average": ("depths averaged", "view"),
    "fuse": ("views fused", "view"),
    "worlds": ("worlds rendered", "world"),
    "report": ("views in the report", "view"),
    "sheet": ("views in the sheet", "view"),
    "views": ("views exported", "view"),
    "reference": ("true views read", "view"),
    "pairs": ("pairs scored", "pair"),
}
"""What a task's bar is called, and the unit that it counts, by the name under which it reports."""
PASSING = {
    "start": "starting",
    "load": "loading the network",
    "measure": "measuring",
    "compare": "comparing with the reference",
    "verify": "checking the weights",
    "surface": "making cloud and mesh",
    "draw": "drawing the mesh",
    "pack": "packing the scene",
}
"""Tasks of one step: what a terminal shows while they last, and nothing after."""


def print_note(message: str) -> None:
    """Print a line for people on stderr, as it is."""
    print(message, file=sys.stderr, flush=True)


class RateColumn(ProgressColumn):
    """Units a second, or seconds a unit where that is the larger number."""

    def render(self, task: Task) -> Text:
        return Text(rate(task.finished_speed or task.speed, task.fields["unit"]))


def rate(per_second: float | None, unit: str = "view") -> str:
    """Write a speed with its unit; "" while it is unknown."""
    if not per_second:
        return ""
    return f"{per_second:.1f} {unit}s/s" if per_second >= 1 else f"{1 / per_second:.1f} s/{unit}"


@dataclass(kw_only=True)
class _TaskState:
    """A task as it stands where stderr is no terminal."""

    started_s: float
    done: int
    total: int


class _Lines:
    """Progress as plain lines: one every ``LINE_EVERY_S``, of the task that reported last, and one when a task is done.

    A thread of its own prints them, so that a step of minutes has its lines, too.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._tasks, self._finished = stream, dict[str, _TaskState](), set[str]()
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._report, daemon=True)

    def update(self, task: str, done: int, total: int) -> None:
        if task in self._finished or not total:
            return
        with self._lock:
            if not self._tasks and not self._thread.ident:
                self._thread.start()
            before = self._tasks.pop(task, None)  # the last one of the dict is the one that reported last
            state = _TaskState(started_s=before.started_s if before else time.monotonic(), done=done, total=total)
            if done < total:
                self._tasks[task] = state
                return
            if task in PASSING:
                return
            self._finished.add(task)
            seconds = time.monotonic() - state.started_s
            self._print(f"{TASKS.get(task, (task,))[0]}: {total:,} of {total:,} in {duration(seconds)}")

    def close(self) -> None:
        self._end.set()
        if self._thread.ident:
            self._thread.join()

    def _report(self) -> None:
        while not self._end.wait(LINE_EVERY_S):
            with self._lock:
                if self._tasks:
                    self._print(self._line(*list(self._tasks.items())[-1]))

    def _line(self, task: str, state: _TaskState) -> str:
        label, unit = TASKS.get(task, (PASSING.get(task, task), "step"))
        seconds = time.monotonic() - state.started_s
        counted = "" if task in PASSING else f"{state.done:,} of {state.total:,}, "
        if not state.done:
            return f"{label}: {counted}{duration(seconds)} so far"
        left = duration(seconds * (state.total - state.done) / state.done)
        return f"{label}: {counted}{rate(state.done / seconds, unit)}, {left} left"

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """Write a time: "8.2 s", "3 min 20 s", "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Bar:
    """The ``Progress`` of the command line, on stderr; use it in a ``with``.

    In a terminal it shows bars with rate and time left, elsewhere plain lines.
    """

    def __init__(self) -> None:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
        ]
        self._stream = _stderr_of_its_own()
        self._console = Console(file=self._stream)
        # A network may take a minute a view on a CPU: the speed is that of the last ten minutes.
        self._progress = Progress(*columns, console=self._console, speed_estimate_period=600)
        self._lines = None if self._console.is_terminal else _Lines(self._stream)
        self._tasks: dict[str, TaskID] = {}
        self._skipped = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()
        elif self._progress.live.is_started:  # it stands in for sys.stderr
            self._progress.stop()
        if self._stream is not sys.stderr:
            self._stream.close()

    def update(self, task: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps are finished; every task has a line of its own."""
        if self._lines is not None:
            self._lines.update(task, done, total)
            return
        self._progress.start()  # not before there is something to show: an error may come first
        if task in PASSING and done >= total:
            self._progress.remove_task(self._tasks.pop(task))
            return
        label, unit = TASKS.get(task, (PASSING.get(task, task), "step"))
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(label, total=total, unit=unit)
            if task in PASSING:  # what follows may be one long call, such as an import
                self._progress.refresh()
        self._progress.update(self._tasks[task], completed=done, total=total)

    def skipped(self, name: str, reason: str) -> None:
        """Print an input that is left out, up to ``_REASONS_SHOWN`` of them."""
        self._skipped += 1
        if self._skipped <= _REASONS_SHOWN:
            self.note(f"left out: {name}: {reason}")
        elif self._skipped == _REASONS_SHOWN + 1:
            self.note("left out: more, all listed in manifest.json")

    def note(self, text: str) -> None:
        """Print a line above the bar, as it is."""
        if self._lines is not None:
            print(text, file=self._stream, flush=True)
        else:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _stderr_of_its_own() -> TextIO:
    """Return stderr by another file descriptor: structure from motion sends the first to a log file."""
    try:
        if sys.stderr.fileno() != 2:
            return sys.stderr
        return os.fdopen(os.dup(2), "w", buffering=1, encoding=sys.stderr.encoding, errors="replace")
    except (OSError, ValueError, AttributeError):
        return sys.stderr


def next_lines(*commands: tuple[str, Sequence[object], str]) -> list[str]:
    """Lay out the next commands to type: (command, its arguments, what it makes) each; paths are quoted."""
    typed = [["nasrecon", command, *map(str, arguments)] for command, arguments, _ in commands]
    width = max(len(shlex.join(words)) for words in typed)
    purposes = [purpose for _, _, purpose in commands]
    starts = ["next: ", *(["  or: "] * (len(typed) - 1))]
    lines = []
    for start, words, purpose in zip(starts, typed, purposes, strict=True):
        line = f"{start}{shlex.join(words):<{width}}   # {purpose}"
        lines += [line] if len(line) <= LINE_WIDTH else command_lines(start, words, purpose)
    return lines


def command_lines(start: str, words: Sequence[str], purpose: str = "") -> list[str]:
    """Break a command into lines of a terminal's width, as a shell reads them; its purpose is left out without room."""
    parts = [shlex.quote(words[0])]
    for before, word in itertools.pairwise(words):
        is_value = before.startswith("-") and not word.startswith("-")  # it stays beside its option
        parts[-1:] = [f"{parts[-1]} {shlex.quote(word)}"] if is_value else [parts[-1], shlex.quote(word)]
    lines = [f"{start}{parts[0]}"]
    for part in parts[1:]:
        fits = len(lines[-1]) + len(part) + 3 <= LINE_WIDTH
        lines[-1:] = [f"{lines[-1]} {part}"] if fits else [f"{lines[-1]} \\", f"{' ' * (len(start) + 2)}{part}"]
    remark = f"   # {purpose}" if purpose else ""
    return [*lines[:-1], f"{lines[-1]}{remark if len(lines[-1]) + len(remark) <= LINE_WIDTH else ''}"]


def table(rows: Sequence[Sequence[str]], right: Collection[int] = (1,)) -> str:
    """Lay out rows of cells in columns, those in ``right`` aligned to the right; "none" for no rows."""
    if not rows:
        return "none"
    columns = max(len(row) for row in rows)
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    for i in range(columns):
        grid.add_column(justify="right" if i in right else "left", no_wrap=True)
    for row in rows:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(width=_TABLE_WIDTH, color_system=None)
    with console.capture() as capture:
        console.print(grid)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def weights_table(entries: Sequence[WeightsEntry]) -> str:
    """A header, then one line for each of the weights: name, kind of network, size, licence, file."""
    if not entries:
        return "none"
    rows = [("NAME", "KIND", "SIZE", "LICENCE", "FILE")]
    rows += [
        (entry.name, entry.network, f"{entry.bytes / 1e6:.1f} MB", entry.licence, entry.path.name) for entry in entries
    ]
    return f"{table(rows, right=(2,))}\nuse one with --network NAME; how {entries[0].name} was trained: --json"


def fusion_table(fusion: Fusion, files: dict[str, str], epipolar_px: dict[str, float]) -> str:
    """The closing table: what each stage kept, the sizes chosen, what was made and the time it took.

    ``epipolar_px``: as ``Results.epipolar_px``.
    """
    stats = fusion.stats
    unit = next((f" {made.unit}" for made in (fusion.cloud, fusion.mesh) if made and made.unit != "unknown"), "")
    rows = [
        (
            "views",
            f"{stats.views:,}",
            f"({len(stats.isolated_views)} overlap with no other)" if stats.isolated_views else "",
        )
    ]
    rows += [(stage, f"{left:,}", f"{100 * left / max(stats.pixels, 1):.1f} %") for stage, left in stats.stages()]
    for label, shares in (("least confirmed", stats.confirmed), ("least agreeing", stats.agreement)):
        if len(shares) > _WORST_SHOWN:
            worst = sorted(shares.items(), key=lambda item: item[1])
            rows.append((label, "", _worst([(name, f"{100 * share:.0f} %") for name, share in worst])))
    for label, factors in (("depths scaled", stats.scales), ("sigma scaled", stats.sigma_scales)):
        if factors:
            most = _worst([(n, f"{f:.3f}") for n, f in sorted(factors.items(), key=lambda item: -abs(item[1] - 1))])
            rows.append((label, plural(len(factors), "view"), f"most: {most}"))
    if epipolar_px:
        errors = _worst([(n, f"{e:.2f} px") for n, e in sorted(epipolar_px.items(), key=lambda item: -item[1])])
        rows.append(("epipolar error", plural(len(epipolar_px), "view"), f"largest: {errors}"))
    if fusion.voxel is not None:
        rows.append(("voxel", f"{fusion.voxel.size:.4g}{unit}", fusion.voxel.reason))
    if fusion.mesh is not None:
        rows += [("vertices", f"{len(fusion.mesh.vertices):,}", ""), ("faces", f"{len(fusion.mesh.faces):,}", "")]
    parts = ", ".join(f"{name} {value:.{1 if value < 10 else 0}f}" for name, value in fusion.seconds.items())
    rows.append(("time", f"{sum(fusion.seconds.values()):.1f} s", parts))
    return "\n".join([table(rows), *(f"{what}: {path}" for what, path in files.items())])


def _worst(entries: Sequence[tuple[str, str]]) -> str:
    """Write the first of (name, value), as many as have room in a table of 100 columns, one at least."""
    texts = [
        f"{name if len(name) <= _NAME_SHOWN else '...' + name[3 - _NAME_SHOWN :]} {value}" for name, value in entries
    ]
    count = _WORST_SHOWN
    while count > 1 and len(", ".join(texts[:count])) > _WORST_ROOM:
        count -= 1
    return ", ".join(texts[:count])


class Printer:
    """A ``Progress`` that prints notes on stdout, as results; it shows no bar."""

    def update(self, task: str, done: int, total: int) -> None:
        """Show nothing."""

    def note(self, text: str) -> None:
        """Print a line at once, also into a pipe."""
        print(text, flush=True)

    def skipped(self, name: str, reason: str) -> None:
        """Print an input that is left out."""
        self.note(f"left out: {name}: {reason}")
