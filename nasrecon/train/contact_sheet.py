"""A contact sheet of rendered worlds, for comparison with real photographs."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as iio
import torch

from nasrecon.progress import LogProgress, Progress
from nasrecon.train.world_files import WorldOptions, WorldRenderer


def write_sheet(path: Path, count: int, seed: int, options: WorldOptions, progress: Progress | None = None) -> None:
    """Write a PNG with a row for each world: three views, inverse depth and normals (usual colours) of the first."""
    renderer = WorldRenderer(seed, options)
    rows, progress = [], progress or LogProgress()
    for i in range(count):
        shown = renderer.render(seed, i)
        depth = shown.depth[0, 0]
        near = (depth.quantile(0.01) / depth).clamp(0, 1).expand(3, -1, -1)
        normal = (1 - shown.normal[0, 0] * torch.tensor([-1.0, 1.0, 1.0]).view(3, 1, 1)) / 2
        views = [image.float() / 255 for image in shown.images[0, :3]]
        rows.append(torch.cat([*views, near, normal], dim=2))
        progress.update("worlds", i + 1, count)
    sheet = (torch.cat(rows, dim=1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    path.parent.mkdir(parents=True, exist_ok=True)
    iio.imwrite(path, sheet)
