"""Training batches from posed image sets with depth maps, in any layout that ``open_scene`` knows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch

from nasrecon.errors import InputError
from nasrecon.geometry import plane_normals
from nasrecon.ingest.images import read_view
from nasrecon.ingest.true_depth import read_true_depth
from nasrecon.scene.source_views import select_source_views
from nasrecon.train.datasets import BatchOptions, TrainingBatch, disturb, draw_sources
from nasrecon.types import Scene, View

LARGEST_SCALE = 1.15
"""Views are enlarged by 1 to 1.15, each by its own factor, and cut to size again (the paper's augmentation)."""
MIN_DEPTH_SHARE = 0.1
"""A reference has a depth at this part of its pixels."""
SOURCE_VIEWS = 6
"""Sources are drawn from so many of the best ones."""
_ATTEMPTS = 50


@dataclass(frozen=True, kw_only=True)
class _Crop:
    rgb: np.ndarray
    view: View
    K: np.ndarray
    left: int
    top: int


class SceneFrames:
    """Draws batches from the frames of a scene; a frame that cannot be used is left out and counted.

    Args:
        scene: with depth maps beside its images.
        width, height: of the windows [px], multiples of 16.
        options: as for worlds.

    Attributes:
        left_out: the reasons for the references that were drawn and cannot be used, by name.

    Raises:
        InputError: if no view has a depth map.
    """

    def __init__(self, scene: Scene, width: int, height: int, options: BatchOptions) -> None:
        self.scene, self.options, self._size = scene, options, (width, height)
        self.left_out: dict[str, str] = {}
        self._sources: dict[int, tuple[int, ...]] = {}
        if all(_depth_of(view) is None for view in scene.views):
            raise InputError(
                f"{scene.root}: expected depth maps beside the images (image.npy, depth/image.png, .depth.png ...), "
                f"found none for {len(scene.views)} views"
            )

    def draw(self, seed: int) -> TrainingBatch:
        """Return the batch of a seed.

        Raises:
            InputError: if no frame can be used.
        """
        generator = torch.Generator().manual_seed(seed)
        width, height = self._size
        count = draw_sources(self.options, SOURCE_VIEWS, generator)
        items = [self._item(count, generator) for _ in range(max(1, self.options.pixels // (width * height)))]
        images, K, poses, depth, normal = (torch.stack(part) for part in zip(*items, strict=True))
        return disturb(images / 255, K, poses, depth, normal, self.options, generator)

    def summary(self) -> str:
        """Return one line: the scene, its frames, and how many were left out and why."""
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(self.left_out.values()).most_common())
        return f"{self.scene.root}: {len(self.scene.views)} frames" + (f", left out: {reasons}" if reasons else "")

    def _item(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Return images (V, 3, H, W), K (V, 3, 3), poses (V, 4, 4), depth (H, W) and normals (3, H, W) of one item."""
        for _ in range(_ATTEMPTS):
            ref = int(torch.randint(len(self.scene.views), (1,), generator=generator))
            name = self.scene.views[ref].name
            try:
                sources = self._sources_of(ref)
                if not sources:
                    raise InputError("without a source view")
                depth, normal, crop = self._reference(ref, generator)
                order = torch.randperm(len(sources), generator=generator).tolist()
                if not self.options.augment:
                    order.sort()
                chosen = [sources[order[k % len(order)]] for k in range(count)]
                crops = [crop, *(self._crop(source, generator) for source in chosen)]
            except InputError as error:
                self.left_out.setdefault(name, str(error).split(":")[-1].strip())
                continue
            images = np.stack([c.rgb.transpose(2, 0, 1) for c in crops])
            poses = np.stack([c.view.cam_from_world for c in crops])
            tensors = (images, np.stack([c.K for c in crops]), poses, depth, normal.transpose(2, 0, 1))
            return tuple(torch.from_numpy(np.array(x)).float() for x in tensors)
        raise InputError(f"{self.summary()}; none of {_ATTEMPTS} frames drawn can be used")

    def _sources_of(self, ref: int) -> tuple[int, ...]:
        if ref not in self._sources:
            self._sources[ref] = select_source_views(self.scene, ref, SOURCE_VIEWS)
        return self._sources[ref]

    def _reference(self, ref: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray, _Crop]:
        crop = self._crop(ref, generator)
        depth = _depth_of(crop.view)
        if depth is None:
            raise InputError("without a depth map")
        normal = plane_normals(depth, crop.view.camera)
        width, height = self._size
        window = (slice(crop.top, crop.top + height), slice(crop.left, crop.left + width))
        depth, normal = depth[window], normal[window]
        if (depth > 0).mean() < MIN_DEPTH_SHARE:
            raise InputError(f"with a depth at less than {MIN_DEPTH_SHARE:.0%} of the pixels")
        return depth, normal, crop

    def _crop(self, index: int, generator: torch.Generator) -> _Crop:
        """Read a view enlarged by its own factor, and a window at a random place, with its K (integer centres)."""
        view, (width, height) = self.scene.views[index], self._size
        factor = max(width / view.camera.width, height / view.camera.height)
        augment = self.options.augment
        scale = factor * (float(1 + (LARGEST_SCALE - 1) * torch.rand(1, generator=generator)) if augment else 1.0)
        full = [max(side, round(of * scale)) for side, of in ((width, view.camera.width), (height, view.camera.height))]
        rgb, view = read_view(view, *full)
        left, top = (
            int(torch.randint(of - side + 1, (1,), generator=generator)) if augment else (of - side) // 2
            for of, side in zip(full, self._size, strict=True)
        )
        K = view.camera.K.copy()
        K[:2, 2] -= (left + 0.5, top + 0.5)
        return _Crop(rgb=rgb[top : top + height, left : left + width], view=view, K=K, left=left, top=top)


def _depth_of(view: View) -> np.ndarray | None:
    try:
        return read_true_depth(view)
    except InputError as error:
        raise InputError("with a depth map that cannot be read") from error
