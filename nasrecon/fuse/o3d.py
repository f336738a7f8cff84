"""Everything that is done with Open3D, and the border to its conventions. Only this file imports it, in functions.

Open3D stores float32 and counts in absolute units, so the world is moved and scaled at this border: inside the grid the
unit is the voxel and the origin lies in the scene. Its ``VoxelBlockGrid`` takes the centre of pixel [0, 0] at (0.5,
0.5), as we do (``create_from_depth_image`` does not); tests/fuse/test_o3d.py holds it to that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from nasrecon.errors import NasReconError
from nasrecon.geometry import transform
from nasrecon.types import Camera, Mesh

BLOCK = 8
"""Voxels along the edge of a block; smaller than Open3D's 16, as a thin band then fills its blocks better."""

BLOCK_BYTES = BLOCK**3 * 40
"""Memory of a block at the peak: 8 bytes a voxel, room for growth, and the tables of the mesh extraction."""


def _open3d() -> Any:
    """Import Open3D.

    Raises:
        NasReconError: if it cannot be loaded, with what to install.
    """
    try:
        import open3d
    except ImportError as error:
        raise NasReconError(
            f"Open3D cannot be loaded: {error}. "
            "On Debian and Ubuntu: apt-get install libegl1 libgl1 libx11-6 libusb-1.0-0 libgomp1"
        ) from error
    return open3d


class TsdfGrid:
    """A truncated signed distance field in a sparse grid of voxels, fed with depth maps.

    Args:
        voxel: edge of a voxel [scene units].
        origin: (3,) world point that becomes the grid's origin.
        truncation: the distance at which the field is cut off [voxels].
        band: the distance around a depth map's surface within which voxels are updated, in front of it as free space
            [voxels]; views whose surfaces lie a little apart then update the same blocks, else cracks open between.
        block_count: blocks (of 8 x 8 x 8 voxels) to make room for; more are added when needed, which copies the grid.
    """

    def __init__(self, *, voxel: float, origin: np.ndarray, truncation: float, band: float, block_count: int) -> None:
        o3d = _open3d()
        self._o3d = o3d
        self._voxel = voxel
        self._origin = np.asarray(origin, dtype=np.float64)
        self._truncation, self._band = float(truncation), float(band)
        self._grid = o3d.t.geometry.VoxelBlockGrid(
            ("tsdf", "weight"),
            (o3d.core.float32, o3d.core.float32),
            ((1), (1)),
            1.0,
            BLOCK,
            max(block_count, 1000),
        )

    def touched(self, depth: np.ndarray, camera: Camera, cam_from_world: np.ndarray) -> np.ndarray:
        """Return the places (n, 3) int32 of the blocks of voxels that ``integrate`` updates, in blocks from the
        origin."""
        if not (depth > 0).any():
            return np.zeros((0, 3), np.int32)
        return self._touched(*self._in_voxels(depth, camera, cam_from_world)).numpy()

    def integrate(
        self, depth: np.ndarray, camera: Camera, cam_from_world: np.ndarray, blocks: np.ndarray | None = None
    ) -> None:
        """Add a depth map (H, W) [scene units, 0 = invalid]; only to some of the blocks that it touches, if given."""
        if not (depth > 0).any():
            return
        given = self._in_voxels(depth, camera, cam_from_world)
        of_grid = self._touched(*given) if blocks is None else self._o3d.core.Tensor(np.ascontiguousarray(blocks))
        self._grid.integrate(of_grid, *given[:3], 1.0, given[3], self._truncation)

    def _in_voxels(self, depth: np.ndarray, camera: Camera, cam_from_world: np.ndarray) -> tuple[Any, Any, Any, float]:
        """Return the depth image, K, the extrinsic matrix and the largest depth, lengths in voxels."""
        o3d = self._o3d
        if camera.K[0, 1]:
            depth, camera = _without_skew(depth, camera)
        depth_in_voxels = np.ascontiguousarray(depth / self._voxel, dtype=np.float32)
        cam_from_grid = np.array(cam_from_world, dtype=np.float64)
        cam_from_grid[:3, 3] = transform(cam_from_world, self._origin) / self._voxel
        depth_image = o3d.t.geometry.Image(depth_in_voxels)
        K, extrinsic = o3d.core.Tensor(camera.K), o3d.core.Tensor(cam_from_grid)
        return depth_image, K, extrinsic, 1.01 * float(depth_in_voxels.max())

    def _touched(self, depth_image: Any, K: Any, extrinsic: Any, depth_max: float) -> Any:
        return self._grid.compute_unique_block_coordinates(depth_image, K, extrinsic, 1.0, depth_max, self._band)

    @property
    def blocks(self) -> int:
        """The number of blocks in use."""
        return self._grid.hashmap().size()

    def extract(self, min_weight: float) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices (V, 3) float64 in the world and faces (F, 3) int32 of the zero level.

        Args:
            min_weight: the number of depth maps that must have touched a voxel.
        """
        vertices, faces = self.extract_in_voxels(min_weight)
        return vertices.astype(np.float64) * self._voxel + self._origin, faces

    def extract_in_voxels(self, min_weight: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the same, the vertices (V, 3) float32 in voxels from the origin."""
        try:
            mesh = self._grid.extract_triangle_mesh(min_weight - 0.5)
        except RuntimeError as error:  # a grid without colours and without a surface
            if "SetVertexColors" not in str(error):
                raise
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
        if "indices" not in mesh.triangle or not len(mesh.triangle.indices):
            return np.zeros((0, 3), np.float32), np.zeros((0, 3), np.int32)
        return in_order(mesh.vertex.positions.numpy(), mesh.triangle.indices.numpy().astype(np.int32))


def in_order(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a surface (V, 3), (F, 3) with its vertices ordered by x, y and z, and its faces by their vertices.

    Open3D's threads put them in another order each time.
    """
    order = np.lexsort(vertices.T[::-1])
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order), dtype=np.int32)
    faces = number[faces]
    return vertices[order], faces[np.lexsort(faces.T[::-1])]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals (V, 3) float32: the mean over a vertex's faces, weighted by area; 0 without area."""
    o3d = _open3d()
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector(vertices - vertices.mean(axis=0)), o3d.utility.Vector3iVector(faces)
    )
    return np.asarray(mesh.compute_vertex_normals().vertex_normals, dtype=np.float32)


def _without_skew(depth: np.ndarray, camera: Camera) -> tuple[np.ndarray, Camera]:
    """Shift rows by whole pixels so that K has no skew, which Open3D would ignore; what leaves the image is lost."""
    K = camera.K.copy()
    y = np.arange(camera.height) + 0.5
    shift = np.rint(K[0, 1] * (y - K[1, 2]) / K[1, 1]).astype(int)
    x = np.arange(camera.width) + shift[:, None]
    inside = (x >= 0) & (x < camera.width)
    x = x.clip(0, camera.width - 1)
    rows = np.arange(camera.height)[:, None]
    K[0, 1] = 0
    return np.where(inside, depth[rows, x], 0), Camera(width=camera.width, height=camera.height, K=K)


def poisson_surface(
    xyz: np.ndarray, normal: np.ndarray, cell: float, max_depth: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the screened Poisson surface of points (N, 3) with unit normals (N, 3).

    Args:
        cell: the edge of the octree's smallest cells, as far as ``max_depth`` levels allow [scene units].

    Returns:
        vertices (V, 3) float64, faces (F, 3) int32, and the sampling density (V,): the level of the octree at which
        there are points.
    """
    o3d = _open3d()
    center, extent = xyz.mean(axis=0), float(np.ptp(xyz, axis=0).max())
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.ascontiguousarray((xyz - center) / cell)))
    cloud.normals = o3d.utility.Vector3dVector(np.ascontiguousarray(normal, dtype=np.float64))
    depth = int(np.clip(np.ceil(np.log2(max(1.1 * extent / cell, 2))), 4, max_depth))
    mesh, density = o3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth, linear_fit=True)
    vertices = np.asarray(mesh.vertices) * cell + center
    return vertices, np.asarray(mesh.triangles).astype(np.int32), np.asarray(density)


def decimate(vertices: np.ndarray, faces: np.ndarray, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the vertices and faces of a mesh with about ``target`` faces, by quadric error decimation."""
    o3d = _open3d()
    center, scale = vertices.mean(axis=0), float(np.ptp(vertices, axis=0).max()) or 1.0
    mesh = o3d.geometry.TriangleMesh(
        o3d.utility.Vector3dVector((vertices - center) / scale), o3d.utility.Vector3iVector(faces)
    )
    small = mesh.simplify_quadric_decimation(target)
    return np.asarray(small.vertices) * scale + center, np.asarray(small.triangles).astype(np.int32)


def nearest(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return for each point of a (N, 3) the distance (N,) float64 to the nearest of b (M, 3), M > 0, and its index."""
    o3d = _open3d()
    center = np.mean(b, axis=0)
    search = o3d.core.nns.NearestNeighborSearch(o3d.core.Tensor(np.ascontiguousarray(b - center, dtype=np.float64)))
    search.knn_index()
    index, squared = search.knn_search(o3d.core.Tensor(np.ascontiguousarray(a - center, dtype=np.float64)), 1)
    return np.sqrt(squared.numpy()[:, 0]), index.numpy()[:, 0].astype(np.intp)


def nearest_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return for each point of a (N, 3) the distance (N,) float64 to the nearest point of b (M, 3), M > 0."""
    return nearest(a, b)[0]


def align_rigidly(source: np.ndarray, target: np.ndarray, normal: np.ndarray, distance: float) -> np.ndarray:
    """Return target_from_source (4, 4) by point-to-plane ICP from where the clouds are.

    Args:
        source: (N, 3) points to move; 100,000 of them are used.
        target: (M, 3) points.
        normal: (M, 3) their normals; points without one (0) are left out.
        distance: pairs further apart do not count [scene units]; a second round takes a fifth of it.
    """
    o3d = _open3d()
    known = normal.any(axis=-1)
    center, scale = target.mean(axis=0), distance
    clouds = []
    for points in (source[:: max(1, len(source) // 100_000)], target[known]):
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(np.ascontiguousarray((points - center) / scale)))
        clouds.append(cloud)
    clouds[1].normals = o3d.utility.Vector3dVector(np.ascontiguousarray(normal[known], dtype=np.float64))
    registration = o3d.pipelines.registration
    moved = np.eye(4)
    for reach in (1.0, 0.2):
        result = registration.registration_icp(
            *clouds, reach, moved, registration.TransformationEstimationPointToPlane()
        )
        moved = np.array(result.transformation)
    moved[:3, 3] = moved[:3, 3] * scale + center - moved[:3, :3] @ center
    return moved


def read_points(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a cloud in any format that Open3D knows: points (N, 3) float64 and normals (N, 3) float32, 0 without."""
    cloud = _open3d().io.read_point_cloud(path)
    xyz = np.asarray(cloud.points, dtype=np.float64)
    return xyz, np.asarray(cloud.normals, np.float32) if cloud.has_normals() else np.zeros(xyz.shape, np.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class MeshImage:
    """A mesh as a camera sees it.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth: (H, W) float32, z in the camera [scene units]; 0 where the mesh is not hit.
        normal: (H, W, 3) float32, unit, camera frame, facing the camera; 0 where the mesh is not hit.
    """

    rgb: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


def render_mesh_preview(
    mesh: Mesh,
    camera: Camera,
    cam_from_world: np.ndarray,
    style: Literal["image", "clay", "normal"] = "image",
    background: tuple[int, int, int] = (255, 255, 255),
) -> MeshImage:
    """Render a mesh by ray casting, without a display; lit from the camera, back sides darkened.

    Args:
        mesh: the mesh.
        camera: size and intrinsics of the picture.
        cam_from_world: (4, 4).
        style: the mesh's own colours, grey clay (shows the geometry), or the normals as colours.
        background: colour where no surface is hit.
    """
    o3d = _open3d()
    size = (camera.height, camera.width)
    vertices = transform(cam_from_world, mesh.vertices)
    positive = vertices[:, 2][vertices[:, 2] > 0]
    scale = float(np.median(positive)) if len(positive) else 1.0
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(
        o3d.core.Tensor((vertices / scale).astype(np.float32)), o3d.core.Tensor(mesh.faces.astype(np.uint32))
    )
    # Directions with z = 1, so the distance along the ray comes back as z.
    direction = camera.unproject(camera.pixel_centers(), np.ones(size)).astype(np.float32)
    hit = scene.cast_rays(o3d.core.Tensor(np.concatenate([np.zeros_like(direction), direction], axis=-1)))
    z = hit["t_hit"].numpy()
    is_hit = np.isfinite(z)
    face = mesh.faces[hit["primitive_ids"].numpy()[is_hit]]
    uv = hit["primitive_uvs"].numpy()[is_hit].astype(np.float64)
    corner_weights = np.stack([1 - uv.sum(axis=-1), uv[:, 0], uv[:, 1]], axis=-1)[..., None]

    towards = direction[is_hit] / np.linalg.norm(direction[is_hit], axis=-1, keepdims=True)
    corners = vertices[face]
    is_back = np.sum(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) * towards, axis=-1) > 0
    normal = (mesh.normal[face] * corner_weights).sum(axis=1) @ cam_from_world[:3, :3].T
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    normal = np.where(np.sum(normal * towards, axis=-1, keepdims=True) > 0, -normal, normal)
    light = np.abs(np.sum(normal * towards, axis=-1, keepdims=True))
    if style == "image":
        color = (mesh.rgb[face] * corner_weights).sum(axis=1) * (0.6 + 0.4 * light)
    elif style == "clay":
        color = 220 * (0.15 + 0.85 * light) * np.ones(3)
    else:
        color = 127.5 * (1 + normal * (1, -1, -1))
    color = np.where(is_back[:, None], 0.5 * color, color)

    image = np.broadcast_to(np.array(background, np.uint8), (*size, 3)).copy()
    image[is_hit] = np.rint(color).clip(0, 255).astype(np.uint8)
    normals = np.zeros((*size, 3), np.float32)
    normals[is_hit] = normal
    return MeshImage(rgb=image, depth=np.where(is_hit, z * scale, 0).astype(np.float32), normal=normals)
