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
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from nasrecon.errors import InputError
from nasrecon.geometry import relative_pose
from nasrecon.inference.sizes import fitted_size, padded_side
from nasrecon.nas.network import Network, Prediction, StereoBatch, network_info
from nasrecon.nas.volume import pixel_rays
from nasrecon.types import Camera, Estimate, View


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """An image and its view.

    Attributes:
        rgb: (H, W, 3) uint8.
        view: its camera at the image's size, as ``ingest.images.read_view`` returns it.
        given_pose: (4, 4), cam_from_world as it was read, where the view's pose was refined; None: the pose is exact.
        scene_views: how many views its scene has; 0: those of the item.
        pose_error: median distance of the scene's matches from their epipolar lines [focal lengths]; 0: unknown.
        prior: depth (H, W) [scene units, 0 = none] and normals (H, W, 3) of elsewhere, for references; None: no prior.
    """

    rgb: np.ndarray
    view: View
    given_pose: np.ndarray | None = None
    scene_views: int = 0
    pose_error: float = 0.0
    prior: tuple[np.ndarray, np.ndarray] | None = None


FARTHEST_IN_PLANES = 2.0
"""Depths beyond this many times the farthest finite plane (label 1, ``min_depth * planes``) count as "no value"."""


def to_stereo_batch(refs: Sequence[Photo], sources: Sequence[Sequence[Photo]], network: Network) -> StereoBatch:
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
    height, width = refs[0].rgb.shape[:2]
    count = len(sources[0])
    for ref, its_sources in zip(refs, sources, strict=True):
        rgb, view = ref.rgb, ref.view
        if rgb.shape[:2] != (height, width) or len(its_sources) != count:
            raise InputError(
                f"{view.name}: {rgb.shape[1]}x{rgb.shape[0]} with {len(its_sources)} sources cannot share a batch with "
                f"{refs[0].view.name}: {width}x{height} with {count} sources; ``predict`` groups them"
            )
        if not its_sources:
            raise InputError(f"{view.name}: no source view; a stereo network needs at least one")
    sources = [[align_roll(source, ref.view) for source in item] for ref, item in zip(refs, sources, strict=True)]
    ref_tensors = [_tensors(photo, height, width, network) for photo in refs]
    src_tensors = [[_tensors(photo, height, width, network) for photo in item] for item in sources]
    units = [_network_units_per_scene_unit(ref.view, network) for ref in refs]
    src_from_ref = [
        [_scaled(relative_pose(src.view.cam_from_world, ref.view.cam_from_world), unit) for src in item]
        for ref, item, unit in zip(refs, sources, units, strict=True)
    ]
    return StereoBatch(
        ref_image=torch.stack([image for image, _ in ref_tensors]),
        src_images=torch.stack([torch.stack([image for image, _ in item]) for item in src_tensors]),
        ref_K=torch.stack([K for _, K in ref_tensors]),
        src_K=torch.stack([torch.stack([K for _, K in item]) for item in src_tensors]),
        src_from_ref=torch.from_numpy(np.array(src_from_ref)).float(),
        min_depth=torch.full((len(refs),), network_info(network).trained_min_depth),
        poses_exact=all(poses_exact([ref, *item]) for ref, item in zip(refs, sources, strict=True)),
        **_priors(refs, units, network),
    )


def _priors(refs: Sequence[Photo], units: Sequence[float], network: Network) -> dict[str, torch.Tensor]:
    """Return the priors of a batch as the fields of ``StereoBatch``, padded with no value; none where one has none."""
    depths, normals = [], []
    for ref, unit in zip(refs, units, strict=True):
        if ref.prior is None:
            return {}
        height, width = ref.rgb.shape[:2]
        pad = (0, padded_side(width, network) - width, 0, padded_side(height, network) - height)
        depth, normal = (torch.from_numpy(np.ascontiguousarray(part)).float() for part in ref.prior)
        depths.append(F.pad(depth * unit, pad))
        normals.append(F.pad(normal.permute(2, 0, 1), pad))
    return {"prior_depth": torch.stack(depths), "prior_normal": torch.stack(normals)}


def in_scene_units(prediction: Prediction, refs: Sequence[Photo], network: Network) -> Prediction:
    """Return a prediction cropped to the references' size, its depths and sigma in scene units, float32 on the CPU."""
    height, width = refs[0].rgb.shape[:2]
    per_scene_unit = [_network_units_per_scene_unit(ref.view, network) for ref in refs]
    scene_units = 1 / torch.tensor(per_scene_unit, dtype=torch.float64)
    out = {}
    for name in Prediction.__dataclass_fields__:
        value = getattr(prediction, name)[..., :height, :width].detach().cpu()
        if name in ("depth_initial", "depth", "refined_depth", "sigma"):
            value = value.double() * scene_units[:, None, None]
        out[name] = value.float()
    return Prediction(**out)


def to_estimates(
    prediction: Prediction, refs: Sequence[Photo], sources: Sequence[Sequence[Photo]], network: Network
) -> list[Estimate]:
    """Turn the prediction for ``to_stereo_batch(refs, sources, network)`` into Estimates: refined depth and normal.

    A pixel is invalid (depth, normal, confidence and sigma 0) where the depth is not finite, not positive or beyond
    ``FARTHEST_IN_PLANES`` of the planes' reach. Normals are unit and face the camera; one that is not finite, or has
    no length, becomes (0, 0, 0).
    """
    scene = in_scene_units(prediction, refs, network)
    out = []
    for i, (ref, its_sources) in enumerate(zip(refs, sources, strict=True)):
        rgb, view = ref.rgb, ref.view
        farthest = FARTHEST_IN_PLANES * network.planes * _min_depth(view)
        depth = scene.refined_depth[i].numpy()
        valid = np.isfinite(depth) & (depth > 0) & (depth <= farthest)
        estimate = Estimate(
            view=view,
            depth=np.where(valid, depth, 0).astype(np.float32),
            normal=_facing_camera(scene.refined_normal[i].numpy(), valid, view.camera),
            confidence=np.where(valid, np.nan_to_num(scene.confidence[i].numpy()), 0).clip(0, 1).astype(np.float32),
            sigma=np.where(valid, np.nan_to_num(scene.sigma[i].numpy(), posinf=farthest), 0).clip(0).astype(np.float32),
            rgb=rgb,
            sources=tuple(source.view.name for source in its_sources),
        )
        out.append(estimate)
    return out


def to_prediction(estimate: Estimate, network: Network) -> Prediction:
    """Turn an Estimate into the prediction for a batch of it alone, on the CPU; NaN depths where it has none."""
    unit = _network_units_per_scene_unit(estimate.view, network)
    depth, sigma, confidence = (
        torch.from_numpy(x)[None] for x in (estimate.depth, estimate.sigma, estimate.confidence)
    )
    depth = torch.where(depth > 0, depth * unit, torch.nan)
    normal = torch.from_numpy(estimate.normal).permute(2, 0, 1)[None]
    return Prediction(
        depth_initial=depth, depth=depth, normal=normal, refined_depth=depth, refined_normal=normal,
        confidence=confidence, sigma=sigma * unit,
    )  # fmt: skip


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


def _tensors(photo: Photo, height: int, width: int, network: Network) -> tuple[torch.Tensor, torch.Tensor]:
    """Return an image fitted to height x width, then padded: (3, H', W') in [-1, 1], and K (3, 3), integer centres."""
    rgb, view, camera = photo.rgb, photo.view, photo.view.camera
    if rgb.shape != (camera.height, camera.width, 3) or rgb.dtype != np.uint8:
        raise InputError(
            f"{view.name}: the image is {rgb.shape} {rgb.dtype}, its camera asks for "
            f"{(camera.height, camera.width, 3)} uint8; read it with ingest.images.read_view"
        )
    image = torch.from_numpy(np.moveaxis(rgb, -1, 0).astype(np.float32, order="C"))[None].div_(127.5).sub_(1)
    fit_width, fit_height = fitted_size(camera, width, height)
    if (fit_width, fit_height) != (camera.width, camera.height):
        image = F.interpolate(image, (fit_height, fit_width), mode="bilinear", align_corners=False, antialias=True)
        camera = camera.resized(fit_width, fit_height)
    right, bottom = padded_side(width, network) - fit_width, padded_side(height, network) - fit_height
    # Edge replication: no sharp border for the features to fire on. K does not change: the top-left corner stays.
    image = F.pad(image, (0, right, 0, bottom), mode="replicate") if right or bottom else image
    return image[0], torch.from_numpy(_integer_centered(camera)).float()


def align_roll(source: Photo, ref: View) -> Photo:
    """Return the source turned about its optical axis by the multiple of 90 degrees that brings it nearest to the
    reference.

    A camera with skew stays as it is: turned, it would be no upper-triangular pinhole.
    """
    view = source.view
    if view.camera.K[0, 1] != 0:
        return source
    roll = relative_pose(view.cam_from_world, ref.cam_from_world)
    turns = max(range(4), key=lambda k: np.trace(np.linalg.matrix_power(_QUARTER, k)[:2, :2] @ roll[:2, :2]))
    for _ in range(turns):
        source = _rotate_90(source)
    return source


_QUARTER = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""turned_from_cam: x right becomes y down."""


def _rotate_90(photo: Photo) -> Photo:
    """Return the photo turned clockwise by 90 degrees, image and camera."""
    camera = photo.view.camera
    (fx, _, cx), (_, fy, cy), _ = camera.K
    turned = Camera(
        width=camera.height, height=camera.width, K=np.array([[fy, 0, camera.height - cy], [0, fx, cx], [0, 0, 1]])
    )
    view = replace(photo.view, camera=turned, cam_from_world=_QUARTER @ photo.view.cam_from_world)
    given = None if photo.given_pose is None else _QUARTER @ photo.given_pose
    return replace(photo, rgb=np.rot90(photo.rgb, k=-1), view=view, given_pose=given)  # a source has no prior


def poses_exact(photos: Sequence[Photo]) -> bool:
    """Return whether no pose was refined."""
    return all(photo.given_pose is None for photo in photos)


def _integer_centered(camera: Camera) -> np.ndarray:
    """Return K (3, 3) for integer pixel centres: x' = x - 0.5."""
    half_pixel = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
    return half_pixel @ camera.K


def _facing_camera(normal: np.ndarray, valid: np.ndarray, camera: Camera) -> np.ndarray:
    """Return unit normals (H, W, 3) of (3, H, W), turned to the camera; (0, 0, 0) where invalid or not finite."""
    K = torch.from_numpy(_integer_centered(camera)).float()[None]
    rays = pixel_rays(K, camera.height, camera.width).view(3, camera.height, camera.width).numpy()
    x, y, z = np.nan_to_num(normal, nan=0, posinf=0, neginf=0)
    length = np.sqrt(x * x + y * y + z * z)
    away = x * rays[0] + y * rays[1] + z > 0
    factor = np.where(away, np.float32(-1), np.float32(1)) / np.where(length > 0, length, 1)
    return np.stack([x, y, z], axis=-1) * np.where(valid, factor, 0)[..., None]
