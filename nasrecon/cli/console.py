"""What people see in the terminal: progress on stderr, closing tables for stdout."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from nasrecon.fuse.fusion import Fusion
    from nasrecon.nas.manifest import WeightsEntry

_REASONS_SHOWN = 10
_TABLE_WIDTH = 10_000


def print_note(message: str) -> None:
    """Print a line for people on stderr, as it is."""
    print(message, file=sys.stderr, flush=True)


class RateColumn(ProgressColumn):
    """Views a second, or seconds a view where that is the larger number."""

    def render(self, task: Task) -> Text:
        return Text(rate(task.finished_speed or task.speed))


def rate(per_second: float | None) -> str:
    """Write a speed with its unit; "" while it is unknown."""
    if not per_second:
        return ""
    return f"{per_second:.1f} views/s" if per_second >= 1 else f"{1 / per_second:.1f} s/view"


class Bar:
    """The ``Progress`` of the command line: bars on stderr with rate and time left, one last line if that is no
    terminal; use in a ``with``."""

    def __init__(self) -> None:
        columns = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
        ]
        # A network may take a minute a view on a CPU: the speed is that of the last ten minutes.
        self._progress = Progress(*columns, console=Console(stderr=True), speed_estimate_period=600)
        self._tasks: dict[str, int] = {}
        self._skipped = 0

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            self._progress.stop()

    def update(self, task: str, done: int, total: int) -> None:
        """Show that ``done`` of ``total`` steps are finished; every task has a line of its own."""
        self._progress.start()  # not before there is something to show: an error may come first
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total)
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
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


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
    """One line for each of the weights: name, size, kind, licence, notes."""
    return table(
        [(entry.name, f"{entry.bytes / 1e6:.1f} MB", entry.network, entry.licence, entry.notes) for entry in entries]
    )


def fusion_table(fusion: Fusion, files: dict[str, str]) -> str:
    """The closing table: what each stage kept, the sizes chosen, what was made and the time it took."""
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
    if fusion.voxel is not None:
        rows.append(("voxel", f"{fusion.voxel.size:.4g}{unit}", fusion.voxel.reason))
    if fusion.mesh is not None:
        rows += [("vertices", f"{len(fusion.mesh.vertices):,}", ""), ("faces", f"{len(fusion.mesh.faces):,}", "")]
    parts = ", ".join(f"{name} {value:.1f}" for name, value in fusion.seconds.items())
    rows.append(("seconds", f"{sum(fusion.seconds.values()):.1f}", parts))
    return "\n".join([table(rows), *(f"{what}: {path}" for what, path in files.items())])


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
