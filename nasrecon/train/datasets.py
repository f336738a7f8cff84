"""The drawing of training batches from rendered worlds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F

from nasrecon.errors import InputError
from nasrecon.nas.network import StereoBatch
from nasrecon.nas.pyramid import shrunk
from nasrecon.train.render import Rendered
from nasrecon.train.sensor import shake
from nasrecon.train.world_files import load_file
from nasrecon.train.worlds import rotation_from_vector

WHOLE_PX = 320
"""Longer side of the largest window that is learned as a whole, without a hint; larger ones are halved for that."""


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How batches are drawn from rendered worlds.

    Attributes:
        batch: items in a batch. width, height: of the crop [px], multiples of 16.
        planes: D, which fixes the range of valid labels.
        sources: the largest number of source views.
        min_depth_low: the guessed min_depth is this ... 1 times the true nearest depth (log-uniform).
        pose_error: standard deviation [rad] of the small rotations that a third of the items gets, as calibrations are
            off.
        bad_poses: share of the items with one source whose pose is as bad as what refining the poses of hand-held depth
            sensors leaves: turned by 0.001 to 0.012 rad, moved by 0.5 to 10 % of the baseline. Half of it where there
            are more sources.
        blurred: share of the items whose views are blurred by 0.5 to 3 px, as hand-held cameras blur: so that the
            network learns to take the coarse pass at its word where nothing fine can be seen.
        hinted: share of the batches that are crops with a hint from the whole window at half the size; the others are
            whole windows, ``batch / 2`` of them, without, at half the size where they are wider or higher than
            ``WHOLE_PX``.
    """

    batch: int = 4
    width: int = 192
    height: int = 160
    planes: int = 64
    sources: int = 3
    min_depth_low: float = 0.2
    pose_error: float = 0.001
    bad_poses: float = 0.3
    blurred: float = 0.35
    hinted: float = 0.6


@dataclass(frozen=True, kw_only=True)
class TrainingBatch:
    """A ``StereoBatch`` with its truth.

    Attributes:
        stereo: what the network gets.
        depth: (B, H, W), in the unit of min_depth. normal: (B, 3, H, W), in the camera frame.
        around: the window that the batch was cut from, for a coarse pass; None where none is asked for.
        corner: (left, top) of the crop in that window [px], multiples of 8.
    """

    stereo: StereoBatch
    depth: torch.Tensor
    normal: torch.Tensor
    around: StereoBatch | None = None
    corner: tuple[int, int] = (0, 0)

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Return the batch on another device."""
        around = None if self.around is None else self.around.to(device)
        moved = {name: getattr(self, name).to(device) for name in ("stereo", "depth", "normal")}
        return replace(self, **moved, around=around)


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
    """Mirror, disturb, cut: one training batch from chosen worlds of a file. All items have the same number of sources."""
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    V, H, W = rendered.images.shape[1], *rendered.images.shape[3:]
    hinted = bool(rand(1) < options.hinted)
    if not hinted:
        chosen = chosen[: max(1, options.batch // 2)]
    B = len(chosen)
    # Half of the batches has a single source, as two-view sets have: the hardest case, and the cheapest to train.
    count = 1 + int(rand(1) ** 1.8 * min(options.sources, V - 1))
    order = torch.argsort(rand(B, V), dim=1)[:, : 1 + count]
    rows = chosen[:, None]
    images = rendered.images[rows, order].float() / 127.5 - 1
    K, cam_from_world = rendered.K[rows, order].clone(), rendered.cam_from_world[rows, order]
    depth, normal = rendered.depth[chosen, order[:, 0]], rendered.normal[chosen, order[:, 0]].float()
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
    window = StereoBatch(
        ref_image=images[:, 0], src_images=images[:, 1:], ref_K=K[:, 0], src_K=K[:, 1:], src_from_ref=src_from_ref,
        min_depth=torch.ones(B),
    )  # fmt: skip

    if not hinted and max(H, W) > WHOLE_PX:
        window, depth, normal = _halved(window, depth, normal)
        H, W = depth.shape[-2:]
    if hinted:
        left, top = (
            8 * int(rand(1) * ((side - cut) // 8 + 1)) for side, cut in ((W, options.width), (H, options.height))
        )
        size = (options.height, options.width)
    else:
        left, top, size = 0, 0, (H // 16 * 16, W // 16 * 16)
    nearest = depth.flatten(1).kthvalue(max(1, depth[0].numel() // 1000), dim=1).values
    stereo, depth, normal = (
        _cut(window, left, top, size),
        depth[:, *_at(left, top, size)],
        normal[..., *_at(left, top, size)],
    )

    min_depth = nearest * options.min_depth_low ** rand(B)
    # Planes fill their range only if the deepest part is worth seeing: where everything is far beyond, move closer.
    min_depth = torch.maximum(min_depth, depth.flatten(1).median(dim=1).values / options.planes * 1.5)
    src_from_ref[..., :3, 3] /= min_depth[:, None, None]
    return TrainingBatch(
        stereo=stereo, depth=depth / min_depth[:, None, None], normal=F.normalize(normal, dim=1),
        around=window if hinted else None, corner=(left, top),
    )  # fmt: skip


def _halved(
    window: StereoBatch, depth: torch.Tensor, normal: torch.Tensor
) -> tuple[StereoBatch, torch.Tensor, torch.Tensor]:
    """Halve the images, the depth (B, H, W) and the normals (B, 3, H, W) of a window; odd last rows and columns are left out.

    A plane's inverse depth is linear in pixels: the mean of four is that of their middle. Where they are not of one
    surface, one of the four is taken.
    """
    H, W = (side // 2 * 2 for side in depth.shape[-2:])
    window, depth, normal = _cut(window, 0, 0, (H, W)), depth[:, :H, :W], normal[..., :H, :W]
    four = lambda x: torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])  # noqa: E731
    inverse, normals = four(1 / depth), four(normal)
    smooth = inverse.amax(dim=0) < 1.03 * inverse.amin(dim=0)
    depth = 1 / torch.where(smooth, inverse.mean(dim=0), inverse[0])
    normal = torch.where(smooth[:, None], normals.mean(dim=0), normals[0])
    return shrunk(window, 0.5, 1), depth, normal


def _at(left: int, top: int, size: tuple[int, int]) -> tuple[slice, slice]:
    return slice(top, top + size[0]), slice(left, left + size[1])


def _cut(window: StereoBatch, left: int, top: int, size: tuple[int, int]) -> StereoBatch:
    """Cut the same rectangle out of all images. Poses are shared with ``window``, not copied."""
    corner = torch.tensor([left, top])
    ref_K, src_K = window.ref_K.clone(), window.src_K.clone()
    ref_K[..., :2, 2] -= corner
    src_K[..., :2, 2] -= corner
    rectangle = _at(left, top, size)
    return replace(
        window, ref_image=window.ref_image[..., *rectangle], src_images=window.src_images[..., *rectangle],
        ref_K=ref_K, src_K=src_K,
    )  # fmt: skip


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
