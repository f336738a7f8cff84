"""The contract between the package and a network: a batch goes in, a prediction comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch

NEAR = 0.05
"""Where confidence is a probability, it is that of a depth which is off by less than this share."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Depth, normals and uncertainty of a batch; depths in the unit of the batch's ``min_depth``, normals in the
    reference camera.

    Attributes:
        depth_initial: Z1 (B, H, W), from the regularised cost volume (paper, section 3.1).
        depth: Z2 (B, H, W), after context-aware aggregation.
        normal: (B, 3, H, W), unit, facing the camera, from the cost volume (paper, section 3.2).
        refined_depth: (B, H, W), after the consistency module (paper, section 3.3).
        refined_normal: (B, 3, H, W).
        confidence: (B, H, W) in [0, 1].
        sigma: (B, H, W), one standard deviation of the refined depth, in its unit.
    """

    depth_initial: torch.Tensor
    depth: torch.Tensor
    normal: torch.Tensor
    refined_depth: torch.Tensor
    refined_normal: torch.Tensor
    confidence: torch.Tensor
    sigma: torch.Tensor


class Network(Protocol):
    """What the package asks of a network; ``examples/02_own_network.py`` wraps a foreign one.

    On a CPU several threads may call it at the same time.

    Five optional attributes are read where a network has them: ``low_precision``, ``trained_min_depth``,
    ``pair_sides``, ``weights`` and ``sha256``; ``network_info`` states their defaults. A method
    ``refine(batch, depth, normal)`` is called where a network has it: depth (B, H, W) and normals (B, 3, H, W) of
    elsewhere through its consistency module.

    Attributes:
        name: kind of the network: "lite", "paper", "zncc" ...
        planes: D, the number of planes; label i stands for min_depth * D / i, i = 0 ... D - 1.
        size_multiple: H and W of a batch are multiples of it (``inference.sizes`` pads).
        min_side: the smallest H and W that the network takes [px].
    """

    name: str
    planes: int
    size_multiple: int
    min_side: int

    def __call__(self, batch: StereoBatch) -> Prediction: ...


@dataclass(frozen=True, kw_only=True)
class NetworkInfo:
    """Facts about a network, with the defaults of what it does not state itself.

    Attributes:
        name, planes, size_multiple, min_side: as in ``Network``.
        low_precision: whether its convolutions may run in bfloat16 and in 8-bit integers.
        trained_min_depth: depth of the nearest plane in training. A network is free of scale but for the parts that
            read raw depth, as the paper's consistency module does (section 3.3); float32 is most precise near 1.
        pair_sides: longer sides [px] at which a reference with one source is estimated besides its own size.
        weights: the name or path of its weights, "" for a network without.
        sha256: of the weights' file; estimates of two different hashes are never mixed in one results folder.
    """

    name: str
    planes: int
    size_multiple: int
    min_side: int
    low_precision: bool = False
    trained_min_depth: float = 1.0
    pair_sides: tuple[int, ...] = ()
    weights: str = ""
    sha256: str = ""


def network_info(network: Network) -> NetworkInfo:
    """Return the facts about a network."""
    return NetworkInfo(
        name=network.name,
        planes=network.planes,
        size_multiple=network.size_multiple,
        min_side=network.min_side,
        low_precision=bool(getattr(network, "low_precision", False)),
        trained_min_depth=float(getattr(network, "trained_min_depth", None) or 1.0),
        pair_sides=tuple(getattr(network, "pair_sides", ())),
        weights=str(getattr(network, "weights", "")),
        sha256=str(getattr(network, "sha256", "")),
    )


@dataclass(frozen=True, kw_only=True)
class StereoBatch:
    """Input batch of a stereo network: torch tensors in the networks' conventions, made by ``inference.adapter`` only.

    Attributes:
        ref_image: (B, 3, H, W) float32, RGB in [-1, 1].
        src_images: (B, S, 3, H, W), likewise.
        ref_K: (B, 3, 3) [px], **integer** pixel centres: the centre of the top-left pixel is (0, 0).
        src_K: (B, S, 3, 3), likewise.
        src_from_ref: (B, S, 4, 4), the unit of its translation is free.
        min_depth: (B,), the depth scale of the planes, in that unit: label i stands for min_depth * D / i.
        poses_exact: False where the poses were refined by matches and are therefore not exact.
        prior_depth: (B, H, W), depth of elsewhere in the unit of ``min_depth``, 0 where there is none; None: no prior.
        prior_normal: (B, 3, H, W), unit, facing the camera; there with ``prior_depth``.
    """

    ref_image: torch.Tensor
    src_images: torch.Tensor
    ref_K: torch.Tensor
    src_K: torch.Tensor
    src_from_ref: torch.Tensor
    min_depth: torch.Tensor
    poses_exact: bool = True
    prior_depth: torch.Tensor | None = None
    prior_normal: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> StereoBatch:
        """Return the batch on another device."""
        return self.with_tensors(lambda tensor: tensor.to(device))

    def item(self, i: int) -> StereoBatch:
        """Return item i as a batch of one, float32."""
        return self.with_tensors(lambda tensor: tensor[i : i + 1].float())

    def with_tensors(self, change: Callable[[torch.Tensor], torch.Tensor]) -> StereoBatch:
        """Return the batch with every tensor changed."""
        tensors = ("ref_image", "src_images", "ref_K", "src_K", "src_from_ref", "min_depth")
        priors = () if self.prior_depth is None else ("prior_depth", "prior_normal")
        return replace(self, **{name: change(getattr(self, name)) for name in (*tensors, *priors)})
