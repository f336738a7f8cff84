"""Which passes through a network an item takes, and the pass itself.

An item of one reference and one source whose poses were refined passes twice, once under the refined and once under
the given poses: the matches of a single pair leave much open, and the two poses span it. All other items pass once.
A network may ask for such pairs at a smaller size (``inexact_pair_side``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch

from nasrecon.inference.adapter import Photo, in_scene_units, poses_exact, to_estimates, to_stereo_batch
from nasrecon.inference.ensemble import fuse_stages
from nasrecon.inference.pose_error import add_pose_error
from nasrecon.nas.network import Network, Prediction, StereoBatch, network_info
from nasrecon.nas.precision import autocast, device_of
from nasrecon.nas.resize import enlarged, shrink_batch
from nasrecon.types import Estimate

Poses = Literal["refined", "given"]
Passes = Literal["auto", "single"]


def plan_passes(sources: int, exact: bool, passes: Passes = "auto") -> tuple[Poses, ...]:
    """Return the poses under which an item passes the network.

    Args:
        sources: number of its source views.
        exact: whether none of its poses was refined.
        passes: "single" allows one pass for every item.
    """
    return ("refined", "given") if passes == "auto" and sources == 1 and not exact else ("refined",)


def predict(
    network: Network,
    refs: Sequence[Photo],
    sources: Sequence[Sequence[Photo]],
    device: torch.device | str | None = None,
    passes: Passes = "auto",
) -> list[Estimate]:
    """Run a network on references of any sizes and with any number of sources each; one Estimate each, in order.

    Items of one image size, number of sources and plan pass the network together.

    Args:
        refs: the references; ``view.depth_range`` must be set.
        sources: for each reference its sources, at least one.
        device: where to compute; default: where the network is (``device_of``).
        passes: see ``plan_passes``.

    Raises:
        InputError: if an item has no source or no depth range, or an image is not of its camera's size.
    """
    device = device_of(network) if device is None else device
    groups: dict[tuple[int, int, int, bool], list[int]] = {}
    for i, (ref, its_sources) in enumerate(zip(refs, sources, strict=True)):
        key = (*ref.rgb.shape[:2], len(its_sources), poses_exact([ref, *its_sources]))
        groups.setdefault(key, []).append(i)
    out: dict[int, Estimate] = {}
    for members in groups.values():
        group_refs, group_sources = [refs[i] for i in members], [sources[i] for i in members]
        prediction = run_passes(network, group_refs, group_sources, device, passes)
        out |= zip(members, to_estimates(prediction, group_refs, group_sources, network), strict=True)
    return [out[i] for i in range(len(refs))]


def predict_stages(
    network: Network, ref: Photo, sources: Sequence[Photo], device: torch.device | str | None = None
) -> Prediction:
    """Run a network on one reference, as ``predict`` does it, and return all its stages (B = 1), for evaluation.

    Returns:
        the prediction at the reference's size, depths and sigma in scene units, float32 on the CPU, not filtered.

    Raises:
        InputError: as ``predict``.
    """
    device = torch.device(device_of(network) if device is None else device)
    with torch.inference_mode(), autocast(network, device):
        prediction = run_passes(network, [ref], [sources], device, "auto")
    return in_scene_units(prediction, [ref], network)


def run_passes(
    network: Network,
    refs: Sequence[Photo],
    sources: Sequence[Sequence[Photo]],
    device: torch.device | str,
    passes: Passes,
) -> Prediction:
    """Run the planned passes on references of one size; returns their average in the network's own units and sizes."""
    batch = to_stereo_batch(refs, sources, network).to(device)
    side = None if batch.poses_exact or batch.src_images.shape[1] > 1 else network_info(network).inexact_pair_side
    predictions = []
    for poses in plan_passes(batch.src_images.shape[1], batch.poses_exact, passes):
        passed = batch
        if poses == "given":
            given = [_as_given(ref) for ref in refs], [[_as_given(source) for source in item] for item in sources]
            passed = to_stereo_batch(*given, network).to(device)
        predictions.append(_run_at_side(network, passed, side))
    errors = torch.tensor([ref.pose_error for ref in refs], dtype=torch.float32)
    return add_pose_error(fuse_stages(predictions), batch, errors)


def _run_at_side(network: Network, batch: StereoBatch, side: int | None) -> Prediction:
    """Run a network on a batch shrunk to a longer side [px], None: as it is; the prediction has the batch's size."""
    size = (batch.ref_image.shape[-2], batch.ref_image.shape[-1])
    if side is None or max(size) <= side:
        return network(batch)
    return enlarged(network(shrink_batch(batch, side / max(size), network.size_multiple)), size)


def _as_given(photo: Photo) -> Photo:
    if photo.given_pose is None:
        return photo
    return replace(photo, view=replace(photo.view, cam_from_world=photo.given_pose), given_pose=None)
