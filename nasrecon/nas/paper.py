"""The network of the paper: MVDNet and the consistency module, with the names that published checkpoints use.

Kusupati, Cheng, Chen, Su: Normal Assisted Stereo Depth Estimation, CVPR 2020 (arXiv 1911.10444)::

    images --features--> plane sweep --3D CNN--> scores --------------------> Z1   (section 3.1)
                                      |            +--context, per plane----> Z2
                                      +--coordinates, 3D CNN, per slice-----> n    (section 3.2)
                                                   Z2, n --consistency-----> refined Z, n   (section 3.3)

Reads top-down: ``PaperNetwork``, its two parts, their pieces. Shape letters as in ``types.py``; scores and features
live at h x w.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nasrecon.errors import InputError
from nasrecon.nas.heads import expected_label, label_spread, mass_near, sigma_from_spread
from nasrecon.nas.network import Prediction, StereoBatch
from nasrecon.nas.paper_blocks import (
    CappedAvgPool,
    UNet,
    constant_half,
    conv2d_norm,
    conv3d_norm,
    dilated_stack,
    relu,
    residual_layer,
)
from nasrecon.nas.volume import (
    depth_from_label,
    pixel_rays,
    plane_inv_depth,
    plane_sample_grid,
    sample_on_planes,
    scaled_K,
)

FEATURES = 32


SLICES_AT_ONCE = 8  # planes that a shared 2D stack takes in one go: bounds its memory, changes no number


class PaperNetwork(nn.Module):
    """MVDNet followed by the consistency module; a ``nas.Network``.

    Args:
        planes: D.
        pool_slices: how many of the three depth poolings of the normal branch are used: 3 (D / 8 slices) or
            1 (D / 2 slices, the variant that was published for DeMoN).
        trained_min_depth: the ``min_depth`` under which the consistency module was trained. The module reads raw depth,
            so every item is brought to this scale before it and back after it; thus any scene unit works.
    """

    name = "paper"
    size_multiple = 4
    min_side = 64

    def __init__(self, planes: int = 64, pool_slices: int = 3, trained_min_depth: float = 0.5) -> None:
        super().__init__()
        self.options = {"planes": planes, "pool_slices": pool_slices, "trained_min_depth": trained_min_depth}
        self.planes = planes
        self.trained_min_depth = trained_min_depth
        self.mvdnet = MVDNet(planes, pool_slices)
        self.consistency = ConsistencyModule()

    def forward(self, batch: StereoBatch) -> Prediction:
        """Estimate depth and normals of the reference views.

        Depth is not clipped: under poor weights it may leave the range of the planes, and the refined depth may
        even be negative.

        Raises:
            InputError: if a side is no multiple of 4 or below 64 px.
        """
        H, W = batch.ref_image.shape[-2:]
        if H % self.size_multiple or W % self.size_multiple or min(H, W) < self.min_side:
            raise InputError(
                f"the paper's network takes image sides that are multiples of {self.size_multiple} and at least "
                f"{self.min_side} px, found {W}x{H}; pad the images (adapter.py does)"
            )
        scores, scores_in_context, normal = self.mvdnet(batch)
        label_initial = expected_label(plane_probabilities(scores, (H, W)))
        prob = plane_probabilities(scores_in_context, (H, W))
        label = expected_label(prob)
        depth = depth_from_label(label, batch.min_depth, self.planes)
        refined_depth, refined_normal = self._consistent(depth, normal, batch)
        return Prediction(
            depth_initial=depth_from_label(label_initial, batch.min_depth, self.planes),
            depth=depth,
            normal=normal,
            refined_depth=refined_depth,
            refined_normal=refined_normal,
            confidence=mass_near(prob, label),
            sigma=sigma_from_spread(label_spread(prob, label), label, batch.min_depth, self.planes),
        )

    def refine(self, batch: StereoBatch, depth: torch.Tensor, normal: torch.Tensor) -> Prediction:
        """Put a given surface in the place of the network's own before the consistency module.

        Args:
            depth: (B, H, W) in the unit of ``min_depth``, 0 where there is none. normal: (B, 3, H, W).
        """
        prediction = self(batch)
        known = depth > 0
        depth = torch.where(known, depth, prediction.depth)
        normal = torch.where(known[:, None], normal, prediction.normal)
        refined_depth, refined_normal = self._consistent(depth, normal, batch)
        return replace(prediction, refined_depth=refined_depth, refined_normal=refined_normal)

    def _consistent(
        self, depth: torch.Tensor, normal: torch.Tensor, batch: StereoBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the consistency module in the unit of depth that it was trained in."""
        to_trained = (self.trained_min_depth / batch.min_depth)[:, None, None]
        refined_depth, refined_normal = self.consistency(depth * to_trained, normal)
        return refined_depth / to_trained, refined_normal


class MVDNet(nn.Module):
    """Cost volume, context-aware aggregation, normals (paper, sections 3.1 and 3.2); attributes named as published."""

    def __init__(self, planes: int = 64, pool_slices: int = 3) -> None:
        super().__init__()
        if pool_slices not in (1, 3):
            raise InputError(f"pool_slices must be 1 or 3, found {pool_slices}")
        self.planes = planes
        self.pool_slices = pool_slices
        self.feature_extraction = FeatureExtraction()
        self.dres0 = nn.Sequential(conv3d_norm(2 * FEATURES, 32), relu(), conv3d_norm(32, 32), relu())
        self.dres1, self.dres2, self.dres3, self.dres4 = (
            nn.Sequential(conv3d_norm(32, 32), relu(), conv3d_norm(32, 32)) for _ in range(4)
        )
        self.classify = nn.Sequential(conv3d_norm(32, 32), relu(), nn.Conv3d(32, 1, 3, padding=1, bias=False))
        self.convs = dilated_stack((FEATURES + 1, 128, 128, 128, 96, 64, 32, 1))

        self.wc0 = nn.Sequential(conv3d_norm(3 + 64, 32), relu(), conv3d_norm(32, 32), relu())
        self.pool1, self.pool2, self.pool3 = (
            nn.Sequential(conv3d_norm(32, 32, kernel=(2, 3, 3), stride=(2, 1, 1), padding=(0, 1, 1)), relu())
            for _ in range(3)
        )
        self.n_convs = dilated_stack((32, 96, 96, 96, 64, 64, 32, 3))

    def forward(self, batch: StereoBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the planes' scores (B, D, h, w) before and after aggregation, and the normals (B, 3, H, W)."""
        ref = self.feature_extraction(batch.ref_image)
        scores, evidence = self.match(batch, ref)
        scores_in_context = self.aggregate(ref, scores)
        rays = pixel_rays(scaled_K(batch.ref_K, 4, corner_aligned=True), *ref.shape[-2:])
        normal = self.normals(evidence, rays.view(-1, 3, *ref.shape[-2:]))
        normal = F.interpolate(normal, batch.ref_image.shape[-2:], mode="bilinear", align_corners=False)
        return scores, scores_in_context, F.normalize(normal, dim=1)

    def match(self, batch: StereoBatch, ref: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Sweep the planes through every source: scores (B, D, h, w), averaged over the sources, and two volumes
        (B, 32, D, h, w) of 3D features, the first and the last of the 3D CNN, summed over the sources.

        One source at a time, so that memory does not grow with their number.
        """
        ref_K = scaled_K(batch.ref_K, 4, corner_aligned=True)
        src_K = scaled_K(batch.src_K, 4, corner_aligned=True)
        inv_depth = plane_inv_depth(batch.min_depth, self.planes)
        sources = batch.src_images.shape[1]
        add_ref_half = constant_half(ref, _first_two(self.dres0)[0].weight[:, :FEATURES])
        scores, first, last = torch.zeros(()), torch.zeros(()), torch.zeros(())
        for s in range(sources):
            src = self.feature_extraction(batch.src_images[:, s])
            grid, _ = plane_sample_grid(ref_K, src_K[:, s], batch.src_from_ref[:, s], inv_depth, ref.shape[-2:])
            x = self.first_layers(sample_on_planes(src, grid), add_ref_half)
            first = first + x
            for residual in (self.dres1, self.dres2, self.dres3, self.dres4):
                x = residual(x) + x
            last = last + x
            scores = scores + self.classify(x)[:, 0]
        return scores / sources, [first, last]

    def first_layers(self, warped: torch.Tensor, add_ref_half: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """Apply ``dres0`` to concat(reference features on every plane, ``warped`` (B, 32, D, h, w)).

        That volume is never built: the half that is the same on all planes is convolved once, for all sources too.
        """
        conv, norm = _first_two(self.dres0)
        x = F.conv3d(warped, conv.weight[:, FEATURES:], conv.bias, padding=1)
        return self.dres0[1:](norm(add_ref_half(x)))

    def aggregate(self, ref: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Add to each plane's scores (B, D, h, w) what the shared 2D stack reads in them beside the reference features.

        The first layer's share of the reference features is the same for all planes and is computed once.
        """
        conv, activation = _first_two(self.convs)
        context = F.conv2d(ref, conv.weight[:, :FEATURES], padding=1)[:, None]
        parts = []
        for part in scores.split(SLICES_AT_ONCE, dim=1):
            x = F.conv2d(part.flatten(0, 1)[:, None], conv.weight[:, FEATURES:], padding=1)
            x = activation(x.unflatten(0, part.shape[:2]) + context)
            parts.append(part + self.convs[1:](x.flatten(0, 1))[:, 0].unflatten(0, part.shape[:2]))
        return torch.cat(parts, dim=1)

    def normals(self, evidence: list[torch.Tensor], rays: torch.Tensor) -> torch.Tensor:
        """Return the sum of the slices' votes (B, 3, h, w), not normalised, from 3D features and rays (B, 3, h, w)."""
        x = self.wc0(torch.cat([self.coordinates(rays), *evidence], dim=1))
        for pool in (self.pool1, self.pool2, self.pool3)[: self.pool_slices]:
            x = pool(x)
        slices = x.transpose(1, 2).flatten(0, 1)
        normals = torch.cat([self.n_convs(part) for part in slices.split(SLICES_AT_ONCE)])
        return normals.unflatten(0, (len(x), -1)).sum(1)

    def coordinates(self, rays: torch.Tensor) -> torch.Tensor:
        """Return each voxel's place (B, 3, D, h, w) in the reference camera over 2 D min_depth, clamped to [-1, 1].

        ray * depth / (2 D min_depth) is ray / (2 label): free of any unit. Plane 0, at infinity, clamps to the sign.
        """
        labels = torch.arange(self.planes, device=rays.device, dtype=rays.dtype) + 1e-16
        return (rays[:, :, None] / (2 * labels)[:, None, None]).clamp(-1, 1)


def _first_two(layers: nn.Sequential) -> tuple[Any, nn.Module]:
    """Return the convolution of a sequence of sequences and what follows it."""
    first = layers[0]
    assert isinstance(first, nn.Sequential)
    return first[0], first[1]


class FeatureExtraction(nn.Module):
    """Image (N, 3, H, W) -> features (N, 32, H/4, W/4): residual trunk and pyramid pooling, as in PSMNet."""

    def __init__(self) -> None:
        super().__init__()
        self.firstconv = nn.Sequential(
            conv2d_norm(3, 32, stride=2), relu(), conv2d_norm(32, 32), relu(), conv2d_norm(32, 32), relu()
        )
        self.layer1 = residual_layer(32, 32, blocks=3)
        self.layer2 = residual_layer(32, 64, blocks=16, stride=2)
        self.layer3 = residual_layer(64, 128, blocks=3)
        self.layer4 = residual_layer(128, 128, blocks=3, dilation=2)
        self.branch1, self.branch2, self.branch3, self.branch4 = (
            nn.Sequential(CappedAvgPool(window), conv2d_norm(128, 32, kernel=1), relu()) for window in (32, 16, 8, 4)
        )
        self.lastconv = nn.Sequential(conv2d_norm(320, 128), relu(), nn.Conv2d(128, FEATURES, 1, bias=False))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        raw = self.layer2(self.layer1(self.firstconv(image)))
        skip = self.layer4(self.layer3(raw))
        pyramid = [
            F.interpolate(branch(skip), skip.shape[-2:], mode="bilinear", align_corners=False)
            for branch in (self.branch4, self.branch3, self.branch2, self.branch1)
        ]
        return self.lastconv(torch.cat([raw, skip, *pyramid], dim=1))


class ConsistencyModule(nn.Module):
    """Refine depth (B, H, W) and normals (B, 3, H, W) together (paper, section 3.3); depth in the units of training."""

    def __init__(self) -> None:
        super().__init__()
        self.cons_net = UNet(4)

    def forward(self, depth: torch.Tensor, normal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.cat([depth[:, None], normal], dim=1)
        x = self.cons_net(x) + x
        return x[:, 0], F.normalize(x[:, 1:], dim=1)


def plane_probabilities(scores: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bring scores (B, D, h, w) to the image's size (trilinear; D stays, so bilinear), then softmax over the planes."""
    return F.interpolate(scores, tuple(size), mode="bilinear", align_corners=False).softmax(dim=1)
