"""One rank of a run under torchrun; rank 1 kills itself after its first view, unless it has done so before."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from plane_world import SweepNetwork

import nasrecon.nas.weights
from nasrecon import cli
from nasrecon.results.writer import ResultsWriter

torch.set_num_threads(1)
marker = Path(sys.argv[1])


class Network(SweepNetwork):
    sha256, weights = "ab" * 32, "sweep"


def add_then_die(self, estimate, *, seconds, add=ResultsWriter.add):
    add(self, estimate, seconds=seconds)
    if os.environ["RANK"] == "1" and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


nasrecon.nas.weights.load_network = lambda name, device="auto": Network()
ResultsWriter.add = add_then_die
cli.main(sys.argv[2:])
