"""Read a results folder."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

from nasrecon.errors import InputError, in_words
from nasrecon.results.view_file import FORMAT, Record, file_name, read_estimate, read_record, view_of
from nasrecon.types import Estimate, Unit, View

DEFAULT_FOLDER = "nasrecon_out"


MANIFEST_FILE, FUSION_FILE = "manifest.json", "fusion.json"


SHARED_FIELDS = ("format", "settings", "scene", "weights")
"""Fields of a record that all views of a folder have in common."""


class Results(Sequence[Estimate]):
    """The views of a results folder; each is read from disk when it is asked for, and not kept.

    Attributes:
        folder: where they are.
        manifest: the content of manifest.json, or what the views' own files say where there is none.
        unit: of the scene: "m", "mm" or "unknown".
    """

    def __init__(self, folder: Path, manifest: dict[str, Any]) -> None:
        self.folder, self.manifest = folder, manifest
        self.unit: Unit = manifest["scene"].get("unit", "unknown")
        self._lines: list[Record] = manifest["views"]

    @classmethod
    def open(cls, folder: str | Path) -> Results:
        """Open a results folder; views that were finished since its manifest was written are there too.

        Raises:
            InputError: if there is no such folder, it holds no finished view, or a view of the manifest has no file.
        """
        folder = Path(folder)
        files, manifest = view_files(folder), read_manifest(folder)
        lines = [] if manifest is None else manifest["views"]
        if not files and not lines:
            what = "holds no finished view (views/*.npz)" if folder.is_dir() else "no such folder"
            raise InputError(f"{folder}: {what}; run `nasrecon infer IMAGES --out {shlex.quote(str(folder))}` first")
        for line in lines:
            if not (folder / line["file"]).is_file():
                raise InputError(
                    f"{folder / line['file']}: manifest.json names it for the view {line['name']!r}, but there is no "
                    f"such file; run the same `nasrecon infer` again to make it"
                )
        listed = {folder / line["file"] for line in lines}
        others = [read_record(path) for path in files if path not in listed]
        if manifest is None:
            about = {key: others[0][key] for key in SHARED_FIELDS}
            manifest = about | {"complete": False, "versions": {}, "dropped": []}
        return cls(folder, manifest | {"views": lines + [manifest_line(record) for record in others]})

    def __len__(self) -> int:
        return len(self._lines)

    @overload
    def __getitem__(self, index: int) -> Estimate: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Estimate | Results:
        """Return the Estimate at a position, read from disk, or for a slice the Results with those views.

        Raises:
            InputError: if the view's file is missing or damaged.
        """
        if isinstance(index, slice):
            return Results(self.folder, self.manifest | {"views": self._lines[index]})
        return read_estimate(self.folder / self._lines[index]["file"])

    @property
    def digest(self) -> str:
        """Hash of the maps of all views, from what their files record; no map is read for it."""
        parts = sorted((line["name"], line.get("maps_sha256", "")) for line in self._lines)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """The views' names, in order."""
        return tuple(line["name"] for line in self._lines)

    @property
    def epipolar_px(self) -> dict[str, float]:
        """Median epipolar error [px of the images] of the views that the camera check compared, by name."""
        errors = self.manifest["scene"].get("epipolar_px")
        return dict(errors) if isinstance(errors, dict) else {}

    @property
    def views(self) -> tuple[View, ...]:
        """The views, cameras at the size of the maps; no map is read for it."""
        return tuple(view_of(line) for line in self._lines)


def open_results(folder: str | Path) -> Results:
    """Open a results folder.

    Raises:
        InputError: if there is no such folder, it holds no finished view, or a view of its manifest has no file.
    """
    return Results.open(folder)


def count_finished(folder: str | Path) -> int:
    """Return how many views of a results folder are finished."""
    return len(view_files(Path(folder)))


def read_fusion(folder: str | Path) -> dict[str, Any] | None:
    """Return what ``write_fusion`` wrote, the paths resolved; None where nothing was fused yet.

    Raises:
        InputError: if the file is damaged.
    """
    folder = Path(folder)
    path = folder / FUSION_FILE
    if not path.is_file():
        return None
    try:
        facts = {**json.loads(path.read_text())}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        command = f"nasrecon fuse {shlex.quote(str(folder))}"
        raise InputError(f"{path}: damaged ({in_words(error)}); run `{command}` again") from error
    return facts | {what: str(folder / facts[what]) for what in ("mesh", "cloud") if what in facts}


def manifest_line(record: Record) -> Record:
    """Return a view's line of the manifest: its record without what all views share."""
    file = f"views/{file_name(record['name'])}.npz"
    return {"name": record["name"], "file": file} | {k: v for k, v in record.items() if k not in SHARED_FIELDS}


def view_files(folder: Path) -> list[Path]:
    return sorted(path for path in (folder / "views").glob("*.npz") if not path.name.startswith("."))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    path = folder / MANIFEST_FILE
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
        format = manifest["format"]
        lines = [(line["name"], line["file"]) for line in manifest["views"]]
        if not all(isinstance(word, str) for line in lines for word in line) or not isinstance(manifest["scene"], dict):
            raise ValueError("its entries are not those of nasrecon")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: not a manifest of nasrecon, or a damaged one ({in_words(error)}); if it is one, delete it: it is "
            f"rebuilt from views/*.npz"
        ) from error
    if format != FORMAT:
        raise InputError(f"{path}: its format is {format!r}, this nasrecon reads {FORMAT!r}; run infer again")
    return manifest
