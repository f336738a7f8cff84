"""A reference larger than networks are trained on, or than memory holds: tiles, and one small estimate of the whole.

1. The whole image is estimated at a small size, and a very large one also at sizes between, each over the one before.
2. Each tile is estimated at full size, as a reference of its own; where memory holds the whole image it is the only
   tile. Its sources are cut to where the small estimate projects the tile. The nearest plane is that of the whole.
3. Each tile's estimate is averaged with the small one by ``ensemble.fuse_stages``: inverse depths weighted by one over
   sigma to the power of ``SUREST``, normals as vectors. Where the small estimate bends between its pixels, its sigma
   grows by the bend.
4. The tiles are averaged with weights that fall to zero towards their borders.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from nasrecon.geometry import in_image, relative_pose, transform
from nasrecon.inference.adapter import Photo, align_roll, to_estimates, to_prediction
from nasrecon.inference.ensemble import fuse_stages
from nasrecon.inference.passes import Passes, predict, run_passes
from nasrecon.inference.sizes import fitted_size, nearest_pixels, source_size
from nasrecon.ingest.images import resize_view
from nasrecon.nas.network import Network, Prediction
from nasrecon.types import Camera, Estimate

OVERLAP = 0.2
"""Part of a tile's side that it shares with the next tile, at least."""
COARSE_SIDE = 640
"""Longer side of the small estimate [px], less where memory does not hold it."""
LARGEST_STEP = 3.2
"""Images larger by more than this factor are estimated at sizes between too, each over the one before."""
DEPTH_SLACK = 0.15
"""A source's window holds the tile's points also where their inverse depth is off by this part."""
MIN_VISIBLE = 0.05
"""Sources in which less than this part of a tile's points lies are left out for the tile."""
LARGEST_SIDE = 800
"""An image with a longer side [px] has a small estimate also where memory holds it in one pass: networks are trained on
images of 640x480 and less, and where a surface of one colour is larger than in training they are often wrong."""
SUREST = 4.0
"""The weights of a tile and of the small estimate are one over their sigmas to this power; 2 would suit errors that are
distributed normally. With ``lite`` on two views of a rendered room at 1280x960 the pixels within 1 % of the truth are
76 and 74 % for one pass, 84 and 83 % for the small estimate, 86 and 85 % for a power of 2, 89 and 87 % for 4, 90 and
87 % for 6."""
CAUTION = 3.0
"""In images that are not larger than in training the small estimate's sigma counts as so many times larger. ``lite`` on
two views of livingroom1 (640x480 in 272x288 tiles): 88.5 and 90.5 % of the pixels are within 1 % of one pass without
it, 91.4 and 94.5 % with it, 91.5 and 94.6 % for tiles alone; one pass over the image without a border of 16 px is
within 1 % of one pass over all of it in 96.1 and 98.3 %."""
_WINDOW_MARGIN_PX = 8
_POINTS_A_SIDE = 24
_ROWS_AT_ONCE = 256
_OUTER = 0.125
_MIN_WEIGHT = 1e-4


@dataclass(frozen=True)
class Axis:
    """The tiles along one side of an image.

    Attributes:
        starts: (n,) their first pixels. size: their common length [px].
        weights: (n, size) their weights; over all tiles they sum to 1 at every pixel.
    """

    starts: np.ndarray
    size: int
    weights: np.ndarray


@dataclass(frozen=True)
class Grid:
    """All tiles of an image: the products of its two axes."""

    x: Axis
    y: Axis

    @property
    def tile_pixels(self) -> int:
        """The pixels of each tile."""
        return self.x.size * self.y.size

    def in_words(self) -> str:
        """Return "3x2 tiles of 640x640"."""
        return f"{len(self.x.starts)}x{len(self.y.starts)} tiles of {self.x.size}x{self.y.size}"


def plan_tiles(width: int, height: int, pixels: int, multiple: int) -> Grid:
    """Return overlapping tiles of at most ``pixels`` that cover width x height [px].

    Args:
        multiple: sides are multiples of it, unless a tile spans the image.
    """
    side = math.isqrt(pixels)
    if height <= side:
        side_x, side_y = pixels // (-(-height // multiple) * multiple), height
    elif width <= side:
        side_x, side_y = width, pixels // (-(-width // multiple) * multiple)
    else:
        side_x = side_y = side
    return Grid(_axis(width, side_x, multiple), _axis(height, side_y, multiple))


def _axis(length: int, most: int, multiple: int) -> Axis:
    """Cover a side with as few tiles of at most ``most`` px as overlap by ``OVERLAP``, evenly spread."""
    if most >= length:
        return Axis(np.zeros(1, int), length, np.ones((1, length)))
    most = max(multiple, most - most % multiple)
    overlap = math.ceil(OVERLAP * most)
    count = math.ceil((length - overlap) / (most - overlap))
    size = min(most, -(-math.ceil((length + (count - 1) * overlap) / count) // multiple) * multiple)
    starts = np.linspace(0, length - size, count).round().astype(int)
    position = np.arange(size) + 0.5
    weights = np.ones((count, size))
    for i, shared in enumerate(starts[:-1] + size - starts[1:]):
        rise = np.clip((position / shared - _OUTER) / (1 - 2 * _OUTER), _MIN_WEIGHT, 1)
        weights[i + 1] *= rise
        weights[i] *= rise[::-1]
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    return Axis(starts, size, np.stack([w / total[s : s + size] for s, w in zip(starts, weights, strict=True)]))


def predict_in_tiles(
    network: Network,
    ref: Photo,
    sources: Sequence[Photo],
    device: torch.device | str,
    passes: Passes,
    grid: Grid,
) -> Estimate:
    """Estimate one reference tile by tile.

    Args:
        network, ref, sources, device, passes: as in ``passes.predict``.
        grid: of ``plan_tiles``. No pass at a smaller size has more pixels than a tile.
    """
    sources, camera = [align_roll(source, ref.view) for source in sources], ref.view.camera
    first, *others = _sizes_below(camera, grid.tile_pixels, network.size_multiple)
    estimate = predict(network, *_shrunk(ref, sources, *first), device, passes)[0]
    for width, height in others:
        (smaller,), (its_sources,) = _shrunk(ref, sources, width, height)
        tiles = plan_tiles(width, height, grid.tile_pixels, network.size_multiple)
        estimate = _over(estimate, network, smaller, its_sources, device, passes, tiles)
    return _over(estimate, network, ref, sources, device, passes, grid)


def _over(
    smaller: Estimate,
    network: Network,
    ref: Photo,
    sources: Sequence[Photo],
    device: torch.device | str,
    passes: Passes,
    grid: Grid,
) -> Estimate:
    """Estimate a reference tile by tile over an estimate of it at a smaller size."""
    coarse = _Coarse(smaller, ref, sources, network, device)
    camera = ref.view.camera
    mosaic = _Mosaic(camera)
    caution = CAUTION if max(camera.width, camera.height) <= LARGEST_SIDE else 1.0
    for top, weights_y in zip(grid.y.starts, grid.y.weights, strict=True):
        for left, weights_x in zip(grid.x.starts, grid.x.weights, strict=True):
            tile = cropped(ref, int(left), int(top), grid.x.size, grid.y.size)
            its_sources = coarse.source_windows(tile, int(left), int(top))
            parts = [coarse.at(int(left), int(top), grid.x.size, grid.y.size)]
            if its_sources:
                prediction = run_passes(network, [tile], [its_sources], device, passes)
                parts[0] = replace(parts[0], sigma=parts[0].sigma * caution)
                parts.append(_top_left(prediction, grid.y.size, grid.x.size))
            estimate = to_estimates(fuse_stages(parts, SUREST, by_pixel=True), [tile], [its_sources], network)[0]
            mosaic.add(estimate, int(left), int(top), np.outer(weights_y, weights_x).astype(np.float32))
    return mosaic.estimate(ref, sources)


def _sizes_below(camera: Camera, pixels: int, multiple: int) -> list[tuple[int, int]]:
    """Return the sizes at which the whole image is estimated before its own: the first one of at most ``COARSE_SIDE``
    and so many pixels, each about ``LARGEST_STEP`` times the one before or less."""
    sides = np.array([camera.width, camera.height])
    first = min(1.0, COARSE_SIDE / sides.max(), math.sqrt(pixels / sides.prod()))
    ratio = min(1.0, COARSE_SIDE / sides.max())
    steps = max(1, math.ceil(-math.log(ratio) / math.log(LARGEST_STEP)))
    scales = [first, *(ratio ** (1 - i / steps) for i in range(1, steps))]
    return [
        tuple(np.maximum(multiple, (sides * scale).astype(int) // multiple * multiple).tolist()) for scale in scales
    ]


def _shrunk(ref: Photo, sources: Sequence[Photo], width: int, height: int) -> tuple[list[Photo], list[list[Photo]]]:
    """Return a reference at another size [px], and its sources, as a batch."""
    smaller = [resized(source, *source_size(source.view.camera, width, height)) for source in sources]
    return [resized(ref, width, height)], [smaller]


def cropped(photo: Photo, left: int, top: int, width: int, height: int) -> Photo:
    """Return the window of a photo: image, camera and prior; the pose is that of the whole."""
    window = np.s_[top : top + height, left : left + width]
    prior = None if photo.prior is None else (photo.prior[0][window], photo.prior[1][window])
    view = replace(photo.view, camera=photo.view.camera.cropped(left, top, width, height))
    return replace(photo, rgb=photo.rgb[window], view=view, prior=prior)


def resized(photo: Photo, width: int, height: int) -> Photo:
    """Return a photo at another size [px]; a prior is taken from the nearest pixels."""
    rgb, view = resize_view(photo.rgb, photo.view, width, height)
    if photo.prior is None:
        return replace(photo, rgb=rgb, view=view)
    row, column = nearest_pixels(photo.rgb.shape[:2], (height, width))
    return replace(photo, rgb=rgb, view=view, prior=(photo.prior[0][row, column], photo.prior[1][row, column]))


class _Coarse:
    """An estimate of the whole image at a smaller size, and what it says of tiles."""

    def __init__(
        self, smaller: Estimate, ref: Photo, sources: Sequence[Photo], network: Network, device: torch.device | str
    ) -> None:
        self.camera, self.sources = ref.view.camera, sources
        self._maps = _maps(to_prediction(smaller, network)).to(device)
        known = smaller.depth > 0
        typical = np.median(smaller.depth[known]) if known.any() else (ref.view.depth_range or (0.0, 1.0))[1]
        self._depth = np.where(known, smaller.depth, typical)

    def at(self, left: int, top: int, width: int, height: int) -> Prediction:
        """Return the prediction at the pixels of a window of the whole image."""
        device = self._maps.device
        x = (left + torch.arange(width, device=device) + 0.5) / self.camera.width * 2 - 1
        y = (top + torch.arange(height, device=device) + 0.5) / self.camera.height * 2 - 1
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        maps = F.grid_sample(self._maps, grid, align_corners=False, padding_mode="border")
        known = maps[:, 0]
        inverse, spread, confidence = (maps[:, i] / known.clamp_min(1e-6) for i in (1, 2, 3))
        depth = torch.where((known > 0.5) & (inverse > 0), 1 / inverse, torch.nan)
        normal = F.normalize(maps[:, 4:], dim=1, eps=1e-6)
        return Prediction(
            depth_initial=depth,
            depth=depth,
            normal=normal,
            refined_depth=depth,
            refined_normal=normal,
            confidence=torch.where(depth > 0, confidence, 0.0),
            sigma=spread * depth,
        )

    def source_windows(self, tile: Photo, left: int, top: int) -> list[Photo]:
        """Return the sources cut to where they show the tile, without those that do not show it."""
        camera = tile.view.camera
        x, y = (np.linspace(0.5, side - 0.5, _POINTS_A_SIDE) for side in (camera.width, camera.height))
        pixels = np.stack(np.meshgrid(x, y), axis=-1)
        rows, columns = self._depth.shape
        row = ((pixels[..., 1] + top) * rows / self.camera.height).astype(int)
        column = ((pixels[..., 0] + left) * columns / self.camera.width).astype(int)
        depth = self._depth[row, column]
        spread = np.concatenate([depth / (1 + DEPTH_SLACK), depth, depth * (1 + DEPTH_SLACK)])
        points = camera.unproject(np.concatenate([pixels] * 3), spread)
        windows = [_window(source, points, tile) for source in self.sources]
        return [window for window in windows if window is not None]


def _window(source: Photo, points_in_ref: np.ndarray, tile: Photo) -> Photo | None:
    """Return the part of a source that holds the points (..., 3), of the tile's aspect and at most its size; None where
    too few lie in it."""
    camera, size = source.view.camera, tile.view.camera
    src_from_ref = relative_pose(source.view.cam_from_world, tile.view.cam_from_world)
    projected = camera.project(transform(src_from_ref, points_in_ref)).reshape(-1, 2)
    inside = in_image(projected, camera.width, camera.height)
    if inside.mean() < MIN_VISIBLE:
        return None
    low, high = np.percentile(projected[inside], [1, 99], axis=0)
    factor = max(1.0, *((high - low + 2 * _WINDOW_MARGIN_PX) / (size.width, size.height)))
    width = min(camera.width, math.ceil(factor * size.width))
    height = min(camera.height, math.ceil(factor * size.height))
    left, top = ((low + high) / 2 - np.array([width, height]) / 2).round().astype(int)
    left, top = int(np.clip(left, 0, camera.width - width)), int(np.clip(top, 0, camera.height - height))
    window = cropped(source, left, top, width, height)
    return resized(window, *fitted_size(window.view.camera, size.width, size.height))


def _top_left(prediction: Prediction, height: int, width: int) -> Prediction:
    """Return a prediction without its padding, float32."""
    names = Prediction.__dataclass_fields__
    return Prediction(**{name: getattr(prediction, name)[..., :height, :width].float() for name in names})


def _maps(prediction: Prediction) -> torch.Tensor:
    """Return (1, 7, h, w): whether a pixel is known and, times that, inverse depth, spread, confidence and normal."""
    depth = prediction.refined_depth
    known = torch.isfinite(depth) & (depth > 0)
    inverse = torch.where(known, 1 / depth, 0.0)
    # Inverse depth is linear on a plane: what its second differences leave is what the small size cannot resolve.
    padded = F.pad(inverse[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    bend_x = (padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] - 2 * inverse).abs()
    bend_y = (padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] - 2 * inverse).abs()
    bend = F.max_pool2d(torch.maximum(bend_x, bend_y)[:, None], 3, 1, 1)[:, 0]
    spread = torch.hypot(torch.where(known, prediction.sigma / depth, 1.0), bend / inverse.clamp_min(1e-9))
    parts = [torch.ones_like(inverse), inverse, spread.nan_to_num(1.0), prediction.confidence.nan_to_num(0.0)]
    maps = torch.cat([torch.stack(parts, dim=1), prediction.refined_normal.nan_to_num(0.0)], dim=1)
    return torch.where(known[:, None], maps, 0.0)


class _Mosaic:
    """The weighted sums of the tiles' maps, at the size of the image."""

    def __init__(self, camera: Camera) -> None:
        size = (camera.height, camera.width)
        self._weight, self._inverse, self._spread, self._confidence = (np.zeros(size, np.float32) for _ in range(4))
        self._normal = np.zeros((*size, 3), np.float32)

    def add(self, estimate: Estimate, left: int, top: int, weight: np.ndarray) -> None:
        """Add a tile with its weights (H, W)."""
        height, width = estimate.depth.shape
        window = np.s_[top : top + height, left : left + width]
        weight = np.where(estimate.depth > 0, weight, 0)
        depth = np.where(estimate.depth > 0, estimate.depth, 1)
        self._weight[window] += weight
        self._inverse[window] += weight / depth
        self._spread[window] += weight * estimate.sigma / depth
        self._confidence[window] += weight * estimate.confidence
        self._normal[window] += weight[..., None] * estimate.normal

    def estimate(self, ref: Photo, sources: Sequence[Photo]) -> Estimate:
        """Return the averages; a pixel is valid where half of the weight is. The sums are used up."""
        for start in range(0, len(self._weight), _ROWS_AT_ONCE):
            rows = np.s_[start : start + _ROWS_AT_ONCE]
            weight = self._weight[rows]
            valid = weight >= 0.5
            safe = np.where(valid, weight, 1)
            depth = np.where(valid, safe / np.where(valid, self._inverse[rows], 1), 0)
            self._inverse[rows] = depth
            self._spread[rows] = np.where(valid, self._spread[rows] / safe * depth, 0)
            self._confidence[rows] = np.where(valid, self._confidence[rows] / safe, 0)
            length = np.linalg.norm(self._normal[rows], axis=-1)
            self._normal[rows] *= np.where(valid & (length > 0), 1 / np.where(length > 0, length, 1), 0)[..., None]
        return Estimate(
            view=ref.view,
            depth=self._inverse,
            normal=self._normal,
            confidence=self._confidence,
            sigma=self._spread,
            rgb=ref.rgb,
            sources=tuple(source.view.name for source in sources),
        )
