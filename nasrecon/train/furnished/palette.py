"""Textures and paint: pyramids by kind, and the materials made of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from nasrecon.train.furnished.scene import Material, pack_pyramid
from nasrecon.train.textures import KINDS, draw_texture, read_textures

_SEAM = 0.12
_USUAL = ("photo",) * 6 + ("tile",) * 4 + tuple(KINDS)


class Palette:
    """Texture pyramids by kind.

    Kinds are those of ``textures.KINDS``, each of them also muted (``muted bricks`` ...), ``photo`` (a folder's) and
    ``tile`` (of these, those that repeat without a seam).

    Args:
        count: textures drawn for each kind. seed: the same seed draws the same. folder: of .jpg or .png files, or None.
    """

    def __init__(self, count: int, seed: int, folder: Path | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.kinds: dict[str, list[np.ndarray]] = {}
        for kind in KINDS:
            drawn = [draw_texture(generator, kind) for _ in range(count)]
            muted = [_pyramid(_faded(image)) for image in drawn]
            # Two in three are muted: real walls and fabrics are hardly ever as colourful as drawn ones.
            self.kinds[kind] = [_pyramid(image) if i % 3 == 0 else muted[i] for i, image in enumerate(drawn)]
            self.kinds[f"muted {kind}"] = muted
        photos = read_textures(folder) if folder is not None else []
        self.kinds["photo"] = [_pyramid(image) for image in photos]
        self.kinds["tile"] = [p for p, image in zip(self.kinds["photo"], photos, strict=True) if _repeats(image)]
        self.kinds = {kind: pyramids for kind, pyramids in self.kinds.items() if pyramids}

    def pick(self, rng: np.random.Generator, *kinds: str) -> np.ndarray:
        """Return a pyramid of a kind, of any kind without a name (photographs in more than half of the draws)."""
        names = [kind for kind in kinds or _USUAL if kind in self.kinds] or list(self.kinds)
        chosen = self.kinds[names[rng.integers(len(names))]]
        return chosen[rng.integers(len(chosen))]


def _pyramid(image: torch.Tensor) -> np.ndarray:
    return pack_pyramid((image * 255).round().byte().permute(1, 2, 0).numpy())


def _faded(image: torch.Tensor) -> torch.Tensor:
    return torch.lerp(image, image.mean(dim=0, keepdim=True).expand_as(image), 0.8)


def _repeats(image: torch.Tensor) -> bool:
    seam = (image[:, 0] - image[:, -1]).abs().mean() + (image[:, :, 0] - image[:, :, -1]).abs().mean()
    return bool(seam < _SEAM and image.std() > 0.02)


def paint(rng: np.random.Generator, low: float = 0.03, high: float = 0.85, vivid: float = 0.15) -> np.ndarray:
    """Draw a linear RGB colour (3,); a share ``vivid`` of them is saturated."""
    value = math.exp(rng.uniform(math.log(low), math.log(high)))
    strength = rng.uniform(0.4, 1.0) if rng.random() < vivid else rng.uniform(0, 0.3) ** 1.3
    color = rng.random(3)
    color = 1 + (color - color.mean()) / max(float(np.abs(color - color.mean()).max()), 1e-6) * strength
    return np.clip(value * color, 0.01, 0.9)


def plain(rng: np.random.Generator, color: np.ndarray, gloss: float | None = None) -> Material:
    """Return a material of one colour."""
    shine = float(rng.uniform(0, 1) ** 4 * 0.4) if gloss is None else gloss
    return Material(bias=np.asarray(color), gloss=shine, shine=float(math.exp(rng.uniform(2, 4.5))))


def textured(
    rng: np.random.Generator, pyramid: np.ndarray, contrast: float = 1.0, tint: np.ndarray | None = None
) -> Material:
    """Return a material with a texture, faded towards its mean colour where ``contrast`` is below 1."""
    mean = (pyramid[-1:].view(np.uint8)[:3] / 255) ** 2.2
    tint = np.ones(3) if tint is None else np.asarray(tint)
    gloss = float(rng.uniform(0, 1) ** 5 * 0.4)
    return Material(pyramid=pyramid, gain=contrast * tint, bias=(1 - contrast) * mean * tint, gloss=gloss,
                shine=float(math.exp(rng.uniform(2, 4.5))))  # fmt: skip
