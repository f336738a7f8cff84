"""Run a network over a scene: one Estimate for each view, in batches, within bounded memory; into a folder if asked."""

from __future__ import annotations

import gc
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from nasrecon.adapter import Posed, autocast, device_of, fitted_size, predict
from nasrecon.errors import EmptyResultError, InputError, NasReconError
from nasrecon.ingest.depth_range import depth_range_source, with_depth_ranges
from nasrecon.ingest.images import read_view
from nasrecon.ingest.masks import read_mask
from nasrecon.ingest.neighbors import rank_sources
from nasrecon.nas import Network
from nasrecon.results import Results, ResultsWriter, Run
from nasrecon.types import Camera, Estimate, Scene

logger = logging.getLogger("nasrecon")

SIDE_MULTIPLE = 32
_WRITES_WAITING = 4
_Item = tuple[Posed, list[Posed]]
DropCallback = Callable[[str, str], None]
"""Called with the name of a view that is left out, and the reason."""


@dataclass(frozen=True, kw_only=True)
class InferOptions:
    """How to estimate.

    Attributes:
        sources: source views per reference, at most; fewer where fewer serve.
        max_side: the longer side of the maps [px]. Images are resized to it (never enlarged), both sides rounded to
            multiples of 32.
        size: (width, height) of the maps [px], for all views, instead of ``max_side``.
        min_depth: depth of the nearest plane [scene units] for all views; None: each view's own.
        batch: references at once; None: 1 on a CPU, 4 on a GPU. Halved when memory runs out.
        cached_images: how many decoded images are kept for the views that share them.

    Raises:
        InputError: if a value is out of its range.
    """

    sources: int = 4
    max_side: int = 640
    size: tuple[int, int] | None = None
    min_depth: float | None = None
    batch: int | None = None
    cached_images: int = 64

    def __post_init__(self) -> None:
        for name, value, least in [
            ("sources", self.sources, 1),
            ("max_side", self.max_side, SIDE_MULTIPLE),
            ("size", min(self.size) if self.size else None, SIDE_MULTIPLE),
            ("batch", self.batch, 1),
            ("cached_images", self.cached_images, 1),
        ]:
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, found {value}")
        if self.min_depth is not None and not 0 < self.min_depth < np.inf:
            raise InputError(f"min_depth must be positive (in scene units), found {self.min_depth}")

    def settings(self) -> dict[str, object]:
        """Return the options that change the numbers of an estimate, and not only its speed."""
        out = {name: value for name, value in asdict(self).items() if name not in ("batch", "cached_images")}
        return out if self.size is None else {name: value for name, value in out.items() if name != "max_side"}


def working_size(camera: Camera, options: InferOptions) -> tuple[int, int]:
    """Return the (width, height) [px] at which a view is estimated.

    ``options.size`` where it is given. Else the image shrunk to ``options.max_side`` with its aspect kept, both sides
    then rounded to the nearest multiple of 32 (x and y are then scaled by factors that differ by a few per cent; the
    camera follows).
    """
    if options.size is not None:
        return options.size
    scale = min(1.0, options.max_side / max(camera.width, camera.height))
    width, height = (max(1, round(side * scale / SIDE_MULTIPLE)) for side in (camera.width, camera.height))
    return width * SIDE_MULTIPLE, height * SIDE_MULTIPLE


def estimate_views(
    scene: Scene,
    network: Network,
    options: InferOptions | None = None,
    *,
    views: Sequence[int] | None = None,
    on_drop: DropCallback | None = None,
) -> Iterator[Estimate]:
    """Estimate depth, normals and confidence of the views of a scene, one by one, as they are asked for.

    Args:
        scene: from ``open_scene``; views without a depth range get one (``ingest.depth_range``).
        network: from ``load_network``; computation happens where its parameters are.
        options: see ``InferOptions``.
        views: positions in ``scene.views`` of the references; default: all. Any view of the scene may be a source.
        on_drop: told of each reference that is left out, and why; by default a warning is logged.

    Yields:
        one Estimate a view, in order, without depth where the view's mask is zero. A view whose image or mask cannot be
        read, that no other view serves as source, or whose nearest plane is unknown, is left out.

    Raises:
        NasReconError: if memory does not suffice for a single view.
    """
    for estimates, _ in _batches(scene, network, options or InferOptions(), views, on_drop or _log_drop):
        yield from estimates


def _batches(
    scene: Scene, network: Network, options: InferOptions, views: Sequence[int] | None, on_drop: DropCallback
) -> Iterator[tuple[list[Estimate], float]]:
    """Yield the estimates of one pass through the network, and the seconds that it took; see ``estimate_views``."""
    scene = with_depth_ranges(scene, options.min_depth)
    device = device_of(network)
    batch = options.batch or (1 if device.type == "cpu" else 4)
    jobs = _jobs(scene, range(len(scene.views)) if views is None else views, options, on_drop)
    items = _items(jobs, _ImageCache(scene, options.cached_images), batch + 1, on_drop)
    ready: list[_Item] = []
    since = time.perf_counter()
    try:
        while True:
            ready += islice(items, max(0, batch - len(ready)))
            if not ready:
                return
            now = ready[:batch]
            estimates = _run(network, device, now)
            if estimates is None:
                batch = len(now) // 2
                logger.warning("memory of %s does not hold %d views at once; going on with %d", device, len(now), batch)
                continue
            del ready[: len(now)]
            estimates = _masked(estimates, on_drop)
            yield estimates, time.perf_counter() - since
            since = time.perf_counter()
    finally:
        items.close()


def _masked(estimates: Sequence[Estimate], on_drop: DropCallback) -> list[Estimate]:
    """Return the estimates without depth where the views' masks are zero; those whose mask cannot be read are dropped."""
    out = []
    for estimate in estimates:
        try:
            keep = read_mask(estimate.view)
        except InputError as error:
            on_drop(estimate.view.name, str(error))
            continue
        if keep is not None:
            maps = {name: getattr(estimate, name) for name in ("depth", "normal", "confidence", "sigma")}
            maps = {name: np.where(keep[..., None] if m.ndim == 3 else keep, m, 0) for name, m in maps.items()}
            estimate = replace(estimate, **{name: m.astype(np.float32) for name, m in maps.items()})
        out.append(estimate)
    return out


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
        for estimates, seconds in _batches(scene, network, options, todo, drop):
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
        _log_drop(name, reason)


def _log_drop(name: str, reason: str) -> None:
    logger.warning("%s: left out: %s", name, reason)


def _nothing_left(scene: Scene, dropped: dict[str, str]) -> str:
    reasons = "; ".join(sorted(set(dropped.values()))[:3])
    return f"{scene.root}: none of {len(scene.views)} views could be estimated ({reasons or 'the scene has no views'})"


class _ImageCache:
    """Decoded images of a scene by view and size; the least recently used one goes when there are too many."""

    def __init__(self, scene: Scene, capacity: int) -> None:
        self._scene, self._capacity = scene, capacity
        self._images: OrderedDict[tuple[int, int, int], Posed] = OrderedDict()

    def read(self, index: int, width: int, height: int) -> Posed:
        """Return the image and the view at that size [px].

        Raises:
            InputError: if the image cannot be read.
        """
        key = (index, width, height)
        if key not in self._images:
            self._images[key] = read_view(self._scene.views[index], width, height)
        self._images.move_to_end(key)
        if len(self._images) > self._capacity:
            self._images.popitem(last=False)
        return self._images[key]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A reference and its sources: for each its name, position in the scene, and the width and height to read it at."""

    ref: tuple[str, int, int, int]
    sources: tuple[tuple[str, int, int, int], ...]

    def read(self, cache: _ImageCache) -> tuple[_Item | None, dict[str, str]]:
        """Return the images, or None if they do not suffice, and why for each name that has to be left out."""
        images: list[Posed] = []
        problems: dict[str, str] = {}
        for name, *key in (self.ref, *self.sources):
            try:
                images.append(cache.read(*key))
            except InputError as error:
                problems[name] = str(error)
        if self.ref[0] not in problems and len(images) < 2:
            problems[self.ref[0]] = "none of its sources can be read"
        return (None if self.ref[0] in problems else (images[0], images[1:])), problems


def _items(jobs: Iterator[_Job], cache: _ImageCache, ahead: int, on_drop: DropCallback) -> Generator[_Item, None, None]:
    """Yield each job's images, in order; a thread reads up to ``ahead`` jobs in advance, it alone uses the cache."""
    reader = ThreadPoolExecutor(1, thread_name_prefix="nasrecon-read")
    waiting: deque[Future[tuple[_Item | None, dict[str, str]]]] = deque()
    told: set[str] = set()
    try:
        while True:
            waiting.extend(reader.submit(job.read, cache) for job in islice(jobs, ahead - len(waiting)))
            if not waiting:
                return
            item, problems = waiting.popleft().result()
            for name in [name for name in problems if name not in told]:
                on_drop(name, problems[name])
                told.add(name)
            if item is not None:
                yield item
    finally:
        reader.shutdown(cancel_futures=True)


def _jobs(scene: Scene, references: Sequence[int], options: InferOptions, on_drop: DropCallback) -> Iterator[_Job]:
    """Say of each reference what has to be read; those that cannot be estimated are reported and left out."""
    for i in references:
        view = scene.views[i]
        if view.depth_range is None:
            on_drop(view.name, "its nearest plane is unknown; give --min-depth")
            continue
        chosen = rank_sources(scene, i, options.sources)
        if not chosen:
            on_drop(view.name, "no other view serves as its source (none overlaps it from another place)")
            continue
        width, height = working_size(view.camera, options)
        sources = tuple((scene.views[j].name, j, *_source_size(scene.views[j].camera, width, height)) for j in chosen)
        yield _Job(ref=(view.name, i, width, height), sources=sources)


def _source_size(camera: Camera, width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) to read a source at: the reference's if the aspects are about equal, else what fits.

    Within what the rounding to multiples of 32 does to a reference, filling the frame beats padding it.
    """
    aspect = (camera.width / camera.height) / (width / height)
    return (width, height) if 0.9 < aspect < 1.1 else fitted_size(camera, width, height)


def _run(network: Network, device: torch.device, items: Sequence[_Item]) -> list[Estimate] | None:
    """Estimate some views at once; None if memory does not suffice for that.

    Raises:
        NasReconError: if it does not suffice for a single one.
    """
    try:
        with torch.inference_mode(), autocast(network, device):
            return predict(network, [ref for ref, _ in items], [sources for _, sources in items], device)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        if len(items) == 1:
            raise NasReconError(_too_large(items[0], device)) from error
    # Not in the handler: there the error still holds the tensors.
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """Tell memory that ran out on a device or on the CPU, where torch reports it as a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _too_large(item: _Item, device: torch.device) -> str:
    (_, view), sources = item
    return (
        f"{view.name}: memory of {device} does not hold one view of {view.camera.width}x{view.camera.height} with "
        f"{len(sources)} sources; use a smaller --max-side (or --size), or fewer --sources"
    )
