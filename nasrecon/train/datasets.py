"""The drawing of training batches from rendered worlds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from nasrecon.errors import InputError
from nasrecon.nas.network import StereoBatch
from nasrecon.train.render import Rendered
from nasrecon.train.sensor import shake
from nasrecon.train.world_files import load_file
from nasrecon.train.worlds import rotation_from_vector


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How batches are drawn from rendered worlds. Items are whole images, their sides cut to multiples of 16.

    Attributes:
        pixels: in a batch, about: a batch of worlds of W x H has max(1, pixels / (W * H)) items, 8 at most.
        planes: D, which fixes the range of valid labels.
        sources: the largest number of source views.
        min_depth_low: the guessed min_depth is this ... 1 times the true nearest depth (log-uniform).
        pose_error: standard deviation [rad] of the small rotations that a third of the items gets, as calibrations are
            off.
        bad_poses: share of the items with one source whose pose is as bad as what refining the poses of hand-held depth
            sensors leaves: turned by 0.001 to 0.012 rad, moved by 0.5 to 10 % of the baseline. Half of it where there
            are more sources.
        blurred: share of the items whose views are blurred by 0.5 to 3 px, as hand-held cameras blur.
    """

    pixels: int = 4 * 320 * 256
    planes: int = 64
    sources: int = 3
    min_depth_low: float = 0.2
    pose_error: float = 0.001
    bad_poses: float = 0.33
    blurred: float = 0.35


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """A ``StereoBatch`` with its truth.

    Attributes:
        stereo: what the network gets.
        depth: (B, H, W), in the unit of min_depth. normal: (B, 3, H, W), in the camera frame.
    """

    stereo: StereoBatch
    depth: torch.Tensor
    normal: torch.Tensor

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Return the batch on another device."""
        return TrainingBatch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


class WorldFiles:
    """Draw training batches from folders of rendered worlds; files that appear later are picked up.

    Args:
        folders: of worlds, with the share of the batches that each gives (relative to their sum); all the worlds of a
            folder have one size.
        limit: use so many files of each folder only.

    Raises:
        InputError: if a folder holds no worlds.
    """

    def __init__(self, folders: Mapping[Path, float], options: BatchOptions, limit: int | None = None) -> None:
        self.folders, self.options, self.limit = {Path(f): share for f, share in folders.items()}, options, limit
        self._files: dict[Path, list[Path]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the folders again."""
        for folder in self.folders:
            self._files[folder] = sorted(folder.glob("worlds_*.pt"))[: self.limit]
            if not self._files[folder]:
                raise InputError(
                    f"{folder}: expected rendered worlds (worlds_*.pt), found none; run `nasrecon train render`"
                )

    def draw(self, seed: int) -> TrainingBatch:
        """Draw the batch of a seed: the same folders and seed give the same batch."""
        if seed % 50 == 0:
            self.refresh()
        generator = torch.Generator().manual_seed(seed)
        shares = torch.tensor(list(self.folders.values()))
        files = self._files[list(self.folders)[int(torch.multinomial(shares, 1, generator=generator))]]
        rendered = load_file(files[int(torch.randint(len(files), (1,), generator=generator))])
        items = max(1, self.options.pixels // (rendered.images.shape[-1] * rendered.images.shape[-2]))
        chosen = torch.randperm(len(rendered.images), generator=generator)[:items]
        return draw_batch(rendered, chosen, self.options, generator)


def draw_batch(
    rendered: Rendered, chosen: torch.Tensor, options: BatchOptions, generator: torch.Generator
) -> TrainingBatch:
    """Mirror and disturb: one training batch from chosen worlds of a file. All items have the same number of sources."""
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    V, H, W = rendered.images.shape[1], *(side // 16 * 16 for side in rendered.images.shape[3:])
    B = len(chosen)
    # Half of the batches has a single source, as two-view sets have: the hardest case, and the cheapest to train.
    count = 1 + int(rand(1) ** 1.8 * min(options.sources, V - 1))
    order = torch.argsort(rand(B, V), dim=1)[:, : 1 + count]
    rows = chosen[:, None]
    images = rendered.images[rows, order, :, :H, :W].float() / 127.5 - 1
    K, cam_from_world = rendered.K[rows, order].clone(), rendered.cam_from_world[rows, order]
    depth = rendered.depth[chosen, order[:, 0], :H, :W]
    normal = rendered.normal[chosen, order[:, 0], :, :H, :W].float()
    K[..., :2, 2] -= 0.5  # networks think in integer pixel centres
    src_from_ref = cam_from_world[:, 1:] @ torch.linalg.inv(cam_from_world[:, :1])
    if rand(1) < 0.5:
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        images, depth = images.flip(-1), depth.flip(-1)
        normal = normal.flip(-1) * torch.tensor([-1.0, 1, 1]).view(3, 1, 1)
        K[..., 0, 2] = W - 1 - K[..., 0, 2]
        src_from_ref = mirror @ src_from_ref @ mirror
    images = shake((_recolor(images, generator) + 1) / 2, options.blurred, generator).clamp(0, 1) * 2 - 1
    src_from_ref = _disturb(src_from_ref, options, generator)

    nearest = depth.flatten(1).kthvalue(max(1, depth[0].numel() // 1000), dim=1).values
    min_depth = nearest * options.min_depth_low ** rand(B)
    # Planes fill their range only if the deepest part is worth seeing: where everything is far beyond, move closer.
    min_depth = torch.maximum(min_depth, depth.flatten(1).median(dim=1).values / options.planes * 1.5)
    src_from_ref[..., :3, 3] /= min_depth[:, None, None]
    stereo = StereoBatch(
        ref_image=images[:, 0], src_images=images[:, 1:], ref_K=K[:, 0], src_K=K[:, 1:], src_from_ref=src_from_ref,
        min_depth=torch.ones(B),
    )  # fmt: skip
    return TrainingBatch(stereo=stereo, depth=depth / min_depth[:, None, None], normal=F.normalize(normal, dim=1))


def _disturb(src_from_ref: torch.Tensor, options: BatchOptions, generator: torch.Generator) -> torch.Tensor:
    """Turn and move the sources a little, item by item, as the poses of real sets are off; some of them badly."""
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    B, S = src_from_ref.shape[:2]
    normal = lambda: torch.randn(B, S, 3, generator=generator)  # noqa: E731
    small = options.pose_error * (rand(B, 1, 1) < 0.33)
    bad = rand(B, 1, 1) < options.bad_poses / (1 if S == 1 else 2)
    turned = torch.where(bad, torch.exp(math.log(0.001) + rand(B, 1, 1) * math.log(12)), small)
    moved = torch.where(bad, torch.exp(math.log(0.005) + rand(B, 1, 1) * math.log(20)), 0.0)
    out = src_from_ref.clone()
    out[..., :3, :3] = rotation_from_vector(normal() * turned / math.sqrt(3)) @ src_from_ref[..., :3, :3]
    baseline = src_from_ref[..., :3, 3].norm(dim=-1, keepdim=True)
    out[..., :3, 3] += normal() * moved * baseline / math.sqrt(3)
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
