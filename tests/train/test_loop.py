"""The training loop: a resumed run is the same run, NaN stops it, and it learns."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from nasrecon.errors import InputError, NasReconError
from nasrecon.train.datasets import BatchOptions, WorldFiles, WorldOptions, render_worlds
from nasrecon.train.loop import TrainOptions, new_state, train, train_step

CPU = torch.device("cpu")
BATCH = BatchOptions(batch=2, width=64, height=64, sources=1)


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> WorldFiles:
    folder = tmp_path_factory.mktemp("worlds")
    render_worlds(folder, 1, 3, WorldOptions(width=80, height=64, views=2, worlds_per_file=3, drawn_textures=6))
    return WorldFiles(folder, BATCH)


def test_resume_gives_the_same_next_loss(worlds: WorldFiles, tmp_path: Path) -> None:
    losses: dict[str, list[float]] = {"straight": [], "resumed": []}
    note = lambda name: lambda step, logged: losses[name].append(logged["loss"])  # noqa: E731
    options = TrainOptions(steps=4, warmup=2, save_every=2)
    train(tmp_path / "straight", worlds, None, options, CPU, on_step=note("straight"))

    class Stop(Exception):
        pass

    def until_three(step: int, logged: dict) -> None:
        if step == 3:
            raise Stop
        losses["resumed"].append(logged["loss"])

    with pytest.raises(Stop):
        train(tmp_path / "broken", worlds, None, options, CPU, on_step=until_three)
    train(tmp_path / "broken", worlds, None, options, CPU, resume=True, on_step=note("resumed"))
    assert losses["resumed"] == pytest.approx(
        losses["straight"], rel=1e-4
    )  # sums of threads may differ in the last digit
    rows = list(csv.DictReader((tmp_path / "broken" / "log.csv").open()))
    assert rows[-1]["step"] == "4" and float(rows[-1]["loss"]) > 0


def test_a_run_is_not_overwritten_and_nothing_is_not_resumed(worlds: WorldFiles, tmp_path: Path) -> None:
    train(tmp_path, worlds, None, TrainOptions(steps=1, warmup=1), CPU)
    with pytest.raises(InputError, match="--resume"):
        train(tmp_path, worlds, None, TrainOptions(steps=1), CPU)
    with pytest.raises(InputError, match="no file"):
        train(tmp_path / "new", worlds, None, TrainOptions(steps=1), CPU, resume=True)


def test_nan_stops_the_run_and_names_the_batch(worlds: WorldFiles) -> None:
    options = TrainOptions(steps=5)
    state = new_state(options, CPU)
    batch = worlds.draw(17)
    batch.stereo.ref_image[0, :, 3, 3] = torch.nan
    before = [p.clone() for p in state.network.parameters()]
    with pytest.raises(NasReconError, match="seed 17"):
        train_step(state, batch, options, 17)
    assert all(torch.equal(a, b) for a, b in zip(before, state.network.parameters(), strict=True))


def test_it_learns_a_batch_by_heart(worlds: WorldFiles) -> None:
    options = TrainOptions(steps=200, warmup=1, learning_rate=2e-3)
    state = new_state(options, CPU)
    batch = worlds.draw(2)
    first = train_step(state, batch, options, 2)
    for _ in range(24):
        last = train_step(state, batch, options, 2)
    assert last["loss"] < 0.6 * first["loss"]
    assert last["angle_volume"] < first["angle_volume"] - 10
