"""Manifests: which weights there are, where their files are, and whether a file is the one that was meant.

A weights folder holds ``manifest.json``, ``{"weights": [entry, ...]}``, and beside it the safetensors files that it
names. Two folders are searched: the one shipped with the package and the user's own (``NASRECON_WEIGHTS``, else
``~/.local/share/nasrecon/weights``).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from nasrecon.atomic import write_atomically
from nasrecon.errors import WeightsError, in_words

MANIFEST = "manifest.json"
METADATA_KEY = "nasrecon"


@dataclass(frozen=True, kw_only=True)
class WeightsEntry:
    """One line of a manifest.

    Attributes:
        name: what ``load_network`` is asked for; letters, digits, ``.``, ``_`` and ``-``.
        network: the kind, "lite" or "paper".
        options: arguments of the network's constructor.
        licence: of the weights.
        trained: free: steps, hours, device, textures, commit.
        scores: free: protocol -> numbers.
        notes: free.
        file: the safetensors file, beside the manifest.
        sha256, bytes: of that file.
        folder: where the manifest was read; not part of the manifest.
    """

    name: str
    network: str
    options: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    trained: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""
    file: str = ""
    sha256: str = ""
    bytes: int = 0
    folder: Path | None = None

    @property
    def path(self) -> Path:
        """The weights file."""
        return (self.folder or Path()) / self.file

    def as_json(self) -> dict[str, Any]:
        """Return the entry as it stands in a manifest."""
        return {key: value for key, value in asdict(self).items() if key != "folder"}


def find_weights(name_or_path: str | Path) -> WeightsEntry:
    """Return the entry of a name or of a ``.safetensors`` file.

    A file that no manifest beside it lists is described by the metadata in it, and has no sha256 to be checked against.

    Raises:
        WeightsError: if the name is unknown or stands for two different files, or the file is missing or does not say
            which network it belongs to.
    """
    if isinstance(name_or_path, Path) or str(name_or_path).endswith(".safetensors"):
        return _entry_of_file(Path(name_or_path))
    known = list_weights()
    entries = [entry for entry in known if entry.name == name_or_path]
    if not entries:
        names = ", ".join(sorted({entry.name for entry in known})) or "none"
        where = ", ".join(dict.fromkeys(str(folder) for folder in [*weights_folders(), user_folder()]))
        raise WeightsError(
            f"no weights are named {str(name_or_path)!r}; known: {names} (looked in {where}); "
            f"or give the path of a .safetensors file"
        )
    if len({entry.sha256 for entry in entries}) > 1:
        paths = " and ".join(str(entry.path) for entry in entries)
        raise WeightsError(f"{name_or_path!r} stands for two different weights, {paths}; give the path of one of them")
    return entries[0]


def list_weights() -> tuple[WeightsEntry, ...]:
    """Return what the weights folders hold, the shipped ones first.

    Raises:
        WeightsError: if a manifest cannot be read.
    """
    return tuple(entry for folder in weights_folders() for entry in read_manifest(folder))


def weights_folders() -> list[Path]:
    """Return the folders that hold a manifest: the shipped one (in the package, else the checkout), then the user's."""
    package = Path(__file__).resolve().parents[1]
    shipped = [package / "weights", package.parent / "weights"]
    folders = [folder for folder in shipped if (folder / MANIFEST).is_file()][:1]
    return folders + [folder for folder in [user_folder()] if (folder / MANIFEST).is_file() and folder not in folders]


def user_folder() -> Path:
    """Return the user's own weights folder, which need not exist."""
    chosen = os.environ.get("NASRECON_WEIGHTS")
    return Path(chosen).expanduser() if chosen else Path.home() / ".local/share/nasrecon/weights"


def read_manifest(folder: Path) -> tuple[WeightsEntry, ...]:
    """Return the entries of a weights folder.

    Raises:
        WeightsError: if the manifest is missing or is not one.
    """
    path = folder / MANIFEST
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        raise WeightsError(f'{path}: expected {{"weights": [...]}}, but {in_words(e)}') from e
    if not isinstance(rows, list):
        raise WeightsError(f'{path}: expected a list under "weights", found {type(rows).__name__}')
    return tuple(replace(entry_from_json(row, str(path)), folder=folder) for row in rows)


def write_manifest(folder: Path, entries: Iterable[WeightsEntry]) -> None:
    """Write a folder's manifest, sorted by name; the old one is replaced only once the new one is complete."""
    path = folder / MANIFEST
    rows = [entry.as_json() for entry in sorted(entries, key=lambda entry: entry.name)]
    write_atomically(path, f"{json.dumps({'weights': rows}, indent=2)}\n".encode())


def entry_from_json(row: Any, source: str) -> WeightsEntry:
    """Check one entry as read from JSON; ``source`` is named in errors.

    Raises:
        WeightsError: if a field is missing, unknown or of another type, or the name or the file is not a plain one.
    """
    kinds = {f.name: str if f.type == "str" else int if f.type == "int" else Mapping for f in fields(WeightsEntry)}
    del kinds["folder"]
    if not isinstance(row, Mapping) or not {"name", "network"} <= row.keys() <= kinds.keys():
        known = ", ".join(kinds)
        raise WeightsError(f"{source}: an entry has name and network, and may have {known}; found {str(row)[:300]}")
    for key, value in row.items():
        if not isinstance(value, kinds[key]):
            raise WeightsError(f"{source}: {key} should be a {kinds[key].__name__}, found {value!r}")
    if not re.fullmatch(r"[\w.-]+", row["name"], re.ASCII):
        raise WeightsError(f"{source}: a name is made of letters, digits, . _ and -, found {row['name']!r}")
    entry = WeightsEntry(**row)
    if Path(entry.file).name != entry.file:
        raise WeightsError(f"{source}: {entry.name!r} must name a file beside the manifest, found {entry.file!r}")
    return entry


def _entry_of_file(path: Path) -> WeightsEntry:
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if (path.parent / MANIFEST).is_file():
        for entry in read_manifest(path.parent):
            if entry.file == path.name:
                return entry
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        row = json.loads(metadata[METADATA_KEY])
    except (SafetensorError, OSError, ValueError) as e:
        raise WeightsError(
            f"{path}: expected a safetensors file written by nasrecon, found a file that is cut short or of another "
            f"kind ({e}); copy or download it again"
        ) from e
    except KeyError as e:
        raise WeightsError(
            f"{path}: a safetensors file, but not one of nasrecon's: it does not say which network it belongs to; "
            f"published checkpoints come in through `nasrecon weights import`"
        ) from e
    return replace(entry_from_json(row, str(path)), file=path.name, sha256="", bytes=0, folder=path.parent)


def check_file(entry: WeightsEntry) -> str:
    """Return the sha256 of the entry's file, after comparing it with the entry's, where that has one.

    Raises:
        WeightsError: if the file is missing or is another one.
    """
    if not entry.file or not entry.path.is_file():
        raise WeightsError(f"{entry.path}: the file of weights {entry.name!r} is missing; install or import it again")
    digest = sha256_of(entry.path)
    if entry.sha256 and digest != entry.sha256:
        raise WeightsError(
            f"{entry.path}: damaged or exchanged: found sha256 {digest} ({entry.path.stat().st_size} bytes), "
            f"{MANIFEST} expects {entry.sha256} ({entry.bytes} bytes); install or import it again"
        )
    return digest


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
