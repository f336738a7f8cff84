"""One rank of a training run under torchrun: RUN WORLDS STEPS, two batches a step."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from nasrecon.ranks import as_ranks
from nasrecon.train.datasets import BatchOptions, WorldFiles
from nasrecon.train.loop import train
from nasrecon.train.state import TrainOptions

torch.set_num_threads(1)


def main(run: str, worlds: str, steps: str, resume: str = "") -> None:
    data = WorldFiles(Path(worlds), BatchOptions(pixels=64 * 80, sources=1))
    options = TrainOptions(steps=int(steps), warmup=2, batches=2, save_every=100, pretrained=False)
    with as_ranks() as ranks:
        train(Path(run), data, None, options, torch.device("cpu"), resume=bool(resume), ranks=ranks)


if __name__ == "__main__":
    main(*sys.argv[1:])
