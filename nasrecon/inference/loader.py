"""Images read ahead of the network by one thread, and cached for the views that share them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

from nasrecon.errors import InputError
from nasrecon.inference.adapter import Posed
from nasrecon.ingest.images import read_view
from nasrecon.progress import Progress
from nasrecon.types import Scene

Item = tuple[Posed, list[Posed]]


class ImageCache:
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
class Job:
    """A reference and its sources: for each its name, position in the scene, and the width and height to read it at."""

    ref: tuple[str, int, int, int]
    sources: tuple[tuple[str, int, int, int], ...]

    def read(self, cache: ImageCache) -> tuple[Item | None, dict[str, str]]:
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


def read_items(jobs: Iterator[Job], cache: ImageCache, ahead: int, progress: Progress) -> Generator[Item, None, None]:
    """Yield each job's images, in order; a thread reads up to ``ahead`` jobs in advance, it alone uses the cache."""
    reader = ThreadPoolExecutor(1, thread_name_prefix="nasrecon-read")
    waiting: deque[Future[tuple[Item | None, dict[str, str]]]] = deque()
    told: set[str] = set()
    try:
        while True:
            waiting.extend(reader.submit(job.read, cache) for job in islice(jobs, ahead - len(waiting)))
            if not waiting:
                return
            item, problems = waiting.popleft().result()
            for name in [name for name in problems if name not in told]:
                progress.skipped(name, problems[name])
                told.add(name)
            if item is not None:
                yield item
    finally:
        reader.shutdown(cancel_futures=True)
