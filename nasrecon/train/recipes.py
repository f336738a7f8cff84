"""What each stage of training moves, by which optimiser and by which loss.

Stage 1 trains depth and normals from the cost volume, stage 2 the consistency module over what stage 1 made, frozen:
the paper's two stages, for either network. ``lite`` can be trained in all its stages at once too ("all"): its
consistency steps take their input detached.
"""

from __future__ import annotations

import random
from typing import Literal, get_args

import torch
from torch import nn

from nasrecon.errors import InputError
from nasrecon.nas.lite import LiteNetwork
from nasrecon.nas.paper import PaperNetwork
from nasrecon.nas.weights import NETWORKS, build_network
from nasrecon.train.datasets import TrainingBatch
from nasrecon.train.lite_loss import training_loss
from nasrecon.train.muon import Muon
from nasrecon.train.paper_loss import consistency_loss, volume_loss
from nasrecon.train.pretrained import load_pretrained

Stage = Literal["all", "1", "2"]
PEAK_RATE = {"lite": 1.5e-3, "paper": 2e-4}
"""The peak learning rate of AdamW that each network is trained with unless another is asked for."""

MUON_RATE, ENCODER_RATE = 13.3, 0.15
"""The learning rates of Muon and of the encoder are these multiples of that of AdamW."""
FROZEN_STAGES = 3
"""The encoder keeps its pretrained stem and so many of its stages (to stride 8): their gradients take longest."""
STEPS = (2, 6)
"""The consistency module of ``lite`` is trained with a random number of steps from this range."""

_DECAY = {"muon": 0.02, "adam": 1e-4}
_SMALL_LAYERS = ("out.weight", "edges.2", "mask.3", "view_weight")  # last layers: AdamW moves their kernels


def make_network(kind: str, stage: Stage, options: dict | None = None, pretrained: bool = False) -> nn.Module:
    """Build the network to train, with only what the stage trains left to move.

    Args:
        pretrained: start the encoder of ``lite`` from ImageNet's weights (``pretrained.py``).

    Raises:
        InputError: if the stage is not one of the network's.
    """
    if kind not in NETWORKS:
        raise InputError(f"network {kind!r}: expected one of {', '.join(NETWORKS)}")
    if stage not in get_args(Stage) or (kind == "paper" and stage == "all"):
        raise InputError(
            f"stage {stage!r} of {kind}: expected {'1 or 2' if kind == 'paper' else 'all, 1 or 2'}"
            f"{'; the paper trains its consistency module by itself' if kind == 'paper' else ''}"
        )
    network = build_network(kind, options or {})
    if isinstance(network, LiteNetwork):
        if pretrained:
            load_pretrained(network.encoder)
        network.encoder.freeze(FROZEN_STAGES)
    for module in frozen(network, stage):
        module.requires_grad_(False)
    if isinstance(network, LiteNetwork) and stage == "2":
        network.score.requires_grad_(False)
    return network


def make_optimizers(network: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Return the optimisers of a network: Muon for the kernels of ``lite`` beyond its encoder, AdamW for all else.

    Each parameter group names the multiple ``rate`` of the learning rate that it moves with.
    """
    encoder = {id(p) for p in network.encoder.parameters()} if isinstance(network, LiteNetwork) else set()
    kernels, encoded, others = [], [], []
    for name, p in network.named_parameters():
        if not p.requires_grad:
            continue
        if id(p) in encoder:
            encoded.append(p)
        elif isinstance(network, LiteNetwork) and p.ndim >= 4 and len(p) >= 16 and not _is_small(name):
            kernels.append(p)
        else:
            others.append(p)
    groups = [{"params": params, "rate": k} for params, k in ((others, 1.0), (encoded, ENCODER_RATE)) if params]
    betas = (0.9, 0.98 if isinstance(network, LiteNetwork) else 0.99)
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, rate, weight_decay=_DECAY["adam"], betas=betas)
    ]
    if kernels:
        moved = [{"params": kernels, "rate": MUON_RATE}]
        optimizers.append(Muon(moved, rate * MUON_RATE, weight_decay=_DECAY["muon"]))
    return optimizers


def _is_small(name: str) -> bool:
    return any(layer in name for layer in _SMALL_LAYERS)


def frozen(network: nn.Module, stage: Stage) -> list[nn.Module]:
    """Return the parts of a network that a stage leaves as they are."""
    if stage == "all":
        return []
    if isinstance(network, PaperNetwork):
        return [network.consistency if stage == "1" else network.mvdnet]
    assert isinstance(network, LiteNetwork)
    second = [network.consistency, network.fine, network.mask, network.sharpener]
    return second if stage == "1" else [part for part in network.children() if part not in second]


def to_training(network: nn.Module, stage: Stage, keep_statistics: bool = False) -> None:
    """Put what the stage trains into training mode; what is frozen keeps the statistics that it has.

    Args:
        keep_statistics: all batch normalisation uses and keeps the statistics that it has.
    """
    network.train()
    for module in frozen(network, stage):
        module.eval()
    for module in network.modules():
        if keep_statistics and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def loss_of(
    network: nn.Module, batch: TrainingBatch, stage: Stage, seed: int | None = None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Run the network on a batch and return the stage's loss and what to log.

    Args:
        seed: draws the number of steps of ``lite``'s consistency module from ``STEPS``; None: as many as in use.
    """
    if isinstance(network, PaperNetwork):
        return volume_loss(network, batch) if stage == "1" else consistency_loss(network, batch)
    assert isinstance(network, LiteNetwork)
    steps = None if seed is None else random.Random(seed).randint(*STEPS)
    return training_loss(network.stages(batch.stereo, steps), batch, network.planes, stage)
