"""Procedural worlds: boxes, ellipsoids, cylinders and triangle meshes in rooms and open grounds, ray cast exactly.

World frame: y down, the floor at y = +room height; lengths in metres. All on one device, batched over B worlds,
reproducible from the generator. Every view gets exact z-depth and normals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nasrecon.train.meshes import cast_meshes, draw_meshes, face_normals
from nasrecon.train.sensor import expose, uniform
from nasrecon.train.textures import TextureBank

_FAR = 1e6
_NEAR = 1e-3


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """B worlds of P primitives: first the room (a box seen from inside), then boxes, ellipsoids, cylinders (axis y), meshes.

    Attributes:
        counts: (boxes with the room, ellipsoids, cylinders, meshes), which adds up to P.
        center, half: (B, P, 3) [m], half extents.
        rotation: (B, P, 3, 3), world_from_primitive.
        outdoor: (B,) bool; the room is then a far backdrop. strewn: (B,) bool; outdoors, with the things in the air
            around the origin, near which the cameras stand.
        texture: (B, P, 3) index for each axis of the primitive. scale (B, P): repeats per metre. contrast, tint, gloss:
            look.
        triangles: (B, meshes, F, 3, 3), in units of the half extents, within the unit ball.
        light_at (B, L, 3), light (B, L), sun (B,) share of shadow, ambient (B,).
    """

    counts: tuple[int, int, int, int]
    center: torch.Tensor
    half: torch.Tensor
    rotation: torch.Tensor
    outdoor: torch.Tensor
    strewn: torch.Tensor
    texture: torch.Tensor
    scale: torch.Tensor
    offset: torch.Tensor
    contrast: torch.Tensor
    tint: torch.Tensor
    gloss: torch.Tensor
    triangles: torch.Tensor
    light_at: torch.Tensor
    light: torch.Tensor
    ambient: torch.Tensor


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


def rotation_from_vector(vector: torch.Tensor) -> torch.Tensor:
    """Turn axis-angle vectors (..., 3) [rad] into rotations (..., 3, 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    return torch.linalg.matrix_exp(skew)


def draw_worlds(
    batch: int,
    bank: TextureBank,
    generator: torch.Generator,
    boxes: int = 22,
    round_ones: int = 14,
    meshes: int = 6,
    *,
    strewn: float = 0.0,
) -> Worlds:
    """Draw furnished rooms (two thirds) and open places (one third); a share ``strewn`` of them has things in the air instead."""
    device = generator.device
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    ellipsoids, cylinders = round_ones // 2, round_ones - round_ones // 2
    B, P = batch, 1 + boxes + round_ones + meshes
    outdoor = r((B,), 0, 1) < 0.35
    in_air = r((B,), 0, 1) < strewn if strewn else torch.zeros(B, dtype=torch.bool, device=device)
    outdoor = outdoor | in_air
    room = torch.stack([r((B,), 1.3, 4.5), r((B,), 1.1, 1.7), r((B,), 1.3, 4.5)], dim=-1)
    field = torch.stack([r((B,), 15, 70), r((B,), 6, 25), r((B,), 15, 70)], dim=-1)
    room = torch.where(outdoor[:, None], field, room)
    reach = torch.where(outdoor[:, None], torch.tensor([9.0, 3.0, 9.0], device=device), room)

    size = torch.where(outdoor, 3.0, 1.0) * torch.exp(r((B,), -0.3, 0.3))
    half = torch.exp(r((B, P, 3), math.log(0.05), math.log(0.75))) * size[:, None, None]
    axis = F.one_hot(torch.randint(0, 3, (B, P), generator=generator, device=device), 3).bool()
    thin = (r((B, P), 0, 1) < 0.35)[..., None] & axis
    half = torch.where(thin, r((B, P, 1), 0.004, 0.03).expand(-1, -1, 3) * size[:, None, None], half)
    # Every sixth cylinder is a pole or a leg: thin and tall.
    pole = (r((B, P), 0, 1) < 0.17)[..., None]
    half = torch.where(pole, torch.stack([r((B, P), 0.01, 0.04), r((B, P), 0.2, 1.0), r((B, P), 0.01, 0.04)], -1), half)
    center = r((B, P, 3), -1, 1) * reach[:, None]
    mode = r((B, P), 0, 1)
    floor = room[:, None, 1] - half[..., 1]
    center[..., 1] = torch.where(mode < 0.55, floor, room[:, None, 1] - (center[..., 1] + reach[:, None, 1]))
    wall = (mode >= 0.55) & (mode < 0.8) & ~outdoor[:, None]
    on_x = r((B, P), 0, 1) < 0.5
    for i, chosen in ((0, on_x), (2, ~on_x)):
        at_wall = torch.sign(center[..., i]) * (room[:, None, i] - half[..., i])
        center[..., i] = torch.where(wall & chosen, at_wall, center[..., i])
    turn = torch.zeros(B, P, 3, device=device)
    turn[..., 1] = r((B, P), -math.pi, math.pi) * (r((B, P), 0, 1) < 0.7)
    turn = torch.where((mode >= 0.8)[..., None], r((B, P, 3), -2, 2), turn)
    turn = torch.where(wall[..., None], torch.zeros_like(turn), turn)
    _line_up(center, half, turn, boxes, room, generator)
    away = _strew(center, half, turn, room, in_air, generator) if strewn else None
    turn[:, 0] = 0
    center[:, 0] = 0
    half[:, 0] = room

    look = _draw_looks(B, P, bank, outdoor, size, generator)
    if away is not None:
        look["scale"][:, 1:] = torch.where(in_air[:, None], look["scale"] * size[:, None] / away, look["scale"])[:, 1:]
    lights = 3
    light_at = r((B, lights, 3), -0.9, 0.9) * reach[:, None]
    light_at[..., 1] = -room[:, None, 1] * r((B, lights), 0.2, 0.95)
    strength = r((B, lights), 0.1, 1) * r((B, 1), 0.3, 1.6) * torch.where(outdoor, 60.0, 3.0)[:, None]
    strength = torch.where(in_air[:, None], strength / 3, strength)
    return Worlds(
        counts=(1 + boxes, ellipsoids, cylinders, meshes), center=center, half=half,
        rotation=rotation_from_vector(turn), triangles=draw_meshes(B * meshes, generator).unflatten(0, (B, -1)),
        outdoor=outdoor, strewn=in_air, light_at=light_at, light=strength, ambient=r((B,), 0.2, 0.9), **look,
    )  # fmt: skip


def _line_up(
    center: torch.Tensor,
    half: torch.Tensor,
    turn: torch.Tensor,
    boxes: int,
    room: torch.Tensor,
    generator: torch.Generator,
) -> None:
    """Turn the first third of the boxes into a row of look-alikes (shelves, cabinets, steps), in place."""
    n = boxes // 3
    B = len(center)
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    row = slice(1, 1 + n)
    pattern = half[:, 1:2] * torch.exp(r((B, n, 3), -0.35, 0.35))
    step = torch.zeros(B, 3, device=center.device)
    step[:, 0] = half[:, 1, 0] * r((B,), 1.9, 3.2)
    step[:, 1] = -half[:, 1, 1] * r((B,), -0.4, 0.8).clamp_min(0)
    heading = rotation_from_vector(turn[:, 1] * torch.tensor([0.0, 1.0, 0.0], device=center.device))
    along = torch.arange(n, device=center.device)[None, :, None] * step[:, None]
    use = (r((B,), 0, 1) < 0.6)[:, None, None]
    moved = center[:, 1:2] + torch.einsum("bij,bnj->bni", heading, along)
    moved[..., 1] = torch.where(
        r((B, 1), 0, 1) < 0.7, room[:, None, 1] - pattern[..., 1] + along[..., 1], moved[..., 1]
    )
    half[:, row] = torch.where(use, pattern, half[:, row])
    center[:, row] = torch.where(use, moved, center[:, row])
    upright = turn[:, 1:2] * torch.tensor([0.0, 1.0, 0.0], device=center.device)
    turn[:, row] = torch.where(use, upright.expand(-1, n, -1), turn[:, row])


def _strew(
    center: torch.Tensor, half: torch.Tensor, turn: torch.Tensor, room: torch.Tensor, chosen: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Throw the things of the chosen worlds into the air, in place, at all distances from the origin; return those (B, P).

    What is far is as large in the image as what is near, so that depths of one image differ twentyfold, as they do in
    renderings of objects in front of a backdrop. Some stand on the floor.
    """
    B, P = center.shape[:2]
    r = lambda low, high: uniform((B, P), low, high, generator)  # noqa: E731
    away = torch.minimum(torch.exp(r(math.log(1.0), math.log(25.0))), 0.8 * room[:, [0, 2]].amin(1, keepdim=True))
    yaw, pitch = r(-1.2, 1.2), r(-0.45, 0.45)
    at = torch.stack([yaw.sin() * pitch.cos(), pitch.sin(), yaw.cos() * pitch.cos()], dim=-1) * away[..., None]
    grown = half / half.amax(-1, keepdim=True) * (away * torch.exp(r(math.log(0.05), math.log(0.35))))[..., None]
    at[..., 1] = torch.where(r(0, 1) < 0.25, room[:, None, 1] - grown[..., 1], at[..., 1])
    tumbled = torch.where(r(0, 1)[..., None] < 0.6, uniform((B, P, 3), -3, 3, generator), turn)
    for old, new in ((center, at), (half, grown), (turn, tumbled)):
        old[chosen] = new[chosen]
    return away


def _draw_looks(
    B: int, P: int, bank: TextureBank, outdoor: torch.Tensor, size: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    device = generator.device
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    scale = torch.exp(r((B, P), math.log(0.3), math.log(4.0))) / size[:, None]
    scale[:, 0] = torch.exp(r((B,), math.log(0.15), math.log(2.0)))
    # A third of the surfaces has almost no texture: walls are what the method is for.
    contrast = torch.where(r((B, P), 0, 1) < 0.35, r((B, P), 0, 1) ** 2 * 0.25, r((B, P), 0.4, 1.1))
    contrast[:, 0] = torch.where(r((B,), 0, 1) < 0.5, contrast[:, 0] * 0.3, contrast[:, 0])
    texture = torch.randint(0, bank.count, (B, P, 3), generator=generator, device=device)
    same = r((B, P, 1), 0, 1) < 0.6
    texture[:, 1:] = torch.where(same[:, 1:], texture[:, 1:, :1].expand(-1, -1, 3), texture[:, 1:])
    return {
        "texture": texture, "scale": scale, "offset": r((B, P, 3, 2), 0, 1), "contrast": contrast,
        "tint": 1 + r((B, P, 1), -0.4, 0.15) + r((B, P, 3), -0.08, 0.08), "gloss": r((B, P), 0, 1) ** 4 * 0.6,
    }  # fmt: skip


def cast(worlds: Worlds, origin: torch.Tensor, direction: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for rays (B, N, 3), the distance t (B, N) in lengths of ``direction`` and the primitive hit (B, N)."""
    inward = worlds.rotation.transpose(-1, -2) / worlds.half[..., None]
    o = inward @ (origin[:, None] - worlds.center[:, :, None]).transpose(-1, -2)  # (B, P, 3, N), unit shapes
    d = inward @ direction[:, None].transpose(-1, -2)
    (o1, o2, o3, o4), (d1, d2, d3, d4) = o.split(worlds.counts, dim=1), d.split(worlds.counts, dim=1)
    hits = [_cast_boxes(o1, d1), _cast_balls(o2, d2), _cast_cylinders(o3, d3), cast_meshes(worlds.triangles, o4, d4)]
    return torch.cat(hits, dim=1).min(dim=1)


def _slabs(o: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    inverse = 1 / torch.where(d.abs() < 1e-9, 1e-9, d)
    t1, t2 = (-1 - o) * inverse, (1 - o) * inverse
    return torch.minimum(t1, t2), torch.maximum(t1, t2)


def _cast_boxes(o: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    near, far = _slabs(o, d)
    enter, leave = near.amax(2), far.amin(2)
    t = torch.where((enter < leave) & (enter > _NEAR), enter, _FAR)
    t[:, 0] = leave[:, 0]  # the room, from inside
    return t


def _cast_balls(o: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    a, b, c = (d * d).sum(2), (o * d).sum(2), (o * o).sum(2) - 1
    inside_root = b * b - a * c
    t = (-b - inside_root.clamp_min(0).sqrt()) / a
    return torch.where((inside_root > 0) & (t > _NEAR), t, _FAR)


def _cast_cylinders(o: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    ring = [0, 2]
    a, b = (d[:, :, ring] ** 2).sum(2).clamp_min(1e-12), (o[:, :, ring] * d[:, :, ring]).sum(2)
    inside_root = b * b - a * ((o[:, :, ring] ** 2).sum(2) - 1)
    side = (-b - inside_root.clamp_min(0).sqrt()) / a
    on_side = (inside_root > 0) & (side > _NEAR) & ((o[:, :, 1] + side * d[:, :, 1]).abs() < 1)
    cap = _slabs(o[:, :, 1], d[:, :, 1])[0]
    at_cap = ((o[:, :, ring] + cap[:, :, None] * d[:, :, ring]) ** 2).sum(2) < 1
    return torch.minimum(torch.where(on_side, side, _FAR), torch.where(at_cap & (cap > _NEAR), cap, _FAR))


def inside_any(worlds: Worlds, point: torch.Tensor) -> torch.Tensor:
    """Tell (B,) whether a point (B, 3) lies in (or a hand's breadth from) a primitive, or outside the room."""
    local = torch.einsum("bpji,bpj->bpi", worlds.rotation, point[:, None] - worlds.center)
    close = (local.abs() < worlds.half + 0.12).all(-1)
    close[:, 0] = ~(local[:, 0].abs() < worlds.half[:, 0] * 0.97).all(-1)
    return close.any(1)


def _surface(worlds: Worlds, point: torch.Tensor, hit: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return outward normals (B, N, 3), metric texture coordinates (B, N, 2) and the dominant axis (B, N) at hit points."""
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
