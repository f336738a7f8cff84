"""The one border to the networks' private conventions: posed images to ``StereoBatch``, ``Prediction`` to ``Estimate``.

What changes at this border, and nowhere else:

============  ==========================================  ==================================================
what          outside                                     inside (``StereoBatch``, ``Prediction``)
============  ==========================================  ==================================================
images        (H, W, 3) uint8                             (3, H, W) float32, RGB in [-1, 1]
pixels        the top-left pixel's centre is (0.5, 0.5)   it is (0, 0)
length        scene units                                 the item's nearest plane is at ``trained_min_depth``
                                                          of the network (1 where it names none)
size          any                                         a multiple of ``network.size_multiple``, at least
                                                          ``network.min_side``; padded at the right and bottom
sources       any size, number and roll                   the reference's size, upright; one number in a batch
============  ==========================================  ==================================================

The nearest plane comes from ``View.depth_range[0]``, which must be set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from nasrecon.errors import InputError
from nasrecon.geometry import relative_pose
from nasrecon.inference.ensemble import blended
from nasrecon.inference.sizes import fitted_size, padded_side
from nasrecon.nas.network import Network, Prediction, StereoBatch, network_info
from nasrecon.nas.precision import autocast, device_of
from nasrecon.types import Camera, Estimate, View

Posed = tuple[np.ndarray, View]
"""An image (H, W, 3) uint8 and its view, the camera at the image's size: what ``ingest.images.read_view`` returns."""


FARTHEST_IN_PLANES = 2.0
"""Depths beyond this many times the farthest finite plane (label 1, ``min_depth * planes``) count as "no value"."""


def predict(
    network: Network,
    refs: Sequence[Posed],
    sources: Sequence[Sequence[Posed]],
    device: torch.device | str | None = None,
) -> list[Estimate]:
    """Run a network on references of any sizes and with any number of sources each; one Estimate each, in order.

    Items of one image size and one number of sources go through the network together. Where poses were refined
    (``View.given_cam_from_world``) and there is but one source, it sees them under both, and what it says is averaged
    (``nas.blend``): the matches of a single pair leave much open.

    Args:
        refs: the reference images with their views; ``view.depth_range`` must be set.
        sources: for each reference its source images with their views, at least one.
        device: where to compute; default: where the network is (``device_of``).

    Raises:
        InputError: if an item has no source or no depth range, or an image is not of its camera's size.
    """
    device = device_of(network) if device is None else device
    groups: dict[tuple[int, int, int, bool], list[int]] = {}
    for i, ((rgb, view), its_sources) in enumerate(zip(refs, sources, strict=True)):
        key = (*rgb.shape[:2], len(its_sources), _in_doubt([(rgb, view), *its_sources]))
        groups.setdefault(key, []).append(i)
    out: dict[int, Estimate] = {}
    for members in groups.values():
        group_refs, group_sources = [refs[i] for i in members], [sources[i] for i in members]
        prediction = _predicted(network, group_refs, group_sources, device)
        out |= zip(members, to_estimates(prediction, group_refs, group_sources, network), strict=True)
    return [out[i] for i in range(len(refs))]


def predict_stages(
    network: Network, ref: Posed, sources: Sequence[Posed], device: torch.device | str | None = None
) -> Prediction:
    """Run a network on one reference, as ``estimate`` does it, and return all that it says (B = 1), for evaluation.

    Returns:
        the prediction at the reference's size, depths and sigma in scene units, float32 on the CPU, not filtered.

    Raises:
        InputError: as ``predict``.
    """
    device = torch.device(device_of(network) if device is None else device)
    with torch.inference_mode(), autocast(network, device):
        prediction = _predicted(network, [ref], [sources], device)
    return in_scene_units(prediction, [ref], network)


def _predicted(
    network: Network, refs: Sequence[Posed], sources: Sequence[Sequence[Posed]], device: torch.device | str
) -> Prediction:
    """Run a network on references of one size, under all poses that they may have; its own units and sizes."""
    batch = to_stereo_batch(refs, sources, network)
    said = [network(batch.to(device))]
    if not batch.poses_exact and batch.src_images.shape[1] == 1:
        refs, sources = [_as_given(ref) for ref in refs], [[_as_given(source) for source in item] for item in sources]
        said.append(network(to_stereo_batch(refs, sources, network).to(device)))
    return blended(said)


def _in_doubt(images: Sequence[Posed]) -> bool:
    return any(view.given_cam_from_world is not None for _, view in images)


def _as_given(posed: Posed) -> Posed:
    rgb, view = posed
    given = view.given_cam_from_world
    return (rgb, view) if given is None else (rgb, replace(view, cam_from_world=given, given_cam_from_world=None))


def to_stereo_batch(refs: Sequence[Posed], sources: Sequence[Sequence[Posed]], network: Network) -> StereoBatch:
    """Turn references of one size, with one number of sources each, into what the network eats (float32, on the CPU).

    A source that is rolled against its reference (a portrait shot beside landscape ones) is turned by quarters of a
    full turn, image and camera together, because features are matched best upright; nothing is resampled for that. A
    source of another size is shrunk or enlarged, its aspect kept, to fit into the reference's size.

    Args:
        refs, sources: as in ``predict``.

    Raises:
        InputError: if sizes or numbers differ, an item has no source or no depth range, or an image is not of its
            camera's size.
    """
    if not refs or len(refs) != len(sources):
        raise InputError(f"a batch needs references and as many lists of sources, found {len(refs)} and {len(sources)}")
    height, width = refs[0][0].shape[:2]
    count = len(sources[0])
    for (rgb, view), its_sources in zip(refs, sources, strict=True):
        if rgb.shape[:2] != (height, width) or len(its_sources) != count:
            raise InputError(
                f"{view.name}: {rgb.shape[1]}x{rgb.shape[0]} with {len(its_sources)} sources cannot share a batch with "
                f"{refs[0][1].name}: {width}x{height} with {count} sources; ``predict`` groups them"
            )
        if not its_sources:
            raise InputError(f"{view.name}: no source view; a stereo network needs at least one")
    sources = [[_upright(source, ref) for source in item] for (_, ref), item in zip(refs, sources, strict=True)]
    ref_tensors = [_tensors(rgb, view, height, width, network) for rgb, view in refs]
    src_tensors = [[_tensors(rgb, view, height, width, network) for rgb, view in item] for item in sources]
    units = [_network_units_per_scene_unit(view, network) for _, view in refs]
    src_from_ref = [
        [_scaled(relative_pose(src.cam_from_world, ref.cam_from_world), unit) for _, src in item]
        for (_, ref), item, unit in zip(refs, sources, units, strict=True)
    ]
    return StereoBatch(
        ref_image=torch.stack([image for image, _ in ref_tensors]),
        src_images=torch.stack([torch.stack([image for image, _ in item]) for item in src_tensors]),
        ref_K=torch.stack([K for _, K in ref_tensors]),
        src_K=torch.stack([torch.stack([K for _, K in item]) for item in src_tensors]),
        src_from_ref=torch.from_numpy(np.array(src_from_ref)).float(),
        min_depth=torch.full((len(refs),), network_info(network).trained_min_depth),
        poses_exact=not any(_in_doubt([ref, *item]) for ref, item in zip(refs, sources, strict=True)),
    )


def in_scene_units(prediction: Prediction, refs: Sequence[Posed], network: Network) -> Prediction:
    """Return a prediction cropped to the references' size, its depths and sigma in scene units, float32 on the CPU."""
    height, width = refs[0][0].shape[:2]
    per_scene_unit = [_network_units_per_scene_unit(view, network) for _, view in refs]
    scene_units = 1 / torch.tensor(per_scene_unit, dtype=torch.float64)
    out = {}
    for name in Prediction.__dataclass_fields__:
        value = getattr(prediction, name)[..., :height, :width].detach().cpu()
        if name in ("depth_initial", "depth", "refined_depth", "sigma"):
            value = value.double() * scene_units[:, None, None]
        out[name] = value.float()
    return Prediction(**out)


def to_estimates(
    prediction: Prediction, refs: Sequence[Posed], sources: Sequence[Sequence[Posed]], network: Network
) -> list[Estimate]:
    """Turn the prediction for ``to_stereo_batch(refs, sources, network)`` into Estimates: refined depth and normal.

    A pixel is invalid (depth, normal, confidence and sigma 0) where the depth is not finite, not positive or beyond
    ``FARTHEST_IN_PLANES`` of the planes' reach. Normals are unit and face the camera; one that is not finite, or has
    no length, becomes (0, 0, 0).
    """
    scene = in_scene_units(prediction, refs, network)
    out = []
    for i, ((rgb, view), its_sources) in enumerate(zip(refs, sources, strict=True)):
        farthest = FARTHEST_IN_PLANES * network.planes * _min_depth(view)
        depth = scene.refined_depth[i].numpy()
        valid = np.isfinite(depth) & (depth > 0) & (depth <= farthest)
        estimate = Estimate(
            view=view,
            depth=np.where(valid, depth, 0).astype(np.float32),
            normal=_facing_camera(scene.refined_normal[i].permute(1, 2, 0).numpy(), valid, view.camera),
            confidence=np.where(valid, np.nan_to_num(scene.confidence[i].numpy()), 0).clip(0, 1).astype(np.float32),
            sigma=np.where(valid, np.nan_to_num(scene.sigma[i].numpy(), posinf=farthest), 0).clip(0).astype(np.float32),
            rgb=rgb,
            sources=tuple(source.name for _, source in its_sources),
        )
        out.append(estimate)
    return out


def _min_depth(view: View) -> float:
    if view.depth_range is None or not 0 < view.depth_range[0] < np.inf:
        raise InputError(f"{view.name}: nearest plane unknown (depth_range {view.depth_range}); give --min-depth")
    return float(view.depth_range[0])


def _network_units_per_scene_unit(ref: View, network: Network) -> float:
    return network_info(network).trained_min_depth / _min_depth(ref)


def _scaled(target_from_source: np.ndarray, factor: float) -> np.ndarray:
    """Return the transform (4, 4) with its translation times ``factor``."""
    out = target_from_source.copy()
    out[:3, 3] *= factor
    return out


def _tensors(
    rgb: np.ndarray, view: View, height: int, width: int, network: Network
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image fitted to height x width, then padded: (3, H', W') in [-1, 1], and K (3, 3), integer centres."""
    camera = view.camera
    if rgb.shape != (camera.height, camera.width, 3) or rgb.dtype != np.uint8:
        raise InputError(
            f"{view.name}: the image is {rgb.shape} {rgb.dtype}, its camera asks for "
            f"{(camera.height, camera.width, 3)} uint8; read it with ingest.images.read_view"
        )
    image = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    fit_width, fit_height = fitted_size(camera, width, height)
    if (fit_width, fit_height) != (camera.width, camera.height):
        image = F.interpolate(image, (fit_height, fit_width), mode="bilinear", align_corners=False, antialias=True)
        camera = camera.resized(fit_width, fit_height)
    right, bottom = padded_side(width, network) - fit_width, padded_side(height, network) - fit_height
    # Edge replication: no sharp border for the features to fire on. K does not change: the top-left corner stays.
    image = F.pad(image, (0, right, 0, bottom), mode="replicate")[0]
    return image, torch.from_numpy(_integer_centered(camera)).float()


def _upright(source: Posed, ref: View) -> Posed:
    """Return the source turned about its optical axis by the multiple of 90 degrees that brings it nearest to the reference.

    A camera with skew stays as it is: turned, it would be no upper-triangular pinhole.
    """
    rgb, view = source
    if view.camera.K[0, 1] != 0:
        return source
    roll = relative_pose(view.cam_from_world, ref.cam_from_world)
    turns = max(range(4), key=lambda k: np.trace(np.linalg.matrix_power(_QUARTER, k)[:2, :2] @ roll[:2, :2]))
    for _ in range(turns):
        rgb, view = np.rot90(rgb, k=-1), _quarter_turned(view)
    return rgb, view


_QUARTER = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""turned_from_cam: x right becomes y down."""


def _quarter_turned(view: View) -> View:
    """Return the view of the image turned clockwise by 90 degrees (``np.rot90(image, k=-1)``)."""
    camera = view.camera
    (fx, _, cx), (_, fy, cy), _ = camera.K
    K = [[fy, 0, camera.height - cy], [0, fx, cx], [0, 0, 1]]
    turned = Camera(width=camera.height, height=camera.width, K=K)
    given = None if view.given_cam_from_world is None else _QUARTER @ view.given_cam_from_world
    return replace(view, camera=turned, cam_from_world=_QUARTER @ view.cam_from_world, given_cam_from_world=given)


def _integer_centered(camera: Camera) -> np.ndarray:
    """Return K (3, 3) for integer pixel centres: x' = x - 0.5."""
    half_pixel = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    return half_pixel @ camera.K


def _facing_camera(normal: np.ndarray, valid: np.ndarray, camera: Camera) -> np.ndarray:
    """Return unit normals (H, W, 3) turned to the camera; (0, 0, 0) where invalid, not finite or without length."""
    rays = camera.unproject(camera.pixel_centers(), np.ones(valid.shape))
    normal = np.nan_to_num(normal.astype(np.float64), nan=0, posinf=0, neginf=0)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    away = np.sum(normal * rays, axis=-1, keepdims=True) > 0
    unit = np.where(away, -normal, normal) / np.where(length > 0, length, 1)
    return np.where(valid[..., None], unit, 0).astype(np.float32)
