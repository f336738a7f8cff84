"""What each stage of training moves, and by which loss: the paper's two stages, for either network.

Stage 1 trains depth and normals from the cost volume, stage 2 the consistency module over what stage 1 made, frozen.
``lite`` can be trained in all its stages at once too ("all"): its consistency steps take their input detached.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from nasrecon.errors import InputError
from nasrecon.nas.lite import LiteNetwork
from nasrecon.nas.paper import PaperNetwork
from nasrecon.nas.pyramid import Hint, shrunk
from nasrecon.nas.weights import NETWORKS, build_network
from nasrecon.train.datasets import TrainingBatch
from nasrecon.train.loss import training_loss
from nasrecon.train.paper_loss import consistency_loss, volume_loss

Stage = Literal["all", "1", "2"]
PEAK_RATE = {"lite": 1.5e-3, "paper": 2e-4}
"""The peak learning rate that each network is trained with unless another is asked for."""


def make_network(kind: str, stage: Stage, options: dict | None = None) -> nn.Module:
    """Build the network to train, with only what the stage trains left to move.

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
    for module in frozen(network, stage):
        module.requires_grad_(False)
    if isinstance(network, LiteNetwork) and stage == "2":
        network.score.requires_grad_(False)
        network.sharpness.requires_grad_(False)
        network.trust.requires_grad_(False)
    return network


def frozen(network: nn.Module, stage: Stage) -> list[nn.Module]:
    """Return the parts of a network that a stage leaves as they are."""
    if stage == "all":
        return []
    if isinstance(network, PaperNetwork):
        return [network.consistency if stage == "1" else network.mvdnet]
    second = [network.consistency, network.mask]
    return second if stage == "1" else [part for part in network.children() if part not in second]


def to_training(network: nn.Module, stage: Stage) -> None:
    """Put what the stage trains into training mode; what is frozen keeps the statistics that it has."""
    network.train()
    for module in frozen(network, stage):
        module.eval()


def loss_of(
    network: nn.Module, batch: TrainingBatch, stage: Stage, hint: Hint | None
) -> tuple[torch.Tensor, dict[str, float]]:
    """Run the network on a batch and return the stage's loss and what to log."""
    if isinstance(network, PaperNetwork):
        return volume_loss(network, batch) if stage == "1" else consistency_loss(network, batch)
    return training_loss(network.stages(batch.stereo, hint), batch, network.planes, stage)


@torch.no_grad()
def coarse_hint(network: nn.Module, batch: TrainingBatch) -> Hint | None:
    """Return what ``lite`` itself, as it is used (not as it is trained), says of the window around the batch at half the
    size; None where the batch has no window, or for another network."""
    if batch.around is None or not isinstance(network, LiteNetwork):
        return None
    network.eval()
    H, W = batch.around.ref_image.shape[-2:]
    coarse = network.stages(shrunk(batch.around, 0.5, network.size_multiple))
    (left, top), (h, w) = batch.corner, batch.depth.shape[-2:]
    hint = network.hint_from(coarse, (H // 4, W // 4), batch.around.src_images.shape[1])
    return hint.cut(top // 4, left // 4, h // 4, w // 4)
