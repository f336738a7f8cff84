"""The house network: the stages of NAS (paper, figure 2) at a fraction of the cost, in one pass at one size.

    images --Encoder, FeaturePyramid--> matching features and context at 1/8 and at 1/4
    features at 1/8 --plane sweep, correlation, view weights--> volume (16, D, H/8, W/8)
    volume + context --Hourglass--> r (32, D, H/8, W/8) --> cost --soft argmin--> Z1
    cost + context --ContextAggregation--> cost2 --> distribution over the planes --soft argmin--> Z2
    volume, r, world coordinates --NormalHead--> n
    distribution --along image edges--> distribution at 1/4 --> its two best hypotheses
    hypotheses, n, matching near the surface --Consistency (several steps)--> label, normal, spread at 1/4
    --planes of the nine nearest coarse pixels--> label, normal at H x W --Sharpener--> refined depth

What has a capital above is in ``encoder.py`` and ``lite_blocks.py``, the sampling in ``lite_matching.py``. The
distribution is upsampled, and not its mean: a pixel beside a depth edge has two hypotheses, and no depth between them.
Everything is computed in labels (label = D * min_depth / depth), so that the network knows no unit: scene times s,
min_depth times s gives depths times s.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nasrecon.nas.convolution import ConvolutionSequence, convolve
from nasrecon.nas.encoder import CHANNELS, Encoder
from nasrecon.nas.heads import expected_label, fine_hypotheses
from nasrecon.nas.lite_blocks import Consistency, ContextAggregation, FeaturePyramid, Hourglass, NormalHead, Sharpener
from nasrecon.nas.lite_features import FeatureCache, Features
from nasrecon.nas.lite_matching import Sweep, correlate_near
from nasrecon.nas.network import NEAR, Prediction, StereoBatch
from nasrecon.nas.precision import runs_kernels
from nasrecon.nas.surface import (
    label_slopes,
    limited_slopes,
    normal_from_slopes,
    second_differences,
    slopes_from_normal,
    smooth_mixture,
    unit,
    upsample_planes,
)
from nasrecon.nas.volume import depth_from_label, plane_inv_depth, scaled_K

MIN_LABEL = 0.02
"""Depths beyond 50 * D * min_depth are infinitely far."""
_OFFSETS = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)  # labels, at which the consistency module correlates
_GROUPS4 = 2  # groups of the correlation at 1/4
_STAY = 3.0  # logit of the present label against the two hypotheses
_VOLUME_STATE = 4  # facts about the distribution


class LiteNetwork(nn.Module):
    """See the head of this file. ``forward`` gives a ``Prediction``; ``stages`` everything that training needs."""

    name = "lite"
    size_multiple = 16
    min_side = 64
    low_precision = True
    spread_factor: torch.Tensor
    folds_normalization = True
    pair_sides = (192, 384)

    def __init__(self, planes: int = 64, steps: int = 5) -> None:
        super().__init__()
        self.planes, self.steps = planes, steps
        self.encoder, self.features = Encoder(), FeaturePyramid()
        context8, context4 = FeaturePyramid.context8, FeaturePyramid.context4
        groups = FeaturePyramid.matching8
        self.sweep = Sweep()
        self.hourglass = Hourglass(groups, context8)
        self.score = nn.Parameter(torch.randn(Hourglass.channels) / 6)
        self.aggregate = ContextAggregation(planes, context8)
        self.normals = NormalHead(Hourglass.channels + groups, context8)
        self.edges = ConvolutionSequence(
            nn.Conv2d(context4 + context8, 64, 3, 1, 1), nn.ReLU(inplace=True), nn.Conv2d(64, 9, 1)
        )
        near = len(_OFFSETS) * _GROUPS4
        fixed = context4 + Hourglass.channels + _VOLUME_STATE + 2 * _GROUPS4 + 1
        self.consistency = Consistency(fixed, near + 3 + 3 + 2 + 2 + 1)
        self.fine = nn.Conv2d(4 * CHANNELS[0] + 48, 32, 3, 1, 1)  # features and image at stride 2 and 1, folded to 1/4
        mixture = nn.Conv2d(96, 9 * 16, 1)
        mixture.bias = nn.Parameter(smooth_mixture())
        self.mask = ConvolutionSequence(
            nn.ReLU(inplace=True), nn.Conv2d(Consistency.hidden + context4 + 32, 96, 3, 1, 1), nn.ReLU(inplace=True),
            mixture,
        )  # fmt: skip
        self.sharpener = Sharpener()
        self.register_buffer("spread_factor", torch.ones(()))
        self._cache = FeatureCache()

    def forward(self, batch: StereoBatch) -> Prediction:
        """Estimate depth and normals of the reference images; needs H and W to be multiples of ``size_multiple``."""
        return self._prediction(batch, self.stages(batch))

    def refine(self, batch: StereoBatch, depth: torch.Tensor, normal: torch.Tensor) -> Prediction:
        """Start the consistency steps from a given surface, matched in the images as the network's own would be.

        Args:
            depth: (B, H, W) in the unit of ``min_depth``, 0 where there is none. normal: (B, 3, H, W).
        """
        label = self.planes * batch.min_depth.view(-1, 1, 1) / depth.clamp_min(1e-12)
        label = torch.where(depth > 0, label.clamp(0, self.planes - 1.0), 0.0)
        return self._prediction(batch, self.stages(batch, given=(label, normal)))

    def _prediction(self, batch: StereoBatch, stages: dict[str, Any]) -> Prediction:
        size = batch.ref_image.shape[-2:]
        full = lambda x: F.interpolate(x, size=size, mode="bilinear", align_corners=False)  # noqa: E731
        depth = lambda label: depth_from_label(label.clamp_min(MIN_LABEL), batch.min_depth, self.planes)  # noqa: E731
        refined = depth(stages["refined_label"])
        relative = full(stages["log_spread"].exp()[:, None])[:, 0] * self.spread_factor
        return Prediction(
            depth_initial=depth(full(stages["label_initial"][:, None])[:, 0]),
            depth=depth(full(stages["label"][:, None])[:, 0]),
            normal=unit(full(stages["normal"])),
            refined_depth=refined,
            refined_normal=stages["refined_normal"],
            # The spread is Laplace's: P(|relative error| < NEAR).
            confidence=1 - torch.exp(-NEAR / relative),
            sigma=refined * relative * math.sqrt(2),
        )

    def stages(
        self,
        batch: StereoBatch,
        steps: int | None = None,
        given: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> dict[str, Any]:
        """Run the network.

        Args:
            steps: of the consistency module; None: ``self.steps``.
            given: labels (B, H, W), 0 where there is none, and normals (B, 3, H, W) that the consistency steps start
                from, where they are.

        Returns:
            maps, at 1/8 of the size if not stated otherwise: cost, cost2 (B, D, h, w), scores of the planes;
            label_initial (Z1), label (Z2) (B, h, w); normal (B, 3, h, w); edges (B, 9, H/4, W/4), logits of the
            neighbours in the upsampling of the distribution;
            step_labels, step_normals, step_spreads: lists of (B, H/4, W/4), (B, 3, H/4, W/4), (B, H/4, W/4) after
            each step of consistency; log_spread: the last of the spreads, the logarithm of the relative spread of the
            depth; refined_label (B, H, W), refined_normal (B, 3, H, W).
        """
        B, S = batch.src_images.shape[:2]
        images = torch.cat([batch.ref_image[:, None], batch.src_images], dim=1).flatten(0, 1)
        ref, *matching = self._features(images, S + 1)
        matching8, matching4 = (each.unflatten(0, (B, S + 1)) for each in matching)
        volume, weights = self.sweep(matching8, _cameras(batch, 8), plane_inv_depth(batch.min_depth, self.planes))
        volume = _channels_last(volume)
        r = self.hourglass(volume, ref.context8)
        cost = _score(r, self.score)
        aggregated = self.aggregate(cost, ref.context8)
        prob = aggregated.softmax(dim=1)
        K8 = scaled_K(batch.ref_K, 8, corner_aligned=False)
        normal = unit(self.normals(r, volume, K8, ref.context8).float())
        size4 = ref.context4.shape[-2:]
        up = functools.partial(F.interpolate, size=size4, mode="bilinear", align_corners=False)
        edges = self.edges(torch.cat([ref.context4, up(ref.context8)], dim=1))
        with torch.no_grad():
            hypotheses = fine_hypotheses(prob, edges)
        surface = torch.cat([up(_expected(r, prob.detach())).to(ref.context4.dtype), ref.context4], dim=1)
        out = {
            "cost": cost, "cost2": aggregated, "normal": normal, "edges": edges,
            "label_initial": expected_label(cost.softmax(dim=1)), "label": expected_label(prob),
        }  # fmt: skip
        del volume, r  # the largest tensors, before the next large ones
        start = unit(up(normal.detach()))
        return out | self._refine(batch, ref, matching4, weights, surface, hypotheses, start, steps, given)

    def _refine(
        self, batch: StereoBatch, ref: Features, matching: torch.Tensor, weights: torch.Tensor, surface: torch.Tensor,
        likely: tuple[torch.Tensor, ...], normal: torch.Tensor, steps: int | None,
        given: tuple[torch.Tensor, torch.Tensor] | None,
    ) -> dict[str, Any]:  # fmt: skip
        """Alternate matching near the current surface with steps of the consistency module; then upsample.

        Args:
            likely: of ``fine_hypotheses``.
        """
        cameras, K = _cameras(batch, 4), scaled_K(batch.ref_K, 4, corner_aligned=False)
        weights = F.interpolate(weights, matching.shape[-2:], mode="bilinear", align_corners=False)

        def correlate(labels: torch.Tensor, learns: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
            inv_depth = labels / (batch.min_depth.view(-1, 1, 1, 1) * self.planes)
            return correlate_near(matching if learns else matching.detach(), cameras, weights, inv_depth, _GROUPS4)

        hypotheses, masses, entropy = likely
        apart = (hypotheses[:, :1] - hypotheses[:, 1:]).clamp(-8, 8) / 4
        label = hypotheses[:, 0]
        if given is not None:
            label, normal = _start_from(*given, label, normal)
        at_hypotheses, visible = correlate(hypotheses, learns=False)
        dtype = surface.dtype
        facts = torch.cat([masses, entropy / 4, apart, at_hypotheses, visible], dim=1)
        fixed = self.consistency.enter_fixed(torch.cat([surface, facts.to(dtype)], dim=1))
        offsets = torch.tensor(_OFFSETS, device=label.device).view(1, -1, 1, 1)
        labels, normals, spreads = [], [], []
        hidden: torch.Tensor | None = None
        steps = self.steps if steps is None else steps
        for k in range(steps):
            label, normal = label.detach(), normal.detach()
            state = torch.cat(
                [
                    # The features learn from the first step only: their gradients take longest.
                    correlate((label[:, None] + offsets).clamp_min(0), learns=k == 0)[0],
                    normal,
                    normal_from_slopes(label, label_slopes(label), K),
                    second_differences(label).clamp(-2, 2) * 2,
                    (hypotheses - label[:, None]).clamp(-8, 8) / 4,
                    label[:, None] / self.planes,
                ],
                dim=1,
            )
            step, hidden = self.consistency(fixed, state.to(dtype), hidden)
            label = _choose(label, hypotheses, step[:, 1:3]) + 4 * torch.tanh(step[:, 0] / 4)
            label = label.clamp(MIN_LABEL, self.planes - 1.0)
            normal = unit(normal + step[:, 3:6])
            labels.append(label)
            normals.append(normal)
            spreads.append(step[:, 6].clamp(-7, 2) - 2)
        assert hidden is not None
        fine = convolve(self.fine, _folded(ref.half, batch.ref_image))
        mask = self.mask(torch.cat([hidden.to(dtype), ref.context4, fine], dim=1))
        slopes = limited_slopes(label.detach(), slopes_from_normal(label, normal, K))
        fine_label, fine_normal = upsample_planes(label, slopes, normal, mask)
        return {
            "step_labels": labels, "step_normals": normals, "step_spreads": spreads, "log_spread": spreads[-1],
            "refined_label": self.sharpener(fine_label, batch.ref_image, ref.half), "refined_normal": fine_normal,
        }  # fmt: skip

    def _features(self, images: torch.Tensor, step: int) -> tuple[Features, torch.Tensor, torch.Tensor]:
        """Return the features of every ``step``-th image of (N, 3, H, W), and the matching features of all.

        Without gradients the features of images seen before come from the cache.
        """
        if torch.is_grad_enabled() or self.score.requires_grad:  # the weights may change
            features = self._encode(images)
            return features.select(slice(0, None, step)), features.matching8, features.matching4
        known = self._cache.get(images, self._encode)
        join = lambda name: torch.cat([getattr(features, name) for features in known])  # noqa: E731
        return Features.join(known[::step]), join("matching8"), join("matching4")

    def _encode(self, images: torch.Tensor) -> Features:
        encoded = self.encoder(images.contiguous(memory_format=torch.channels_last))
        context8, context4, matching8, matching4 = self.features(images, encoded)
        return Features(context8, context4, _unit_length(matching8), _unit_length(matching4), encoded[0])


def _folded(half: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """Return features at 1/2 and image as channels at 1/4 (B, 4 * C + 48, H/4, W/4), in the features' precision."""
    parts = F.pixel_unshuffle(half, 2), F.pixel_unshuffle(image, 4)
    return torch.cat([part.to(half.dtype, memory_format=torch.channels_last) for part in parts], dim=1)


def _unit_length(features: torch.Tensor) -> torch.Tensor:
    """Scale feature vectors to the length sqrt(C), float32: the mean of a product of two is their cosine."""
    return unit(features.float(), 1e-4) * math.sqrt(features.shape[1])


def _cameras(batch: StereoBatch, factor: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ref_K, src_K and src_from_ref for features of 1/factor of the images' size."""
    ref_K, src_K = (scaled_K(K, factor, corner_aligned=False) for K in (batch.ref_K, batch.src_K))
    return ref_K, src_K, batch.src_from_ref


def _channels_last(volume: torch.Tensor) -> torch.Tensor:
    """Lay a volume out channels last, for convolutions; its gradient comes back channels first, for sums over views."""
    if not torch.is_grad_enabled() and torch.is_autocast_enabled(volume.device.type):
        volume = volume.to(torch.get_autocast_dtype(volume.device.type))  # once for all layers that read it
    volume = volume.contiguous(memory_format=torch.channels_last_3d)
    if volume.requires_grad:
        volume.register_hook(torch.Tensor.contiguous)
    return volume


def _score(r: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weigh the channels: (B, C, D, h, w), (C,) -> (B, D, h, w), float32."""
    with torch.autocast(r.device.type, enabled=False):
        if torch.is_grad_enabled():
            return (r.permute(0, 2, 3, 4, 1).float() @ weights.float()).contiguous()
        if r.dtype == torch.bfloat16 and runs_kernels(weights):
            from nasrecon.nas.lite_kernels import weigh_channels

            voxels = r.permute(0, 2, 3, 4, 1).contiguous().view(torch.uint16).numpy()
            return torch.from_numpy(weigh_channels(voxels, weights.numpy()))
        # One plane at a time: it stays in the cache of the processor.
        return torch.stack([plane.permute(0, 2, 3, 1).float() @ weights.float() for plane in r.unbind(dim=2)], dim=1)


def _expected(r: torch.Tensor, prob: torch.Tensor) -> torch.Tensor:
    """Average (B, C, D, h, w) over the planes with their probabilities (B, D, h, w): (B, C, h, w)."""
    if torch.is_grad_enabled():
        return (r.permute(0, 2, 3, 4, 1) * prob[..., None].to(r.dtype)).sum(dim=1).permute(0, 3, 1, 2)
    mean = torch.zeros(())
    for plane, share in zip(r.unbind(dim=2), prob.unbind(dim=1), strict=True):
        part = plane.permute(0, 2, 3, 1).float()
        mean = part.mul_(share[..., None]) if mean.dim() == 0 else mean.addcmul_(part, share[..., None])
    return mean.to(r.dtype).permute(0, 3, 1, 2)


def _choose(label: torch.Tensor, hypotheses: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Blend the label (B, h, w) and two hypotheses (B, 2, h, w) with weights from the logits (B, 2, h, w) of these."""
    weights = torch.cat([torch.full_like(logits[:, :1], _STAY), logits], dim=1).softmax(dim=1)
    return (torch.cat([label[:, None], hypotheses], dim=1) * weights).sum(dim=1)


def _start_from(
    given: torch.Tensor, given_normal: torch.Tensor, label: torch.Tensor, normal: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return label and normal at 1/4, the given ones (B, H, W), (B, 3, H, W) where there are any.

    Of the given pixels below a coarse one those count that are of one surface with its middle: within 10 % of it.
    """
    size, given = label.shape[-2:], given[:, None]
    at = lambda x: F.interpolate(x, size, mode="area")  # noqa: E731
    center = F.interpolate(F.interpolate(given, size, mode="nearest"), given.shape[-2:], mode="nearest")
    same = ((given > 0) & ((given - center).abs() < 0.1 * center)).float()
    share = at(same)
    known = share > 0.2
    label = torch.where(known, at(given * same) / share.clamp_min(1e-6), label[:, None])[:, 0]
    return label, torch.where(known, unit(at(given_normal * same)), normal)
