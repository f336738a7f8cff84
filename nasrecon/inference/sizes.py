"""The sizes at which references and sources are read and passed to the network."""

from __future__ import annotations

import math

import numpy as np

from nasrecon.inference.options import SIDE_MULTIPLE, EstimateOptions
from nasrecon.nas.network import Network
from nasrecon.types import Camera


def fitted_size(camera: Camera, width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) of a camera's image scaled, its aspect kept, to fit into width x height [px]."""
    scale = min(width / camera.width, height / camera.height)
    return max(1, min(width, round(camera.width * scale))), max(1, min(height, round(camera.height * scale)))


def padded_side(side: int, network: Network) -> int:
    """Return the smallest side that the network takes and that holds ``side`` [px]."""
    multiple = network.size_multiple
    return -(-max(side, network.min_side) // multiple) * multiple


def working_size(camera: Camera, options: EstimateOptions) -> tuple[int, int]:
    """Return the (width, height) [px] at which a view is estimated.

    ``options.size`` where it is given. Else the image shrunk to ``options.max_side`` with its aspect kept, both sides
    then rounded to the nearest multiple of 32 (x and y are then scaled by factors that differ by a few per cent; the
    camera follows).
    """
    if options.size is not None:
        return options.size
    scale = min(1.0, (options.max_side or math.inf) / max(camera.width, camera.height))
    width, height = (max(1, round(side * scale / SIDE_MULTIPLE)) for side in (camera.width, camera.height))
    return width * SIDE_MULTIPLE, height * SIDE_MULTIPLE


def nearest_pixels(stored: tuple[int, ...], size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows (H, 1) and columns (1, W) of a stored map at the pixel centres of another (height, width)."""
    rows, columns = (((np.arange(n) + 0.5) * s / n).astype(int) for s, n in zip(stored[:2], size, strict=True))
    return rows[:, None], columns[None]


def source_size(camera: Camera, width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) to read a source at: the reference's if the aspects are about equal, else what fits.

    Within what the rounding to multiples of 32 does to a reference, filling the frame beats padding it.
    """
    aspect = (camera.width / camera.height) / (width / height)
    return (width, height) if 0.9 < aspect < 1.1 else fitted_size(camera, width, height)
