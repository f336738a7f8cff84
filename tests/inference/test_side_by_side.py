"""Several views are estimated at the same time on a CPU: the same estimates, in order; failures end it cleanly."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import torch
from plane_world import SweepNetwork

from inference.setups import estimate_views, names


def threads_of_passes():
    return [
        thread.name for thread in threading.enumerate() if thread.name.startswith(("nasrecon-pass", "nasrecon-read"))
    ]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class InPairs(SweepNetwork):
    """A network whose calls wait until another thread calls it too."""

    def __init__(self, error=None):
        super().__init__()
        self.barrier, self.error, self.threads = threading.Barrier(2), error, set()

    def forward(self, batch):
        self.threads.add((threading.current_thread().name, torch.get_num_threads()))
        if self.barrier.wait(timeout=60) == 0 and self.error is not None:
            raise self.error
        return super().forward(batch)


def test_a_cpu_estimates_as_many_views_at_the_same_time_as_it_has_threads(scene, two_threads):
    options = dict(min_depth=1.5, sources=2)
    network = InPairs()
    found = list(estimate_views(scene, network, options, views=[3, 0, 1, 4]))
    assert names(found) == ["0003.png", "0000.png", "0001.png", "0004.png"]
    assert len({name for name, _ in network.threads}) == 2 and {count for _, count in network.threads} == {1}
    assert torch.get_num_threads() == 2 and not threads_of_passes()
    for view, same in zip(found, estimate_views(scene, SweepNetwork(), options, views=[3, 0, 1, 4]), strict=True):
        np.testing.assert_array_equal(view.depth, same.depth)


def test_a_failure_beside_another_view_ends_the_run_and_its_threads(scene, two_threads):
    with pytest.raises(RuntimeError, match="shapes"):
        list(
            estimate_views(scene, InPairs(error=RuntimeError("shapes do not match")), dict(min_depth=1.5), views=[0, 1])
        )
    assert not threads_of_passes()


class Together(SweepNetwork):
    """A network that runs out of memory where two threads call it at the same time."""

    def __init__(self):
        super().__init__()
        self.inside, self.both, self.failed = 0, threading.Event(), 0

    def forward(self, batch):
        self.inside += 1
        if self.inside == 2:
            self.both.set()
        try:
            if self.failed == 0 and self.both.wait(timeout=60):
                self.failed += 1
                raise MemoryError
            return super().forward(batch)
        finally:
            self.inside -= 1


def test_views_that_memory_does_not_hold_side_by_side_are_estimated_one_after_another(scene, two_threads, caplog):
    network = Together()
    with caplog.at_level(logging.WARNING, "nasrecon"):
        found = list(estimate_views(scene, network, dict(min_depth=1.5, sources=2)))
    assert names(found) == [f"{i:04d}.png" for i in range(5)] and network.failed >= 1
    assert len(caplog.records) == 1 and "going on with one" in caplog.records[0].getMessage()
