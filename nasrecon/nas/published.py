"""Import of the checkpoints that were published with the paper."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch

from nasrecon.errors import InputError, WeightsError
from nasrecon.nas.manifest import (
    WeightsEntry,
    read_manifest,
    user_folder,
    weights_folders,
)
from nasrecon.nas.paper import PaperNetwork
from nasrecon.nas.weights import load_tensors, save_weights


def import_published(
    mvdnet: Path,
    consistency: Path,
    name: str,
    *,
    variant: Literal["auto", "pool3", "pool1"] = "auto",
    trained_min_depth: float,
    out_dir: Path | None = None,
) -> WeightsEntry:
    """Turn a published pair of checkpoints into weights that ``load_network(name)`` finds.

    Args:
        mvdnet, consistency: ``mvdnet_*.pth.tar`` and ``cons_*.pth.tar``: a dict with ``state_dict``, or the state dict
            itself; a ``module.`` in front of the names is dropped. Read with ``weights_only=True``: nothing in them is
            executed.
        name: under which the weights will be known.
        variant: how many depth poolings the network used: "pool3" (ScanNet) or "pool1" (DeMoN). Both have the same
            tensors, so "auto" compares how often each pooling layer was trained (``used_poolings``), and refuses to
            guess.
        trained_min_depth: the ``min_depth`` of the training: 0.5 for DeMoN and SUN3D, 0.25 for ScanNet.
        out_dir: a weights folder; default: the user's own.

    Returns:
        the entry as written to the folder's manifest.

    Raises:
        WeightsError: if a file is not such a checkpoint, a tensor is missing, left over or of another shape, the
            variant cannot be told, or the name is taken by shipped weights.
    """
    if not trained_min_depth > 0:
        raise InputError(
            f"trained_min_depth must be positive (DeMoN, SUN3D: 0.5, ScanNet: 0.25), found {trained_min_depth}"
        )
    if variant not in ("auto", "pool3", "pool1"):
        raise InputError(f"variant must be auto, pool3 or pool1, found {variant!r}")
    folder = Path(out_dir) if out_dir is not None else user_folder()
    _refuse_shipped(name, folder)
    parts = {"mvdnet": Path(mvdnet), "consistency": Path(consistency)}
    tensors = {part: _read_checkpoint(path) for part, path in parts.items()}
    template = PaperNetwork()
    for part, path in parts.items():
        other = "consistency" if part == "mvdnet" else "mvdnet"
        try:
            load_tensors(getattr(template, part), tensors[part], str(path))
        except WeightsError as e:
            swapped = tensors[part].keys() == getattr(template, other).state_dict().keys()
            raise WeightsError(f"{e}{'; the two files are swapped' if swapped else ''}") from e
    pool_slices = {"pool3": 3, "pool1": 1}.get(variant) or _stated_poolings(tensors["mvdnet"], parts["mvdnet"])
    options = {"planes": 64, "pool_slices": pool_slices, "trained_min_depth": float(trained_min_depth)}
    network = PaperNetwork(**options)
    network.load_state_dict(template.state_dict())
    entry = WeightsEntry(
        name=name,
        network="paper",
        options=options,
        licence="that of the published checkpoints (MIT, by the authors of the paper)",
        trained={"imported_from": [path.name for path in parts.values()], "variant": f"pool{pool_slices}, {variant}"},
        notes="Published by the authors of the paper; imported, not trained here.",
    )
    return save_weights(network, folder / f"{name}.safetensors", entry)


def used_poolings(mvdnet: Mapping[str, torch.Tensor]) -> int | None:
    """Tell from MVDNet's tensors how many of its three depth poolings were trained: 3, 1, or None if they do not say.

    BatchNorm counts its training steps and moves its running statistics; in a pooling that the variant leaves out the
    count stays 0. Counts that differ otherwise come from fine-tuning one variant into the other, which way is not told.
    Where nothing was counted, statistics that never moved (mean 0, variance 1) tell the same; statistics that moved
    tell nothing.
    """
    steps = [int(mvdnet[f"pool{i}.0.1.num_batches_tracked"]) for i in (1, 2, 3)]
    untouched = [
        bool((mvdnet[f"pool{i}.0.1.running_mean"] == 0).all() and (mvdnet[f"pool{i}.0.1.running_var"] == 1).all())
        for i in (1, 2, 3)
    ]
    if steps[0] > 0 and steps == [steps[0]] * 3:
        return 3
    if steps[1] == steps[2] == 0 and untouched == [False, True, True]:
        return 1
    return None


def _stated_poolings(mvdnet: Mapping[str, torch.Tensor], path: Path) -> int:
    present = used_poolings(mvdnet)
    if present is None:
        raise WeightsError(
            f"{path}: cannot tell from its tensors whether this network used three depth poolings or one; say "
            f"--variant pool3 (ScanNet) or --variant pool1 (DeMoN)"
        )
    return present


def _refuse_shipped(name: str, folder: Path) -> None:
    """Refuse a name that another weights folder holds: two meanings of one name would make both unusable."""
    for other in weights_folders():
        if other.resolve() != folder.resolve() and any(entry.name == name for entry in read_manifest(other)):
            raise WeightsError(f"the name {name!r} is taken by {other / 'manifest.json'}; choose another --name")


def _read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a checkpoint file, ``module.`` prefixes dropped."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such checkpoint file")
    try:
        stored: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as e:
        raise WeightsError(
            f"{path}: expected a checkpoint of tensors (.pth.tar), found a damaged one, or objects that are no tensors"
        ) from e
    if isinstance(stored, Mapping) and isinstance(stored.get("state_dict"), Mapping):
        stored = stored["state_dict"]
    if not isinstance(stored, Mapping) or not stored or not all(isinstance(v, torch.Tensor) for v in stored.values()):
        raise WeightsError(f"{path}: expected a dict with `state_dict` or of tensors, found {type(stored).__name__}")
    return {str(key).removeprefix("module."): tensor for key, tensor in stored.items()}
