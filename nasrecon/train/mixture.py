"""Several sets of training data, mixed by weights: rendered worlds and own posed image sets, listed in a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from nasrecon.errors import InputError
from nasrecon.ingest.open_scene import open_scene
from nasrecon.train.datasets import BatchOptions, TrainingBatch, WorldFiles
from nasrecon.train.scene_frames import SceneFrames

_OF_WORLDS = {"worlds", "weight"}
_OF_SCENES = {
    "images", "poses", "intrinsics", "convention", "format", "masks", "weight", "every", "offset", "width", "height",
}  # fmt: skip
_PATHS = ("poses", "intrinsics", "masks")
_SIZE = (320, 256)


class Mixture:
    """Draws each batch from one of several sets, with probabilities in proportion to their weights."""

    def __init__(self, sets: Sequence[tuple[WorldFiles | SceneFrames, float]], options: BatchOptions) -> None:
        self.sets, self.options = tuple(sets), options

    def draw(self, seed: int) -> TrainingBatch:
        """Return the batch of a seed."""
        weights = torch.tensor([weight for _, weight in self.sets], dtype=torch.float64)
        chosen = torch.multinomial(weights, 1, generator=torch.Generator().manual_seed(seed))
        return self.sets[int(chosen)][0].draw(seed)

    def summaries(self) -> list[str]:
        """Return one line for each posed image set: its frames, and how many were left out and why."""
        return [data.summary() for data, _ in self.sets if isinstance(data, SceneFrames)]


def read_mixture(path: Path, options: BatchOptions) -> Mixture:
    """Read a file of sets. Relative paths in it start at its folder.

    Each ``[[set]]`` has ``worlds`` (a folder of rendered worlds) or ``images`` (a posed image set with depth maps; with
    ``poses``, ``intrinsics``, ``convention``, ``format`` and ``masks`` as ``nasrecon infer`` takes them), and may have
    ``weight`` (1). A posed set may also have ``every`` (1) and ``offset`` (0), to take every n-th view from one on, and
    ``width`` and ``height`` of its windows (320, 256), multiples of 16.

    Raises:
        InputError: if the file cannot be read, or a set in it; the message names the set.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a TOML file of training sets ({error})") from error
    listed = content.get("set")
    if not isinstance(listed, list) or not listed or set(content) != {"set"}:
        raise InputError(f"{path}: expected [[set]] tables and nothing else, found {', '.join(content) or 'nothing'}")
    return Mixture(
        [_read_set(entry, f"{path}: set {i}", path.parent, options) for i, entry in enumerate(listed, 1)], options
    )


def _read_set(
    entry: dict[str, Any], where: str, base: Path, options: BatchOptions
) -> tuple[WorldFiles | SceneFrames, float]:
    known = _OF_WORLDS if "worlds" in entry else _OF_SCENES
    if not entry.keys() & {"worlds", "images"} or entry.keys() - known:
        raise InputError(
            f"{where}: expected worlds or images, and {', '.join(sorted(known))}; found {', '.join(entry) or 'nothing'}"
        )
    weight = entry.get("weight", 1)
    if not isinstance(weight, int | float) or isinstance(weight, bool) or not 0 < weight < float("inf"):
        raise InputError(f"{where}: weight must be a positive number, found {weight!r}")
    try:
        if "worlds" in entry:
            return WorldFiles(base / _text(entry, "worlds"), options), float(weight)
        return _read_scene(entry, base, options), float(weight)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _read_scene(entry: dict[str, Any], base: Path, options: BatchOptions) -> SceneFrames:
    every, offset = _number(entry, "every", 1, least=1), _number(entry, "offset", 0, least=0)
    width, height = (
        _number(entry, name, side, least=32) for name, side in zip(("width", "height"), _SIZE, strict=True)
    )
    if width % 16 or height % 16:
        raise InputError(f"width and height must be multiples of 16, found {width} and {height}")
    paths = {name: base / _text(entry, name) for name in _PATHS if name in entry}
    texts: dict[str, Any] = {name: _text(entry, name) for name in ("convention", "format") if name in entry}
    scene = open_scene(base / _text(entry, "images"), **paths, **texts)
    chosen = range(offset, len(scene.views), every)
    if len(chosen) < 2:
        raise InputError(
            f"{scene.root}: expected at least two frames, found {len(chosen)} of {len(scene.views)} by every {every}, "
            f"offset {offset}"
        )
    return SceneFrames(scene.subset(chosen), width, height, options)


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str) or not value:
        raise InputError(f"{name} must be a text, found {value!r}")
    return value


def _number(entry: dict[str, Any], name: str, default: int, least: int) -> int:
    value = entry.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, found {value!r}")
    return value
