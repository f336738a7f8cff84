"""A contact sheet of procedural worlds, to be looked at beside real photographs."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import torch

from nasrecon.train.scenes import draw_worlds, render_views
from nasrecon.train.textures import TextureBank


@torch.no_grad()
def write_sheet(
    path: Path,
    count: int,
    seed: int,
    textures: Path | None = None,
    size: tuple[int, int] = (192, 256),
    strewn: float = 0.2,
) -> None:
    """Write a PNG with a row for each world: three views, inverse depth and normals (usual colours) of the first."""
    generator = torch.Generator().manual_seed(seed)
    bank = TextureBank.make(80, generator, "cpu", textures)
    rows = []
    for _ in range(count):
        shown = render_views(draw_worlds(1, bank, generator, strewn=strewn), bank, 3, size, generator)
        depth = shown.depth[0, 0]
        near = (depth.quantile(0.01) / depth).clamp(0, 1).expand(3, -1, -1)
        normal = (1 - shown.normal[0, 0] * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)) / 2
        rows.append(torch.cat([*(image.float() / 255 for image in shown.images[0]), near, normal], dim=2))
    sheet = (torch.cat(rows, dim=1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, sheet)
