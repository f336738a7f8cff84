"""Estimate all views of a scene into a results folder; a rerun continues where the last one stopped."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from nasrecon.errors import EmptyResultError
from nasrecon.inference.estimate import estimate_batches, log_drop, logger
from nasrecon.inference.options import InferOptions
from nasrecon.nas.network import Network
from nasrecon.results.reader import Results
from nasrecon.results.writer import ResultsWriter, Run
from nasrecon.scene.depth_range import depth_range_source, with_depth_ranges
from nasrecon.types import Estimate, Scene

_WRITES_WAITING = 4


class Progress(Protocol):
    """Who is told how far a run is; ``finished`` is called from another thread than the rest."""

    def started(self, scene: Scene, todo: int) -> None:
        """So many views of the scene (now with depth ranges) are to be estimated, the others were finished before."""

    def finished(self, name: str, seconds: float) -> None:
        """A view is on disk."""

    def dropped(self, name: str, reason: str) -> None:
        """An input is left out, for this reason."""


def infer(
    scene: Scene,
    network: Network,
    folder: str | Path,
    options: InferOptions | None = None,
    *,
    weights: str = "",
    weights_sha256: str = "",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Results:
    """Estimate all views of a scene into a results folder (``results.py``), keeping the views that are finished there.

    Args:
        scene, network, options: as for ``estimate_views``.
        folder: the results folder; made where it does not exist.
        weights, weights_sha256: name and hash of the network's weights; views of other weights are not mixed with
            these.
        overwrite: redo the finished views.
        progress: told how far the run is, and of each input that is left out; by default these are logged.

    Returns:
        the results on disk. If the run is interrupted, what is finished is there; the same call goes on with the rest.

    Raises:
        InputError: if the folder holds views made under other settings, or somebody else's files.
        EmptyResultError: if every view was left out.
    """
    options = options or InferOptions()
    progress = progress or _LogProgress()
    digest = {"weights": weights, "weights_sha256": weights_sha256}
    run = Run.describe(scene, network=network.name, options=options.settings(), **digest)
    scene = with_depth_ranges(scene, options.min_depth)
    order = [view.name for view in scene.views]
    # One thread writes while the network goes on; everything that touches the writer runs there, in order.
    with (
        ResultsWriter(folder, run, order, overwrite=overwrite) as writer,
        ThreadPoolExecutor(1, thread_name_prefix="nasrecon-write") as thread,
    ):
        todo = [i for i, view in enumerate(scene.views) if view.name not in writer.finished]
        progress.started(scene, len(todo))
        pending: deque[Future[None]] = deque()

        def drop(name: str, reason: str) -> None:
            pending.append(thread.submit(writer.drop, name, reason))
            progress.dropped(name, reason)

        for name, reason in scene.dropped:
            drop(name, reason)
        for estimates, seconds in estimate_batches(scene, network, options, todo, drop):
            for estimate in estimates:
                pending.append(thread.submit(_finish, writer, estimate, seconds / len(estimates), progress))
            while len(pending) > _WRITES_WAITING:
                pending.popleft().result()
        while pending:
            pending.popleft().result()
        if not writer.finished:
            raise EmptyResultError(_nothing_left(scene, writer.dropped))
    return Results.open(folder)


def _finish(writer: ResultsWriter, estimate: Estimate, seconds: float, progress: Progress) -> None:
    writer.add(estimate, seconds=seconds)
    progress.finished(estimate.view.name, seconds)


class _LogProgress:
    def started(self, scene: Scene, todo: int) -> None:
        logger.info("%d of %d views to estimate; depth ranges: %s", todo, len(scene.views), depth_range_source(scene))

    def finished(self, name: str, seconds: float) -> None:
        logger.info("%s: %.2f s", name, seconds)

    def dropped(self, name: str, reason: str) -> None:
        log_drop(name, reason)


def _nothing_left(scene: Scene, dropped: dict[str, str]) -> str:
    reasons = "; ".join(sorted(set(dropped.values()))[:3])
    return f"{scene.root}: none of {len(scene.views)} views could be estimated ({reasons or 'the scene has no views'})"
