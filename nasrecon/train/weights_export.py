"""From a training run to weights that ship: the averaged network as safetensors, with how it was trained."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch

from nasrecon.errors import InputError
from nasrecon.nas.manifest import WeightsEntry, user_folder
from nasrecon.nas.weights import save_weights
from nasrecon.train.state import TrainOptions, load_checkpoint, new_state


def export_run(
    run: Path,
    name: str,
    out: Path | None = None,
    *,
    licence: str,
    textures: str,
    notes: str = "",
    scores: dict | None = None,
) -> WeightsEntry:
    """Write the averaged weights of ``run`` to ``out/name.safetensors`` (mostly float16) and its manifest.

    Raises:
        InputError: if the run has no checkpoint.
    """
    described = run / "options.json"
    if not described.is_file():
        raise InputError(f"{described}: expected the options of a run, found no file")
    made = json.loads(described.read_text())
    options = TrainOptions(network=made["network"], stage=made["trained"]["stage"], pretrained=False)
    state = load_checkpoint(new_state(options, torch.device("cpu"), made["options"]), run / "checkpoint.pt")
    trained = made["trained"] | {
        "steps": state.step,
        "hours": round(state.seconds / 3600, 2),
        "device": state.device,
        "textures": textures,
    }
    entry = {
        "name": name,
        "network": made["network"],
        "options": made["options"],
        "licence": licence,
        "trained": trained,
        "scores": scores if scores is not None else {"held-out worlds": _last_validation(run / "log.csv")},
        "notes": notes,
    }
    return save_weights(state.average, (out or user_folder()) / f"{name}.safetensors", entry, half=True)


def _last_validation(log: Path) -> dict[str, float]:
    """Return the last scores on held-out worlds, {} if the run never looked at any."""
    if not log.is_file():
        raise InputError(f"{log}: expected the log of the run, found no file")
    rows = [row for row in csv.DictReader(log.open(newline="")) if row["part"] == "validation"]
    names = ("abs_rel", "abs_rel_z2", "angle", "angle_volume")
    return {name: float(rows[-1][name]) for name in names if rows and rows[-1].get(name)}
