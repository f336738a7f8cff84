"""Images read ahead of the network by one thread, and cached for the views that share them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from nasrecon.errors import InputError
from nasrecon.inference.adapter import Photo
from nasrecon.ingest.images import read_view
from nasrecon.prepare.prepare import PreparedScene
from nasrecon.progress import Progress

Item = tuple[Photo, list[Photo]]


def read_photo(prepared: PreparedScene, index: int, width: int, height: int) -> Photo:
    """Return a view's image at a size [px], its camera at that size, and what is known of its pose.

    Raises:
        InputError: if the image cannot be read.
    """
    rgb, view = read_view(prepared.scene.views[index], width, height)
    given = None if prepared.given_poses is None else prepared.given_poses[index]
    views, error = len(prepared.scene.views), prepared.pose_error(index)
    return Photo(rgb=rgb, view=view, given_pose=given, scene_views=views, pose_error=error)


class ImageCache:
    """Decoded images of a scene by view and size; the least recently used one goes when there are too many.

    ``prior``: gives a reference its depth and normals of elsewhere.
    """

    def __init__(self, prepared: PreparedScene, capacity: int, prior: Callable[[Photo], Photo] | None = None) -> None:
        self._prepared, self.prior = prepared, prior
        self.read = lru_cache(capacity)(self._read)

    def _read(self, index: int, width: int, height: int) -> Photo:
        return read_photo(self._prepared, index, width, height)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A reference and its sources: for each its name, position in the scene, and the width and height to read it at."""

    ref: tuple[str, int, int, int]
    sources: tuple[tuple[str, int, int, int], ...]

    def read(self, cache: ImageCache) -> tuple[Item | None, dict[str, str]]:
        """Return the images, or None if they do not suffice, and why for each name that has to be left out."""
        images: list[Photo] = []
        problems: dict[str, str] = {}
        for name, *key in (self.ref, *self.sources):
            try:
                photo = cache.read(*key)
                images.append(photo if images or cache.prior is None or problems else cache.prior(photo))
            except InputError as error:
                problems[name] = str(error)
        if self.ref[0] not in problems and len(images) < 2:
            problems[self.ref[0]] = "none of its sources can be read"
        return (None if self.ref[0] in problems else (images[0], images[1:])), problems


def read_items(jobs: Iterator[Job], cache: ImageCache, ahead: int, progress: Progress) -> Generator[Item, None, None]:
    """Yield each job's images, in order; a thread reads up to ``ahead`` jobs in advance, it alone uses the cache."""
    reader = ThreadPoolExecutor(1, thread_name_prefix="nasrecon-read")
    waiting: deque[Future[tuple[Item | None, dict[str, str]]]] = deque()
    reported: set[str] = set()
    try:
        while True:
            waiting.extend(reader.submit(job.read, cache) for job in islice(jobs, ahead - len(waiting)))
            if not waiting:
                return
            item, problems = waiting.popleft().result()
            for name in [name for name in problems if name not in reported]:
                progress.skipped(name, problems[name])
                reported.add(name)
            if item is not None:
                yield item
    finally:
        reader.shutdown(cancel_futures=True)
