"""One step of training: gradients of some batches, shared by the ranks of a job, and the move of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from nasrecon.errors import NasReconError
from nasrecon.ranks import Ranks
from nasrecon.train.datasets import TrainingBatch
from nasrecon.train.recipes import loss_of, to_training
from nasrecon.train.state import TrainOptions, TrainState

Batches = Sequence[tuple[int, TrainingBatch]]
"""Batches with the seeds that they were drawn with."""


def learning_rate(step: int, options: TrainOptions) -> float:
    """Return the rate at a step (from 0): warm-up, constant, linear fall."""
    warm = min(1.0, (step + 1) / options.warmup)
    left = 1 - min(1.0, step / options.steps)
    return options.learning_rate * warm * max(0.02, min(1.0, left / options.fall))


def train_step(state: TrainState, batches: Batches, options: TrainOptions, ranks: Ranks = Ranks()) -> dict[str, float]:  # noqa: B008
    """Do one step in place (weights, average, optimisers, count) and return what to log.

    The gradients of all batches are averaged, and so are the statistics of batch normalisation: a step gives the same
    weights however its batches are shared among ranks.

    Args:
        batches: those of this rank; ``options.batches`` are those of all.

    Raises:
        NasReconError: at a loss or a gradient that is not finite, with the step and the seeds of the batches.
    """
    rate = learning_rate(state.step, options)
    for group in (group for optimizer in state.optimizers for group in optimizer.param_groups):
        group["lr"] = rate * group["rate"]
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    logged = _gradients(state, batches, options, ranks)
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), options.clip)
    if not torch.isfinite(norm):
        seeds = ", ".join(str(seed) for seed, _ in batches)
        raise NasReconError(f"the gradient became {float(norm)} at step {state.step}, on the batch of seed {seeds}")
    for optimizer in state.optimizers:
        optimizer.step()
    _average(state, options.ema)
    state.step += 1
    return logged | {"gradient_norm": float(norm), "learning_rate": rate}


def _gradients(state: TrainState, batches: Batches, options: TrainOptions, ranks: Ranks) -> dict[str, float]:
    """Fill the gradients with their average over the batches of all ranks; returns the average of what is logged."""
    statistics = _statistics(state.network) if options.batches > 1 else []
    before, sums = [x.clone() for x in statistics], [torch.zeros_like(x) for x in statistics]
    logs: list[dict[str, float]] = []
    for seed, batch in batches:
        for x, start in zip(statistics, before, strict=True):
            x.copy_(start)
        with mixed_precision(batch.depth.device):
            to_training(state.network, options.stage, options.keep_statistics)
            loss, logged = loss_of(state.network, batch, options.stage, seed)
        if not math.isfinite(logged["loss"]):
            raise NasReconError(f"the loss became {logged['loss']} at step {state.step}, on the batch of seed {seed}")
        (loss / options.batches).backward()
        logs.append(logged)
        for total, x in zip(sums, statistics, strict=True):
            total += x / options.batches
    if ranks.size > 1:
        for p in (p for p in state.network.parameters() if p.requires_grad and p.grad is None):
            p.grad = torch.zeros_like(p)
        ranks.add_up([*sums, *(p.grad for p in state.network.parameters() if p.grad is not None)])
    for x, total in zip(statistics, sums, strict=True):
        x.copy_(total)
    names = list(logs[0])
    means = torch.tensor([sum(log[name] for log in logs) for name in names], dtype=torch.float64) / options.batches
    ranks.add_up([means])
    return dict(zip(names, means.tolist(), strict=True))


def _statistics(network: nn.Module) -> list[torch.Tensor]:
    """Return the running statistics of batch normalisation."""
    return [x for x in network.buffers() if x.is_floating_point() and x.dim() == 1]


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
    """Return the bfloat16 context where the device computes faster in it, else one that does nothing."""
    if device.type == "cuda":
        return torch.autocast("cuda", torch.bfloat16)
    return torch.autocast("cpu", torch.bfloat16, enabled=fast_bfloat16_cpu())


def fast_bfloat16_cpu() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware (AVX512-BF16 or AMX)."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("amx_tile"))
