"""Training on two processes gives the weights of one; a run goes on with another number of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nasrecon.cli.train import _start_of
from nasrecon.errors import InputError
from nasrecon.ranks import Ranks
from nasrecon.train.datasets import BatchOptions, WorldFiles
from nasrecon.train.loop import train
from nasrecon.train.state import TrainOptions
from nasrecon.train.world_files import WorldOptions, render_worlds

WORKER = Path(__file__).with_name("train_worker.py")
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run(*command: str | Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["network"]


def test_two_ranks_give_the_weights_of_one_and_go_on_alone(tmp_path: Path) -> None:
    worlds = tmp_path / "worlds"
    render_worlds(worlds, 1, 3, WorldOptions(width=80, height=64, views=2, worlds_per_file=3, drawn_textures=6))
    run(sys.executable, WORKER, tmp_path / "one", worlds, "5")
    run(*TORCHRUN, WORKER, tmp_path / "two", worlds, "3")
    run(sys.executable, WORKER, tmp_path / "two", worlds, "5", "resume")
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name, tensor in ((name, x) for name, x in one.items() if x.is_floating_point()):
        assert torch.allclose(tensor, two[name], rtol=1e-5, atol=1e-6), name
    rows = (tmp_path / "two" / "log.csv").read_text().splitlines()
    assert len(rows) == 3  # the header, and the last step of each part, written by one rank


def test_ranks_that_cannot_share_the_batches_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    render_worlds(tmp_path / "w", 1, 3, WorldOptions(width=80, height=64, views=2, worlds_per_file=1, drawn_textures=6))
    data = WorldFiles(tmp_path / "w", BatchOptions(pixels=64 * 80, sources=1))
    monkeypatch.setattr(Ranks, "from_first", lambda self, make: make())
    options = TrainOptions(steps=1, batches=3, pretrained=False)
    with pytest.raises(InputError, match="3 batches in a step cannot be shared by 2"):
        train(tmp_path / "run", data, None, options, torch.device("cpu"), ranks=Ranks(0, 2))


def test_processes_that_torchrun_starts_anew_go_on_from_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _start_of(tmp_path, False, "lite") == (False, "lite")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert _start_of(tmp_path, False, "lite") == (False, "lite")  # it ended before the first checkpoint
    (tmp_path / "checkpoint.pt").touch()
    assert _start_of(tmp_path, False, "lite") == (True, None)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert _start_of(tmp_path, False, None) == (False, None)
