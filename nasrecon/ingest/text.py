"""Numbers in text files: matrices and intrinsics. Pixel-centre conventions are turned here, as the layout says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError, in_words
from nasrecon.types import Camera


def rows(path: Path) -> list[list[str]]:
    """Return the words of each line, without comments (#) and empty lines; commas count as blanks.

    Raises:
        InputError: if the file is missing or not text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({in_words(error)})") from error
    lines = (line.partition("#")[0].replace(",", " ").split() for line in text.splitlines())
    return [words for words in lines if words]


def numbers(path: Path) -> np.ndarray:
    """Return all numbers of a text file, flat, float64 ("inf" and "nan" are numbers).

    Raises:
        InputError: if anything in it is not a number.
    """
    words = [word for row in rows(path) for word in row]
    try:
        return np.array([float(word) for word in words])
    except ValueError as error:
        raise InputError(f"{path}: expected numbers only, {in_words(error)}") from error


def is_number(word: str) -> bool:
    """Say whether a word of a text file is a number."""
    try:
        float(word)
    except ValueError:
        return False
    return True


def read_json(path: Path) -> dict[str, Any]:
    """Return the fields of a JSON file.

    Raises:
        InputError: if it cannot be read as one object of JSON.
    """
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({in_words(error)})") from error
    if not isinstance(fields, dict):
        raise InputError(f"{path}: expected a JSON object with named fields, found {type(fields).__name__}")
    return fields


def json_number(fields: Mapping[str, Any], key: str, path: Path) -> float:
    """Return a field of a JSON file that must be a finite number.

    Raises:
        InputError: if it is none.
    """
    try:
        value = float(fields[key])
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}: {key} must be a number, found {fields[key]!r}") from error
    if not np.isfinite(value):
        raise InputError(f"{path}: {key} must be finite, found {value}")
    return value


def read_transform(path: Path) -> np.ndarray:
    """Read one 4x4 or 3x4 matrix of a text file, as it stands.

    Raises:
        InputError: if the file does not hold 16 or 12 numbers.
    """
    values = numbers(path)
    if values.size not in (12, 16):
        raise InputError(f"{path}: expected a 4x4 or 3x4 matrix (16 or 12 numbers), found {values.size} numbers")
    return values.reshape(-1, 4)


def file_of(folder: Path, name: str, endings: tuple[str, ...]) -> Path | None:
    """Return the file in a folder that goes with an image ("left/1.png"), or None.

    Its name is the image's with another ending ("left/1.txt"), or with one more ("left/1.png.txt").
    """
    bases = (folder / Path(name).with_suffix(""), folder / name)
    candidates = (base.with_name(base.name + ending) for base in bases for ending in endings)
    return next((path for path in candidates if path.is_file()), None)


@dataclass(frozen=True, kw_only=True)
class Intrinsics:
    """K (3, 3) as a file has it.

    Attributes:
        path: the file.
        K: as it stands.
        size: (width, height) of the image that it is made for, or None if the file does not say.
        first_center: x and y of the centre of the top-left pixel in the file's convention, 0 or 0.5; None if it does
            not say.
    """

    path: Path
    K: np.ndarray
    size: tuple[int, int] | None = None
    first_center: float | None = None

    def camera(self, size: tuple[int, int], first_center: float) -> Camera:
        """Return the camera, in the half-pixel convention.

        Args:
            size: (width, height) of the image file, used where the intrinsics do not name a size.
            first_center: the layout's convention, used where the file does not name one.

        Raises:
            InputError: if K is not the matrix of a pinhole camera.
        """
        center = self.first_center if self.first_center is not None else first_center
        K = self.K.copy()
        K[:2, 2] += 0.5 - center
        width, height = self.size or size
        try:
            return Camera(width=width, height=height, K=K)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error


def read_intrinsics(path: Path) -> Intrinsics:
    """Read one camera's intrinsics.

    Text: a 3x3 K, a 4x4 with K in its corner (ScanNet), or the four numbers ``fx fy cx cy``.
    JSON: ``fx fy cx cy`` (with ``width height pixel_center_of_first`` where known), or Open3D's ``intrinsic_matrix``,
    whose nine numbers run down the columns.

    Raises:
        InputError: if the file holds none of these.
    """
    if path.suffix.lower() == ".json":
        return _intrinsics_from_json(path)
    values = numbers(path)
    if values.size not in (4, 9, 16):
        raise InputError(
            f"{path}: expected a 3x3 K, a 4x4 with K in its corner, or fx fy cx cy; found {values.size} numbers"
        )
    return Intrinsics(path=path, K=_K_of(values))


def _K_of(values: np.ndarray) -> np.ndarray:
    """Return K (3, 3) of 4 numbers (fx fy cx cy), 9, or 16 (K in the corner of a 4x4)."""
    if values.size == 4:
        fx, fy, cx, cy = values
        return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    side = int(values.size**0.5)
    return values.reshape(side, side)[:3, :3]


def named_intrinsics(path: Path) -> dict[str, Intrinsics] | None:
    """Read a text file with an image's name, then 4, 9 or 16 numbers (as in ``read_intrinsics``), a row.

    Returns:
        the intrinsics by name; None if the rows do not begin with names.

    Raises:
        InputError: if a row does not hold that, or a name is there twice.
    """
    table = [] if path.suffix.lower() == ".json" else rows(path)
    if not table or (all(is_number(row[0]) for row in table) and any(len(row) not in (5, 10, 17) for row in table)):
        return None
    out: dict[str, Intrinsics] = {}
    for i, (name, *words) in enumerate(table):
        if len(words) not in (4, 9, 16) or not all(map(is_number, words)):
            raise InputError(
                f"{path}, row {i + 1}: expected an image's name and 4 (fx fy cx cy), 9 or 16 numbers, found "
                f"{' '.join((name, *words))[:80]}"
            )
        if name in out:
            raise InputError(f"{path}, row {i + 1}: {name} is there twice")
        out[name] = Intrinsics(path=path, K=_K_of(np.array([float(word) for word in words])))
    return out


def _intrinsics_from_json(path: Path) -> Intrinsics:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        size = (int(fields["width"]), int(fields["height"])) if "width" in fields else None
        center = fields.get("pixel_center_of_first")
        first_center = None if center is None else float(center)
        if "intrinsic_matrix" in fields:
            K = np.array(fields["intrinsic_matrix"], dtype=np.float64).reshape(3, 3).T
        else:
            fx, fy, cx, cy = (float(fields[name]) for name in ("fx", "fy", "cx", "cy"))
            K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise InputError(
            f"{path}: expected JSON with fx, fy, cx, cy (and width, height, pixel_center_of_first), "
            f"or Open3D's intrinsic_matrix; {in_words(error)}"
        ) from error
    return Intrinsics(path=path, K=K, size=size, first_center=first_center)
