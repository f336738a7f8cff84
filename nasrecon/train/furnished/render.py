"""Views of triangle scenes: exact depth and normals of the pixel centres, colours with soft shadows, smooth at edges.

Every pixel's centre is cast and lit once, with one shadow ray to each light and one ambient ray, whose results are
averaged over 4x4 pixels of the same surface. Pixels at edges are then cast again at four points.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nasrecon.train.furnished.scene import MeshScene

FAR_DEPTH = 1000.0
"""z-depth [m] written where a ray hits nothing."""
_BOUNCED = 0.25  # of the ambient light: what reaches sheltered places from things beside them


@dataclass(frozen=True, kw_only=True)
class _Surface:
    """Hit points of N rays: hit (N,), point (N, 3), normal towards the camera, shading normal, unit direction."""

    hit: torch.Tensor
    t: torch.Tensor
    face: torch.Tensor
    material: torch.Tensor
    point: torch.Tensor
    normal: torch.Tensor
    smooth: torch.Tensor
    toward: torch.Tensor
    uv: torch.Tensor


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the dot products (N,) of vectors (N, 3); much faster than a sum over an axis of three."""
    return torch.addcmul(torch.addcmul(a[..., 0] * b[..., 0], a[..., 1], b[..., 1]), a[..., 2], b[..., 2])


def _unit(a: torch.Tensor) -> torch.Tensor:
    return a * _dot(a, a).clamp_min(1e-20).rsqrt()[..., None]


def _blend(corners: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Interpolate what three corners (N, 3, C) have at barycentric coordinates (N, 2)."""
    first = corners[:, 0]
    return torch.addcmul(torch.addcmul(first, corners[:, 1] - first, at[:, :1]), corners[:, 2] - first, at[:, 1:])


@functools.cache
def _pattern() -> tuple[torch.Tensor, torch.Tensor]:
    """Return 16 points in the unit ball and 16 on the unit sphere, evenly spread, in shuffled order (16, 3)."""
    i = torch.arange(16) + 0.5
    height, angle = 1 - 2 * i / 16, 2.399963 * torch.arange(16)
    ring = (1 - height**2).sqrt()
    sphere = torch.stack([ring * angle.cos(), ring * angle.sin(), height], dim=1)
    order = torch.tensor([0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5])
    radius = ((torch.arange(16) * 7 % 16 + 0.5) / 16) ** 0.5
    return (sphere * radius[:, None])[order], sphere[order]


def render_view(
    scene: MeshScene, K: torch.Tensor, world_from_cam: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Render one view.

    Args:
        K: (3, 3) [px], half-pixel centres. world_from_cam: (4, 4). size: (H, W).

    Returns:
        linear radiance (3, H, W), z-depth (H, W) (``FAR_DEPTH`` where no ray hits) and normals (3, H, W) in the camera
        frame, facing the camera.
    """
    H, W = size
    y, x = torch.meshgrid(torch.arange(H) + 0.5, torch.arange(W) + 0.5, indexing="ij")
    centers = torch.stack([x, y], dim=-1).view(-1, 2)
    eye, R = world_from_cam[:3, 3], world_from_cam[:3, :3]
    spread = float(1 / K[0, 0])
    surface = _cast(scene, centers, K, eye, R)
    visible = _light_reaching(scene, surface, size)
    color = _shade(scene, surface, visible, spread)
    edge = _edges(surface, size).nonzero()[:, 0]
    if len(edge):
        color[edge] = _shade_edges(scene, surface, visible, centers, edge, K, eye, R, size)
    depth = torch.where(surface.hit, surface.t, FAR_DEPTH)
    normal = torch.where(surface.hit[:, None], surface.normal @ R, torch.tensor([0.0, 0.0, -1.0]))
    return color.T.reshape(3, H, W), depth.view(H, W), normal.T.reshape(3, H, W)


def _cast(scene: MeshScene, pixels: torch.Tensor, K: torch.Tensor, eye: torch.Tensor, R: torch.Tensor) -> _Surface:
    ray = F.pad(pixels, (0, 1), value=1.0) @ torch.linalg.inv(K).T @ R.T  # z = 1 in the camera: t is z-depth
    hit = scene.cast(torch.cat([eye.expand_as(ray), ray], dim=1))
    is_hit = torch.isfinite(hit["t"])
    t = torch.where(is_hit, hit["t"], 1.0)
    toward = _unit(ray)
    face = hit["face"]
    normal = hit["normal"]
    normal = torch.where((_dot(normal, toward) > 0)[:, None], -normal, normal)
    smooth = _unit(_blend(scene.normals[face], hit["at"]))
    smooth = torch.where((_dot(smooth, normal) < 0)[:, None], -smooth, smooth)
    return _Surface(
        hit=is_hit,
        t=t,
        face=face,
        material=scene.material[face],
        point=torch.addcmul(eye, ray, t[:, None]),
        normal=normal,
        smooth=smooth,
        toward=toward,
        uv=_blend(scene.uv[face], hit["at"]),
    )


def _light_reaching(scene: MeshScene, surface: _Surface, size: tuple[int, int]) -> torch.Tensor:
    """Return the shares (N, 1 + L) of ambient light and of each light that reach the hit points."""
    H, W = size
    ball, sphere = _pattern()
    tile = ((torch.arange(H)[:, None] % 4) * 4 + torch.arange(W) % 4).view(-1)
    start = surface.point + surface.normal * (1e-3 * surface.t.clamp(0.3, 30))[:, None]
    open_sky = torch.zeros(len(tile))
    for turn in (tile, (tile + 7) % 16):
        around = _unit(surface.normal * 1.02 + sphere[turn])
        open_sky += ~scene.blocked(torch.cat([start, around], dim=1), scene.sky.shelter)
    free = [_BOUNCED + (1 - _BOUNCED) / 2 * open_sky]
    for light in scene.lights:
        to_light = torch.from_numpy(light.at).float() + ball[tile] * light.radius - start
        free.append(~scene.blocked(torch.cat([start, to_light], dim=1), 0.999))
    maps = torch.stack([share.float() for share in free]).view(-1, H, W)
    return _smooth_within(maps, surface, size).flatten(1).T


def _smooth_within(maps: torch.Tensor, surface: _Surface, size: tuple[int, int]) -> torch.Tensor:
    """Average maps (C, H, W) over 4x4 pixels (rows, then columns) that lie on the same smooth surface."""
    H, W = size
    point, normal, slack = surface.point.view(H, W, 3), surface.normal.view(H, W, 3), (0.01 * surface.t).view(H, W)
    for axis in (0, 1):
        total, weights = maps.clone(), torch.ones(H, W)
        for step, share in ((1, 1.0), (2, 0.5)):
            n = size[axis]
            before, after = (slice(None),) * axis + (slice(0, n - step),), (slice(None),) * axis + (slice(step, n),)
            flat = _dot(point[after] - point[before], normal[before]).abs() < slack[before]
            same = (flat & (_dot(normal[after], normal[before]) > 0.8)).float() * share
            total[:, *before] += maps[:, *after] * same
            total[:, *after] += maps[:, *before] * same
            weights[before] += same
            weights[after] += same
        maps = total / weights
    return maps


def _shade(scene: MeshScene, surface: _Surface, visible: torch.Tensor, spread: float) -> torch.Tensor:
    """Return the radiance (N, 3) towards the camera; ``spread`` is a pixel's width at z = 1."""
    material, sky = surface.material, scene.sky
    cosine = _dot(surface.normal, surface.toward).abs().clamp_min(0.05)
    texels = scene.density[surface.face] * surface.t * spread / cosine.sqrt()
    albedo = scene.bias[material]
    textured = scene.textured[material].nonzero()[:, 0]
    if len(textured):
        at = material[textured]
        painted = scene.sample(scene.base[at], surface.uv[textured], torch.log2(texels[textured].clamp_min(1e-3)) - 0.2)
        albedo[textured] = torch.addcmul(albedo[textured], painted**2.2, scene.gain[at]).clamp(0, 1)
    up = (0.5 - 0.5 * surface.smooth[:, 1:2]) * visible[:, :1]
    ambient, below = (torch.from_numpy(x).float() for x in (sky.ambient, sky.below))
    out = albedo * (ambient * up + below * (visible[:, :1] - up))
    gloss, shine = scene.gloss[material], scene.shine[material]
    for i, light in enumerate(scene.lights, start=1):
        to_light = torch.from_numpy(light.at).float() - surface.point
        square = _dot(to_light, to_light)
        to_light = to_light * square.rsqrt()[:, None]
        strength = visible[:, i] * (light.reach**2 / (square + 0.2 * light.reach**2 * (light.reach < 100)))
        lambert = _dot(to_light, surface.smooth).clamp_min(0) * strength
        halfway = _unit(to_light - surface.toward)
        highlight = gloss * _dot(halfway, surface.smooth).clamp_min(0) ** shine * strength
        color = torch.from_numpy(light.color).float()
        out += (albedo * lambert[:, None] + highlight[:, None]) * color
    out += scene.glow[material]
    miss = (~surface.hit).nonzero()[:, 0]
    if len(miss):
        out[miss] = _sky(scene, surface.toward[miss])
    return out


def _sky(scene: MeshScene, toward: torch.Tensor) -> torch.Tensor:
    sky = scene.sky
    height = (-toward[:, 1:2]).clamp(0, 1) ** 0.5
    color = torch.lerp(torch.from_numpy(sky.horizon).float(), torch.from_numpy(sky.zenith).float(), height)
    if sky.clouds is not None:
        flat = toward[:, [0, 2]] / (toward[:, 1:2].abs() + 0.15) * 0.12
        base = torch.full((len(toward),), scene.cloud_base)
        cloud = scene.sample(base, flat, torch.full((len(toward),), 1.0)).mean(1, keepdim=True)
        color = torch.lerp(color, torch.from_numpy(sky.horizon).float() * 1.1, cloud * sky.cloudy)
    return color


def _edges(surface: _Surface, size: tuple[int, int]) -> torch.Tensor:
    """Return the pixels (N,) beside which the material, the normal or the plane changes."""
    H, W = size
    material = torch.where(surface.hit, surface.material, -1).view(H, W)
    point, normal, slack = surface.point.view(H, W, 3), surface.smooth.view(H, W, 3), (0.02 * surface.t).view(H, W)
    edge = torch.zeros(H, W, dtype=torch.bool)
    for axis in (0, 1):
        n = size[axis]
        before, after = (slice(None),) * axis + (slice(0, n - 1),), (slice(None),) * axis + (slice(1, n),)
        other = material[before] != material[after]
        other |= _dot(normal[before], normal[after]) < 0.9
        other |= _dot(point[after] - point[before], normal[before]).abs() > slack[before]
        edge[before] |= other
        edge[after] |= other
    return edge.view(-1)


def _shade_edges(
    scene: MeshScene,
    surface: _Surface,
    visible: torch.Tensor,
    centers: torch.Tensor,
    edge: torch.Tensor,
    K: torch.Tensor,
    eye: torch.Tensor,
    R: torch.Tensor,
    size: tuple[int, int],
) -> torch.Tensor:
    """Return the mean radiance (E, 3) of four points of each pixel of ``edge`` (E,).

    The light that reaches a point is that of the pixel, among its own and those beside it, whose surface is nearest.
    """
    H, W = size
    corner = torch.tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]])
    pixels = (centers[edge][:, None] + corner * 0.25).reshape(-1, 2)
    points = _cast(scene, pixels, K, eye, R)
    row, column = (edge // W)[:, None], (edge % W)[:, None]
    best, source = torch.full((len(pixels),), torch.inf), torch.zeros(len(pixels), dtype=torch.long)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        at = (row + dy * corner[:, 1]).clamp(0, H - 1) * W + (column + dx * corner[:, 0]).clamp(0, W - 1)
        at = at.view(-1)
        off = surface.point[at] - points.point
        gap = (
            _dot(off, points.normal).abs()
            + 0.2 * _dot(off, off).sqrt()
            + 1e3 * (surface.material[at] != points.material)
        )
        closer = gap < best
        best, source = torch.where(closer, gap, best), torch.where(closer, at, source)
    return _shade(scene, points, visible[source], float(0.5 / K[0, 0])).view(-1, 4, 3).mean(1)
