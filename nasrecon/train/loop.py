"""The training loop: resumable to the same next loss, stopped by NaN, logged to a CSV file."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from nasrecon.atomic import remove_stale_parts
from nasrecon.errors import InputError
from nasrecon.ranks import Ranks
from nasrecon.train.datasets import BatchOptions, TrainingBatch
from nasrecon.train.recipes import Stage, loss_of
from nasrecon.train.state import TrainOptions, TrainState, load_checkpoint, new_state, save_checkpoint
from nasrecon.train.step import mixed_precision, train_step


class TrainingData(Protocol):
    """What batches are drawn from."""

    options: BatchOptions

    def draw(self, seed: int) -> TrainingBatch:
        """Return the batch of a seed, always the same."""
        ...


def train(
    run: Path, data: TrainingData, validation: TrainingData | None, options: TrainOptions, device: torch.device,
    *, resume: bool = False, network_options: dict | None = None, init: str | Path | None = None,
    on_step: Callable[[int, dict], None] | None = None, ranks: Ranks = Ranks(),  # noqa: B008
) -> TrainState:  # fmt: skip
    """Train a network until ``options.steps``; writes ``checkpoint.pt`` and ``log.csv`` into the folder ``run``.

    It starts from ``init`` where that is given, else from seeded weights.
    The batches of step i depend on (seed, i) alone: a resumed run goes on as if it had never stopped, on any number of
    ranks that divides its ``options.batches``. The first rank writes and validates.

    Raises:
        InputError: if the folder holds a run and ``resume`` is False, there is nothing to resume, or the ranks cannot
            share the batches of a step.
        NasReconError: at a loss that is not finite, with the step and the seed of its batch.
    """
    checkpoint = run / "checkpoint.pt"
    options, made = ranks.from_first(lambda: _prepared(run, data, options, resume, network_options, init))
    if options.batches % ranks.size:
        raise InputError(
            f"{options.batches} batches in a step cannot be shared by {ranks.size} processes; start a number of "
            "processes that divides them (--batches-per-step)"
        )
    state = new_state(options, device, made["options"], None if resume else init)
    if resume:
        state = load_checkpoint(state, checkpoint)
    sums, since = {}, 0
    with ThreadPoolExecutor(1) as ahead:
        draw = lambda step: [(seed, data.draw(seed)) for seed in _seeds(step, options, ranks)]  # noqa: E731
        upcoming = ahead.submit(draw, state.step)
        while state.step < options.steps:
            started = time.perf_counter()
            batches = [(seed, batch.to(device)) for seed, batch in upcoming.result()]
            upcoming = ahead.submit(draw, state.step + 1)
            logged = train_step(state, batches, options, ranks)
            state.seconds += time.perf_counter() - started
            for name, value in logged.items():
                sums[name] = sums.get(name, 0.0) + value
            since += 1
            if on_step is not None:
                on_step(state.step, logged)
            if not ranks.is_first:
                continue
            if state.step % 50 == 0 or state.step == options.steps:
                _log(run / "log.csv", state, {k: v / since for k, v in sums.items()}, "train")
                sums, since = {}, 0
            if state.step % options.save_every == 0 or state.step == options.steps:
                save_checkpoint(state, checkpoint)
                if validation is not None:
                    scores = validate(state.average, validation, device, options.stage)
                    _log(run / "log.csv", state, scores, "validation")
    return state


def _prepared(
    run: Path,
    data: TrainingData,
    options: TrainOptions,
    resume: bool,
    network_options: dict | None,
    init: str | Path | None,
) -> tuple[TrainOptions, dict]:
    """Make or check the folder of a run.

    Returns:
        the options, those that a resumed run fixes taken from it, and what ``options.json`` holds.
    """
    run.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(run)
    if (run / "checkpoint.pt").exists() and not resume:
        raise InputError(f"{run}: holds a training run already; pass --resume to go on with it, or name another folder")
    if resume:
        made = _options_of_run(run, options)
        kept = options.keep_statistics or made["trained"].get("keep_statistics", False)
        options = replace(options, batches=made["trained"].get("batches", 1), keep_statistics=kept)
        network_options = made["options"]
    else:
        network = new_state(options, torch.device("cpu"), network_options, init).network
        network_options = getattr(network, "options", network_options or {})
    described = describe(options, data.options) | ({"from": str(init)} if init is not None else {})
    made = {"network": options.network, "options": network_options}
    (run / "options.json").write_text(json.dumps(made | {"trained": described}, indent=1))
    return options, made


def _seeds(step: int, options: TrainOptions, ranks: Ranks) -> list[int]:
    """Return the seeds of the batches of a step on this rank."""
    first = options.seed * 10_000_019 + step * options.batches
    return ranks.share(range(first, first + options.batches))


def _options_of_run(run: Path, options: TrainOptions) -> dict:
    """Return what a run trains, and how.

    Raises:
        InputError: if there is no run, or it trains another network or stage.
    """
    path = run / "options.json"
    if not path.is_file():
        raise InputError(f"{path}: expected the options of a run to resume, found no file")
    made = json.loads(path.read_text())
    trained, asked = (made["network"], made["trained"]["stage"]), (options.network, options.stage)
    if trained != asked:
        raise InputError(
            f"{run}: trains stage {trained[1]} of {trained[0]}, and was to be resumed as stage {asked[1]} of {asked[0]}"
        )
    return made


def rate_of_run(run: Path) -> float | None:
    """Return the peak learning rate that a run has been given; None where there is no run."""
    path = run / "options.json"
    return json.loads(path.read_text())["trained"].get("learning_rate") if path.is_file() else None


@torch.no_grad()
def validate(
    network: nn.Module, data: TrainingData, device: torch.device, stage: Stage = "all", batches: int = 12
) -> dict[str, float]:
    """Return the mean of what training logs over fixed batches of held-out worlds."""
    network.eval()
    sums: dict[str, float] = {}
    for i in range(batches):
        batch = data.draw(900_000_000 + i).to(device)
        with mixed_precision(device):
            logged = loss_of(network, batch, stage)[1]
        for name, value in logged.items():
            sums[name] = sums.get(name, 0.0) + value / batches
    return sums


def _log(path: Path, state: TrainState, values: dict[str, float], part: str) -> None:
    """Append a row; the columns are those of the first row."""
    row = {"step": state.step, "seconds": round(state.seconds, 1), "part": part}
    names = list(row) + [n for n in sorted(values)]
    if path.exists():
        with path.open(newline="") as f:
            names = next(csv.reader(f))
    new = not path.exists()
    with path.open("a", newline="") as f:
        writer = csv.DictWriter(f, names, restval="", extrasaction="ignore")
        if new:
            writer.writeheader()
        writer.writerow(row | {k: f"{v:.5g}" for k, v in values.items()})


def describe(options: TrainOptions, batch: BatchOptions) -> dict:
    """Return the options as a plain dict, for the manifest."""
    kept = {k: v for k, v in asdict(options).items() if k not in ("save_every", "network")}
    return kept | {f"batch_{k}" if k != "batch" else k: v for k, v in asdict(batch).items()}


@contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[int, dict], None]]:
    """Show steps, time left, loss, depth error and angle on stderr; yields what ``train`` calls after each step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    smooth: dict[str, float] = {}
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=600) as bar:
        task = bar.add_task("", total=steps)

        def on_step(step: int, logged: dict) -> None:
            for name in ("loss", "abs_rel", "angle"):
                value = float(logged[name])
                smooth[name] = 0.98 * smooth.get(name, value) + 0.02 * value
            text = f"loss {smooth['loss']:.3f}  abs rel {smooth['abs_rel']:.3f}  normals {smooth['angle']:.1f} deg"
            bar.update(task, completed=step, description=text)

        yield on_step
