"""Filtered depth maps become a surface: the zero level of a truncated signed distance field, or a Poisson surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.fuse import o3d
from nasrecon.fuse.filter import FilteredView
from nasrecon.fuse.options import FuseOptions
from nasrecon.fuse.overlap import CoarseDepth, median_footprint
from nasrecon.machine import physical_memory
from nasrecon.types import PointCloud

_FOOTPRINTS = 2.0
TRUNCATION = 4.0
BAND = 8.0
_GRID_BYTES = 3e9
_MESH_BYTES = o3d.BLOCK_BYTES // 2  # of the faces in a block of voxels, while parts of the mesh are searched for
_MIN_AREA = 1e-6
_MIN_POINTS = 100
_MAX_OCTREE_DEPTH = 10
_SPARSEST = 0.02
_SKETCHES_AT_ONCE = 50
_REACH = 3.0


Parts = list[tuple[np.ndarray, np.ndarray, int]]
"""Parts of a surface: vertices (V, 3), faces (F, 3), and how many blocks of voxels are in use."""


@dataclass(frozen=True, kw_only=True)
class Voxel:
    """The mesh's voxel and where it comes from.

    Attributes:
        size: its edge [scene units].
        reason: one line for people.
        blocks: how many blocks of the grid the scene is expected to fill.
    """

    size: float
    reason: str
    blocks: int


def choose_voxel(sketches: Sequence[CoarseDepth], options: FuseOptions) -> Voxel:
    """Choose the voxel: the option, else 2 pixels at the median depth, enlarged until the grid fits 3 GB (times
    ``options.blocks``).

    Raises:
        InputError: if the voxel that is asked for needs more than the machine's memory.
    """
    footprint = median_footprint(sketches)
    if options.voxel is not None:
        blocks = _expected_blocks(sketches, options.voxel)
        # In blocks the grid is no limit, but the mesh as a whole is.
        need, have = blocks * (o3d.BLOCK_BYTES if options.blocks == 1 else _MESH_BYTES), physical_memory()
        if need > 0.8 * have:
            fits = options.voxel * (need / (0.8 * have)) ** 0.5
            raise InputError(
                f"a voxel of {options.voxel:g} needs about {need / 1e9:.0f} GB, this machine has {have / 1e9:.0f} GB: "
                f"ask for {fits:.2g} or more (a pixel is {footprint:.2g} wide at the median depth)"
            )
        return Voxel(size=options.voxel, reason="as asked", blocks=blocks)
    size = _FOOTPRINTS * footprint
    reason = f"{_FOOTPRINTS:g} pixels at the median depth"
    blocks = _expected_blocks(sketches, size)
    most = _GRID_BYTES * (1 if options.blocks == "auto" else options.blocks)
    while blocks * o3d.BLOCK_BYTES > most:
        size *= max(1.05, (blocks * o3d.BLOCK_BYTES / most) ** 0.5)
        blocks = _expected_blocks(sketches, size)
        reason = f"{size / footprint:.3g} pixels at the median depth"
        reason += f", so that the grid stays under {most / 1e9:.0f} GB"
    return Voxel(size=size, reason=reason, blocks=blocks)


def _expected_blocks(sketches: Sequence[CoarseDepth], voxel: float) -> int:
    """Estimate how many blocks the band around the surface fills, from the coarse samples of all views."""
    edge = voxel * o3d.BLOCK
    # Blocks finer than the gaps between the samples would be missed: count coarser ones, a surface fills them by the
    # square.
    coarse = max(edge, 1.5 * max(s.pixels_per_sample for s in sketches) * median_footprint(sketches))
    cells = np.zeros((0, 3), np.int64)
    for start in range(0, len(sketches), _SKETCHES_AT_ONCE):
        some = [
            np.floor(s.points_in_world / coarse).astype(np.int64) for s in sketches[start : start + _SKETCHES_AT_ONCE]
        ]
        cells = np.unique(np.concatenate([cells, *some]), axis=0)
    touched = len(cells) * (coarse / edge) ** 2
    return int((1 + 2 * BAND / o3d.BLOCK) * touched) + 1


class MeshBuilder:
    """Integrate filtered views one by one and take the mesh out at the end.

    Args:
        voxel: from ``choose_voxel``.
        origin: (3,) a world point near the scene's middle.
    """

    def __init__(self, voxel: Voxel, origin: np.ndarray) -> None:
        self._voxel = voxel
        # An update asks for room for its own blocks beside all present ones: twice the expected count avoids copies.
        self._grid = o3d.TsdfGrid(
            voxel=voxel.size, origin=origin, truncation=TRUNCATION, band=BAND, block_count=voxel.blocks
        )

    def add(self, filtered: FilteredView) -> None:
        """Integrate the kept pixels of a view."""
        self._grid.integrate(filtered.depth, filtered.view.camera, filtered.view.cam_from_world)

    def parts(self, min_weight: int) -> Parts:
        """Return the surface where ``min_weight`` views or more touched it: one part."""
        return [(*self._grid.extract(min_weight=min_weight), self._grid.blocks)]

    def surface(self, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
        """Return the vertices (V, 3) and faces (F, 3) of the surface.

        Raises:
            EmptyResultError: if the field has no surface.
        """
        ((vertices, faces, used),) = parts
        if not len(faces):
            raise no_surface(used, self._voxel)
        return vertices, faces


def no_surface(blocks: int, voxel: Voxel) -> EmptyResultError:
    """Return the error of a field without a surface, in which so many blocks of voxels are filled."""
    return EmptyResultError(
        f"the signed distance field has no surface: the filtered depth maps touch {blocks} blocks of voxels of "
        f"{voxel.size:.3g}. Ask for a smaller voxel, or loosen the filter so that it leaves fewer holes"
    )


def poisson_mesh(cloud: PointCloud, cell: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices (V, 3) and faces (F, 3) of the screened Poisson surface of a cloud, where it has points.

    The surface is closed where the cloud is not. Trimmed is what lies further from the cloud than 3 cells, and the
    2 % where the points are the most sparse.

    Raises:
        EmptyResultError: if the cloud is too small.
    """
    known = cloud.normal.any(axis=-1)
    if np.count_nonzero(known) < _MIN_POINTS:
        raise EmptyResultError(
            f"the Poisson surface needs {_MIN_POINTS} points with normals, the cloud has {np.count_nonzero(known)}: "
            f"take the method tsdf, or loosen the filter"
        )
    vertices, faces, density = o3d.poisson_surface(cloud.xyz[known], cloud.normal[known], cell, _MAX_OCTREE_DEPTH)
    keep = density > np.quantile(density, _SPARSEST)
    keep[keep] = o3d.nearest_distance(vertices[keep], cloud.xyz) < _REACH * cell
    return vertices, faces[keep[faces].all(axis=1)]


def clean_faces(
    vertices: np.ndarray, faces: np.ndarray, edge: float, min_component_faces: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a mesh without faces that have no area, small parts, and non-manifold vertices.

    Args:
        vertices, faces: (V, 3) and (F, 3).
        edge: the usual length of an edge [scene units]; what is no area follows from it.
        min_component_faces: parts with fewer faces are removed.

    Raises:
        EmptyResultError: if every part is too small.
    """
    sizes = component_sizes(faces, len(vertices))
    keep = sizes >= min_component_faces
    if not keep.any():
        raise EmptyResultError(
            f"all parts of the mesh are small: the largest has {sizes.max(initial=0)} faces, min_component_faces asks "
            f"for {min_component_faces}. Lower min_component_faces (0 keeps all)"
        )
    faces = faces[keep & (_areas(vertices, faces) > _MIN_AREA * edge**2)]
    return split_touching(vertices, faces)


def component_sizes(faces: np.ndarray, vertex_count: int) -> np.ndarray:
    """Return for each face (F,) the number of faces of its part; faces that share a vertex are of one part."""
    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    of_face = component_roots(edges, vertex_count)[faces[:, 0]]
    return np.bincount(of_face, minlength=vertex_count)[of_face]


def component_roots(edges: np.ndarray, count: int) -> np.ndarray:
    """Return for each of ``count`` nodes (n,) the smallest node that the edges (E, 2) connect it with."""
    root = np.arange(count)
    while len(edges):
        # Hang the larger root of every edge under the smaller, then let every node point straight at its root.
        ends = np.sort(root[edges], axis=1)
        np.minimum.at(root, ends[:, 1], ends[:, 0])
        while not np.array_equal(root, above := root[root]):
            root = above
        edges = edges[root[edges[:, 0]] != root[edges[:, 1]]]
    return root


def _areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the area (F,) of each face."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=-1) / 2


def split_touching(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give every fan of faces around a vertex a vertex of its own, so that no vertex is non-manifold.

    Corners of faces at one vertex stay together where the faces share an edge there. Vertices that no face uses go.
    """
    corner = np.arange(faces.size).reshape(-1, 3)
    start = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    ends = np.concatenate([corner[:, [0, 1]], corner[:, [1, 2]], corner[:, [2, 0]]])
    turned = start[:, 0] > start[:, 1]
    start[turned], ends[turned] = start[turned][:, ::-1], ends[turned][:, ::-1]
    order = np.lexsort((start[:, 1], start[:, 0]))
    start, ends = start[order], ends[order]
    same = (start[1:] == start[:-1]).all(axis=1)
    connected = np.concatenate([np.stack([ends[:-1][same, k], ends[1:][same, k]], axis=1) for k in (0, 1)])
    first, index = np.unique(component_roots(connected, faces.size), return_inverse=True)
    chosen = faces.ravel()[first]
    return vertices[chosen], index.reshape(-1, 3).astype(np.int32)
