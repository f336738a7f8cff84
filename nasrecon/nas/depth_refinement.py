"""Depth and normals of elsewhere through the consistency module of a network (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import replace

import torch

from nasrecon.errors import InputError
from nasrecon.nas.network import Network, Prediction, StereoBatch


def can_refine(network: Network) -> bool:
    """Return whether a network refines depth that is given to it."""
    return hasattr(network, "refine")


def refine(network: Network, batch: StereoBatch) -> Prediction:
    """Refine the depth and the normals that a batch brings (``prior_depth``, ``prior_normal``).

    The network's own method ``refine(batch, depth, normal)`` does it.

    Returns:
        the prediction; ``depth`` and ``normal`` are what was given, the network's own where nothing was.

    Raises:
        InputError: if the network has no consistency module.
    """
    depth, normal = batch.prior_depth, batch.prior_normal
    assert depth is not None and normal is not None
    method = getattr(network, "refine", None)
    if method is None:
        raise InputError(f"the network {network.name} does not refine given depth; use lite or paper")
    prediction = method(replace(batch, prior_depth=None, prior_normal=None), depth, normal)
    known = depth > 0
    return replace(
        prediction,
        depth=torch.where(known, depth, prediction.depth),
        normal=torch.where(known[:, None], normal, prediction.normal),
    )
