"""Scenes of triangles with textured materials, lights and a sky, as Open3D casts rays into them.

World frame: y down, lengths in metres.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike

TEXTURE_SIDE = 256
_SIDES = [TEXTURE_SIDE >> level for level in range(9)]
_STARTS = np.cumsum([0] + [side * side for side in _SIDES])
PYRAMID_SIZE = int(_STARTS[-1])


def pack_pyramid(image: np.ndarray) -> np.ndarray:
    """Pack a texture (256, 256, 3) uint8 and its mip levels down to one texel into int32 texels, level after level."""
    level = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    parts = []
    for _ in _SIDES:
        rgb = level[0].permute(1, 2, 0).reshape(-1, 3).round().to(torch.uint8)
        parts.append(F.pad(rgb, (0, 1), value=255).contiguous().view(torch.int32)[:, 0])
        level = F.avg_pool2d(level, 2) if level.shape[-1] > 1 else level
    return torch.cat(parts).numpy()


@dataclass(frozen=True, kw_only=True)
class Material:
    """What a surface is painted with: texture * gain + bias, in linear light.

    Attributes:
        pyramid: of ``pack_pyramid``; None for plain paint, whose colour is the bias.
        gain, bias: RGB. gloss: strength of highlights. shine: their exponent. glow: RGB light of its own.
    """

    pyramid: np.ndarray | None = None
    gain: np.ndarray = field(default_factory=lambda: np.ones(3, np.float32))
    bias: np.ndarray = field(default_factory=lambda: np.zeros(3, np.float32))
    gloss: float = 0.0
    shine: float = 30.0
    glow: np.ndarray = field(default_factory=lambda: np.zeros(3, np.float32))


@dataclass(frozen=True, kw_only=True)
class Light:
    """A ball that lights ``color`` strong at ``reach`` metres, and falls off with the square of the distance."""

    at: np.ndarray
    color: np.ndarray
    reach: float
    radius: float


@dataclass(frozen=True, kw_only=True)
class Sky:
    """What is seen where nothing is hit, and the light from everywhere.

    Attributes:
        zenith, horizon: RGB radiance. clouds: a texture pyramid that modulates it by ``cloudy``, or None.
        ambient: RGB light from above. below: RGB light from below. shelter: how far around a point the ambient light
            is blocked [m].
    """

    zenith: np.ndarray
    horizon: np.ndarray
    ambient: np.ndarray
    below: np.ndarray
    shelter: float
    clouds: np.ndarray | None = None
    cloudy: float = 0.0


class SceneBuilder:
    """Collect meshes and boxes; ``build`` makes the scene."""

    def __init__(self) -> None:
        self._vertices: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._normals: list[np.ndarray] = []
        self._uv: list[np.ndarray] = []
        self._material: list[np.ndarray] = []
        self._materials: list[Material] = []
        self._count = 0
        self.triangles = 0

    def add_mesh(
        self, vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, uv: np.ndarray, material: np.ndarray,
        materials: list[Material],
    ) -> None:  # fmt: skip
        """Add triangles.

        Args:
            vertices: (V, 3) [m]. faces: (F, 3). normals: (F, 3, 3), of the corners. uv: (F, 3, 2), of the corners.
            material: (F,) into ``materials``.
        """
        self._vertices.append(np.asarray(vertices, np.float32))
        self._faces.append(np.asarray(faces, np.int32) + self._count)
        self._normals.append(np.asarray(normals, np.float32))
        self._uv.append(np.asarray(uv, np.float32))
        self._material.append(np.asarray(material, np.int32) + len(self._materials))
        self._materials += materials
        self._count += len(vertices)
        self.triangles += len(faces)

    def add_quad(
        self,
        center: ArrayLike,
        half_a: ArrayLike,
        half_b: ArrayLike,
        material: Material,
        repeat: tuple[float, float],
        offset: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Add a parallelogram of half sides a and b; the texture repeats ``repeat`` times along each."""
        c, a, b = (np.asarray(x, np.float64) for x in (center, half_a, half_b))
        vertices = np.array([c - a - b, c + a - b, c + a + b, c - a + b])
        uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]]) * repeat + offset
        faces = np.array([[0, 1, 2], [0, 2, 3]])
        normal = np.cross(a, b)
        normals = np.tile(normal / np.linalg.norm(normal), (2, 3, 1))
        self.add_mesh(vertices, faces, normals, uv[faces], np.zeros(2, np.int32), [material])

    def add_box(
        self, center: ArrayLike, half: ArrayLike, material: Material, scale: float, turn: np.ndarray | None = None
    ) -> None:
        """Add a box of half extents (3,) turned by a rotation; the texture repeats ``scale`` times a metre."""
        center, half = np.asarray(center, float), np.asarray(half, float)
        axes = np.eye(3) if turn is None else turn.T
        for i, j, k in ((0, 2, 1), (1, 0, 2), (2, 0, 1)):
            for sign in (-1, 1):
                self.add_quad(
                    center + sign * half[i] * axes[i], half[j] * axes[j], half[k] * axes[k], material,
                    (2 * half[j] * scale, 2 * half[k] * scale), (0.37 * i, 0.21 * sign),
                )  # fmt: skip

    def build(self, lights: list[Light], sky: Sky) -> MeshScene:
        """Return the scene."""
        return MeshScene(
            *(np.concatenate(x) for x in (self._vertices, self._faces, self._normals, self._uv, self._material)),
            self._materials, lights, sky,
        )  # fmt: skip


def tube(
    path: np.ndarray, radius: float, sides: int = 6
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a tube around a path (N, 3) for ``SceneBuilder.add_mesh``: vertices, faces, normals, uv, material 0."""
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    aside = np.cross(along, np.where(np.abs(along[:, 1:2]) < 0.9, [[0.0, 1, 0]], [[1.0, 0, 0]]))
    aside /= np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-9)
    over = np.cross(along, aside)
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    out = aside[:, None] * np.cos(angle)[:, None] + over[:, None] * np.sin(angle)[:, None]
    vertices = (path[:, None] + radius * out).reshape(-1, 3)
    ring, turn = np.arange(len(path) - 1)[:, None] * sides, np.arange(sides)
    a, b = (ring + turn).ravel(), (ring + (turn + 1) % sides).ravel()
    faces = np.concatenate([np.stack([a, b, a + sides], 1), np.stack([b, b + sides, a + sides], 1)])
    return vertices, faces, out.reshape(-1, 3)[faces], np.zeros((len(faces), 3, 2)), np.zeros(len(faces), np.int32)


class MeshScene:
    """A ray-cast scene; ``cast`` and ``blocked`` take float32 rays (N, 6) of origin and direction."""

    def __init__(
        self, vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, uv: np.ndarray, material: np.ndarray,
        materials: list[Material], lights: list[Light], sky: Sky,
    ) -> None:  # fmt: skip
        import open3d as o3d

        self._tensor = o3d.core.Tensor
        self._scene = o3d.t.geometry.RaycastingScene(nthreads=1)
        self._scene.add_triangles(self._tensor(vertices), self._tensor(faces.astype(np.uint32)))
        self.lights, self.sky = lights, sky
        self.normals, self.uv, self.material = (torch.from_numpy(x) for x in (normals, uv, material.astype(np.int64)))
        a, b, c = (vertices[faces[:, i]] for i in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        ta, tb = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
        texels = np.abs(ta[:, 0] * tb[:, 1] - ta[:, 1] * tb[:, 0]) * TEXTURE_SIDE**2
        self.density = torch.from_numpy(np.sqrt(texels / np.maximum(area, 1e-12)).astype(np.float32))
        self._pack_materials(materials)

    def _pack_materials(self, materials: list[Material]) -> None:
        """Join the pyramids in use into one table."""
        self.textured = torch.tensor([material.pyramid is not None for material in materials])
        tables: list[np.ndarray] = [np.full(PYRAMID_SIZE, -1, np.int32)]
        known: dict[int, int] = {}
        base = []
        for pyramid in [material.pyramid for material in materials] + [self.sky.clouds]:
            if pyramid is None:
                base.append(0)
                continue
            if id(pyramid) not in known:
                known[id(pyramid)] = len(tables)
                tables.append(pyramid)
            base.append(known[id(pyramid)] * PYRAMID_SIZE)
        self.table = torch.from_numpy(np.concatenate(tables))
        self.base, self.cloud_base = torch.tensor(base[:-1]), base[-1]
        stack = lambda name: torch.from_numpy(np.array([getattr(x, name) for x in materials], np.float32))  # noqa: E731
        self.gain, self.bias, self.glow = stack("gain"), stack("bias"), stack("glow")
        self.gloss, self.shine = stack("gloss"), stack("shine")

    def cast(self, rays: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return what rays hit.

        Returns:
            t (N,), in lengths of the direction, infinite for a miss; face (N,) int64, 0 for a miss; at (N, 2),
            barycentric; normal (N, 3), of the face.
        """
        hit = self._scene.cast_rays(self._tensor(rays.numpy()))
        t = torch.from_numpy(hit["t_hit"].numpy())
        face = torch.from_numpy(hit["primitive_ids"].numpy().astype(np.int64))
        return {
            "t": t, "face": torch.where(torch.isfinite(t), face, 0),
            "at": torch.from_numpy(hit["primitive_uvs"].numpy()),
            "normal": torch.from_numpy(hit["primitive_normals"].numpy()),
        }  # fmt: skip

    def blocked(self, rays: torch.Tensor, far: float = 1.0) -> torch.Tensor:
        """Return whether anything (N,) lies within ``far`` lengths of the direction."""
        return torch.from_numpy(self._scene.test_occlusions(self._tensor(rays.numpy()), 0.0, far).numpy())

    def sample(self, base: torch.Tensor, uv: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Return colours (N, 3) in [0, 1] of the textures at table positions ``base`` (N,).

        They are bilinear in the mip level nearest to ``level`` (N,); uv (N, 2) in repeats, v upwards.
        """
        rung = level.round().clamp(0, len(_SIDES) - 1).long()
        side = torch.tensor(_SIDES)[rung]
        start = base + torch.from_numpy(_STARTS)[rung]
        mask = side - 1  # sides are powers of two
        x = uv[:, 0] * side - 0.5
        y = -uv[:, 1] * side - 0.5
        x0, y0 = x.floor(), y.floor()
        fx, fy = (x - x0)[:, None], (y - y0)[:, None]
        x0, y0 = x0.long(), y0.long()
        left, right = x0 & mask, (x0 + 1) & mask
        top, bottom = start + (y0 & mask) * side, start + ((y0 + 1) & mask) * side
        read = lambda index: self.table[index].view(torch.uint8).view(-1, 4)[:, :3].float()  # noqa: E731
        upper = torch.lerp(read(top + left), read(top + right), fx)
        lower = torch.lerp(read(bottom + left), read(bottom + right), fx)
        return torch.lerp(upper, lower, fy) / 255
