"""Several processes on one job, as ``torchrun`` starts them: each takes its share, the first one writes what is common.

Without ``torchrun`` there is one rank, and nothing of torch.distributed is loaded.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from nasrecon.errors import InputError, NasReconError, in_words

T = TypeVar("T")

_CONNECTING = timedelta(seconds=40)
_LONGEST_WAIT = timedelta(days=7)  # structure from motion on the first rank may take hours
_groups: list[Ranks] = []


@dataclass(frozen=True)
class Ranks:
    """This process among those of a job.

    Attributes:
        rank, size: its number and how many there are. local, size_here: the same on this machine.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    size_here: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this rank writes what is common."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """Return the items of this rank: every ``size``-th."""
        return list(items[self.rank :: self.size])

    def device(self, name: str) -> str:
        """Return the device of this rank for "auto" and "cuda": each process of a machine takes a GPU of its own."""
        if self.size == 1 or name not in ("auto", "cuda"):
            return name
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return f"cuda:{self.local % count}" if count else name

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what ``make`` returns on the first rank, on all ranks; the others wait for it.

        Raises:
            NasReconError: on all ranks, where it is raised on the first.
        """
        if self.size == 1:
            return make()
        parcel: list[Any] = [None, None]
        if self.is_first:
            try:
                parcel[0] = make()
            except NasReconError as error:
                parcel[1] = error
        self._talk(lambda distributed: distributed.broadcast_object_list(parcel, src=0))
        if parcel[1] is not None:
            raise parcel[1]
        return parcel[0]

    def gathered(self, part: T) -> list[T]:
        """Return the parts of all ranks on the first one, [] on the others."""
        if self.size == 1:
            return [part]
        parts: list[Any] | None = [None] * self.size if self.is_first else None
        self._talk(lambda distributed: distributed.gather_object(part, parts, dst=0))
        return parts or []

    def exchanged(self, part: T) -> list[T]:
        """Return the parts of all ranks, in their order, on every rank."""
        if self.size == 1:
            return [part]
        parts: list[Any] = [None] * self.size
        self._talk(lambda distributed: distributed.all_gather_object(parts, part))
        return parts

    def add_up(self, tensors: Sequence[Any]) -> None:
        """Replace tensors, the same on every rank in number and shape, by their sums over all ranks."""
        if self.size == 1 or not tensors:
            return
        import torch

        flat = torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
        self._talk(lambda distributed: distributed.all_reduce(flat))
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def _talk(self, exchange: Callable[[Any], object]) -> None:
        import torch.distributed

        try:
            exchange(torch.distributed)
        except RuntimeError as error:
            raise NasReconError(
                f"rank {self.rank}: another process of this job ended before its time; finished views are on disk, "
                "the same command goes on"
            ) from error


def current() -> Ranks:
    """Return this process among those of the job; the only one outside of ``as_ranks``."""
    return _groups[-1] if _groups else Ranks()


def is_restarted() -> bool:
    """Return whether torchrun has started the processes of this job anew, after one of them ended before its time."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"


_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")


def _from_environment() -> Ranks:
    """Return what the variables say; without ``LOCAL_WORLD_SIZE`` all processes are on this machine."""
    size = os.environ.get("WORLD_SIZE", "1")
    return Ranks(*(int(os.environ.get(*pair)) for pair in zip(_VARIABLES, ("0", size, "0", size), strict=True)))


@contextmanager
def as_ranks() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started (by its environment variables); alone without them.

    Raises:
        InputError: if the variables are damaged.
        NasReconError: if the processes do not reach each other.
    """
    try:
        ranks = _from_environment()
    except ValueError as error:
        raise InputError(f"{', '.join(_VARIABLES)}: expected numbers, found {error}") from error
    if ranks.size == 1:
        yield ranks
        return
    import torch.distributed
    from torch.distributed.distributed_c10d import PrefixStore, _set_pg_timeout
    from torch.distributed.rendezvous import rendezvous

    guard = threading.Timer(_CONNECTING.total_seconds() + 5, _give_up, [ranks.rank])
    guard.daemon = True
    guard.start()
    try:
        store, rank, size = next(rendezvous("env://", timeout=_CONNECTING))
        store = PrefixStore(f"attempt {_agree_on_attempt(store, rank, size)}", store)
        torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_CONNECTING)
        _set_pg_timeout(_LONGEST_WAIT, torch.distributed.group.WORLD)
    except (RuntimeError, ValueError) as error:
        raise NasReconError(
            f"rank {ranks.rank}: the processes of this job do not reach each other: {in_words(error)}"
        ) from error
    finally:
        guard.cancel()
    _groups.append(ranks)
    try:
        yield ranks
    finally:
        _groups.pop()
        torch.distributed.destroy_process_group()


def _agree_on_attempt(store: Any, rank: int, size: int) -> int:
    """Return a number that no earlier set of these processes had.

    ``torchrun`` keeps its store over restarts, and with it the addresses of processes that have ended; what this
    attempt writes must not meet them. The first rank counts the attempts and answers the others; an answer names the
    process that asked, so that none is taken from an earlier attempt.
    """
    if rank == 0:
        attempt = store.add("attempt", 1)
        for other in range(1, size):
            asked = store.get(f"{attempt}/{other}").decode()
            store.set(f"{attempt}/{other}/{asked}", "yes")
        return attempt
    me, until = uuid.uuid4().hex, time.monotonic() + _CONNECTING.total_seconds()
    while time.monotonic() < until:
        attempt = store.add("attempt", 0)
        if store.check([f"{attempt}/{rank}/{me}"]):
            return attempt
        store.set(f"{attempt}/{rank}", me)
        time.sleep(0.05)
    raise RuntimeError(f"the first rank did not answer for {_CONNECTING.total_seconds():g} s")


def _give_up(rank: int) -> None:
    """End this process where gloo waits for ever to connect; torchrun then starts the job anew."""
    os.write(2, f"rank {rank}: the processes of this job do not reach each other\n".encode())
    os._exit(1)
