"""Textures for procedural worlds: drawn from a generator, or read from a folder, sampled with mip levels."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F

from nasrecon.errors import InputError

SIDE = 256
_LEVELS = 8  # 256 ... 2: a texture seen from afar fades into its mean colour instead of aliasing


class TextureBank:
    """T square textures with their mip levels, in one flat uint8 table on the rendering device.

    Args:
        textures: (T, 3, SIDE, SIDE) float in [0, 1].
        device: where the table lives.
    """

    def __init__(self, textures: torch.Tensor, device: torch.device | str) -> None:
        self.count = len(textures)
        level = textures.to(device)
        tables, self._sides, self._starts = [], [], []
        start = 0
        for _ in range(_LEVELS):
            side = level.shape[-1]
            tables.append((level.permute(0, 2, 3, 1).reshape(-1, 3) * 255).round().byte())
            self._sides.append(side)
            self._starts.append(start)
            start += self.count * side * side
            level = F.avg_pool2d(level, 2)
        self._table = torch.cat(tables)
        self._side_of = torch.tensor(self._sides, device=device)
        self._start_of = torch.tensor(self._starts, device=device)
        self.mean = textures.mean(dim=(2, 3)).to(device)

    @classmethod
    def make(
        cls, count: int, generator: torch.Generator, device: torch.device | str, folder: Path | None = None
    ) -> TextureBank:
        """Draw ``count`` procedural textures and add those of ``folder``; the same generator gives the same bank."""
        drawn = [draw_texture(generator) for _ in range(count)]
        if folder is not None:
            drawn += read_textures(folder)
        return cls(torch.stack(drawn), device)

    def sample(self, index: torch.Tensor, uv: torch.Tensor, footprint: torch.Tensor) -> torch.Tensor:
        """Return colours (N, 3) in [0, 1].

        Args:
            index: (N,) which texture.
            uv: (N, 2) in repeats of the texture.
            footprint: (N,) side of the pixel's footprint, in repeats; chooses the mip level.
        """
        level = torch.log2((footprint * SIDE).clamp_min(1)).clamp(max=_LEVELS - 1)
        low = level.floor().long()
        blend = (level - low)[:, None]
        fine = self._bilinear(index, uv, low)
        coarse = self._bilinear(index, uv, (low + 1).clamp(max=_LEVELS - 1))
        return fine * (1 - blend) + coarse * blend

    def _bilinear(self, index: torch.Tensor, uv: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        side = self._side_of[level]
        xy = uv.frac() * side[:, None] - 0.5
        corner = xy.floor()
        fx, fy = (xy - corner).unbind(-1)
        x0, y0 = corner.long().unbind(-1)
        x0, x1, y0, y1 = x0 % side, (x0 + 1) % side, y0 % side, (y0 + 1) % side
        base = self._start_of[level] + index * side * side
        out = 0
        for y, wy in ((y0, 1 - fy), (y1, fy)):
            for x, wx in ((x0, 1 - fx), (x1, fx)):
                out = out + self._table[base + y * side + x].float() * (wx * wy)[:, None]
        return out / 255


def read_textures(folder: Path) -> list[torch.Tensor]:
    """Read every .jpg and .png of ``folder`` as (3, SIDE, SIDE) in [0, 1], sorted by name.

    Raises:
        InputError: if the folder holds none.
    """
    import imageio.v3 as iio

    files = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not files:
        raise InputError(f"{folder}: expected texture images (.jpg or .png), found none")
    out = []
    for file in files:
        image = torch.from_numpy(iio.imread(file, mode="RGB")).permute(2, 0, 1)[None].float() / 255
        out.append(F.interpolate(image, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)[0])
    return out


def draw_texture(generator: torch.Generator, kind: str | None = None) -> torch.Tensor:
    """Draw one texture (3, SIDE, SIDE) in [0, 1] that repeats without a seam; ``kind``: of ``KINDS``, None any."""
    if kind is None:
        kind = list(KINDS)[int(torch.randint(len(KINDS), (1,), generator=generator))]
    return KINDS[kind](generator).clamp(0, 1).expand(3, SIDE, SIDE).contiguous()


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand(1, generator=generator))


def _color(generator: torch.Generator) -> torch.Tensor:
    """A colour (3, 1, 1); most of them nearly grey, as walls, floors and furniture are."""
    color = torch.rand(3, 1, 1, generator=generator)
    saturation = _uniform(generator, 0, 0.25) if _uniform(generator) < 0.6 else _uniform(generator, 0.2, 0.8)
    return (color.mean() + (color - color.mean()) * saturation) * 0.85 + 0.08


def _grid() -> tuple[torch.Tensor, torch.Tensor]:
    y, x = torch.meshgrid(torch.arange(SIDE) / SIDE, torch.arange(SIDE) / SIDE, indexing="ij")
    return x, y


def _noise(generator: torch.Generator) -> torch.Tensor:
    """Fractal noise (1 or 3, SIDE, SIDE), zero mean, about unit range."""
    channels = 3 if _uniform(generator) < 0.3 else 1
    first, fall = int(_uniform(generator, 1, 5)), _uniform(generator, 0.4, 1.0)
    out, weight, total = torch.zeros(channels, SIDE, SIDE), 1.0, 0.0
    for octave in range(first, 8):
        n = 2**octave
        cells = torch.rand(1, channels, n, n, generator=generator)
        margin = min(2, n)
        cells = F.pad(cells, (margin,) * 4, mode="circular")
        scale = SIDE // n
        fine = F.interpolate(cells, scale_factor=scale, mode="bicubic", align_corners=False)
        out += weight * fine[0, :, margin * scale : margin * scale + SIDE, margin * scale : margin * scale + SIDE]
        total += weight
        weight *= fall
    return (out / total - 0.5) * 2


def _plaster(generator: torch.Generator) -> torch.Tensor:
    return _color(generator) + _noise(generator) * _uniform(generator, 0.0, 0.08)


def _rough(generator: torch.Generator) -> torch.Tensor:
    return _color(generator) + _noise(generator) * _uniform(generator, 0.1, 1.0)


def _tiles(generator: torch.Generator) -> torch.Tensor:
    x, y = _grid()
    n = int(_uniform(generator, 2, 12))
    check = ((x * n).floor() + (y * n).floor()) % 2
    joint = torch.minimum((x * n) % 1, (y * n) % 1) < _uniform(generator, 0.0, 0.12)
    second = _color(generator) if _uniform(generator) < 0.6 else None
    image = _color(generator).expand(3, SIDE, SIDE)
    if second is not None:
        image = torch.where(check[None] > 0, image, second)
    image = torch.where(joint[None], _color(generator), image)
    return image + _noise(generator) * _uniform(generator, 0, 0.3)


def _bricks(generator: torch.Generator) -> torch.Tensor:
    x, y = _grid()
    rows = 2 * int(_uniform(generator, 2, 7))
    row = (y * rows).floor()
    along = x * rows / 2 + 0.5 * (row % 2)
    mortar = (along % 1 < 0.06) | ((y * rows) % 1 < 0.12)
    which = (along.floor() % (rows // 2)) * 37 + row * 91
    shade = (torch.sin(which * 12.9898) * 43758.5453).frac() - 0.5
    image = torch.where(mortar[None], _color(generator), _color(generator) + shade * _uniform(generator, 0.05, 0.4))
    return image + _noise(generator) * _uniform(generator, 0.02, 0.3)


def _stripes(generator: torch.Generator) -> torch.Tensor:
    x, y = _grid()
    a, b = int(_uniform(generator, 0, 12)), int(_uniform(generator, 1, 12))
    warp = _noise(generator)[:1] * _uniform(generator, 0, 4)
    wave = torch.sin(2 * math.pi * (a * x + b * y) + warp) * 0.5 + 0.5
    if _uniform(generator) < 0.4:
        wave = (wave > 0.5).float()
    return _color(generator) * wave + _color(generator) * (1 - wave) + _noise(generator) * _uniform(generator, 0, 0.3)


def _print(generator: torch.Generator) -> torch.Tensor:
    """Rectangles and discs in random colours: posters, book covers, packaging."""
    x, y = _grid()
    image = _color(generator).expand(3, SIDE, SIDE).clone()
    for _ in range(int(_uniform(generator, 8, 60))):
        x0, y0, w, h = torch.rand(4, generator=generator).tolist()
        w, h = w * 0.3, h * 0.3
        dx, dy = (x - x0 + 0.5) % 1 - 0.5, (y - y0 + 0.5) % 1 - 0.5
        if _uniform(generator) < 0.6:
            mask = (dx.abs() < w / 2) & (dy.abs() < h / 2)
        else:
            mask = dx**2 + dy**2 < (w / 2) ** 2
        image = torch.where(mask[None], _color(generator), image)
    return image + _noise(generator) * _uniform(generator, 0, 0.2)


def _text(generator: torch.Generator) -> torch.Tensor:
    """Rows of small dark marks on a light page."""
    rows, cols = int(_uniform(generator, 8, 24)), int(_uniform(generator, 16, 64))
    ink = (torch.rand(1, 1, rows * 2, cols, generator=generator) < 0.6).float()
    ink[:, :, 1::2] = 0
    ink = F.interpolate(ink, size=(SIDE, SIDE), mode="nearest")[0]
    page = 0.6 + 0.35 * torch.rand(3, 1, 1, generator=generator)
    return page * (1 - ink * _uniform(generator, 0.3, 0.9)) + _noise(generator) * _uniform(generator, 0, 0.1)


def _cells(generator: torch.Generator) -> torch.Tensor:
    """Voronoi cells: stone, terrazzo, leaves."""
    x, y = _grid()
    seeds = torch.rand(int(_uniform(generator, 8, 120)), 2, generator=generator)
    dx = (x[..., None] - seeds[:, 0]).abs()
    dy = (y[..., None] - seeds[:, 1]).abs()
    distance = torch.minimum(dx, 1 - dx) ** 2 + torch.minimum(dy, 1 - dy) ** 2
    colors = _color(generator) + torch.randn(3, len(seeds), 1, generator=generator) * _uniform(generator, 0.02, 0.25)
    return colors[:, distance.argmin(-1), 0] + _noise(generator) * _uniform(generator, 0, 0.4)


def _fabric(generator: torch.Generator) -> torch.Tensor:
    x, y = _grid()
    n = int(_uniform(generator, 16, 64))
    weave = torch.sin(2 * math.pi * n * x) * torch.sin(2 * math.pi * n * y)
    return _color(generator) * (1 + weave * _uniform(generator, 0.05, 0.4)) + _noise(generator) * _uniform(
        generator, 0, 0.4
    )


KINDS = {
    "plaster": _plaster, "rough": _rough, "tiles": _tiles, "bricks": _bricks, "stripes": _stripes,
    "print": _print, "text": _text, "cells": _cells, "fabric": _fabric,
}  # fmt: skip
