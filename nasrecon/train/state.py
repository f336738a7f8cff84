"""The state of a training run: its options, the network with its average and optimisers, and checkpoints of them."""

from __future__ import annotations

import copy
import platform
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nasrecon.atomic import replacing
from nasrecon.errors import InputError
from nasrecon.nas.precision import channels_last
from nasrecon.nas.weights import load_network, load_tensors
from nasrecon.train.recipes import Stage, make_network, make_optimizers


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """What to learn, how long and how fast.

    Attributes:
        network: "lite" or "paper". stage: see ``recipes.py``.
        steps: of the whole schedule; a resumed run may be given more or fewer.
        learning_rate: its peak; linear warm-up over ``warmup`` steps, and a linear fall to 2 % of it over the last
            ``fall`` of the steps.
        pretrained: start the encoder of ``lite`` from ImageNet's weights, unless other weights are given.
        ema: share of the old weights in the running average that is validated and shipped.
        clip: largest gradient norm.
        batches: whose gradients are averaged in a step; the ranks of a job share them.
        save_every: steps between checkpoints and validations.
        keep_statistics: batch normalisation keeps the statistics that the run starts with; those of batches of one to
            four images vary, and with them the scores, more than hours of training change them.
        seed: of weights and batches.
    """

    network: str = "lite"
    stage: Stage = "all"
    steps: int = 20_000
    learning_rate: float = 1.5e-3
    warmup: int = 50
    fall: float = 0.3
    pretrained: bool = True
    ema: float = 0.997
    clip: float = 8.0
    batches: int = 1
    save_every: int = 250
    keep_statistics: bool = False
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
    """Make a network of seeded weights, or those that ``init`` names (``load_network``), its average, its optimisers.

    Raises:
        InputError: if ``init`` belongs to another network, or the stage is not one of the network's.
    """
    torch.manual_seed(options.seed)
    known = None if init is None else load_network(init, "cpu", fold=False)
    if known is not None:
        if known.name != options.network:
            raise InputError(f"{init}: holds weights of the network {known.name}, expected {options.network}")
        network_options = getattr(known, "options", None)
    pretrained = options.pretrained and known is None and options.network == "lite"
    network = make_network(options.network, options.stage, network_options, pretrained)
    if known is not None:
        assert isinstance(known, nn.Module)
        load_tensors(network, known.state_dict(), str(init))
    network = channels_last(network.to(device))
    optimizers = make_optimizers(network, options.learning_rate)
    return TrainState(network=network, average=copy.deepcopy(network).eval(), optimizers=optimizers)


def save_checkpoint(state: TrainState, path: Path) -> None:
    """Write the state; the file at ``path`` is replaced only once the new one is complete."""
    with replacing(path) as part:
        torch.save(
            {
                "network": state.network.state_dict(),
                "average": state.average.state_dict(),
                "optimizers": [o.state_dict() for o in state.optimizers],
                "step": state.step,
                "seconds": state.seconds,
            },
            part,
        )


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
