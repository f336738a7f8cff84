"""The EXIF orientation of an image file, and images turned by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

TAG = 0x0112
_FORMATS = (".jpg", ".jpeg", ".webp", ".avif")
"""Formats whose decoder leaves the orientation to the reader; those of HEIC and TIFF apply it."""

_SIDEWAYS = (5, 6, 7, 8)

# The array (H, W, ...) of an image by its orientation, as the EXIF standard numbers them from 1.
_TURNED = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.swapaxes(a[::-1], 0, 1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.swapaxes(a[:, ::-1], 0, 1),
}


def read_orientation(path: Path) -> int:
    """Return the EXIF orientation of an image file, 1 to 8; 1 (upright as decoded) where the file states none."""
    from PIL import Image

    if path.suffix.lower() not in _FORMATS:
        return 1
    try:
        with Image.open(path) as image:
            stored = image.getexif().get(TAG, 1)
    except Exception:  # damaged bytes are reported when the pixels are read
        return 1
    return int(stored) if stored in _TURNED else 1


def turn_array(array: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image (H, W, ...) turned by its EXIF orientation; 1 leaves it as it is."""
    turn = _TURNED.get(orientation)
    return array if turn is None else np.ascontiguousarray(turn(array))


def turn_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return (width, height) of an image turned by its EXIF orientation."""
    width, height = size
    return (height, width) if orientation in _SIDEWAYS else size
