"""A COLMAP model in the results folder: made beside its place and renamed, read again by the next run."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.orientation import MADE_FROM

MODEL = "sparse/0"


def pinhole_params(K: np.ndarray, origin: object) -> tuple[float, ...]:
    if K[0, 1] != 0:
        raise InputError(f"{origin}: K has skew ({K[0, 1]:g}), which COLMAP's cameras have not; it must be 0")
    return K[0, 0], K[1, 1], K[0, 2], K[1, 2]


def write_model(model: Any, original: dict[str, str], part: Path) -> None:
    """Write a model under the images' own names, and remove what it was made with."""
    for image in model.images.values():
        image.name = original[image.name]
    place = part / MODEL
    place.mkdir(parents=True)
    model.write(place)
    for used in ("images", "models"):
        shutil.rmtree(part / used)
    for used in ("database.db", "pairs.txt"):
        (part / used).unlink()


def digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_kept(folder: Path, made_from: dict[str, Any], redo: bool) -> bool:
    """Say whether the folder holds the model that would be made; one of other images goes if ``redo``.

    Raises:
        InputError: if it holds one of other images, or something else.
    """
    if not folder.exists():
        return False
    try:
        stored_digest = json.loads((folder / MADE_FROM).read_text())["digest"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder}: not a model that nasrecon made ({error}); give another --out") from error
    if stored_digest == made_from["digest"]:
        return True
    if not redo:
        raise InputError(
            f"{folder}: it holds a model made from other images or cameras ({made_from['what']}); give another --out, "
            "or --overwrite to make it anew"
        )
    shutil.rmtree(folder)
    return False


def write_made_from(part: Path, about: dict[str, Any]) -> None:
    text = json.dumps(about | {"pycolmap": version("pycolmap")}, indent=1)
    (part / MADE_FROM).write_text(f"{text}\n")
