"""The average of two weights files, with shares of their own for parts of the network and for their statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from nasrecon.errors import InputError
from nasrecon.nas.manifest import WeightsEntry, find_weights, user_folder
from nasrecon.nas.weights import load_network, load_tensors, save_weights, weights_digest

_STATISTICS = (".running_mean", ".running_var")


def average_weights(
    first: str | Path,
    second: str | Path,
    name: str,
    *,
    share: float = 0.5,
    parts: Mapping[str, float] | None = None,
    statistics: Mapping[str, float] | None = None,
    spread_factor: float | None = None,
    out: Path | None = None,
) -> WeightsEntry:
    """Write ``(1 - share) * first + share * second`` to ``out/name.safetensors`` and its manifest.

    Two trainings from the same weights err in different ways, and their average errs less than either.

    Args:
        first, second: names of a manifest or paths of ``.safetensors`` files, of one network with the same options.
        share: of the second in all tensors, from 0 to 1.
        parts: shares that parts of the network have instead ("consistency": 0.6), from 0 to 1.
        statistics: shares that the running statistics of batch normalisation of parts have instead. Variances are
            averaged geometrically: a share below 0 or above 1 goes on beyond one of the two.
        spread_factor: replaces the factor of ``lite``'s sigma, which an average needs anew; None: it is averaged too.
        out: folder of weights; None: the user's own.

    Raises:
        WeightsError: if the weights cannot be read or written.
        InputError: if the two do not belong together, a share is out of range, or the network has no such part
            (no such statistics, no spread factor).
    """
    for of, value in {"all": share, **(parts or {})}.items():
        if not 0 <= value <= 1:
            raise InputError(f"share of {of}: expected 0 (the first weights) to 1 (the second), found {value:g}")
    entries = [find_weights(source) for source in (first, second)]
    one, two = ((entry.network, dict(entry.options)) for entry in entries)
    if one != two:
        raise InputError(f"{second}: holds {two[0]} with the options {two[1]}, and {first} {one[0]} with {one[1]}")
    network, other = (load_network(source, "cpu", fold=False) for source in (first, second))
    assert isinstance(network, nn.Module) and isinstance(other, nn.Module)
    tensors, others = network.state_dict(), other.state_dict()
    keys = list(tensors)
    shares = _shares(keys, parts or {}) | _shares([key for key in keys if key.endswith(_STATISTICS)], statistics or {})
    mixed = {key: _mixed(key, tensors[key], others[key], shares.get(key, share)) for key in keys}
    if spread_factor is not None:
        if "spread_factor" not in mixed:
            raise InputError(f"{first}: the network {one[0]} has no factor of its spread")
        mixed["spread_factor"] = torch.tensor(float(spread_factor))
    load_tensors(network, mixed, f"average of {first} and {second}")
    how = {"share": share, "parts": dict(parts or {}), "statistics": dict(statistics or {})}
    how |= {"spread_factor": float(mixed["spread_factor"])} if "spread_factor" in mixed else {}
    trained = {"average_of": [weights_digest(source) for source in (first, second)]} | how
    entry = {"name": name, "network": one[0], "licence": entries[0].licence, "trained": trained}
    return save_weights(network, (out or user_folder()) / f"{name}.safetensors", entry, half=True)


def _shares(keys: Sequence[str], by_part: Mapping[str, float]) -> dict[str, float]:
    """Return the shares of single tensors: key of the state dict -> share of its part.

    Raises:
        InputError: if a part has none of the keys, with those that have.
    """
    parts = list(dict.fromkeys(key.split(".")[0] for key in keys))
    for part in by_part:
        if part not in parts:
            raise InputError(f"part {part!r} of the network: expected one of {', '.join(parts) or 'none'}")
    return {key: by_part[part] for key in keys if (part := key.split(".")[0]) in by_part}


def _mixed(key: str, first: torch.Tensor, second: torch.Tensor, share: float) -> torch.Tensor:
    if not first.is_floating_point():
        return first
    if key.endswith(".running_var"):
        return torch.exp(first.double().log().lerp(second.double().log(), share)).to(first.dtype)
    return first.double().lerp(second.double(), share).to(first.dtype)
