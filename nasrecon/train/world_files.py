"""Rendered worlds on disk: primitives, furnished with CAD models, or both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from nasrecon.atomic import remove_stale_parts, replacing
from nasrecon.errors import InputError
from nasrecon.train.render import Rendered, render_views
from nasrecon.train.textures import KINDS, TextureBank
from nasrecon.train.worlds import draw_worlds

WORLD_KINDS = ("primitives", "furnished", "mixed")

_RenderWorld = Callable[[int], Rendered]


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """How worlds are rendered.

    Attributes:
        kind: of ``WORLD_KINDS``; mixed worlds are furnished and primitive by turns.
        width, height: of the images [px]. views: of a world. worlds_per_file: at most how many a batch can have.
        drawn_textures: how many are drawn beside those of the folder ``textures``.
        floating: share of the worlds of primitives whose things are in the air.
        models: folder of furniture archives (see ``furnished.models``), needed by all kinds but primitives.
    """

    kind: str = "primitives"
    width: int = 256
    height: int = 192
    views: int = 4
    worlds_per_file: int = 8
    drawn_textures: int = 120
    textures: Path | None = None
    floating: float = 0.2
    models: Path | None = None


class WorldRenderer:
    """Renders worlds one by one; world i of a seed depends on (seed, i, options) alone.

    Raises:
        InputError: if the kind is unknown, or needs models and no folder of them is given.
    """

    def __init__(self, seed: int, options: WorldOptions, device: torch.device | str = "cpu") -> None:
        self.options, self._device = options, device
        if options.kind not in WORLD_KINDS:
            raise InputError(f"kind of worlds: expected one of {', '.join(WORLD_KINDS)}, got {options.kind}")
        self._makers: list[_RenderWorld] = []
        if options.kind != "primitives":
            self._makers.append(self._furnished(seed))
        if options.kind != "furnished":
            self._bank = TextureBank.make(
                options.drawn_textures, torch.Generator().manual_seed(seed), device, options.textures
            )
            self._makers.append(self._primitives)

    def render(self, seed: int, i: int) -> Rendered:
        """Render world i of a seed, as a batch of one, on the CPU."""
        made = self._makers[i % len(self._makers)](seed * 1009 + i)
        return Rendered(**{name: getattr(made, name).cpu() for name in Rendered.__dataclass_fields__})

    @torch.no_grad()
    def _primitives(self, seed: int) -> Rendered:
        options, generator = self.options, torch.Generator(device=self._device).manual_seed(seed)
        worlds = draw_worlds(1, self._bank, generator, floating=options.floating)
        return render_views(worlds, self._bank, options.views, (options.height, options.width), generator)

    def _furnished(self, seed: int) -> _RenderWorld:
        from nasrecon.train.furnished.models import ModelLibrary
        from nasrecon.train.furnished.palette import Palette
        from nasrecon.train.furnished.worlds import FurnishedWorlds

        options = self.options
        if options.models is None:
            raise InputError(
                f"{options.kind} worlds are made of CAD models: pass the folder of furniture archives (--models); "
                "Debian's package sweethome3d-furniture has them in /usr/share/sweethome3d/furniture"
            )
        palette = Palette(max(1, options.drawn_textures // len(KINDS)), seed, options.textures)
        worlds = FurnishedWorlds(library=ModelLibrary(options.models), palette=palette)
        return lambda world: worlds.render(world, options.views, (options.height, options.width))


def render_file(path: Path, seed: int, renderer: WorldRenderer) -> None:
    """Render ``worlds_per_file`` worlds from ``seed`` into one file, which appears only when it is complete."""
    made = [renderer.render(seed, i) for i in range(renderer.options.worlds_per_file)]
    join = lambda name: torch.cat([getattr(r, name) for r in made])  # noqa: E731
    stored = {
        "images": join("images"), "K": join("K"), "cam_from_world": join("cam_from_world"), "depth": join("depth"),
        "normal": (join("normal") * 127).round().to(torch.int8), "seed": torch.tensor(seed),
    }  # fmt: skip
    with replacing(path) as part:
        torch.save(stored, part)


def render_worlds(
    folder: Path, files: int, seed: int, options: WorldOptions, device: torch.device | str = "cpu", first: int = 0
) -> list[Path]:
    """Render files ``first`` ... ``first + files - 1`` of a set into ``folder``, leaving out those that exist.

    File i depends on (seed, i, options) alone, so that several processes may share the work.
    """
    paths = [folder / f"worlds_{seed:04d}_{i:05d}.pt" for i in range(first, first + files)]
    missing = [(i, path) for i, path in enumerate(paths, start=first) if not path.exists()]
    if not missing:
        return paths
    renderer = WorldRenderer(seed, options, device)
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale_parts(folder)
    for i, path in missing:
        render_file(path, seed * 1_000_003 + i, renderer)
    return paths


def load_file(path: Path) -> Rendered:
    """Map one file of rendered worlds into memory; normals are int8, 127 = 1."""
    stored = torch.load(path, weights_only=True, mmap=True)
    return Rendered(**{name: stored[name] for name in Rendered.__dataclass_fields__})
