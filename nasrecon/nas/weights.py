"""Weights: a name -> an entry of a manifest (``nas/manifest.py``) -> a file -> its sha256 -> a strict load.

And the import of the checkpoints that the authors of the paper published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from nasrecon.atomic import replacing
from nasrecon.errors import InputError, WeightsError
from nasrecon.nas.manifest import (
    MANIFEST,
    METADATA_KEY,
    WeightsEntry,
    check_file,
    entry_from_json,
    find_weights,
    list_weights,
    read_manifest,
    sha256_of,
    write_manifest,
)
from nasrecon.nas.network import Network
from nasrecon.nas.precision import channels_last, fold_normalization
from nasrecon.nas.zncc import VERSION, ZnccNetwork

__all__ = [
    "WeightsEntry",
    "build_network",
    "list_weights",
    "load_network",
    "load_tensors",
    "resolve_device",
    "save_weights",
    "verify_weights",
    "weights_digest",
]


NETWORKS = {
    "lite": ("nasrecon.nas.lite", "LiteNetwork"),
    "paper": ("nasrecon.nas.paper", "PaperNetwork"),
}


FLOOR = "zncc"
"""The network that learned nothing (``nas/zncc.py``): known by name everywhere, in no manifest."""


def load_network(
    name_or_path: str | Path = "lite", device: str | torch.device = "auto", *, fold: bool = True
) -> Network:
    """Build a network and load its weights, checked and strict; in eval mode, without gradients, on the device.

    Args:
        name_or_path: a name that a manifest knows, the path of a ``.safetensors`` file written by ``save_weights``, or
            "zncc", the network that learned nothing.
        device: see ``resolve_device``.
        fold: fold batch normalisation into the convolutions where the network is made for it (``lite``); False leaves
            the tensors as they are in the file.

    Raises:
        WeightsError: if the name is unknown, or the file is missing, damaged or belongs to another network.
        InputError: if the device is absent.
    """
    target = resolve_device(device)
    if name_or_path == FLOOR:
        return _named(ZnccNetwork().eval().to(target), FLOOR, weights_digest(FLOOR))
    entry = find_weights(name_or_path)
    check_file(entry)
    network = build_network(entry.network, entry.options)
    load_tensors(network, _read_tensors(entry.path), str(entry.path))
    network.eval().requires_grad_(False)
    if fold and getattr(network, "folds_normalization", False):
        fold_normalization(network)
    return _named(channels_last(network).to(target), str(name_or_path), entry.sha256)


def _named(network: nn.Module, weights: str, sha256: str) -> Network:
    named: Any = network
    named.weights, named.sha256 = weights, sha256
    return named


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device for "auto" (CUDA where there is one, else the CPU), "cpu", "cuda" or "cuda:1".

    Raises:
        InputError: if it is none of these, or CUDA was asked for and is absent.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        target = torch.device(device)
    except RuntimeError:
        target = None
    if target is None or target.type not in ("cpu", "cuda"):
        raise InputError(f"device {str(device)!r}: expected auto, cpu, cuda or cuda:N")
    if target.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (target.index or 0) >= count:
            build = "" if torch.version.cuda else " (this build of torch is for the CPU only)"
            raise InputError(
                f"device {str(device)!r} was asked for, found {count} CUDA devices{build}; use --device auto or cpu"
            )
    return target


def verify_weights() -> list[tuple[WeightsEntry, str]]:
    """Check sha256 and tensors of every known weights file: return (entry, problem), "" where there is none."""
    report = []
    for entry in list_weights():
        problem = ""
        try:
            check_file(entry)
            load_tensors(build_network(entry.network, entry.options), _read_tensors(entry.path), str(entry.path))
        except WeightsError as e:
            problem = str(e)
        report.append((entry, problem))
    return report


def weights_digest(name_or_path: str | Path) -> str:
    """Return the sha256 (hex) of the weights file, checked against the manifest: what a result's manifest records.

    "zncc" has no file: its answer names the version of the algorithm, so that results of another are not mixed with it.

    Raises:
        WeightsError: if the name is unknown, or the file is missing or damaged.
    """
    if name_or_path == FLOOR:
        return f"none: {FLOOR} version {VERSION}"
    return check_file(find_weights(name_or_path))


def save_weights(
    network: nn.Module, path: str | Path, entry: WeightsEntry | Mapping[str, Any], *, half: bool = False
) -> WeightsEntry:
    """Write a network's weights and enter them in the manifest beside them; each file is replaced only once complete.

    Args:
        path: the ``.safetensors`` file; its folder is made where it does not exist.
        entry: its name, network, options and what is to be told; file, sha256 and bytes are filled in. Same name:
            replaced. A network that has an attribute ``options`` fills them in too.
        half: store float16; what BatchNorm learns and measures stays float32.

    Returns:
        the entry as written.

    Raises:
        WeightsError: if the options do not rebuild the network, a value is not finite (or too large for ``half``), or
            the file belongs to other weights; nothing is written then.
    """
    path = Path(path)
    if not isinstance(entry, WeightsEntry):
        entry = entry_from_json(entry, str(path))
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: weights are written as .safetensors")
    entry = replace(entry, options=checked_options(network, entry))
    entry = replace(entry, file=path.name, sha256="", bytes=0, folder=path.parent)
    tensors = _tensors_to_store(network, half)
    load_tensors(build_network(entry.network, entry.options), tensors, f"network to be saved as {entry.name!r}")
    present = read_manifest(path.parent) if (path.parent / MANIFEST).exists() else ()
    others = [other for other in present if other.name != entry.name]
    if taken := [other.name for other in others if other.file == path.name]:
        raise WeightsError(f"{path}: is the file of the weights {taken[0]!r}; choose another file for {entry.name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        save_file(tensors, part, metadata={"format": "pt", METADATA_KEY: json.dumps(entry.as_json())})
        entry = replace(entry, sha256=sha256_of(part), bytes=part.stat().st_size)
    write_manifest(path.parent, [*others, entry])
    return entry


def build_network(kind: str, options: Mapping[str, Any]) -> nn.Module:
    """Build a network of a kind ("lite", "paper") with random weights.

    Raises:
        WeightsError: if the kind is unknown or does not take the options.
    """
    if kind not in NETWORKS:
        raise WeightsError(f"no network is called {kind!r}; there are {', '.join(sorted(NETWORKS))}")
    module, name = NETWORKS[kind]
    try:
        return getattr(import_module(module), name)(**options)
    except (TypeError, InputError) as e:
        raise WeightsError(f"network {kind!r} does not take the options {dict(options)}: {e}") from e


def load_tensors(network: nn.Module, tensors: Mapping[str, torch.Tensor], source: str) -> None:
    """Copy tensors into a network: every one is used, none is missing, all shapes fit.

    Raises:
        WeightsError: naming ``source`` and the keys that are missing, unexpected or of another shape.
    """
    tensors_of_network = network.state_dict()
    problems = {
        "missing": [key for key in tensors_of_network if key not in tensors],
        "unexpected": [key for key in tensors if key not in tensors_of_network],
        "of another shape": [
            f"{key} ({shape_in_words(tensors[key])}, expected {shape_in_words(tensors_of_network[key])})"
            for key in tensors_of_network
            if key in tensors and tensors[key].shape != tensors_of_network[key].shape
        ],
    }
    if any(problems.values()):
        summary = "; ".join(f"{len(keys)} {what}: {some_names(keys)}" for what, keys in problems.items() if keys)
        raise WeightsError(
            f"{source}: does not fit {type(network).__name__}, which has {len(tensors_of_network)} tensors: {summary}"
        )
    if spoilt := [key for key, t in tensors.items() if t.is_floating_point() and not t.isfinite().all()]:
        raise WeightsError(f"{source}: {len(spoilt)} tensors hold values that are not finite: {some_names(spoilt)}")
    network.load_state_dict(dict(tensors), strict=True)


def shape_in_words(tensor: torch.Tensor) -> str:
    return "x".join(str(n) for n in tensor.shape) or "scalar"


def some_names(keys: list[str], most: int = 6) -> str:
    return ", ".join(keys[:most]) + (f" and {len(keys) - most} more" if len(keys) > most else "")


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with safe_open(path, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (it is no mapping)
    except (SafetensorError, OSError) as e:
        raise WeightsError(
            f"{path}: expected a safetensors file, found a file that is cut short or of another "
            f"kind ({e}); copy or download it again"
        ) from e


def checked_options(network: nn.Module, entry: WeightsEntry) -> dict[str, Any]:
    """Return the options to store: the network's own where it knows them, else the entry's."""
    built_with = getattr(network, "options", None)
    if built_with is None:
        return dict(entry.options)
    if wrong := {
        key: value for key, value in entry.options.items() if key not in built_with or built_with[key] != value
    }:
        raise WeightsError(f"{entry.name!r}: the entry says {wrong}, the network was built with {dict(built_with)}")
    return dict(built_with)


def _tensors_to_store(network: nn.Module, half: bool) -> dict[str, torch.Tensor]:
    """Return the state dict on the CPU, contiguous, in float32, or in float16 but for BatchNorm's."""
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    kept = tuple(f"{name}." for name, module in network.named_modules() if isinstance(module, norms))
    out = {}
    for key, tensor in network.state_dict().items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float16 if half and not key.startswith(kept) else torch.float32)
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise WeightsError(f"{key} holds values that are not finite{' in float16' if half else ''}")
        out[key] = tensor.contiguous().clone()
    return out
