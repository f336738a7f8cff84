"""Depth as 16-bit PNG: ``depth/<name>.png``, stored value x scale = depth; ``cameras.json`` has the scale and cameras.

Pixel centres as here: K is for half-pixel centres (the first at 0.5), and each value is the depth at its pixel's
centre. 0 = no value; depths beyond the last step, which do not fit, become 0 and are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.export.files import camera_entry, map_name, write_cameras
from nasrecon.progress import Progress
from nasrecon.types import Estimate, Unit

LAST_STEP = 65535
OUTLIERS_PCT = 0.5
MILLIMETRE = {"m": 1e-3, "mm": 1.0}


@dataclass(frozen=True)
class Scale:
    """How 16-bit depth is stored: scene units a step, and in words."""

    units_per_step: float
    words: str


def choose_scale(estimates: Sequence[Estimate], unit: Unit, given: float | None) -> Scale:
    """Return the scale of 16-bit depth: as given, a millimetre, or the finest power of ten that holds almost all
    depths.

    Almost all: every view's but for the farthest ``OUTLIERS_PCT`` per cent, so that no stray depth sets the scale.
    """
    if given is not None:
        return Scale(given, f"{given:g} {'scene units' if unit == 'unknown' else unit} a step, as given")
    if unit in MILLIMETRE:
        return Scale(MILLIMETRE[unit], "1 mm a step")
    farthest = max(_almost_farthest(estimate.depth) for estimate in estimates)
    step = 10.0 ** np.ceil(np.log10(farthest / LAST_STEP)) if farthest > 0 else 1e-3
    return Scale(float(step), f"{step:g} scene units a step (the unit is unknown; depths reach {farthest:.4g})")


def _almost_farthest(depth: np.ndarray) -> float:
    known = depth[depth > 0]
    return float(np.percentile(known, 100 - OUTLIERS_PCT)) if len(known) else 0.0


def in_steps(depth: np.ndarray, scale: Scale) -> np.ndarray:
    """Return depth (H, W) as uint16 steps; 0, no value, beyond the last step.

    What is nearer than half a step becomes step 1, because 0 says that there is no value.
    """
    steps = np.rint(depth.astype(np.float64) / scale.units_per_step)
    return np.where((depth > 0) & (steps <= LAST_STEP), np.maximum(steps, 1), 0).astype(np.uint16)


class DepthImages:
    """Writes depth maps as 16-bit PNG of one scale, and counts the depths that the steps do not hold."""

    def __init__(self, scale: Scale) -> None:
        self.scale = scale
        self._pixels = self._beyond = self._first = 0

    def write(self, path: Path, depth: np.ndarray) -> None:
        """Write a depth map (H, W)."""
        from PIL import Image

        path.parent.mkdir(parents=True, exist_ok=True)
        steps = in_steps(depth, self.scale)
        Image.fromarray(steps).save(path)
        pixels = int((depth > 0).sum())
        self._pixels += pixels
        self._beyond += pixels - int((steps > 0).sum())
        self._first += int((steps == 1).sum())

    def refuse_lost(self) -> None:
        """Refuse a scale at which no depth is left, or all depths are one step.

        Raises:
            InputError: if all depths lie beyond the last step, or within the first.
        """
        step = self.scale.units_per_step
        if self._pixels and self._beyond == self._pixels:
            raise InputError(
                f"all {self._pixels} depths lie beyond {LAST_STEP * step:g}, the last of {LAST_STEP} steps, "
                "and would be lost; give a larger --scale"
            )
        if self._pixels and self._first == self._pixels:
            raise InputError(
                f"all {self._pixels} depths lie within the first step of {step:g} and would be one value; "
                "give a smaller --scale"
            )

    def saturation(self) -> tuple[str, ...]:
        """Say how many pixels did not fit; nothing if all did."""
        if not self._beyond:
            return ()
        return (
            f"{self._beyond} of {self._pixels} depths lie beyond {LAST_STEP * self.scale.units_per_step:g} and have no "
            "value here; a larger --scale holds them",
        )


def write(
    estimates: Sequence[Estimate], out: Path, unit: Unit, given: float | None, progress: Progress
) -> tuple[str, ...]:
    """Write all views; returns the remarks for the user."""
    images = DepthImages(choose_scale(estimates, unit, given))
    entries = []
    for i, estimate in enumerate(estimates):
        progress.update("views", i, len(estimates))
        name = f"depth/{map_name(estimate, '.png')}"
        images.write(out / name, estimate.depth)
        entries.append(camera_entry(estimate.view) | {"depth_file": name})
    progress.update("views", len(estimates), len(estimates))
    images.refuse_lost()
    write_cameras(out / "cameras.json", entries, unit, depth_units_per_step=images.scale.units_per_step)
    return f"{len(entries)} depth maps, 16-bit PNG, {images.scale.words}", *images.saturation()
