"""Distances between an estimated and a true surface as colours: a PLY to turn, and a PNG from the reference's views."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nasrecon.atomic import write_atomically
from nasrecon.evaluation.surface import SurfaceScore
from nasrecon.evaluation.surface_reference import DepthView, SurfaceReference
from nasrecon.fuse.save import save_cloud
from nasrecon.geometry import array_indices, transform
from nasrecon.results.preview import INVALID_RGB, color_scalar, color_table, length_label, png_bytes
from nasrecon.types import Camera, PointCloud

_PICTURES = 3
_WIDTH = 560
_MARGIN = 30
_BACKGROUND = 255


def write_error_map(score: SurfaceScore, reference: SurfaceReference, path: Path) -> tuple[Path, Path]:
    """Write PATH.ply and PATH.png and return the two paths; an ending of ``path`` is replaced.

    The PLY holds the estimate's samples, coloured by their distance to the reference: dark violet 0, light yellow the
    largest of the score's distances and beyond, grey outside of the visible part. The PNG shows them from three views
    of the reference (from three sides where it has none), and below the reference's samples coloured by their distance
    to the estimate.
    """
    top = score.distances[-1].distance
    samples, truth = score.samples, reference.samples
    rgb = color_scalar(score.errors[None], 0, top)[0]
    cloud = PointCloud(
        xyz=samples.xyz, normal=samples.normal, rgb=rgb, support=np.ones(len(rgb), np.int32), unit=samples.unit
    )
    save_cloud(cloud, path.with_suffix(".ply"))
    gaps = color_scalar(score.gaps[None], 0, top)[0]
    views = _pictured_views(reference)
    rows = [
        np.concatenate([_splat(xyz, colors, view, reference.cell) for view in views], axis=1)
        for xyz, colors in ((samples.xyz, rgb), (truth.xyz, gaps))
    ]
    labels = (
        f"{Path(score.name).name}: distance to the reference",
        f"reference: distance to {Path(score.name).name}",
    )
    parts = [part for label, row in zip(labels, rows, strict=True) for part in (_caption(label, row.shape[1]), row)]
    scale = _scale(f"0 to {length_label(top, samples.unit)} and beyond; grey: not counted", rows[0].shape[1])
    write_atomically(path.with_suffix(".png"), png_bytes(np.concatenate([*parts, scale])))
    return path.with_suffix(".ply"), path.with_suffix(".png")


def _pictured_views(reference: SurfaceReference) -> list[tuple[Camera, np.ndarray]]:
    """Return cameras (560 px wide) and their cam_from_world: three of the reference's views, else three sides of it."""
    views = reference.views
    if views:
        at = np.unique(np.linspace(0, len(views) - 1, _PICTURES + 2)[1:-1].round().astype(int))
        return [_small(views[i]) for i in at]
    xyz = reference.samples.xyz
    center, size = (
        np.median(xyz, axis=0),
        np.linalg.norm(np.quantile(xyz, 0.98, axis=0) - np.quantile(xyz, 0.02, axis=0)),
    )
    height = _WIDTH * 3 // 4
    camera = Camera(
        width=_WIDTH, height=height, K=np.array([[_WIDTH, 0, _WIDTH / 2], [0, _WIDTH, height / 2], [0, 0, 1.0]])
    )
    chosen = []
    for turn in np.radians([0, 120, 240]):
        R = np.array([[np.cos(turn), 0, -np.sin(turn)], [0, 1, 0], [np.sin(turn), 0, np.cos(turn)]])
        cam_from_world = np.eye(4)
        cam_from_world[:3, :3] = R
        cam_from_world[:3, 3] = -R @ center + (0, 0, 1.3 * size)
        chosen.append((camera, cam_from_world))
    return chosen


def _small(view: DepthView) -> tuple[Camera, np.ndarray]:
    camera = view.camera
    return camera.resized(_WIDTH, round(_WIDTH * camera.height / camera.width)), view.cam_from_world


def _splat(xyz: np.ndarray, rgb: np.ndarray, view: tuple[Camera, np.ndarray], size: float) -> np.ndarray:
    """Draw points (N, 3) as squares of edge 2 ``size``, the nearest in front; returns (H, W, 3) uint8."""
    camera, cam_from_world = view
    in_cam = transform(cam_from_world, xyz)
    z = in_cam[:, 2]
    front = z > 0
    centers = camera.project(in_cam[front])
    z, rgb = z[front], rgb[front]
    reach = np.ceil(np.minimum(size * camera.K[0, 0] / z, 3)).astype(np.intp)
    depth = np.full(camera.height * camera.width, np.inf)
    picture = np.full((camera.height * camera.width, 3), _BACKGROUND, np.uint8)
    for dy in range(-3, 4):
        for dx in range(-3, 4):
            row, column, inside = array_indices(centers + np.array([dx, dy]), camera.width, camera.height)
            at = np.flatnonzero((reach >= max(abs(dx), abs(dy))) & inside)
            pixel = row[at] * camera.width + column[at]
            np.minimum.at(depth, pixel, z[at])
            nearest = z[at] <= depth[pixel]
            picture[pixel[nearest]] = rgb[at[nearest]]
    return picture.reshape(camera.height, camera.width, 3)


def _caption(text: str, width: int) -> np.ndarray:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (width, _MARGIN), "white")
    ImageDraw.Draw(image).text((8, 6), text, fill="black", font=ImageFont.load_default(16))
    return np.asarray(image)


def _scale(text: str, width: int) -> np.ndarray:
    """Draw the colours from 0 to the largest distance, the text to the right."""
    bar = _caption("", width).copy()
    colors = color_table()
    bar[6:24, 8 : 8 + len(colors)] = colors
    bar[6:24, 8 + len(colors) + 6 : 8 + len(colors) + 24] = INVALID_RGB
    label = _caption(text, width - 8 - len(colors) - 32)
    bar[:, 8 + len(colors) + 32 :] = label
    return bar
