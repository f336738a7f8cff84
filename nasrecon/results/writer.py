"""What a run leaves on disk, and how it is read back.

A results folder::

    nasrecon_out/
      manifest.json              what was run on what: settings, versions, what was left out and why, and of each view
                                 the file, camera, depth range and its source, source views, seconds
      views/<file name>.npz      the maps of one view (``view_file.py``)
      depth/<file name>.png      the depth in colours with a scale bar
      normal/<file name>.png     the normals in colours
      fusion.json                what ``fuse`` last made of them: files, options, what each stage kept, seconds

The files of a view do not depend on the manifest: it can be deleted, and is rebuilt from them. Every file is written
beside its place and then renamed, so what is there is complete.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon import __version__
from nasrecon.atomic import make_folder, remove_stale_parts, write_atomically
from nasrecon.errors import InputError
from nasrecon.results.digest import file_digest
from nasrecon.results.preview import color_normal, depth_preview, png_bytes
from nasrecon.results.reader import MANIFEST_FILE, manifest_line, read_manifest, view_files
from nasrecon.results.view_file import FORMAT, Record, file_name, read_record, write_view
from nasrecon.types import Estimate, Scene, Unit

_PREVIEWS = ("depth", "normal")


_MANIFEST_EVERY_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Run:
    """What all views of one results folder share; JSON values only.

    Attributes:
        settings: all that a view's numbers depend on; views made under different settings are never mixed.
        scene: what was read, root, origin, unit, number of views, and the epipolar errors of the check by view.
        weights: the name or path by which the weights were asked for, for people; ``settings`` has their hash.
    """

    settings: dict[str, Any]
    scene: dict[str, Any]
    weights: str = ""

    @classmethod
    def describe(
        cls,
        scene: Scene,
        *,
        digest: str,
        sources_from: str = "",
        epipolar_px: dict[str, float] | None = None,
        network: str,
        weights: str = "",
        weights_sha256: str,
        options: dict[str, Any],
    ) -> Run:
        """Describe the run of a network (its kind, name and hash of its weights) with the options that matter."""
        settings = {
            "network": network,
            "weights_sha256": weights_sha256,
            "scene_sha256": digest,
            "options": options,
        }
        about = {
            "root": str(scene.root),
            "read_as": scene.origin.in_words(),
            "origin": asdict(scene.origin),
            "unit": scene.unit,
            "views": len(scene.views),
            "sources_from": sources_from,
            **({"epipolar_px": epipolar_px} if epipolar_px else {}),
        }
        return cls(settings=json.loads(json.dumps(settings)), scene=about, weights=weights)


class ResultsWriter:
    """Write a run's estimates into a results folder, view by view; use it in a ``with``, whose end writes the manifest.

    Args:
        folder: made where it does not exist.
        run: what is being run.
        order: the names of the scene's views; the manifest keeps this order.
        overwrite: remove the views that the folder holds; otherwise those under the same settings count as finished.
        member: another process has opened the folder for this run and writes its manifest; this one writes views only.

    Raises:
        InputError: if the folder holds views made under other settings, or somebody else's files where ours would go.
    """

    def __init__(
        self, folder: str | Path, run: Run, order: Iterable[str], *, overwrite: bool = False, member: bool = False
    ) -> None:
        self.folder, self.run, self._member = Path(folder), run, member
        self._position = {name: i for i, name in enumerate(order)}
        self._records: dict[str, Record] = {}
        self._dropped: dict[str, str] = {}
        self._written_at = -np.inf
        if member:
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder}: it is a file; give a folder with --out")
        _refuse_foreign(self.folder)
        files = view_files(self.folder)
        if overwrite:
            for path in files:
                _remove_view(self.folder, path)
        else:
            self._records = self._kept(files)
        for part in ("views", *_PREVIEWS):
            make_folder(self.folder / part)
            remove_stale_parts(self.folder / part)
        remove_stale_parts(self.folder)
        self.write_manifest(complete=False)

    def _kept(self, files: Sequence[Path]) -> dict[str, Record]:
        out = {}
        for path in files:
            try:
                record = read_record(path)
            except InputError:
                continue  # damaged: not finished, it will be written anew
            if record["settings"] != self.run.settings:
                raise InputError(_other_settings(self.folder, record["settings"], self.run.settings, _replaced(files)))
            out[record["name"]] = record
        return out

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(self, exc_type: type[BaseException] | None, *_: object) -> None:
        self.write_manifest(complete=exc_type is None)

    @property
    def finished(self) -> frozenset[str]:
        """Names of the views whose estimates are on disk under this run's settings."""
        return frozenset(self._records)

    @property
    def dropped(self) -> dict[str, str]:
        """Inputs that were left out, and why."""
        return dict(self._dropped)

    def add(self, estimate: Estimate, *, seconds: float) -> None:
        """Write one view, its npz last, so that a view with an npz is a finished one.

        Args:
            estimate: what to write.
            seconds: what it took to compute.
        """
        name = file_name(estimate.view.name)
        unit: Unit = self.run.scene.get("unit", "unknown")
        write_atomically(self.folder / "depth" / f"{name}.png", png_bytes(depth_preview(estimate.depth, unit)))
        write_atomically(self.folder / "normal" / f"{name}.png", png_bytes(color_normal(estimate.normal)))
        self._records[estimate.view.name] = write_view(
            self.folder / "views" / f"{name}.npz",
            estimate,
            seconds=round(seconds, 3),
            **asdict(self.run),
        )
        if time.monotonic() - self._written_at > _MANIFEST_EVERY_S:
            self.write_manifest(complete=False)

    def take_views_of_others(self) -> None:
        """Enter the views that other processes have written under this run's settings."""
        self._records = self._kept(view_files(self.folder))

    def drop(self, name: str, reason: str) -> None:
        """Record in the manifest that an input was left out, and why."""
        self._dropped[name] = reason

    def write_manifest(self, *, complete: bool) -> None:
        """Write manifest.json as things stand; ``complete`` says whether the run came to its end."""
        if self._member:
            return
        last = len(self._position)
        records = sorted(self._records.values(), key=lambda record: self._position.get(record["name"], last))
        manifest = {
            "format": FORMAT,
            "complete": complete,
            "versions": {"python": platform.python_version(), "nasrecon": __version__, **_versions("torch", "numpy")},
            **asdict(self.run),
            "dropped": [{"name": name, "reason": reason} for name, reason in self._dropped.items()],
        }
        # One line for each view: a file that people can read, and compare.
        lines = ",".join(f"\n  {json.dumps(manifest_line(record))}" for record in records)
        text = f'{json.dumps(manifest, indent=1)[:-2]},\n "views": [{lines}\n ]\n}}\n'
        write_atomically(self.folder / MANIFEST_FILE, text.encode())
        self._written_at = time.monotonic()


def refuse_other_settings(folder: Path | str, settings: dict[str, Any]) -> None:
    """Stop before any work where a folder holds views made under other settings than these, as far as they are known.

    Args:
        folder: the results folder; it need not exist.
        settings: entries of ``Run.settings``; those that are missing (the scene's hash) are not compared.

    Raises:
        InputError: if it is a file, holds somebody else's files, or views made under other settings.
    """
    folder, wanted = Path(folder), json.loads(json.dumps(settings))
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: it is a file; give a folder with --out")
    _refuse_foreign(folder)
    for path in view_files(folder):
        try:
            stored = read_record(path)["settings"]
        except (InputError, KeyError):
            continue
        if any(stored.get(key) != value for key, value in wanted.items()):
            raise InputError(_other_settings(folder, stored, {**stored, **wanted}, ()))
        return


def _remove_view(folder: Path, path: Path) -> None:
    path.unlink()
    for part in _PREVIEWS:
        (folder / part / f"{path.stem}.png").unlink(missing_ok=True)


def _refuse_foreign(folder: Path) -> None:
    """Stop before somebody else's files are mixed with ours, or removed for ``overwrite``."""
    if read_manifest(folder) is not None or any(_is_view(path) for path in view_files(folder)):
        return
    # Empty folders are what a run leaves that was killed before its first manifest.
    taken = [f"{part}/" for part in ("views", *_PREVIEWS) if _holds_anything(folder / part)]
    if taken:
        raise InputError(
            f"{folder}: it holds {', '.join(taken)} but no manifest.json of nasrecon, so these are not ours to write "
            f"to; give another folder with --out"
        )


def _holds_anything(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _is_view(path: Path) -> bool:
    try:
        read_record(path)
    except InputError:
        return False
    return True


def _replaced(files: Sequence[Path]) -> list[str]:
    """Return the views whose image file has another content than when they were estimated."""
    out = []
    for path in files:
        try:
            record = read_record(path)
        except InputError:
            continue
        now = file_digest(Path(record["image_path"]))
        if now and record.get("image_sha256") and now != record["image_sha256"]:
            out.append(record["name"])
    return out


def _other_settings(folder: Path, stored: dict[str, Any], wanted: dict[str, Any], replaced: Sequence[str]) -> str:
    """Say which settings of the views that are there differ from those that are wanted, and what to do."""
    before, now = ({**settings, **settings["options"]} for settings in (stored, wanted))
    lines = [f"{folder}: it holds views that were made under other settings:"]
    for key in sorted((before.keys() | now.keys()) - {"options"}):
        old, new = before.get(key), now.get(key)
        if old == new:
            continue
        if key.endswith("sha256"):
            old, new = str(old)[:12], str(new)[:12]
        hint = " (other images, cameras or points)" if key == "scene_sha256" else ""
        lines.append(f"  {key}{hint}: {old} there, {new} now")
    if replaced:
        lines.append(f"  {len(replaced)} images are other files than they were: {', '.join(replaced[:5])}")
    return "\n".join([*lines, "give another folder with --out, or --overwrite to remove them and start again"])


def _versions(*packages: str) -> dict[str, str]:
    out = {}
    for package in packages:
        try:
            out[package] = version(package)
        except PackageNotFoundError:
            out[package] = "not installed"
    return out
