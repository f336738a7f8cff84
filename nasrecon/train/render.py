"""Views of worlds of primitives: exact z-depth and normals; texture, lights, shadow and highlights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nasrecon.train.meshes import face_normals
from nasrecon.train.raycast import cast
from nasrecon.train.sensor import expose
from nasrecon.train.textures import TextureBank
from nasrecon.train.worlds import Worlds


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """V views of each of B worlds.

    Attributes:
        images: (B, V, 3, H, W) uint8, RGB.
        K: (B, V, 3, 3) [px], half-pixel centres (the centre of the top-left pixel is (0.5, 0.5)).
        cam_from_world: (B, V, 4, 4).
        depth: (B, V, H, W) float32 [m], z in the camera; every ray hits something.
        normal: (B, V, 3, H, W) float32, camera frame, facing the camera.
    """

    images: torch.Tensor
    K: torch.Tensor
    cam_from_world: torch.Tensor
    depth: torch.Tensor
    normal: torch.Tensor


def _surface(worlds: Worlds, point: torch.Tensor, hit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return outward normals (B, N, 3), metric texture coordinates (B, N, 2), dominant axes (B, N) of hit points."""
    rows = torch.arange(len(point), device=point.device)[:, None]
    rotation, half = worlds.rotation[rows, hit], worlds.half[rows, hit]
    local = torch.einsum("bnji,bnj->bni", rotation, point - worlds.center[rows, hit])
    unit = local / half
    nb, ne, nc, _ = worlds.counts
    box_axis = unit.abs().argmax(-1)
    n_box = F.one_hot(box_axis, 3) * torch.sign(unit)
    n_ball = unit / half
    up = torch.tensor([0.0, 1.0, 0.0], device=point.device)
    on_cap = (unit[..., 1:2].abs() > 0.9999) & ((unit[..., [0, 2]] ** 2).sum(-1, keepdim=True) < 0.9999)
    n_cylinder = torch.where(on_cap, up * torch.sign(unit[..., 1:2]), unit / half * (1 - up))
    kind = hit[..., None]
    normal = torch.where(kind < nb, n_box, torch.where(kind < nb + ne, n_ball, n_cylinder))
    on_mesh = hit >= nb + ne + nc
    which = (hit - (nb + ne + nc) + worlds.counts[3] * rows)[on_mesh]
    normal[on_mesh] = face_normals(worlds.triangles.flatten(0, 1), which, unit[on_mesh]) / half[on_mesh]
    normal = F.normalize(normal, dim=-1)
    axis = normal.abs().argmax(-1)
    choices = torch.stack([local[..., [2, 1]], local[..., [0, 2]], local[..., [0, 1]]], dim=2)
    uv = choices.gather(2, axis[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    return torch.einsum("bnij,bnj->bni", rotation, normal), uv, axis


def render(
    worlds: Worlds, bank: TextureBank, K: torch.Tensor, world_from_cam: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Render one view of each world.

    Args:
        K: (B, 3, 3) [px], half-pixel centres. world_from_cam: (B, 4, 4). size: (H, W).

    Returns:
        linear radiance (B, 3, H, W), z-depth (B, H, W), normals (B, 3, H, W) in the camera frame, facing the camera.
    """
    (H, W), B, device = size, len(K), K.device
    y, x = torch.meshgrid(torch.arange(H, device=device) + 0.5, torch.arange(W, device=device) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(-1, 3)
    R, eye = world_from_cam[:, :3, :3], world_from_cam[:, None, :3, 3]
    direction = pixels @ (R @ torch.linalg.inv(K)).transpose(-1, -2)  # z = 1 in the camera: t is z-depth
    depth, hit = cast(worlds, eye.expand_as(direction), direction)
    point = eye + depth[..., None] * direction
    normal, uv, axis = _surface(worlds, point, hit)
    length = direction.norm(dim=-1)
    facing = (normal * direction).sum(-1)
    normal = torch.where((facing > 0)[..., None], -normal, normal)
    cosine = (facing.abs() / length).clamp_min(0.05)
    radiance = _shade(worlds, bank, point, normal, direction / length[..., None], hit, uv, axis,
                      depth * length / K[:, :1, 0] / cosine.sqrt())  # fmt: skip
    normal_in_cam = normal @ R
    image = radiance.transpose(1, 2).reshape(B, 3, H, W)
    return image, depth.view(B, H, W), normal_in_cam.transpose(1, 2).reshape(B, 3, H, W)


def _shade(
    worlds: Worlds, bank: TextureBank, point: torch.Tensor, normal: torch.Tensor, toward: torch.Tensor,
    hit: torch.Tensor, uv: torch.Tensor, axis: torch.Tensor, footprint: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    """Return the radiance (B, N, 3): texture, Lambert and highlight of every light, shadow of the first, ambient."""
    B, N = hit.shape
    rows = torch.arange(B, device=hit.device)[:, None]
    scale = worlds.scale[rows, hit]
    texture = worlds.texture[rows, hit].gather(-1, axis[..., None])[..., 0]
    offset = worlds.offset[rows, hit].gather(2, axis[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    color = bank.sample(
        texture.reshape(-1), (uv * scale[..., None] + offset).reshape(-1, 2) + 64, (footprint * scale).reshape(-1)
    ).view(B, N, 3)
    mean = bank.mean[texture]
    color = (mean + (color - mean) * worlds.contrast[rows, hit][..., None]) * worlds.tint[rows, hit]
    out = color.clamp_min(0) * worlds.ambient[:, None, None]
    gloss = worlds.gloss[rows, hit]
    for i in range(worlds.light.shape[1]):
        to_light = worlds.light_at[:, None, i] - point
        distance = to_light.norm(dim=-1, keepdim=True).clamp_min(1e-3)
        to_light = to_light / distance
        strength = worlds.light[:, None, i] / (1 + distance[..., 0] ** 2)
        if i == 0:
            start = point + normal * 2e-3 * distance
            blocked, _ = cast(worlds, start, worlds.light_at[:, None, 0] - start)
            strength = strength * torch.where(blocked < 0.999, 0.15, 1.0)
        lambert = (to_light * normal).sum(-1).clamp_min(0)
        halfway = F.normalize(to_light - toward, dim=-1)
        shine = (halfway * normal).sum(-1).clamp_min(0) ** 24 * gloss
        out = out + (color.clamp_min(0) * lambert[..., None] + shine[..., None]) * strength[..., None]
    return out


def render_views(
    worlds: Worlds, bank: TextureBank, views: int, size: tuple[int, int], generator: torch.Generator
) -> Rendered:
    """Place ``views`` cameras in each world (``cameras.draw_rig``), render and expose them."""
    from nasrecon.train.cameras import draw_rig

    K, world_from_cam = draw_rig(worlds, views, size, generator)
    parts = [render(worlds, bank, K[:, v], world_from_cam[:, v], size) for v in range(views)]
    radiance, depth, normal = (torch.stack(x, dim=1) for x in zip(*parts, strict=True))
    images = (expose(radiance, generator) * 255).round().byte()
    return Rendered(images=images, K=K, cam_from_world=torch.linalg.inv(world_from_cam), depth=depth, normal=normal)
