"""Depth and normals of elsewhere through the consistency module of a network (paper, section 3.3)."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F

from nasrecon.errors import InputError
from nasrecon.nas.network import Network, Prediction, StereoBatch

SAME_SURFACE, MIN_SHARE = 0.1, 0.2
"""Pixels of a coarse one are averaged where their inverse depths lie within this part of the middle one's; so many of
them must."""


def can_refine(network: Network) -> bool:
    """Return whether a network refines depth that is given to it."""
    return hasattr(network, "refine") or network.name in _REFINERS


def refine(network: Network, batch: StereoBatch) -> Prediction:
    """Refine the depth and the normals that a batch brings (``prior_depth``, ``prior_normal``).

    A network with a method ``refine(batch, depth, normal)`` does it itself.

    Returns:
        the prediction; ``depth`` and ``normal`` are what was given, the network's own where nothing was.

    Raises:
        InputError: if the network has no consistency module.
    """
    depth, normal = batch.prior_depth, batch.prior_normal
    assert depth is not None and normal is not None
    batch = replace(batch, prior_depth=None, prior_normal=None)
    method = getattr(network, "refine", None)
    if method is None and network.name not in _REFINERS:
        raise InputError(f"the network {network.name} does not refine given depth; use lite or paper")
    prediction = (
        method(batch, depth, normal) if method is not None else _REFINERS[network.name](network, batch, depth, normal)
    )
    known = depth > 0
    return replace(
        prediction,
        depth=torch.where(known, depth, prediction.depth),
        normal=torch.where(known[:, None], normal, prediction.normal),
    )


def _refine_paper(network: Any, batch: StereoBatch, depth: torch.Tensor, normal: torch.Tensor) -> Prediction:
    prediction = network(batch)
    known = depth > 0
    depth = torch.where(known, depth, prediction.depth)
    normal = torch.where(known[:, None], normal, prediction.normal)
    to_trained = (network.trained_min_depth / batch.min_depth)[:, None, None]
    refined, turned = network.consistency(depth * to_trained, normal)
    return replace(prediction, refined_depth=refined / to_trained, refined_normal=turned)


def _refine_lite(network: Any, batch: StereoBatch, depth: torch.Tensor, normal: torch.Tensor) -> Prediction:
    """Start the consistency steps of lite from the given surface, matched in the images as its own would be."""
    known = (depth > 0).float()[:, None]
    given = network.planes * batch.min_depth.view(-1, 1, 1, 1) / depth.clamp_min(1e-12)[:, None]
    given = torch.where(known > 0, given.clamp(0, network.planes - 1.0), 0.0)
    start = network._refine

    def from_given(*arguments: Any) -> Any:
        batch, features, geometry, weights, context, surface, prob, label, estimated, *rest = arguments
        at = lambda x: F.interpolate(x, label.shape[-2:], mode="area")  # noqa: E731
        center = F.interpolate(F.interpolate(given, label.shape[-2:], mode="nearest"), given.shape[-2:], mode="nearest")
        same = known * ((given - center).abs() < SAME_SURFACE * center)  # no average over a step of depth
        share = at(same)
        mixed = at(given * same) / share.clamp_min(1e-6)
        turned = F.normalize(at(normal * same), dim=1)
        label = torch.where(share > MIN_SHARE, mixed, label[:, None])[:, 0]
        estimated = torch.where(share > MIN_SHARE, turned.to(estimated.dtype), estimated)
        return start(batch, features, geometry, weights, context, surface, prob, label, estimated, *rest)

    refiner = copy.copy(network)
    refiner.__dict__["_refine"] = from_given
    return refiner(batch)


_REFINERS = {"paper": _refine_paper, "lite": _refine_lite}
