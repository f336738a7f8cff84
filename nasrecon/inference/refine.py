"""Refine depth maps of elsewhere over a scene: the estimation, started from them (``nas.depth_refinement``)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import plane_normals
from nasrecon.inference.adapter import Photo
from nasrecon.inference.depth_maps import DepthMaps
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.run import RunSummary, estimate_to_folder
from nasrecon.inference.sizes import nearest_pixels
from nasrecon.inference.wrapper import NetworkWrapper
from nasrecon.nas.depth_refinement import can_refine, refine
from nasrecon.nas.network import Network, Prediction, StereoBatch
from nasrecon.prepare.prepare import PreparedScene
from nasrecon.progress import Progress

NEAR_SHARE, NEAR_PCT = 0.8, 0.5
"""The nearest plane is this part of this percentile of the given depths."""


class DepthRefiner(NetworkWrapper):
    """A network whose estimates start from the priors of the batch; everything else is the network's.

    Raises:
        InputError: if the network has no consistency module for given depth.
    """

    def __init__(self, network: Network) -> None:
        if not can_refine(network):
            raise InputError(f"the network {network.name} does not refine given depth; use lite or paper")
        super().__init__(network)

    def __call__(self, batch: StereoBatch) -> Prediction:
        """Refine the priors of the batch."""
        return refine(self.network, batch)


def refine_to_folder(
    scene: PreparedScene,
    maps: DepthMaps,
    network: Network,
    folder: str | Path,
    options: EstimateOptions | None = None,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> RunSummary:
    """Refine the depth maps of a scene's views into a results folder, as ``estimate_to_folder`` estimates them.

    Args:
        maps: of the views; a view without a map is left out. Normals that they do not bring are fitted to the depth.
        scene, network, folder, options, overwrite, progress: as for ``estimate_to_folder``; the network has a
            consistency module. The nearest plane is that of each map, unless the scene was prepared with ``min_depth``.

    Raises:
        InputError: as ``estimate_to_folder``; if the network does not refine given depth.
    """
    keep_range = scene.settings.get("min_depth") is not None
    settings = {"refined_depths_sha256": maps.digest(scene.scene.views)}
    scene = replace(scene, settings={**scene.settings, **settings})
    return estimate_to_folder(
        scene,
        DepthRefiner(network),
        folder,
        options,
        overwrite=overwrite,
        progress=progress,
        prior=lambda photo: with_prior(photo, maps, keep_range),
    )


def with_prior(photo: Photo, maps: DepthMaps, keep_range: bool = False) -> Photo:
    """Return a photo with the depth and the normals of its map, and the nearest plane that they ask for.

    Raises:
        InputError: if there is no map of it, it cannot be read, or it holds no depth.
    """
    view = photo.view
    read = maps.read(view)
    if read is None:
        raise InputError(f"there is no depth map for it in {maps.folder}")
    depth, normal = read
    row, column = nearest_pixels(depth.shape, (view.camera.height, view.camera.width))
    depth = depth[row, column]
    if not (depth > 0).any():
        raise InputError(f"{maps.path(view)}: no pixel has a depth")
    normal = plane_normals(depth, view.camera) if normal is None else _facing(normal[row, column], depth, view.camera)
    if not keep_range:
        near = NEAR_SHARE * float(np.percentile(depth[depth > 0], NEAR_PCT))
        view = replace(view, depth_range=(near, float(depth.max())), depth_range_from="given depths")
    return replace(photo, view=view, prior=(depth, normal))


def _facing(normal: np.ndarray, depth: np.ndarray, camera: Any) -> np.ndarray:
    """Return unit normals that face the camera, (0, 0, 0) without depth."""
    rays = camera.unproject(camera.pixel_centers(), np.ones(depth.shape))
    away = np.sum(normal * rays, axis=-1, keepdims=True) > 0
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    unit = np.where(away, -normal, normal) / np.where(length > 0, length, 1)
    return np.where(depth[..., None] > 0, unit, 0).astype(np.float32)
