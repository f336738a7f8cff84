"""The true surface that clouds and meshes are scored against, and where it was seen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.fuse.save import load_surface
from nasrecon.geometry import array_indices, normals_from_depth, transform
from nasrecon.ingest.open_scene import open_scene
from nasrecon.ingest.true_depth import read_true_depth
from nasrecon.progress import LogProgress, Progress
from nasrecon.types import Camera, Unit, View

_NORMAL_STEP_PX = 4
_MAX_SAMPLES = 4_000_000
_BEHIND = 10.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceSamples:
    """Points spread evenly over a surface.

    Attributes:
        xyz: (N, 3) float64, world frame [scene units].
        normal: (N, 3) float32, unit, world frame; 0 where it is unknown.
        unit: "m", "mm" or "unknown".
    """

    xyz: np.ndarray
    normal: np.ndarray
    unit: Unit = "unknown"


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthView:
    """A camera and the true depth that it sees: depth (H, W) float32, 0 = unknown."""

    camera: Camera
    cam_from_world: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceReference:
    """A true surface.

    Attributes:
        samples: points of it, one in each cell.
        cell: edge of the cells [scene units].
        views: the cameras that saw it; empty: all of space counts as seen.
        source: one line for people.
    """

    samples: SurfaceSamples
    cell: float
    views: tuple[DepthView, ...] = ()
    source: str = ""

    def sees(self, xyz: np.ndarray, distance: float) -> np.ndarray:
        """Return for points (N, 3) whether they lie in the visible part, as a mask (N,).

        A point does where a view has true depth at its pixel and the point is not further behind the surface there
        than 10 times ``distance`` [scene units]: what lies deeper was never seen, so nothing is known of it.
        """
        if not self.views:
            return np.ones(len(xyz), bool)
        visible = np.zeros(len(xyz), bool)
        for view in self.views:
            rest = np.flatnonzero(~visible)
            if not len(rest):
                break
            camera = view.camera
            in_cam = transform(view.cam_from_world, xyz[rest])
            z = in_cam[:, 2]
            row, column, inside = array_indices(camera.project(in_cam), camera.width, camera.height)
            depth = view.depth[row, column]
            visible[rest] = inside & (depth > 0) & (z <= depth + _BEHIND * distance)
        return visible


def read_reference(
    path: Path, *, cell: float | None = None, every: int = 1, progress: Progress | None = None
) -> SurfaceReference:
    """Read a true surface: a mesh or cloud file, or a folder of views with true depth (the union of their depths).

    Args:
        path: the file or the folder; a folder in any layout that ``open_scene`` and ``read_true_depth`` know.
        cell: distance between samples [scene units]; default: 1/1000 of the surface's extent.
        every: take every Nth view of a folder.
        progress: receives a step after every view of a folder.

    Raises:
        InputError: if there is no such file or folder, it cannot be read, or no view of the folder has true depth.
    """
    if path.is_dir():
        return _union_of_depths(path, cell, every, progress or LogProgress())
    samples = load_samples(path, cell)
    cell = cell or extent(samples.xyz) / 1000
    kept = one_per_cell(samples.xyz, cell)
    samples = SurfaceSamples(xyz=samples.xyz[kept], normal=samples.normal[kept], unit=samples.unit)
    return SurfaceReference(samples=samples, cell=cell, source=f"{path}, {len(kept):,} points")


def load_samples(path: Path, cell: float | None) -> SurfaceSamples:
    """Read a cloud as it is, or spread points over a mesh: about two in each square of edge ``cell`` [scene units].

    Raises:
        InputError: if it cannot be read or is empty.
    """
    vertices, normal, faces, unit = load_surface(path)
    if faces is None:
        return SurfaceSamples(xyz=vertices, normal=normal, unit=unit)
    return SurfaceSamples(unit=unit, **_spread(vertices, normal, faces, cell or extent(vertices) / 1000))


def _spread(vertices: np.ndarray, normal: np.ndarray, faces: np.ndarray, cell: float) -> dict[str, np.ndarray]:
    """Draw points on a mesh, as many for each area as for any other; the same ones at every call."""
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=-1) / 2
    total = np.cumsum(area)
    count = int(min(_MAX_SAMPLES, max(1000, 2 * total[-1] / cell**2)))
    random = np.random.default_rng(0)
    face = np.searchsorted(total, (np.arange(count) + random.random(count)) / count * total[-1]).clip(0, len(area) - 1)
    u, v = random.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    a, b, c = (corners[face, k] for k in range(3))
    na, nb, nc = (normal[faces[face, k]] for k in range(3))
    mean = na * (1 - u - v) + nb * u + nc * v
    return {"xyz": a * (1 - u - v) + b * u + c * v, "normal": unit_length(mean).astype(np.float32)}


def _union_of_depths(path: Path, cell: float | None, every: int, progress: Progress) -> SurfaceReference:
    scene = open_scene(path)
    views: list[DepthView] = []
    xyz, normal = np.zeros((0, 3)), np.zeros((0, 3), np.float32)
    waiting: list[tuple[np.ndarray, np.ndarray]] = []
    chosen = scene.views[::every]
    for i, view in enumerate(chosen):
        depth = read_true_depth(view)
        if depth is not None and (depth > 0).any():
            views.append(DepthView(camera=view.camera, cam_from_world=view.cam_from_world, depth=depth))
            waiting.append(_lifted(view, depth))
            cell = cell or extent(waiting[0][0]) / 1000
        if waiting and (len(waiting) == 16 or i + 1 == len(chosen)):
            xyz = np.concatenate([xyz, *(points for points, _ in waiting)])
            normal = np.concatenate([normal, *(normals for _, normals in waiting)])
            waiting = []
            kept = one_per_cell(xyz, cell or 1.0)
            xyz, normal = xyz[kept], normal[kept]
        progress.update("reference", i + 1, len(chosen))
    if not views:
        raise InputError(
            f"{path}: none of the {len(chosen)} views has true depth; --reference takes a mesh or cloud file, or a "
            f"folder of views with true depth in a layout that `nasrecon eval frames` reads"
        )
    source = f"{path}: union of the true depths of {len(views)} views, {len(xyz):,} points"
    samples = SurfaceSamples(xyz=xyz, normal=normal, unit=scene.unit)
    return SurfaceReference(samples=samples, cell=float(cell or 1.0), views=tuple(views), source=source)


def _lifted(view: View, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points (n, 3) of a depth map and their normals (n, 3), in the world; pixels without normal go.

    The differences are taken over 4 px: depth that is stored in millimetres is too coarse for neighbouring pixels.
    """
    step = _NORMAL_STEP_PX
    normal = np.zeros((*depth.shape, 3), np.float32)
    for dy in range(step):
        for dx in range(step):
            part = depth[dy::step, dx::step]
            K = view.camera.K.copy()
            K[0] /= step
            K[1] /= step
            K[:2, 2] += 0.5 - (np.array([dx, dy]) + 0.5) / step
            camera = Camera(width=part.shape[1], height=part.shape[0], K=K)
            normal[dy::step, dx::step] = normals_from_depth(part, camera)
    known = (depth > 0) & normal.any(axis=-1)
    points = view.camera.unproject_depth(depth)[known]
    world_from_cam = view.world_from_cam
    return transform(world_from_cam, points), normal[known] @ world_from_cam[:3, :3].T.astype(np.float32)


def one_per_cell(xyz: np.ndarray, cell: float) -> np.ndarray:
    """Return the indices, sorted, of the first point in each cell of edge ``cell``."""
    place = np.floor((xyz - xyz.min(axis=0)) / cell).astype(np.int64)
    size = place.max(axis=0) + 1
    key = (place[:, 0] * size[1] + place[:, 1]) * size[2] + place[:, 2]
    return np.sort(np.unique(key, return_index=True)[1])


def extent(xyz: np.ndarray) -> float:
    """Return the diagonal of the box that holds 98 % of the points (N, 3) along each axis."""
    low, high = np.quantile(xyz[:: max(1, len(xyz) // 100_000)], [0.01, 0.99], axis=0)
    return float(np.linalg.norm(high - low)) or 1.0


def unit_length(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (..., 3) at unit length; 0 stays 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
