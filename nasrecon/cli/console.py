"""What people see in the terminal: progress on stderr, closing tables for stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

if TYPE_CHECKING:
    from nasrecon.fuse import Fusion
    from nasrecon.nas.manifest import WeightsEntry
    from nasrecon.types import Scene

_REASONS_SHOWN = 10


def say(message: str) -> None:
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
    """A progress bar on stderr with rate and time left, one last line if that is no terminal; use in a ``with``."""

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

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks:
            self._progress.stop()

    def set(self, what: str, done: int, total: int) -> None:
        """Show that so many of ``total`` are done; every ``what`` has a line of its own."""
        self._progress.start()  # not before there is something to show: an error may come first
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)

    def say(self, message: str) -> None:
        """Print a line above the bar, as it is."""
        self._progress.console.print(message, markup=False, highlight=False, soft_wrap=True)


class InferBar(Bar):
    """The progress of ``estimate.infer``: its bar, what it left out, and the counts for the closing line."""

    def __init__(self) -> None:
        super().__init__()
        self.done = self.todo = self.kept = 0
        self.left_out: dict[str, str] = {}

    def started(self, scene: Scene, todo: int) -> None:
        self.todo, self.kept = todo, len(scene.views) - todo
        self.say(f"depth ranges: {scene.depth_ranges_from}")
        if self.kept:
            self.say(f"{self.kept} views are finished already and kept (--overwrite redoes them)")
        if todo:
            self.set("infer", 0, todo)

    def finished(self, name: str, seconds: float) -> None:
        self.done += 1
        self.set("infer", self.done, self.todo)

    def dropped(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        if len(self.left_out) <= _REASONS_SHOWN:
            self.say(f"left out: {name}: {reason}")
        elif len(self.left_out) == _REASONS_SHOWN + 1:
            self.say("left out: more, all listed in manifest.json")


def table(rows: Sequence[tuple[str, str] | tuple[str, str, str]]) -> str:
    """Lay out rows of (name, value) or (name, value, remark): names left, values right-aligned; "none" for no rows."""
    if not rows:
        return "none"
    names = max(len(row[0]) for row in rows)
    values = max(len(row[1]) for row in rows)
    return "\n".join(f"{row[0]:<{names}}  {row[1]:>{values}}  {''.join(row[2:])}".rstrip() for row in rows)


def weights_table(entries: Sequence[WeightsEntry]) -> str:
    """One line for each of the weights: name, size, kind, licence, notes."""
    return table(
        [
            (entry.name, f"{entry.bytes / 1e6:.1f} MB", "  ".join([entry.network, entry.licence, entry.notes]))
            for entry in entries
        ]
    )


def fusion_facts(fusion: Fusion, files: dict[str, str]) -> dict[str, Any]:
    """Return what there is to tell of a fusion, JSON values only; ``files``: what was written ("mesh": path)."""
    stats, mesh = fusion.stats, fusion.mesh
    return {
        **files,
        "views": stats.views,
        "stages": dict(stats.stages()),
        "alone": stats.alone,
        "cell": fusion.cell,
        "voxel": fusion.voxel.size if fusion.voxel else None,
        "vertices": len(mesh.vertices) if mesh else None,
        "faces": len(mesh.faces) if mesh else None,
        "seconds": {name: round(value, 3) for name, value in fusion.seconds.items()},
    }


def fusion_table(fusion: Fusion, files: dict[str, str]) -> str:
    """The closing table: what each stage kept, the sizes chosen, what was made and the time it took."""
    stats = fusion.stats
    unit = next((f" {made.unit}" for made in (fusion.cloud, fusion.mesh) if made and made.unit != "unknown"), "")
    rows = [("views", f"{stats.views:,}", f"({len(stats.alone)} overlap with no other)" if stats.alone else "")]
    rows += [(stage, f"{left:,}", f"{100 * left / max(stats.pixels, 1):.1f} %") for stage, left in stats.stages()]
    if fusion.voxel is not None:
        rows.append(("voxel", f"{fusion.voxel.size:.4g}{unit}", fusion.voxel.reason))
    if fusion.mesh is not None:
        rows += [("vertices", f"{len(fusion.mesh.vertices):,}", ""), ("faces", f"{len(fusion.mesh.faces):,}", "")]
    parts = ", ".join(f"{name} {value:.1f}" for name, value in fusion.seconds.items())
    rows.append(("seconds", f"{sum(fusion.seconds.values()):.1f}", parts))
    return "\n".join([table(rows), *(f"{what}: {path}" for what, path in files.items())])
