"""The drawing of training batches from rendered worlds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from nasrecon.errors import InputError
from nasrecon.nas.network import StereoBatch
from nasrecon.train.render import Rendered
from nasrecon.train.sensor import blur_views
from nasrecon.train.view_changes import PosedViews, change_views, cut_apart, draw_window
from nasrecon.train.world_files import load_file
from nasrecon.train.worlds import rotation_from_vector

CUT_APART = (0.6, 0.25)
"""Shares of the batches with one and with more sources whose views are cut to windows at places of their own."""

_USUAL_NEAR = 0.25
"""Without augmentation the guessed min_depth is this power of the lowest, about what ``depth_range`` finds."""


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
        augment: False: nothing is drawn at random but the items. Their views are neither changed (``view_changes.py``),
            mirrored, recoloured, blurred, moved, enlarged nor cut, and their sources are always the first ones.
    """

    pixels: int = 4 * 320 * 256
    planes: int = 64
    sources: int = 3
    min_depth_low: float = 0.2
    pose_error: float = 0.001
    bad_poses: float = 0.33
    blurred: float = 0.35
    augment: bool = True


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """A ``StereoBatch`` with its truth.

    Attributes:
        stereo: what the network gets.
        depth: (B, H, W), in the unit of min_depth, 0 = none. normal: (B, 3, H, W), in the camera frame, 0 = none.
    """

    stereo: StereoBatch
    depth: torch.Tensor
    normal: torch.Tensor

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Return the batch on another device."""
        return TrainingBatch(**{name: getattr(self, name).to(device) for name in self.__dataclass_fields__})


class WorldFiles:
    """Draw training batches from a folder of rendered worlds of one size; files that appear later are picked up.

    Raises:
        InputError: if the folder holds no worlds.
    """

    def __init__(self, folder: Path, options: BatchOptions, limit: int | None = None) -> None:
        self.folder, self.options, self.limit = Path(folder), options, limit
        self._files: list[Path] = []
        self.refresh()

    def refresh(self) -> None:
        """Read the folder again."""
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
        rendered = load_file(self._files[int(torch.randint(len(self._files), (1,), generator=generator))])
        items = max(1, self.options.pixels // (rendered.images.shape[-1] * rendered.images.shape[-2]))
        chosen = torch.randperm(len(rendered.images), generator=generator)[:items]
        return draw_batch(rendered, chosen, self.options, generator)


def draw_batch(
    rendered: Rendered, chosen: torch.Tensor, options: BatchOptions, generator: torch.Generator
) -> TrainingBatch:
    """Change the views, cut, mirror and disturb: one batch from chosen worlds of a file.

    All items have the same number of sources.
    """
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    V, H, W = rendered.images.shape[1], *(side // 16 * 16 for side in rendered.images.shape[3:])
    places = rand(len(chosen), V) if options.augment else torch.arange(V).expand(len(chosen), V)
    order = torch.argsort(places, dim=1)[:, : 1 + draw_sources(options, V - 1, generator)]
    rows = chosen[:, None]
    K = rendered.K[rows, order].clone()
    K[..., :2, 2] -= 0.5  # networks think in integer pixel centres
    items = [
        PosedViews(
            images=rendered.images[item, views, :, :H, :W].float() / 255,
            K=K[i],
            cam_from_world=rendered.cam_from_world[item, views],
            depth=rendered.depth[item, views, :H, :W],
            normal=rendered.normal[item, views, :, :H, :W].float(),
        )
        for i, (item, views) in enumerate(zip(chosen, order, strict=True))
    ]
    if options.augment:
        items = [change_views(item, generator) for item in items]
        if rand(1) < (CUT_APART[0] if order.shape[1] == 2 else CUT_APART[1]):
            size = draw_window(H, W, generator)
            items = [cut_apart(item, size, generator) for item in items]
    images, K, poses = (torch.stack([getattr(item, n) for item in items]) for n in ("images", "K", "cam_from_world"))
    depth, normal = torch.stack([item.depth[0] for item in items]), torch.stack([item.normal[0] for item in items])
    return disturb(images, K, poses, depth, normal, options, generator)


def draw_sources(options: BatchOptions, available: int, generator: torch.Generator) -> int:
    """Draw the number of sources of a batch.

    Half of the batches has a single source, as two-view sets have: the hardest case, and the cheapest to train. Without
    augmentation all have as many as there are.
    """
    if not options.augment:
        return min(options.sources, available)
    return 1 + int(torch.rand(1, generator=generator) ** 1.8 * min(options.sources, available))


def disturb(
    images: torch.Tensor,
    K: torch.Tensor,
    cam_from_world: torch.Tensor,
    depth: torch.Tensor,
    normal: torch.Tensor,
    options: BatchOptions,
    generator: torch.Generator,
) -> TrainingBatch:
    """Mirror the views of a batch, change colours, sharpness and poses, and guess the nearest plane.

    Args:
        images: (B, V, 3, H, W) in [0, 1], the references first. K: (B, V, 3, 3), integer pixel centres.
        cam_from_world: (B, V, 4, 4). depth: (B, H, W), 0 = none, and normal: (B, 3, H, W), 0 = none, of the references.
    """
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    B, W = len(images), images.shape[-1]
    images = images * 2 - 1
    src_from_ref = cam_from_world[:, 1:] @ torch.linalg.inv(cam_from_world[:, :1])
    if options.augment and rand(1) < 0.5:
        mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
        images, depth = images.flip(-1), depth.flip(-1)
        normal = normal.flip(-1) * torch.tensor([-1.0, 1, 1]).view(3, 1, 1)
        K[..., 0, 2] = W - 1 - K[..., 0, 2]
        src_from_ref = mirror @ src_from_ref @ mirror
    if options.augment:
        images = blur_views((_recolor(images, generator) + 1) / 2, options.blurred, generator).clamp(0, 1) * 2 - 1
        src_from_ref = _disturb(src_from_ref, options, generator)
    nearest, middle = (torch.stack([_quantile(item, share) for item in depth]) for share in (0.001, 0.5))
    min_depth = nearest * options.min_depth_low ** (rand(B) if options.augment else torch.full((B,), _USUAL_NEAR))
    # Planes fill their range only if the deepest part is worth seeing: where everything is far beyond, move closer.
    min_depth = torch.maximum(min_depth, middle / options.planes * 1.5)
    src_from_ref[..., :3, 3] /= min_depth[:, None, None]
    stereo = StereoBatch(
        ref_image=images[:, 0], src_images=images[:, 1:], ref_K=K[:, 0], src_K=K[:, 1:], src_from_ref=src_from_ref,
        min_depth=torch.ones(B),
    )  # fmt: skip
    return TrainingBatch(stereo=stereo, depth=depth / min_depth[:, None, None], normal=F.normalize(normal, dim=1))


def _quantile(depth: torch.Tensor, share: float) -> torch.Tensor:
    """Return the depth that this share of the pixels with a depth is nearer than."""
    known = depth[depth > 0]
    return known.kthvalue(max(1, round(share * len(known)))).values


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
    """Change brightness, contrast and gamma per view and the order of colours per batch; images in [-1, 1]."""
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
