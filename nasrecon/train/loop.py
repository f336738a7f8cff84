"""The training loop: resumable to the same next loss, stopped by NaN, logged to a CSV file."""

from __future__ import annotations

import copy
import csv
import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from nasrecon.atomic import remove_stale_parts, replacing
from nasrecon.errors import InputError, NasReconError
from nasrecon.nas.precision import channels_last
from nasrecon.nas.weights import load_network, load_tensors
from nasrecon.train.datasets import BatchOptions, TrainingBatch, WorldFiles
from nasrecon.train.recipes import Stage, loss_of, make_network, make_optimizers, to_training


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What to learn, how long and how fast.

    Attributes:
        network: "lite2" or "paper". stage: see ``recipes.py``.
        steps: of the whole schedule; a resumed run may be given more or fewer.
        learning_rate: its peak; linear warm-up over ``warmup`` steps, and a linear fall to 2 % of it over the last
            ``fall`` of the steps.
        pretrained: start the encoder of ``lite2`` from ImageNet's weights, unless other weights are given.
        ema: share of the old weights in the running average that is validated and shipped.
        clip: largest gradient norm.
        save_every: steps between checkpoints and validations.
        seed: of weights and batches.
    """

    network: str = "lite2"
    stage: Stage = "all"
    steps: int = 20_000
    learning_rate: float = 1.5e-3
    warmup: int = 50
    fall: float = 0.3
    pretrained: bool = True
    ema: float = 0.997
    clip: float = 8.0
    save_every: int = 250
    seed: int = 0


@dataclass
class TrainState:
    """Everything that a resumed run needs. ``step`` counts the steps done, ``seconds`` the time that they took."""

    network: nn.Module
    average: nn.Module
    optimizers: list[torch.optim.Optimizer]
    step: int = 0
    seconds: float = 0.0

    @property
    def device(self) -> str:
        """The name of the device that the network is on."""
        device = next(self.network.parameters()).device
        return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU ({platform.machine()})"


def new_state(
    options: TrainOptions, device: torch.device, network_options: dict | None = None, init: str | Path | None = None
) -> TrainState:
    """Make a network with seeded weights, or those that ``init`` names (as for ``load_network``), its average and its optimiser.

    Raises:
        InputError: if ``init`` belongs to another network, or the stage is not one of the network's.
    """
    torch.manual_seed(options.seed)
    known = None if init is None else load_network(init, "cpu", fold=False)
    if known is not None:
        if known.name != options.network:
            raise InputError(f"{init}: holds weights of the network {known.name}, expected {options.network}")
        network_options = getattr(known, "options", None)
    pretrained = options.pretrained and known is None and options.network == "lite2"
    network = make_network(options.network, options.stage, network_options, pretrained)
    if known is not None:
        load_tensors(network, known.state_dict(), str(init))
    network = channels_last(network.to(device))
    optimizers = make_optimizers(network, options.learning_rate)
    return TrainState(network=network, average=copy.deepcopy(network).eval(), optimizers=optimizers)


def save_checkpoint(state: TrainState, path: Path) -> None:
    """Write the state; the file at ``path`` is replaced only once the new one is complete."""
    with replacing(path) as part:
        torch.save(
            {"network": state.network.state_dict(), "average": state.average.state_dict(),
             "optimizers": [o.state_dict() for o in state.optimizers], "step": state.step, "seconds": state.seconds}, part,
        )  # fmt: skip


def load_checkpoint(state: TrainState, path: Path) -> TrainState:
    """Read a state written by ``save_checkpoint`` into ``state`` (of the same network options) and return it.

    Raises:
        InputError: if the file is missing or belongs to another network.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a checkpoint to resume from, found no file")
    stored = torch.load(path, weights_only=True, map_location=next(state.network.parameters()).device)
    try:
        state.network.load_state_dict(stored["network"])
        state.average.load_state_dict(stored["average"])
        for optimizer, moments in zip(state.optimizers, stored["optimizers"], strict=True):
            optimizer.load_state_dict(moments)
    except (KeyError, RuntimeError, ValueError) as e:
        raise InputError(f"{path}: not a checkpoint of this network: {e}") from e
    state.step, state.seconds = int(stored["step"]), float(stored["seconds"])
    return state


def learning_rate(step: int, options: TrainOptions) -> float:
    """Return the rate at a step (from 0): warm-up, constant, linear fall."""
    warm = min(1.0, (step + 1) / options.warmup)
    left = 1 - min(1.0, step / options.steps)
    return options.learning_rate * warm * max(0.02, min(1.0, left / options.fall))


def train(
    run: Path, data: WorldFiles, validation: WorldFiles | None, options: TrainOptions, device: torch.device,
    *, resume: bool = False, network_options: dict | None = None, init: str | Path | None = None,
    on_step: Callable[[int, dict], None] | None = None,
) -> TrainState:  # fmt: skip
    """Train a network until ``options.steps``; writes ``checkpoint.pt`` and ``log.csv`` into the folder ``run``.

    It starts from ``init`` where that is given, else from seeded weights.
    The batch of step i depends on (seed, i) alone: a resumed run goes on as if it had never stopped.

    Raises:
        InputError: if the folder holds a run and ``resume`` is False, or there is nothing to resume.
        NasReconError: at a loss that is not finite, with the step and the seed of its batch.
    """
    run.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(run)
    checkpoint = run / "checkpoint.pt"
    if checkpoint.exists() and not resume:
        raise InputError(f"{run}: holds a training run already; pass --resume to go on with it, or name another folder")
    if resume:
        network_options = _options_of_run(run, options)
        state = load_checkpoint(new_state(options, device, network_options), checkpoint)
    else:
        state = new_state(options, device, network_options, init)
    described = describe(options, data.options) | ({"from": str(init)} if init is not None else {})
    made = {"network": options.network, "options": getattr(state.network, "options", network_options or {})}
    (run / "options.json").write_text(json.dumps(made | {"trained": described}, indent=1))
    sums, since = {}, 0
    with ThreadPoolExecutor(1) as ahead:
        seed_of = lambda step: options.seed * 10_000_019 + step  # noqa: E731
        upcoming = ahead.submit(data.draw, seed_of(state.step))
        while state.step < options.steps:
            started = time.perf_counter()
            batch = upcoming.result()
            upcoming = ahead.submit(data.draw, seed_of(state.step + 1))
            logged = train_step(state, batch.to(device), options, seed_of(state.step))
            state.seconds += time.perf_counter() - started
            for name, value in logged.items():
                sums[name] = sums.get(name, 0.0) + value
            since += 1
            if on_step is not None:
                on_step(state.step, logged)
            if state.step % 50 == 0 or state.step == options.steps:
                _log(run / "log.csv", state, {k: v / since for k, v in sums.items()}, "train")
                sums, since = {}, 0
            if state.step % options.save_every == 0 or state.step == options.steps:
                save_checkpoint(state, checkpoint)
                if validation is not None:
                    _log(
                        run / "log.csv", state, validate(state.average, validation, device, options.stage), "validation"
                    )
    return state


def _options_of_run(run: Path, options: TrainOptions) -> dict:
    """Return the options of the network that a run trains.

    Raises:
        InputError: if there is no run, or it trains another network or stage.
    """
    path = run / "options.json"
    if not path.is_file():
        raise InputError(f"{path}: expected the options of a run to resume, found no file")
    made = json.loads(path.read_text())
    found, asked = (made["network"], made["trained"]["stage"]), (options.network, options.stage)
    if found != asked:
        raise InputError(
            f"{run}: trains stage {found[1]} of {found[0]}, and was to be resumed as stage {asked[1]} of {asked[0]}"
        )
    return made["options"]


def train_step(state: TrainState, batch: TrainingBatch, options: TrainOptions, seed: int) -> dict[str, float]:
    """Do one step in place (weights, average, optimiser, count) and return what to log."""
    rate = learning_rate(state.step, options)
    for group in (group for optimizer in state.optimizers for group in optimizer.param_groups):
        group["lr"] = rate * group["rate"]
    with mixed_precision(batch.depth.device):
        to_training(state.network, options.stage)
        loss, logged = loss_of(state.network, batch, options.stage, seed)
    if not math.isfinite(logged["loss"]):
        raise NasReconError(f"the loss became {logged['loss']} at step {state.step}, on the batch of seed {seed}")
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), options.clip)
    if not torch.isfinite(norm):
        raise NasReconError(f"the gradient became {float(norm)} at step {state.step}, on the batch of seed {seed}")
    for optimizer in state.optimizers:
        optimizer.step()
    _average(state, options.ema)
    state.step += 1
    return logged | {"gradient_norm": float(norm), "learning_rate": rate}


@torch.no_grad()
def _average(state: TrainState, decay: float) -> None:
    """Move the average towards the network; faster at the start, so that the first weights are soon forgotten."""
    decay = min(decay, (1 + state.step) / (10 + state.step))
    for old, new in zip(state.average.state_dict().values(), state.network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, 1 - decay)
        else:
            old.copy_(new)


def mixed_precision(device: torch.device) -> torch.autocast:
    """Return the bfloat16 context where the device computes in it faster than in float32, else one that does nothing."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16_cpu())


def fast_bfloat16_cpu() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    found = torch.cpu.get_capabilities()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16") or found.get("amx_tile"))


@torch.no_grad()
def validate(
    network: nn.Module, data: WorldFiles, device: torch.device, stage: Stage = "all", batches: int = 12
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
                smooth[name] = 0.98 * smooth.get(name, logged[name]) + 0.02 * logged[name]
            text = f"loss {smooth['loss']:.3f}  abs rel {smooth['abs_rel']:.3f}  normals {smooth['angle']:.1f} deg"
            bar.update(task, completed=step, description=text)

        yield on_step
