"""A network that learned nothing: plane sweep, normalised cross-correlation, semi-global matching.

The floor under every score: what classical stereo makes of the same images, planes and cameras.

    grey images at half size --7x7 ZNCC on planes, averaged over sources--> scores (h, w, D) in [-1, 1]
    scores --best plane--> Z1
    scores --semi-global matching (Hirschmueller, PAMI 2008), 8 paths--> costs --best plane--> Z2
    Z2 --median 5x5--> refined depth
    Z2, refined --planes fitted to 7x7 windows of inverse depth--> normals

Planes are those of all networks: uniform in inverse depth, label 0 at infinity. A parabola through the costs of the
best plane and its two neighbours gives the fraction of a plane. Images are halved before matching: the planes of two
ordinary views lie more than a pixel apart at full size, and a window of 14 px holds more of what little texture walls
have.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import nn

from nasrecon.nas.heads import label_spread, sigma_from_spread
from nasrecon.nas.network import Prediction, StereoBatch
from nasrecon.nas.surface import normal_from_slopes
from nasrecon.nas.volume import depth_from_label, plane_inv_depth, plane_sample_grid, sample_on_planes, scaled_K

VERSION = 1
"""Goes up with every change of what comes out."""
WINDOW = 7
"""Side of the windows that are compared, and of those that planes are fitted to [px of the halved image]."""
NOISE = 0.02
"""Standard deviation of grey in [-1, 1] (2.5 levels of 255) that is taken for noise: flat windows score about 0."""
STEP, JUMP = 0.3, 10.0
"""Semi-global matching: price of a step by one plane, and of a jump where the image is flat; a pixel's own costs are
in [0, 1]. Chosen once, on wide and narrow depth ranges together: a cheaper jump smooths too little where two views
share no texture, a dearer step makes slanted surfaces stairs."""
EDGE = 0.1
"""Difference of grey in [-1, 1] at which a jump costs half; it always costs more than a step."""
SOFTNESS = 0.1
"""Difference of cost at which a plane is e times less likely, for the spread."""
PATHS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, -1), (1, -1), (-1, 1))
_PLANES_AT_ONCE = 8
_MIN_LABEL = 0.02  # depths beyond 50 * D * min_depth are "infinitely" far


class ZnccNetwork(nn.Module):
    """See the head of this file; no parameters."""

    name = "zncc"
    size_multiple = 4
    min_side = 32
    grey: torch.Tensor

    def __init__(self, planes: int = 64) -> None:
        super().__init__()
        self.planes = planes
        self.register_buffer("grey", torch.tensor([0.299, 0.587, 0.114]), persistent=False)

    def forward(self, batch: StereoBatch) -> Prediction:
        """Estimate the items one after the other, so that there is one volume in memory."""
        with torch.no_grad(), torch.autocast(batch.ref_image.device.type, enabled=False):
            items = [self._estimate(batch.item(i)) for i in range(len(batch.ref_image))]
        return Prediction(**{name: torch.cat([item[name] for item in items]) for name in items[0]})

    def _estimate(self, batch: StereoBatch) -> dict[str, torch.Tensor]:
        """Estimate a batch of one."""
        ref, *sources = (self._halved(image) for image in (batch.ref_image, *batch.src_images[0, :, None]))
        ref_K = scaled_K(batch.ref_K, 2, corner_aligned=False)
        src_K = scaled_K(batch.src_K, 2, corner_aligned=False)
        inv_depth = plane_inv_depth(batch.min_depth, self.planes)
        scores = match(ref, sources, ref_K, src_K, batch.src_from_ref, inv_depth)
        costs = semi_global((1 - scores) / 2, ref[0, 0]) / len(PATHS)
        first, label = best_label(-scores), best_label(costs)
        refined = _median(label)
        prob = (-costs / SOFTNESS).softmax(dim=-1).permute(2, 0, 1)[None]
        size = batch.ref_image.shape[-2:]
        full = lambda x: F.interpolate(x, size, mode="bilinear", align_corners=False)  # noqa: E731
        at_full = lambda x: full(x[None, None])[:, 0]  # noqa: E731
        depth = lambda x: depth_from_label(at_full(x).clamp_min(_MIN_LABEL), batch.min_depth, self.planes)  # noqa: E731
        normal = lambda x: F.normalize(full(_fitted_normals(x[None], ref_K)), dim=1)  # noqa: E731
        spread = full(label_spread(prob, refined[None])[None])[:, 0]
        return {
            "depth_initial": depth(first),
            "depth": depth(label),
            "normal": normal(label),
            "refined_depth": depth(refined),
            "refined_normal": normal(refined),
            "confidence": at_full(confidence(scores, costs)),
            "sigma": sigma_from_spread(spread, at_full(refined), batch.min_depth, self.planes),
        }

    def _halved(self, image: torch.Tensor) -> torch.Tensor:
        """Turn an RGB image (1, 3, H, W) into grey (1, 1, H/2, W/2)."""
        return F.avg_pool2d((image * self.grey.view(1, 3, 1, 1)).sum(dim=1, keepdim=True), 2)


def match(
    ref: torch.Tensor,
    sources: list[torch.Tensor],
    ref_K: torch.Tensor,
    src_K: torch.Tensor,
    src_from_ref: torch.Tensor,
    inv_depth: torch.Tensor,
) -> torch.Tensor:
    """Correlate the reference's windows with the sources' on every plane.

    Args:
        ref, sources: grey images (1, 1, h, w) in [-1, 1]. inv_depth: (1, D).
        ref_K (1, 3, 3), src_K (1, S, 3, 3): integer pixel centres, at h x w. src_from_ref: (1, S, 4, 4).

    Returns:
        scores (h, w, D) in [-1, 1]: the mean over the sources that see the voxel, over the better half of them where
        there are more than two (the others are hidden); 0 where none does.
    """
    size = ref.shape[-2:]
    patches = _Patches(ref)
    kept = len(sources) if len(sources) <= 2 else (len(sources) + 1) // 2
    out = []
    for some in inv_depth.split(_PLANES_AT_ONCE, dim=1):
        scores, visible = [], []
        for s, source in enumerate(sources):
            grid, inside = plane_sample_grid(ref_K, src_K[:, s], src_from_ref[:, s], some, size)
            warped = _Patches(sample_on_planes(source, grid)[0].transpose(0, 1))
            scores.append(torch.where(inside[0], patches.correlate(warped)[:, 0], -2))
            visible.append(inside[0])
        best, index = torch.stack(scores).topk(kept, dim=0)
        used = torch.stack(visible).gather(0, index)
        out.append((best * used).sum(dim=0) / used.sum(dim=0).clamp_min(1))
    return torch.cat(out).permute(1, 2, 0).contiguous()


class _Patches:
    """Images (N, 1, h, w) with mean and variance of the window around each pixel."""

    def __init__(self, image: torch.Tensor) -> None:
        self.image, self.mean = image, _box(image)
        self.variance = (_box(image**2) - self.mean**2).clamp_min(0) + NOISE**2

    def correlate(self, other: _Patches) -> torch.Tensor:
        """Return the normalised cross-correlation (N, 1, h, w), within [-1, 1], with windows of the same size."""
        covariance = _box(self.image * other.image) - self.mean * other.mean
        return (covariance * (self.variance * other.variance).rsqrt()).clamp(-1, 1)


def _box(image: torch.Tensor) -> torch.Tensor:
    """Return the mean over the window around each pixel of (N, C, h, w); at the border the outermost pixels repeat."""
    image = F.pad(image, (WINDOW // 2,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(image, (WINDOW, 1), 1), (1, WINDOW), 1)


def semi_global(costs: torch.Tensor, grey: torch.Tensor) -> torch.Tensor:
    """Sum costs (h, w, D) along 8 paths to each pixel, with a price on changes of plane; grey (h, w) in [-1, 1].

    L(p, d) = C(p, d) + min(L(q, d), L(q, d +- 1) + STEP, min L(q) + jump) - min L(q) for a pixel p after q on a path,
    where the jump is cheaper at edges of the image; a path that enters the image starts with L = C.
    """
    total = torch.zeros_like(costs)
    for down, right in PATHS:
        if down == 0:  # along the rows: the same, transposed
            _add_path(total.transpose(0, 1), costs.transpose(0, 1), grey.T, right, 0)
        else:
            _add_path(total, costs, grey, down, right)
    return total


def _add_path(total: torch.Tensor, costs: torch.Tensor, grey: torch.Tensor, down: int, right: int) -> None:
    """Add to ``total`` the costs along the path that goes by (down, right), down 1 or -1, a whole row at a time."""
    rows = list(range(len(costs)))[::down]
    path = costs[rows[0]]
    total[rows[0]] += path
    for before, row in itertools.pairwise(rows):
        path, neighbour = path.roll(right, 0), grey[before].roll(right)
        above_least = path - path.amin(dim=1, keepdim=True)
        jump = JUMP / (1 + (grey[row] - neighbour).abs() / EDGE)
        change = torch.minimum(above_least, jump.clamp_min(1.5 * STEP)[:, None])
        stepped = above_least + STEP
        change[:, 1:] = torch.minimum(change[:, 1:], stepped[:, :-1])
        change[:, :-1] = torch.minimum(change[:, :-1], stepped[:, 1:])
        if right:
            change[0 if right > 0 else -1] = 0  # rolled in from the other side: here the path begins
        path = costs[row] + change
        total[row] += path


def best_label(costs: torch.Tensor) -> torch.Tensor:
    """Return the label (h, w) of the least of the costs (h, w, D), with the fraction that a parabola gives."""
    best = costs.argmin(dim=-1)
    middle = best.clamp(1, costs.shape[-1] - 2)
    left, middle_cost, right = (costs.gather(-1, (middle + step)[..., None])[..., 0] for step in (-1, 0, 1))
    bend = left - 2 * middle_cost + right
    fraction = (left - right) / (2 * bend.clamp_min(1e-9))
    return best + torch.where((best == middle) & (bend > 0), fraction.clamp(-0.5, 0.5), 0)


def confidence(scores: torch.Tensor, costs: torch.Tensor) -> torch.Tensor:
    """Return (h, w) in [0, 1]: how well the windows agree on the best plane, and how far the next best peak is behind.

    The geometric mean of the correlation and of 1 - best cost / best cost more than two planes away.
    """
    least, best = costs.min(dim=-1, keepdim=True)
    away = (torch.arange(costs.shape[-1], device=costs.device) - best).abs() > 2
    rival = torch.where(away, costs, torch.inf).amin(dim=-1)
    distinct = 1 - least[..., 0] / rival.clamp_min(1e-9)
    return (scores.gather(-1, best)[..., 0].clamp(0, 1) * distinct.clamp(0, 1)).sqrt()


def _median(label: torch.Tensor, side: int = 5) -> torch.Tensor:
    """Return the median (h, w) over the window around each pixel."""
    near = F.unfold(F.pad(label[None, None], (side // 2,) * 4, mode="replicate"), side)
    return near[0].median(dim=0).values.view_as(label)


def _fitted_normals(label: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Return the normals (1, 3, h, w) of the planes that fit windows of a label map (1, h, w) best, least squares."""
    steps = torch.arange(WINDOW, device=label.device, dtype=label.dtype) - WINDOW // 2
    kernel = steps.expand(WINDOW, WINDOW) / (WINDOW * (steps**2).sum())
    padded = F.pad(label[:, None], (WINDOW // 2,) * 4, mode="replicate")
    slopes = F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])
    return normal_from_slopes(_box(label[:, None])[:, 0].clamp_min(_MIN_LABEL), slopes, K)
