"""Threads for the views of a fusion: what they make of one view after the other comes out in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

THREADS = min(4, os.cpu_count() or 1)

VIEWS_AT_ONCE = 2
"""Views that are worked on at the same time; larger ones (``LARGE_VIEW``) one by one, as memory asks for."""

LARGE_VIEW = 4_000_000
"""Pixels of a view from which on its neighbours' maps take gigabytes."""


def ahead(calls: Iterable[Callable[[], T]], at_once: int = VIEWS_AT_ONCE) -> Iterator[T]:
    """Yield what the calls return, in order; ``at_once`` of them run at the same time, each in a thread."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(at_once) as pool:
        for call in calls:
            waiting.append(pool.submit(call))
            if len(waiting) >= at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_parts(items: Sequence[T], size: int = 50) -> Iterator[Sequence[T]]:
    """Yield the items in runs of ``size``: work on one takes less time than a thread needs to begin it."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
