"""Estimate all views of a scene into a results folder; a rerun continues where the last one stopped."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from nasrecon.errors import InputError, plural
from nasrecon.inference.adapter import Photo
from nasrecon.inference.estimate import estimate_batches
from nasrecon.inference.memory import Memory, largest_size, refuse_too_large
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.remarks import Remark, estimate_remarks, scene_remarks
from nasrecon.ingest.images import direct_images
from nasrecon.nas.network import Network, network_info
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import PreparedScene, prepare_scene
from nasrecon.progress import LogProgress, Progress
from nasrecon.ranks import Ranks, current
from nasrecon.results.lock import locked
from nasrecon.results.reader import Results
from nasrecon.results.writer import ResultsWriter, Run, refuse_other_settings
from nasrecon.scene.source_views import sources_origin
from nasrecon.types import Estimate, Scene

_MAX_WRITES_WAITING = 4


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """The result of a run.

    Attributes:
        results: the views on disk.
        estimated: how many views this run estimated.
        kept: how many were finished before.
        skipped: (name, reason) of every input that was left out.
        remarks: (name, remark) of views that are odd: no texture, nothing confident, the pose of another.
        seconds: duration of the run.
    """

    results: Results
    estimated: int
    kept: int
    skipped: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str], ...]
    seconds: float


def estimate_to_folder(
    scene: Scene | PreparedScene,
    network: Network,
    folder: str | Path,
    options: EstimateOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    prior: Callable[[Photo], Photo] | None = None,
) -> RunSummary:
    """Estimate all views of a scene into a results folder (package ``results``), keeping the views that are finished.

    Args:
        scene, network, options: as for ``estimate_views``.
        folder: the results folder; made where it does not exist. Views of other weights (``NetworkInfo.sha256``) are
            not mixed with these.
        overwrite: redo the finished views.
        progress: receives the reports; by default they are logged.
        prior: gives each reference its given depth (``inference.refine``).

    Returns:
        the results on disk and the counts of this run; under ``ranks.as_ranks`` the first rank has those of all. If the
        run is interrupted, the finished views are there; the same call continues with the rest.

    Raises:
        InputError: if the folder holds views made under other settings, or files that are not nasrecon's; if every
            view was left out.
    """
    options, progress, since = options or EstimateOptions(), progress or LogProgress(), time.perf_counter()
    prepared = scene if isinstance(scene, PreparedScene) else prepare_scene(scene, work_dir=folder, progress=progress)
    scene = prepared.scene
    run = _describe_run(prepared, network, options)
    order = [view.name for view in scene.views]
    refuse_too_large(scene, network, options, int(str(prepared.settings.get("sources", 4))))
    remarks, ranks = scene_remarks(scene), current()
    with claimed(folder), _writer(ranks, folder, run, order, overwrite) as writer:
        unfinished = _unfinished(order, ranks.from_first(lambda: writer.finished), progress)
        kept, todo = len(order) - len(unfinished), ranks.share(unfinished)
        waiting = _writes_waiting(scene, network, options)
        with _WriterThread(writer, progress, [order[i] for i in todo], waiting) as thread:
            for name, reason in scene.dropped:
                thread.skipped(name, reason)
            batches = estimate_batches(prepared, network, options, todo, thread, prior)
            for estimate, share in ((e, seconds / len(part)) for part, seconds in batches for e in part):
                remarks += estimate_remarks(estimate)
                thread.add(estimate, share)
        written = _collected(ranks, writer, remarks, thread.written)
        if ranks.is_first and not writer.finished:
            raise InputError(_nothing_left(prepared, writer.dropped))
    return RunSummary(
        results=ranks.from_first(lambda: Results.open(folder)),
        estimated=written,
        kept=kept,
        skipped=tuple(writer.dropped.items()),
        remarks=tuple(remarks),
        seconds=time.perf_counter() - since,
    )


def _writes_waiting(scene: Scene, network: Network, options: EstimateOptions) -> int:
    """Return how many estimates may wait to be written: few where they are large."""
    if not scene.views:
        return _MAX_WRITES_WAITING
    return Memory.of(network, options).waiting_writes(math.prod(largest_size(scene, options)), _MAX_WRITES_WAITING)


def _unfinished(order: Sequence[str], finished: frozenset[str], progress: Progress) -> list[int]:
    """Return the positions of the views to estimate, and report those that are finished."""
    todo = [i for i, name in enumerate(order) if name not in finished]
    if len(todo) < len(order):
        finished_before = plural(len(order) - len(todo), "view")
        progress.note(f"{finished_before} finished in an earlier run (--overwrite redoes them)")
    return todo


def _writer(ranks: Ranks, folder: str | Path, run: Run, order: Sequence[str], overwrite: bool) -> ResultsWriter:
    """Return this rank's writer; the first rank opens the folder before the others go on."""
    first: list[ResultsWriter] = []
    ranks.from_first(lambda: first.append(ResultsWriter(folder, run, order, overwrite=overwrite)))
    return first[0] if first else ResultsWriter(folder, run, order, member=True)


def _collected(ranks: Ranks, writer: ResultsWriter, remarks: list[Remark], written: int) -> int:
    """Bring what all ranks left out, remarked and wrote to the first; returns how many views were written."""
    if ranks.size == 1:
        return written
    parts = ranks.gathered((writer.dropped, remarks, written))
    if not ranks.is_first:
        return written
    remarks[:] = list(dict.fromkeys(remark for _, part, _ in parts for remark in part))
    for dropped, _, _ in parts:
        for name, reason in dropped.items():
            writer.drop(name, reason)
    writer.take_views_of_others()
    return sum(count for _, _, count in parts)


def _describe_run(prepared: PreparedScene, network: Network, options: EstimateOptions) -> Run:
    """Describe what the estimates of a run depend on."""
    info = network_info(network)
    return Run.describe(
        prepared.scene,
        digest=prepared.digest,
        sources_from=sources_origin(prepared.scene),
        epipolar_px=prepared.epipolar_px,
        network=info.name,
        weights=info.weights,
        weights_sha256=info.sha256,
        options={**prepared.settings, **options.settings()},
    )


def refuse_other_results(
    folder: Path | str, network: Network, prepare: PrepareOptions, options: EstimateOptions
) -> None:
    """Stop before any work where a folder holds views made by another network or with other options.

    Raises:
        InputError: as ``results.writer.refuse_other_settings``.
    """
    info = network_info(network)
    settings = {**prepare.settings(), **options.settings()}
    refuse_other_settings(folder, {"network": info.name, "weights_sha256": info.sha256, "options": settings})


@contextmanager
def claimed(folder: str | Path) -> Iterator[None]:
    """Hold the lock of a results folder (``results.lock``), once it is clear that results may go there; the first rank
    holds it for all.

    Raises:
        InputError: if another run holds it, it cannot be made, or it holds photographs.
    """
    folder = Path(folder)
    if photographs := direct_images(folder) if folder.is_dir() else ():
        raise InputError(
            f"{folder}: it holds photographs ({', '.join(photographs[:3])}); results do not go among them: give "
            "another folder with --out"
        )
    with locked(folder) if current().is_first else nullcontext():
        yield


class _WriterThread:
    """Write estimates in one thread, in order, while the network computes; everything that uses the writer runs
    there."""

    def __init__(self, writer: ResultsWriter, progress: Progress, todo: Sequence[str], most_waiting: int) -> None:
        self.writer, self.progress, self.total = writer, progress, len(todo)
        self.written, self._most_waiting = 0, most_waiting
        self._waiting = set(todo)
        self._pending: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nasrecon-write")

    def __enter__(self) -> _WriterThread:
        if self.total:
            self.progress.update("infer", 0, self.total)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while kind is None and self._pending:
                self._pending.popleft().result()
        finally:
            self._thread.shutdown(wait=True)

    def update(self, task: str, done: int, total: int) -> None:
        self.progress.update(task, done, total)

    def note(self, text: str) -> None:
        self.progress.note(text)

    def skipped(self, name: str, reason: str) -> None:
        """Record in the manifest that an input is left out, and report it."""
        self._pending.append(self._thread.submit(self.writer.drop, name, reason))
        self.progress.skipped(name, reason)
        self._count_done(name)

    def add(self, estimate: Estimate, seconds: float) -> None:
        """Write an estimate; wait while more than ``most_waiting`` are not written.

        Raises:
            OSError: the error of an earlier write.
        """
        self._pending.append(self._thread.submit(self._write, estimate, seconds))
        while len(self._pending) > self._most_waiting:
            self._pending.popleft().result()

    def _write(self, estimate: Estimate, seconds: float) -> None:
        self.writer.add(estimate, seconds=seconds)
        self.written += 1
        self._count_done(estimate.view.name)

    def _count_done(self, name: str) -> None:
        if name in self._waiting:
            self._waiting.remove(name)
            self.progress.update("infer", self.total - len(self._waiting), self.total)


def _nothing_left(prepared: PreparedScene, dropped: dict[str, str]) -> str:
    scene, near = prepared.scene, prepared.settings.get("min_depth")
    reasons = "; ".join(
        f"{reason} ({name})" for reason, name in list({dropped[n]: n for n in reversed(dropped)}.items())[:3]
    )
    hint = f"; min_depth is {near:g}, as given" if near is not None else ""
    if len(scene.views) < 2:
        hint += "; depth needs two views or more of one place"
    reasons = reasons or "the scene has no views"
    return f"{scene.root}: none of {len(scene.views)} views could be estimated: {reasons}{hint}"
