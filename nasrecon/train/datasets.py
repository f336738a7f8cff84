"""Rendered worlds on disk, and the drawing of training batches from them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from nasrecon.errors import InputError
from nasrecon.train.scenes import Rendered, draw_worlds, render_views
from nasrecon.train.textures import TextureBank
from nasrecon.types import StereoBatch


@dataclass(frozen=True, kw_only=True)
class WorldOptions:
    """How worlds are rendered: image side lengths [px], views a world, worlds a file, drawn textures, texture folder."""

    width: int = 256
    height: int = 192
    views: int = 4
    worlds_per_file: int = 8
    drawn_textures: int = 120
    textures: Path | None = None


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How batches are drawn from rendered worlds.

    Attributes:
        batch: items in a batch. width, height: of the crop [px], multiples of 16.
        planes: D, which fixes the range of valid labels.
        sources: the largest number of source views.
        min_depth_low: the guessed min_depth is this ... 1 times the true nearest depth (log-uniform).
        pose_error_px: a third of the batches gets rotations off by up to about this many pixels.
    """

    batch: int = 4
    width: int = 192
    height: int = 160
    planes: int = 64
    sources: int = 3
    min_depth_low: float = 0.2
    pose_error_px: float = 0.6


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """A ``StereoBatch`` with its truth: depth (B, H, W) in the unit of min_depth, normal (B, 3, H, W) in the camera frame."""

    stereo: StereoBatch
    depth: torch.Tensor
    normal: torch.Tensor

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Return the batch on another device."""
        return TrainingBatch(stereo=self.stereo.to(device), depth=self.depth.to(device), normal=self.normal.to(device))


def render_file(path: Path, seed: int, bank: TextureBank, options: WorldOptions, device: torch.device | str) -> None:
    """Render ``worlds_per_file`` worlds from ``seed`` into one file, which appears only when it is complete."""
    generator = torch.Generator(device=device).manual_seed(seed)
    kept = []
    with torch.no_grad():
        for _ in range(options.worlds_per_file):
            worlds = draw_worlds(1, bank, generator)
            kept.append(render_views(worlds, bank, options.views, (options.height, options.width), generator))
    join = lambda name: torch.cat([getattr(r, name) for r in kept]).cpu()  # noqa: E731
    stored = {
        "images": join("images"), "K": join("K"), "cam_from_world": join("cam_from_world"), "depth": join("depth"),
        "normal": (join("normal") * 127).round().to(torch.int8), "seed": torch.tensor(seed),
    }  # fmt: skip
    part = path.with_suffix(f".part{os.getpid()}")
    torch.save(stored, part)
    part.replace(path)


def render_worlds(
    folder: Path, files: int, seed: int, options: WorldOptions, device: torch.device | str = "cpu", first: int = 0
) -> list[Path]:
    """Render files ``first`` ... ``first + files - 1`` of a set into ``folder``, leaving out those that exist.

    File i depends on (seed, i, options) alone, so that several processes may share the work.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bank = TextureBank.make(options.drawn_textures, torch.Generator().manual_seed(seed), device, options.textures)
    paths = [folder / f"worlds_{seed:04d}_{i:05d}.pt" for i in range(first, first + files)]
    for i, path in enumerate(paths, start=first):
        if not path.exists():
            render_file(path, seed * 1_000_003 + i, bank, options, device)
    return paths


def load_file(path: Path) -> Rendered:
    """Map one file of rendered worlds into memory; normals are int8, 127 = 1."""
    stored = torch.load(path, weights_only=True, mmap=True)
    return Rendered(**{name: stored[name] for name in Rendered.__dataclass_fields__})


class WorldFiles:
    """Draw training batches from a folder of rendered worlds; files that appear later are picked up.

    Raises:
        InputError: if the folder holds no worlds.
    """

    def __init__(self, folder: Path, options: BatchOptions, limit: int | None = None) -> None:
        self.folder, self.options, self.limit = Path(folder), options, limit
        self._files: list[Path] = []
        self.refresh()

    def refresh(self) -> None:
        """Look at the folder again."""
        self._files = sorted(self.folder.glob("worlds_*.pt"))[: self.limit]
        if not self._files:
            raise InputError(
                f"{self.folder}: expected rendered worlds (worlds_*.pt), found none; run `nasrecon train render`"
            )

    def draw(self, seed: int) -> TrainingBatch:
        """Draw the batch of a seed: the same folder and seed give the same batch."""
        if seed % 50 == 0:
            self.refresh()
        generator = torch.Generator().manual_seed(seed)
        path = self._files[int(torch.randint(len(self._files), (1,), generator=generator))]
        rendered = load_file(path)
        chosen = torch.randperm(len(rendered.images), generator=generator)[: self.options.batch]
        return draw_batch(rendered, chosen, self.options, generator)


def draw_batch(
    rendered: Rendered, chosen: torch.Tensor, options: BatchOptions, generator: torch.Generator
) -> TrainingBatch:
    """Cut, mirror, disturb: one training batch from chosen worlds (B,) of a file. All items have the same number of sources."""
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    B, (V, H, W) = len(chosen), (rendered.images.shape[1], *rendered.images.shape[3:])
    # Half of the batches has a single source, as two-view sets have: the hardest case, and the cheapest to train.
    count = 1 + int(rand(1) ** 1.8 * min(options.sources, V - 1))
    order = torch.argsort(rand(B, V), dim=1)[:, : 1 + count]
    rows = chosen[:, None]
    images = rendered.images[rows, order]
    K, cam_from_world = rendered.K[rows, order].clone(), rendered.cam_from_world[rows, order]
    depth, normal = rendered.depth[chosen, order[:, 0]], rendered.normal[chosen, order[:, 0]]

    left, top = int(rand(1) * (W - options.width + 1)), int(rand(1) * (H - options.height + 1))
    window = (slice(top, top + options.height), slice(left, left + options.width))
    images, depth, normal = images[..., *window].float() / 127.5 - 1, depth[:, *window], normal[..., *window]
    normal = F.normalize(normal.float(), dim=1)
    K[..., 0, 2] -= left + 0.5  # networks think in integer pixel centres
    K[..., 1, 2] -= top + 0.5
    src_from_ref = cam_from_world[:, 1:] @ torch.linalg.inv(cam_from_world[:, :1])
    if rand(1) < 0.33:
        src_from_ref = _disturb(src_from_ref, K[:, 0, 0, 0], options.pose_error_px, generator)
    if rand(1) < 0.5:
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        images, depth, normal = (
            images.flip(-1),
            depth.flip(-1),
            normal.flip(-1) * torch.tensor([-1.0, 1, 1]).view(3, 1, 1),
        )
        K[..., 0, 2] = options.width - 1 - K[..., 0, 2]
        src_from_ref = mirror @ src_from_ref @ mirror
    images = _recolor(images, generator)

    nearest = depth.flatten(1).kthvalue(max(1, depth[0].numel() // 1000), dim=1).values
    min_depth = nearest * options.min_depth_low ** rand(B)
    # Planes fill their range only if the deepest part is worth seeing: where everything is far beyond, move closer.
    min_depth = torch.maximum(min_depth, depth.flatten(1).median(dim=1).values / options.planes * 1.5)
    src_from_ref = src_from_ref.clone()
    src_from_ref[..., :3, 3] /= min_depth[:, None, None]
    stereo = StereoBatch(
        ref_image=images[:, 0], src_images=images[:, 1:], ref_K=K[:, 0], src_K=K[:, 1:], src_from_ref=src_from_ref,
        min_depth=torch.ones(B),
    )  # fmt: skip
    return TrainingBatch(stereo=stereo, depth=depth / min_depth[:, None, None], normal=normal)


def _disturb(
    src_from_ref: torch.Tensor, focal: torch.Tensor, error_px: float, generator: torch.Generator
) -> torch.Tensor:
    """Turn every source by a small random rotation, as calibrations of real sets are off by some tenths of a pixel."""
    from nasrecon.train.scenes import rotation_from_vector

    B, S = src_from_ref.shape[:2]
    angle = torch.randn(B, S, 3, generator=generator) * (error_px / focal)[:, None, None]
    out = src_from_ref.clone()
    out[..., :3, :3] = rotation_from_vector(angle) @ src_from_ref[..., :3, :3]
    return out


def _recolor(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Change brightness, contrast and gamma a little per view and the order of the colours per batch; images in [-1, 1]."""
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    B, V = images.shape[:2]
    if rand(1) < 0.3:
        images = images[:, :, torch.randperm(3, generator=generator)]
    if rand(1) < 0.15:
        images = images.mean(dim=2, keepdim=True).expand_as(images)
    gamma = torch.exp((rand(B, 1, 1, 1, 1) - 0.5) * 0.8 + (rand(B, V, 1, 1, 1) - 0.5) * 0.15)
    gain = torch.exp((rand(B, V, 1, 1, 1) - 0.5) * 0.3)
    unit = ((images + 1) / 2).clamp(1e-4, 1) ** gamma * gain
    return unit.clamp(0, 1) * 2 - 1
