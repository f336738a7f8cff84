"""The house network: the stages of NAS (paper, figure 2) at a fraction of the cost.

    images --Features--> f (32, h, w) --plane sweep, group-wise correlation, view weights--> volume (16, D, h, w)
    volume --Hourglass--> r (16, D, h, w) --> cost --soft argmin--> Z1
    cost + context of the reference --ContextAggregation--> cost2 --soft argmin--> Z2
    volume, r, world coordinates --NormalHead--> n
    Z2, n, context, matching near Z2 --Consistency (twice)--> refined label, normal, spread, at h x w
    --plane upsampling: each pixel blends the planes of the nine nearest coarse pixels--> refined depth, normal at H x W

Large images are seen twice or more, at half the size first: what the coarse pass says of labels and normals (``Hint``)
goes into the hourglass and the consistency module of the next. A wall that is wider than what the finest pass can look
across, and cameras that are off by some pixels, are smaller there. Single pairs, and views whose poses are known to be
rough, are seen at two sizes in this way, and all that is said of them is averaged.

h, w = H/4, W/4; what has a capital above is in ``lite_parts.py``. Everything is done in labels (label = D * min_depth /
depth), so that the network knows no unit: scene times s, min_depth times s gives depths times s, the consistency module
included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from nasrecon.nas.heads import expected_label
from nasrecon.nas.lite_parts import Consistency, ContextAggregation, Features, Hourglass, NormalHead
from nasrecon.nas.network import NEAR, Prediction, StereoBatch
from nasrecon.nas.pyramid import Hint, agreed
from nasrecon.nas.resize import shrink_batch
from nasrecon.nas.surface import (
    full_precision,
    label_slopes,
    normal_from_slopes,
    slopes_from_normal,
    unit,
    upsample_planes,
)
from nasrecon.nas.volume import (
    depth_from_label,
    pixels_apart,
    plane_inv_depth,
    plane_sample_grid,
    sample_on_planes,
    scaled_K,
)

_MIN_LABEL = 0.02  # depths beyond 50 * D * min_depth are "infinitely" far
_ONE_LOOK = 400  # px: images with a longer side are seen at half the size first
_UNSURE = (416, 640)  # px: longer sides at which single pairs, and views with rough poses, are seen; or at their own
_VOLUME_SHARE = 0.25  # of the volume's normals in the refined ones: the errors of the two are not the same


@full_precision
def _scores(r: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weigh the channels: (B, C, D, h, w), (C,) -> (B, D, h, w)."""
    return torch.einsum("bcdhw,c->bdhw", r, weights)


@full_precision
def _expected(r: torch.Tensor, prob: torch.Tensor) -> torch.Tensor:
    """Average (B, C, D, h, w) over the planes with their probabilities (B, D, h, w): (B, C, h, w). Fast for channels last."""
    return (r.permute(0, 2, 3, 4, 1) * prob[..., None]).sum(dim=1).permute(0, 3, 1, 2)


def _plus(total: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return total + x * weight; in place where no gradient is asked for, as these tensors are the largest."""
    if total is None:
        return x * weight
    return total.addcmul(x, weight) if torch.is_grad_enabled() else total.addcmul_(x, weight)


def _against_hint(hint: Hint, label: torch.Tensor) -> torch.Tensor:
    """Say how a label map (B, h, w) differs from the hint's, in planes and relatively, and the hint's normal: (B, 5, h, w)."""
    apart = (hint.label - label).clamp(-8, 8) / 4
    ratio = (hint.label.clamp_min(0.25) / label.clamp_min(0.25)).log().clamp(-2, 2)
    return torch.cat([apart[:, None], ratio[:, None], hint.normal], dim=1)


def _circumstances(geometry: tuple[torch.Tensor, ...], inv_depth: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Say how much the sources can tell about depth at each pixel: (B, 4, h, w), values about [-2, 2].

    Under a short baseline the best match is where it is because of the cameras' errors as much as because of the depth;
    so the network is told p, the logarithm of the parallax [feature px a plane], of the source that has most; p^2; one
    over the number of sources; and p times that.
    """
    ref_K, src_K, src_from_ref = geometry
    planes = inv_depth.shape[1]
    near = inv_depth[:, [planes // 8, planes // 4]]
    S = src_K.shape[1]
    parallax = [pixels_apart(ref_K, src_K[:, s], src_from_ref[:, s], near, size) for s in range(S)]
    most = torch.stack(parallax).amax(0) / (planes // 4 - planes // 8)
    p = (most.clamp(1e-3, 10).log() + 1.5) / 2
    single = torch.full_like(p, 1 / S)
    return torch.stack([p, p**2 / 2, single, p * single], dim=1)


class LiteNetwork(nn.Module):
    """See the head of this file. ``forward`` gives a ``Prediction``; ``stages`` everything that training looks at."""

    name = "lite"
    size_multiple = 16
    min_side = 64
    prefers_bfloat16 = True
    offsets = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)

    def __init__(self, planes: int = 64, groups: int = 16, channels: int = 32, steps: int = 2) -> None:
        super().__init__()
        self.planes, self.groups, self.steps = planes, groups, steps
        self.features = Features(channels)
        self.view_weight = nn.Sequential(nn.Conv2d(3, 16, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(16, 1, 3, 1, 1))
        self.sharpness = nn.Parameter(torch.tensor(2.0))
        self.hourglass = Hourglass(groups)
        self.score = nn.Parameter(torch.randn(16) / 4)
        self.trust = nn.Parameter(torch.zeros(2))
        self.aggregate = ContextAggregation(32)
        self.normals = NormalHead(16 + groups, 32)
        near = len(self.offsets) * groups // 4
        self.consistency = Consistency(32 + near + 16 + groups + 3 + 3 + 4)
        self.mask = nn.Sequential(nn.Conv2d(48 + 32, 64, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(64, 9 * 16, 1))
        # How much the images can tell at all (``_circumstances``), told to the hourglass, the cost and the consistency
        # steps.
        self.told_volume, self.told_cost = nn.Conv2d(4, 16, 1, bias=False), nn.Conv2d(4, planes, 1, bias=False)
        self.told_gain, self.told_surface = nn.Conv2d(4, 1, 1, bias=False), nn.Conv2d(4, 48, 1, bias=False)
        for layer in (self.told_volume, self.told_cost, self.told_gain, self.told_surface):
            nn.init.zeros_(layer.weight)

    def forward(self, batch: StereoBatch) -> Prediction:
        """Estimate depth and normals of the reference images; needs H and W to be multiples of ``size_multiple``."""
        size = batch.ref_image.shape[-2:]
        longer = max(size)
        if not batch.poses_exact or batch.src_images.shape[1] == 1:
            # The finest look is often surer than it has reason to be: all looks have their say.
            sides = sorted({min(side, longer) for side in _UNSURE})
            seen = [batch if s == longer else shrink_batch(batch, s / longer, self.size_multiple) for s in sides]
            said = agreed([look for smaller in seen for look in self.looks(smaller)])
        else:
            said = agreed(self.looks(batch)[-1:])
        full = lambda x: F.interpolate(x, size=size, mode="bilinear", align_corners=False)  # noqa: E731
        depth = lambda label: depth_from_label(full(label)[:, 0].clamp_min(_MIN_LABEL), batch.min_depth, self.planes)  # noqa: E731
        refined, relative = depth(said["refined_label"]), full(said["spread"])[:, 0]
        normal = unit(full(said["normal"]))
        return Prediction(
            depth_initial=depth(said["label_initial"]), depth=depth(said["label"]), normal=normal,
            refined_depth=refined, refined_normal=unit(unit(full(said["refined_normal"])) + _VOLUME_SHARE * normal),
            # The spread is Laplace's: P(|relative error| < NEAR).
            confidence=1 - torch.exp(-NEAR / relative), sigma=refined * relative * math.sqrt(2),
        )  # fmt: skip

    def looks(self, batch: StereoBatch) -> list[dict[str, torch.Tensor]]:
        """Run ``stages`` on the batch, and before that on half its size ... as long as its longer side is above 400 px.

        Returns:
            what each look says, the coarsest first; each gives the next its hint.
        """
        size = batch.ref_image.shape[-2:]
        if max(size) <= _ONE_LOOK:
            return [self.stages(batch)]
        coarser = self.looks(shrink_batch(batch, 0.5, self.size_multiple))
        hint = self.hint_from(coarser[-1], [side // 4 for side in size], batch.src_images.shape[1])
        return [*coarser, self.stages(batch, hint)]

    def hint_from(self, coarse: dict[str, torch.Tensor], size: Sequence[int], sources: int) -> Hint:
        """Turn what ``stages`` says of a smaller image of the same view into the hint for a pass with features of ``size``.

        The more sources, the more the finer pass knows by itself: the belief counts as that of one of them.
        """
        grow = lambda x: F.interpolate(x.float(), tuple(size), mode="bilinear", align_corners=False)  # noqa: E731
        label, spread = grow(coarse["step_labels"][-1][:, None]), grow(coarse["log_spread"][:, None]).exp()
        by_cost = grow(coarse["cost2"].float().softmax(dim=1)).clamp_min(1e-6).log() + math.log(self.planes)
        # Laplace's density around the refined label; half a plane is as sure as a coarse pass can be.
        width = (spread * label).clamp_min(0.5)
        planes = torch.arange(self.planes, device=label.device, dtype=label.dtype).view(1, -1, 1, 1)
        by_spread = (self.planes / (2 * width)).log() - (planes - label).abs() / width
        belief = torch.stack([by_cost, by_spread], dim=1).clamp(-4, 4) / (8 * sources)
        normal = unit(grow(coarse["step_normals"][-1]))
        return Hint(belief, label[:, 0], normal)

    def stages(self, batch: StereoBatch, hint: Hint | None = None) -> dict[str, torch.Tensor]:
        """Run one pass, with the hint of a coarser one if there is one.

        Returns:
            maps, at h x w but for ``refined_label`` (B, H, W) and ``refined_normal`` (B, 3, H, W):
            cost, cost2 (B, D, h, w) scores; label_initial, label (B, h, w); normal (B, 3, h, w); step_labels,
            step_normals: lists of the same after each step of consistency; log_spread (B, h, w): log of the relative
            spread of the depth.
        """
        B, S = batch.src_images.shape[:2]
        images = torch.cat([batch.ref_image[:, None], batch.src_images], dim=1).flatten(0, 1)
        features, context = self.features(images)
        features = unit(features.float(), 1e-4) * math.sqrt(features.shape[1])
        features = features.unflatten(0, (B, S + 1))
        context = context.unflatten(0, (B, S + 1))[:, 0]
        ref_K = scaled_K(batch.ref_K, 4, corner_aligned=False)
        src_K = scaled_K(batch.src_K, 4, corner_aligned=False)
        inv_depth = plane_inv_depth(batch.min_depth, self.planes)
        geometry = (ref_K, src_K, batch.src_from_ref)

        volume, weights = self._volume(features, geometry, inv_depth)
        told = _circumstances(geometry, inv_depth, features.shape[-2:])
        # Convolutions take channels last; the sums over sources, and their gradients, are several times faster channels
        # first.
        laid_out = volume.contiguous(memory_format=torch.channels_last_3d)
        if laid_out.requires_grad:
            laid_out.register_hook(torch.Tensor.contiguous)
        r = self.hourglass(laid_out, self.told_volume(told), None if hint is None else hint.belief)
        cost = _scores(r, self.score)
        if hint is not None:
            cost = cost + _scores(hint.belief, self.trust)
        cost = cost * self.told_gain(told).float().clamp(-3, 1).exp() + self.told_cost(told).float()
        cost2 = self.aggregate(cost, context).float()
        prob = cost2.softmax(dim=1)
        label_initial, label = expected_label(cost.softmax(dim=1)), expected_label(prob)
        normal = unit(self.normals(r, laid_out, ref_K, context).float())
        out = {"cost": cost, "cost2": cost2, "label_initial": label_initial, "label": label, "normal": normal}
        surface = torch.cat([_expected(r, prob.detach()), (volume * prob.detach()[:, None]).sum(dim=2)], dim=1)
        return out | self._refine(batch, features, geometry, weights, context, surface, prob, label, normal, hint, told)

    def _volume(
        self, features: torch.Tensor, geometry: tuple[torch.Tensor, ...], inv_depth: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Correlate the reference with every source on all planes; average with per-pixel view weights.

        Returns the volume (B, G, D, h, w) and the weights, S times (B, 1, h, w).
        """
        ref_K, src_K, src_from_ref = geometry
        ref = features[:, 0]
        size = ref.shape[-2:]
        total, seen, weights = None, None, []
        for s in range(features.shape[1] - 1):
            grid, inside = plane_sample_grid(ref_K, src_K[:, s], src_from_ref[:, s], inv_depth, size)
            alike = self._sweep(ref, features[:, 1 + s], grid)
            inside = inside[:, None].float()
            weight = self._weigh(alike.mean(dim=1), inside[:, 0])
            total, seen = _plus(total, alike, weight[:, :, None]), _plus(seen, inside, weight[:, :, None])
            weights.append(weight)
        return total * (1 / (seen + 1e-3)), weights

    def _sweep(self, ref: torch.Tensor, src: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Correlate on all planes of the grid (B, D, h, w, 2): (B, G, D, h, w).

        Without gradients a few planes at a time: the warped features of all of them are the largest tensor by far.
        """
        if torch.is_grad_enabled():
            return self._correlate(ref, sample_on_planes(src, grid))
        B, D, h, w, _ = grid.shape
        alike = torch.empty(B, self.groups, D, h, w, device=ref.device, dtype=ref.dtype)
        for part, planes in zip(alike.split(8, dim=2), grid.split(8, dim=1), strict=True):
            self._correlate(ref, sample_on_planes(src, planes.contiguous()), out=part)
        return alike

    def _correlate(self, ref: torch.Tensor, warped: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Group-wise correlation of (B, C, h, w) with (B, C, D, h, w): (B, G, D, h, w); group g holds the channels g, g + G, ..."""
        shares = (ref * (self.groups / ref.shape[1]))[:, :, None].split(self.groups, dim=1)
        first, *others = zip(warped.split(self.groups, dim=1), shares, strict=True)
        total = torch.mul(*first, out=out)
        for pair in others:
            total = _plus(total, *pair)
        return total

    def _weigh(self, alike: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Say how much a source can tell at each pixel, from how peaked its correlation (B, D, h, w) is: (B, 1, h, w) in (0, 1)."""
        prob = (alike * self.sharpness.exp()).softmax(dim=1)
        hints = torch.stack([prob.amax(dim=1), alike.amax(dim=1), inside.mean(dim=1)], dim=1)
        return torch.sigmoid(self.view_weight(hints).float())

    def _refine(
        self, batch: StereoBatch, features: torch.Tensor, geometry: tuple[torch.Tensor, ...], weights: list[torch.Tensor],
        context: torch.Tensor, surface: torch.Tensor, prob: torch.Tensor, label: torch.Tensor, normal: torch.Tensor,
        hint: Hint | None, told: torch.Tensor,
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        """Alternate matching near the current surface with steps of the consistency module; then upsample."""
        entropy = -(prob * prob.clamp_min(1e-6).log()).sum(dim=1)
        ref_K = geometry[0]
        sure = torch.stack([prob.amax(dim=1), entropy], dim=1).detach()
        labels, normals = [], []
        label, normal = label.detach(), normal.detach()
        for _ in range(self.steps):
            near = self._match_near(features, geometry, weights, label, batch.min_depth)
            from_depth = normal_from_slopes(label, label_slopes(label), ref_K)
            spread = label_slopes(label).abs().sum(dim=1, keepdim=True)
            state = torch.cat(
                [
                    context.float(),
                    near,
                    surface,
                    normal,
                    from_depth,
                    sure,
                    label[:, None] / self.planes,
                    spread.clamp(max=4),
                ],
                dim=1,
            )
            against = None if hint is None else _against_hint(hint, label)
            step, hidden = self.consistency(state, self.told_surface(told), against)
            step = step.float()
            label = (label.detach() + 4 * torch.tanh(step[:, 0] / 4)).clamp(_MIN_LABEL, self.planes - 1.0)
            normal = unit(normal.detach() + step[:, 1:4])
            labels.append(label)
            normals.append(normal)
        mask = self.mask(torch.cat([hidden, context.to(hidden.dtype)], dim=1))
        fine_label, fine_normal = upsample_planes(label, slopes_from_normal(label, normal, ref_K), normal, mask)
        return {
            "step_labels": labels, "step_normals": normals, "log_spread": step[:, 4].clamp(-7, 2) - 2,
            "refined_label": fine_label, "refined_normal": fine_normal,
        }  # fmt: skip

    def _match_near(
        self, features: torch.Tensor, geometry: tuple[torch.Tensor, ...], weights: list[torch.Tensor],
        label: torch.Tensor, min_depth: torch.Tensor,
    ) -> torch.Tensor:  # fmt: skip
        """Correlate at a few labels around the current one: (B, G/4 * offsets, h, w)."""
        ref_K, src_K, src_from_ref = geometry
        offsets = torch.tensor(self.offsets, device=label.device)
        tried = (label[:, None] + offsets.view(1, -1, 1, 1)).clamp_min(0)
        inv_depth = (tried / (min_depth.view(-1, 1, 1, 1) * self.planes)).flatten(2)
        total, seen = 0, 1e-3
        for s, weight in enumerate(weights):
            grid, inside = plane_sample_grid(ref_K, src_K[:, s], src_from_ref[:, s], inv_depth, label.shape[-2:])
            alike = self._correlate(features[:, 0], sample_on_planes(features[:, 1 + s], grid))
            alike = alike.unflatten(1, (-1, 4)).mean(dim=2)
            total, seen = total + alike * weight[:, :, None], seen + inside[:, None] * weight[:, :, None]
        return (total / seen).flatten(1, 2)
