"""Worlds of real things: rooms, heaps and grounds made of CAD models, rendered into the views that networks train on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nasrecon.train.heaps import Heap
from nasrecon.train.grounds import Ground
from nasrecon.train.mesh_render import render_view
from nasrecon.train.models import ModelLibrary
from nasrecon.train.rigs import draw_rig
from nasrecon.train.rooms import Room
from nasrecon.train.scenes import Rendered
from nasrecon.train.sensor import expose
from nasrecon.train.staging import Palette

PLACES = {"room": (Room, 0.4), "heap": (Heap, 0.35), "ground": (Ground, 0.25)}
_DULL = 0.04
_TRIALS = 60


@dataclass(frozen=True, kw_only=True)
class MeshWorldMaker:
    """Renders one world at a time from models and textures.

    Attributes:
        place: a key of ``PLACES``, or None for any.
    """

    library: ModelLibrary
    palette: Palette
    place: str | None = None

    def render(self, seed: int, views: int, size: tuple[int, int]) -> Rendered:
        """Render ``views`` views of ``size`` (H, W) of the world of a seed, as a batch of one."""
        rng = np.random.default_rng(seed)
        for _ in range(_TRIALS):
            done = self._try(rng, views, size)
            if done is not None:
                return done
        raise RuntimeError(f"world {seed}: no place in {_TRIALS} could be seen from {views} views that overlap")

    def _try(self, rng: np.random.Generator, views: int, size: tuple[int, int]) -> Rendered | None:
        names = list(PLACES)
        shares = np.array([PLACES[name][1] for name in names])
        name = self.place or names[rng.choice(len(names), p=shares / shares.sum())]
        scene, viewpoints = PLACES[name][0](rng, self.library, self.palette).build()
        rig = draw_rig(scene, viewpoints, views, size, rng)
        if rig is None:
            return None
        K, world_from_cam = (torch.from_numpy(x).float() for x in rig)
        parts = [render_view(scene, K[v], world_from_cam[v], size) for v in range(views)]
        radiance, depth, normal = (torch.stack(x) for x in zip(*parts, strict=True))
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        images = (expose(radiance[None], generator, gamma=(0.36, 0.6)) * 255).round().byte()
        if images[0, 0].float().std() / 255 < _DULL:
            return None
        cam_from_world = torch.linalg.inv(torch.from_numpy(rig[1])).float()
        return Rendered(
            images=images, K=K[None], cam_from_world=cam_from_world[None], depth=depth[None], normal=normal[None]
        )


def render_mesh_file(path: Path, seed: int, maker: MeshWorldMaker, worlds: int, views: int, size: tuple[int, int]) -> None:
    """Render ``worlds`` worlds from ``seed`` into one file, which appears only when it is complete."""
    kept = [maker.render(seed * 1009 + i, views, size) for i in range(worlds)]
    join = lambda name: torch.cat([getattr(r, name) for r in kept])  # noqa: E731
    stored = {
        "images": join("images"), "K": join("K"), "cam_from_world": join("cam_from_world"), "depth": join("depth"),
        "normal": (join("normal") * 127).round().to(torch.int8), "seed": torch.tensor(seed),
    }  # fmt: skip
    part = path.with_suffix(f".part{os.getpid()}")
    torch.save(stored, part)
    part.replace(path)
