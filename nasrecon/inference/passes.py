"""Which passes through a network an item takes, and the pass itself.

The matches of a single source leave much open, so a pair, an item of one reference and one source, passes more than
once. It passes at its own size and at the smaller ones that the network names (``pair_sides``): at a small size a
network sees farther across what matches nothing, at a large one it sees edges. Where poses were refined, pairs and
items of scenes of three views pass under the refined and under the given poses: the two span what the matches of so few
views leave open. All other items pass once.

Sizes are averaged pixel by pixel, as one size is right here and another there; poses with one weight for the image, as
a wrong pose is wrong everywhere.
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

_SIZE_POWER, _POSE_POWER = 4.0, 2.0  # of the spread, in the weights of sizes and of poses (``fuse_stages``)
_FEW_VIEWS = 3  # scenes of so many views or fewer pass under both poses
_CAUTION = 1.2  # sigma of a smaller size is taken so many times larger: it misses what lies between its pixels


def plan_passes(sources: int, exact: bool, views: int, passes: Passes = "auto") -> tuple[Poses, ...]:
    """Return the poses under which an item passes the network.

    Args:
        sources: number of its source views.
        exact: whether none of its poses was refined.
        views: number of views of its scene.
        passes: "single" allows one pass for every item.
    """
    both = passes == "auto" and not exact and (sources == 1 or views <= _FEW_VIEWS)
    return ("refined", "given") if both else ("refined",)


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
    groups: dict[tuple[int, int, int, bool, int], list[int]] = {}
    for i, (ref, its_sources) in enumerate(zip(refs, sources, strict=True)):
        key = (*ref.rgb.shape[:2], len(its_sources), poses_exact([ref, *its_sources]), _views(ref, its_sources))
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
    """Run the planned passes on references of one size and plan; returns their average in the network's own units."""
    batch = to_stereo_batch(refs, sources, network).to(device)
    sides = _pair_sides(network, batch) if passes == "auto" else []
    predictions = []
    for poses in plan_passes(len(sources[0]), batch.poses_exact, _views(refs[0], sources[0]), passes):
        passed = batch
        if poses == "given":
            given = [_as_given(ref) for ref in refs], [[_as_given(source) for source in item] for item in sources]
            passed = to_stereo_batch(*given, network).to(device)
        at_sizes = [*(_run_at_side(network, passed, side) for side in sides), network(passed)]
        predictions.append(fuse_stages(at_sizes, _SIZE_POWER, by_pixel=True))
    errors = torch.tensor([ref.pose_error for ref in refs], dtype=torch.float32)
    return add_pose_error(fuse_stages(predictions, _POSE_POWER), batch, errors)


def _views(ref: Photo, sources: Sequence[Photo]) -> int:
    return ref.scene_views or 1 + len(sources)


def _pair_sides(network: Network, batch: StereoBatch) -> list[int]:
    """Return the longer sides [px] at which pairs pass besides their own size.

    They are below their own, and the network takes what they leave of the shorter one. A depth of elsewhere is refined
    at its own size alone: it would lose its details.
    """
    if batch.src_images.shape[1] > 1 or batch.prior_depth is not None:
        return []
    shorter, longer = sorted(batch.ref_image.shape[-2:])
    least = network.min_side / shorter * longer
    return [side for side in network_info(network).pair_sides if least <= side < longer]


def _run_at_side(network: Network, batch: StereoBatch, side: int) -> Prediction:
    """Run a network on a batch shrunk to a longer side [px]; the prediction has the batch's size."""
    height, width = batch.ref_image.shape[-2:]
    smaller = shrink_batch(batch, side / max(height, width), network.size_multiple)
    prediction = enlarged(network(smaller), (height, width))
    return replace(prediction, sigma=_CAUTION * prediction.sigma)


def _as_given(photo: Photo) -> Photo:
    if photo.given_pose is None:
        return photo
    return replace(photo, view=replace(photo.view, cam_from_world=photo.given_pose), given_pose=None)
