"""Worlds of real things: rooms, heaps and grounds made of CAD models, rendered into views for training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from nasrecon.train.furnished.grounds import Ground
from nasrecon.train.furnished.heaps import Heap
from nasrecon.train.furnished.models import ModelLibrary
from nasrecon.train.furnished.palette import Palette
from nasrecon.train.furnished.render import render_view
from nasrecon.train.furnished.rigs import draw_rig
from nasrecon.train.furnished.rooms import Room
from nasrecon.train.render import Rendered
from nasrecon.train.sensor import expose

PLACES = {"room": (Room, 0.4), "heap": (Heap, 0.35), "ground": (Ground, 0.25)}
_DULL = 0.04
_TRIALS = 60


@dataclass(frozen=True, kw_only=True)
class FurnishedWorlds:
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
