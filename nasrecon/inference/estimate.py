"""Run a network over a scene: one Estimate for each view, in batches, within bounded memory; into a folder if asked."""

from __future__ import annotations

import gc
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from nasrecon.errors import InputError, NasReconError
from nasrecon.inference.adapter import Photo
from nasrecon.inference.loader import ImageCache, Item, Job, read_items
from nasrecon.inference.memory import MIN_TILE_SIDE, Memory, largest_size, pass_size
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.passes import Passes, predict
from nasrecon.inference.sizes import source_size, working_size
from nasrecon.inference.tiles import LARGEST_SIDE, Grid, plan_tiles, predict_in_tiles
from nasrecon.ingest.masks import read_mask
from nasrecon.nas.network import Network
from nasrecon.nas.precision import autocast, device_of
from nasrecon.prepare.prepare import PreparedScene, prepare_scene
from nasrecon.progress import LogProgress, Progress
from nasrecon.types import Estimate, Scene

PARALLEL_VIEWS = 4
"""Views that are estimated at the same time on a CPU: each by some of its threads. Two threads that share one view wait
for the memory together and for each other after every layer."""

logger = logging.getLogger("nasrecon")


def estimate_views(
    scene: Scene | PreparedScene,
    network: Network,
    options: EstimateOptions | None = None,
    *,
    views: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Iterator[Estimate]:
    """Estimate depth, normals and confidence of the views of a scene, one by one, as they are asked for.

    Args:
        scene: from ``prepare_scene``; one from ``open_scene`` is prepared first with the default options, which refines
            poses that the matches of the images contradict.
        network: from ``load_network``; computation happens where its parameters are.
        options: see ``EstimateOptions``.
        views: positions in ``scene.views`` of the references; default: all. Any view of the scene may be a source.
        progress: receives each reference that is left out, and why; by default these are logged.

    Yields:
        one Estimate a view, in order, without depth where the view's mask is zero. A view whose image or mask cannot be
        read, that no other view serves as source, or whose nearest plane is unknown, is left out.

    Raises:
        NasReconError: if memory does not suffice for the smallest tiles of a single view.
    """
    scene = scene if isinstance(scene, PreparedScene) else prepare_scene(scene, progress=progress)
    for estimates, _ in estimate_batches(
        scene, network, options or EstimateOptions(), views, progress or LogProgress()
    ):
        yield from estimates


def estimate_batches(
    prepared: PreparedScene,
    network: Network,
    options: EstimateOptions,
    views: Sequence[int] | None,
    progress: Progress,
    prior: Callable[[Photo], Photo] | None = None,
) -> Iterator[tuple[list[Estimate], float]]:
    """Yield the estimates of one pass through the network, and the seconds that it took; see ``estimate_views``."""
    jobs = _jobs(prepared, range(len(prepared.scene.views)) if views is None else views, options, progress)
    runner, cached = _Runner(network, options, progress), options.cached_images
    if prepared.scene.views:
        cached = runner.memory.cached_images(math.prod(largest_size(prepared.scene, options)), cached)
    most = max(runner.batch, runner.at_once)
    ahead = most + 1 if cached > most else 1
    items = read_items(jobs, ImageCache(prepared, cached, prior), ahead, progress)
    passes = _passes_side_by_side(items, runner) if runner.at_once > 1 else _passes_in_turn(items, runner)
    since = time.perf_counter()
    try:
        for estimates in passes:
            estimates = _masked(estimates, progress)
            yield estimates, time.perf_counter() - since
            since = time.perf_counter()
    finally:
        passes.close()
        items.close()


def _passes_in_turn(items: Iterator[Item], runner: _Runner) -> Generator[list[Estimate], None, None]:
    """Yield the estimates of one batch after another."""
    ready: list[Item] = []
    while True:
        ready += islice(items, max(0, runner.batch - len(ready)))
        if not ready:
            return
        now = runner.fitting(ready)
        estimates = runner.run(now)
        if estimates is not None:
            del ready[: len(now)]
            yield estimates


def _passes_side_by_side(items: Iterator[Item], runner: _Runner) -> Generator[list[Estimate], None, None]:
    """Yield the estimates of one view after another, of which several are computed at the same time."""
    pool = ThreadPoolExecutor(runner.at_once, "nasrecon-pass", torch.set_num_threads, (runner.threads_a_pass,))
    begun: deque[tuple[Item, Future[list[Estimate]]]] = deque()
    try:
        for item in items:
            most = runner.fitting_at_once(item)
            while len(begun) >= most:
                yield _finish(begun, runner)
            if most > 1:
                begun.append((item, pool.submit(runner.run_at_once, [item])))
                continue
            yield _run_alone(item, runner)
        while begun:
            yield _finish(begun, runner)
    finally:
        pool.shutdown(cancel_futures=True)


def _finish(begun: deque[tuple[Item, Future[list[Estimate]]]], runner: _Runner) -> list[Estimate]:
    """Return the estimates of the pass that was begun first; where memory did not hold it beside others, once these
    have ended."""
    item, future = begun.popleft()
    try:
        return future.result()
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
    if runner.at_once > 1:
        logger.warning("memory of %s does not hold %d views at once; going on with one", runner.device, runner.at_once)
    runner.at_once = 1
    wait([other for _, other in begun])
    return _run_alone(item, runner)


def _run_alone(item: Item, runner: _Runner) -> list[Estimate]:
    while (estimates := runner.run([item])) is None:
        pass
    return estimates


def _masked(estimates: Sequence[Estimate], progress: Progress) -> list[Estimate]:
    """Return the estimates without depth where the views' masks are zero; those whose mask cannot be read are
    dropped."""
    out = []
    for estimate in estimates:
        try:
            keep = read_mask(estimate.view)
        except InputError as error:
            progress.skipped(estimate.view.name, str(error))
            continue
        if keep is not None:
            maps = {name: getattr(estimate, name) for name in ("depth", "normal", "confidence", "sigma")}
            maps = {name: np.where(keep[..., None] if m.ndim == 3 else keep, m, 0) for name, m in maps.items()}
            estimate = replace(estimate, **{name: m.astype(np.float32) for name, m in maps.items()})
        out.append(estimate)
    return out


def _jobs(
    prepared: PreparedScene, references: Sequence[int], options: EstimateOptions, progress: Progress
) -> Iterator[Job]:
    """Say of each reference what has to be read; those that cannot be estimated are reported and left out."""
    scene = prepared.scene
    for i in references:
        view = scene.views[i]
        if view.depth_range is None:
            progress.skipped(view.name, "its nearest plane is unknown; give --min-depth")
            continue
        chosen = prepared.sources(i)
        if not chosen:
            progress.skipped(view.name, "no other view serves as its source (none overlaps it from another place)")
            continue
        width, height = working_size(view.camera, options)
        sources = tuple((scene.views[j].name, j, *source_size(scene.views[j].camera, width, height)) for j in chosen)
        yield Job(ref=(view.name, i, width, height), sources=sources)


class _Runner:
    """Estimate views within memory: in tiles where one pass does not hold a view, with less at once where memory ran
    out."""

    def __init__(self, network: Network, options: EstimateOptions, progress: Progress) -> None:
        self.network, self.device = network, device_of(network)
        self.passes: Passes = options.passes
        self.memory, self.progress = Memory.of(network, options), progress
        self.batch = options.batch or (1 if self.device.type == "cpu" else 4)
        threads = torch.get_num_threads()
        self.at_once = min(threads, PARALLEL_VIEWS) if self.device.type == "cpu" and self.batch == 1 else 1
        self.threads_a_pass = threads // self.at_once
        self._noted: set[str] = set()

    def fitting(self, ready: Sequence[Item]) -> Sequence[Item]:
        """Return the first of the items that are estimated at once."""
        now = self.memory.fitting(ready[: self.batch], self.network)
        large = [i for i, (ref, _) in enumerate(now) if max(ref.rgb.shape) > LARGEST_SIDE]
        return now[: max(1, large[0])] if large else now

    def fitting_at_once(self, item: Item) -> int:
        """Return how many passes like that of an item are computed at the same time; 1 where it needs tiles."""
        (ref, sources), camera = item, item[0].view.camera
        most = self.memory.pass_pixels(camera.width, camera.height, len(sources))
        fitting = self.at_once if most is None else most // pass_size(camera.width, camera.height, self.network)
        return 1 if max(ref.rgb.shape) > LARGEST_SIDE else max(1, min(self.at_once, fitting))

    def run_at_once(self, items: Sequence[Item]) -> list[Estimate]:
        """Estimate some views in one pass."""
        refs, sources = zip(*items, strict=True)
        with torch.inference_mode(), autocast(self.network, self.device):
            return predict(self.network, refs, sources, self.device, self.passes)

    def run(self, items: Sequence[Item]) -> list[Estimate] | None:
        """Estimate some views at once; None if memory did not suffice, the next call then takes less of it.

        Raises:
            NasReconError: if it does not suffice for the smallest tiles of a single view.
        """
        grid = self._grid(items)
        try:
            if grid is None:
                return self.run_at_once(items)
            (ref, sources), *_ = items
            with torch.inference_mode(), autocast(self.network, self.device):
                return [predict_in_tiles(self.network, ref, sources, self.device, self.passes, grid)]
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            if len(items) == 1 and not self._halve_tiles(items[0], grid):
                raise NasReconError(_too_large(items[0], self.device)) from error
        # Not in the handler: there the error still holds the tensors.
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(items) > 1:
            self.batch = len(items) // 2
            message = "memory of %s does not hold %d views at once; going on with %d"
            logger.warning(message, self.device, len(items), self.batch)
        return None

    def _grid(self, items: Sequence[Item]) -> Grid | None:
        """Return the tiles of a view that memory does not hold in one pass, one tile for a view larger than networks
        are trained on; None where one pass will do."""
        (ref, sources), *more = items
        camera, multiple = ref.view.camera, self.network.size_multiple
        most = self.memory.pass_pixels(camera.width, camera.height, len(sources))
        whole = pass_size(camera.width, camera.height, self.network)
        if more or most is None or whole <= most:
            large = not more and max(camera.width, camera.height) > LARGEST_SIDE
            return plan_tiles(camera.width, camera.height, whole, multiple) if large else None
        grid = plan_tiles(camera.width, camera.height, max(most, MIN_TILE_SIDE**2), multiple)
        self._note(f"views of {camera.width}x{camera.height} are estimated in {grid.in_words()}, to fit into memory")
        return grid

    def _halve_tiles(self, item: Item, grid: Grid | None) -> bool:
        """Allow half of the pixels of the pass that failed; returns whether tiles of that size make sense."""
        camera = item[0].view.camera
        pixels = grid.tile_pixels if grid else pass_size(camera.width, camera.height, self.network)
        if pixels // 2 < MIN_TILE_SIDE**2:
            return False
        self.memory = self.memory.at_most(pixels // 2)
        self._note(f"memory of {self.device} does not hold a pass of {pixels} pixels; going on with half as many")
        return True

    def _note(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.progress.note(text)


def _is_out_of_memory(error: Exception) -> bool:
    """Tell memory that ran out on a device or on the CPU, where torch reports it as a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _too_large(item: Item, device: torch.device) -> str:
    ref, sources = item
    view = ref.view
    return (
        f"{view.name}: memory of {device} does not hold one view of {view.camera.width}x{view.camera.height} with "
        f"{len(sources)} sources; use a smaller --max-side (or --size), or fewer --sources"
    )
