"""Worlds of primitives: boxes, ellipsoids, cylinders and triangle meshes in rooms and open grounds.

World frame: y down, the floor at y = +room height; lengths in metres. All on one device, batched over B worlds,
reproducible from the generator. ``raycast`` and ``render`` give every view exact z-depth and normals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from nasrecon.train.meshes import draw_meshes
from nasrecon.train.sensor import uniform
from nasrecon.train.textures import TextureBank


@dataclass(frozen=True, kw_only=True)
class Worlds:
    """B worlds of P primitives: the room (a box from inside), then boxes, ellipsoids, cylinders (axis y), meshes.

    Attributes:
        counts: (boxes with the room, ellipsoids, cylinders, meshes), which adds up to P.
        center, half: (B, P, 3) [m], half extents.
        rotation: (B, P, 3, 3), world_from_primitive.
        outdoor: (B,) bool; the room is then a far backdrop. floating: (B,) bool; outdoors, with the things in the air
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
    floating: torch.Tensor
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
    floating: float = 0.0,
) -> Worlds:
    """Draw rooms (two thirds) and open places (one third); a share ``floating`` of them has things in the air."""
    device = generator.device
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    ellipsoids, cylinders = round_ones // 2, round_ones - round_ones // 2
    B, P = batch, 1 + boxes + round_ones + meshes
    outdoor = r((B,), 0, 1) < 0.35
    in_air = r((B,), 0, 1) < floating if floating else torch.zeros(B, dtype=torch.bool, device=device)
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
    away = _scatter(center, half, turn, room, in_air, generator) if floating else None
    turn[:, 0] = 0
    center[:, 0] = 0
    half[:, 0] = room

    look = _draw_looks(B, P, bank, outdoor, size, generator)
    if away is not None:
        look["scale"][:, 1:] = torch.where(in_air[:, None], look["scale"] * size[:, None] / away, look["scale"])[:, 1:]
    light_at, strength = _draw_lights(room, reach, outdoor, generator)
    strength = torch.where(in_air[:, None], strength / 3, strength)
    return Worlds(
        counts=(1 + boxes, ellipsoids, cylinders, meshes), center=center, half=half,
        rotation=rotation_from_vector(turn), triangles=draw_meshes(B * meshes, generator).unflatten(0, (B, -1)),
        outdoor=outdoor, floating=in_air, light_at=light_at, light=strength, ambient=r((B,), 0.2, 0.9), **look,
    )  # fmt: skip


def _draw_lights(
    room: torch.Tensor, reach: torch.Tensor, outdoor: torch.Tensor, generator: torch.Generator, lights: int = 3
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw places (B, L, 3) under the ceiling, or as high outdoors, and strengths (B, L)."""
    B = len(room)
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    light_at = r((B, lights, 3), -0.9, 0.9) * reach[:, None]
    light_at[..., 1] = -room[:, None, 1] * r((B, lights), 0.2, 0.95)
    strength = r((B, lights), 0.1, 1) * r((B, 1), 0.3, 1.6) * torch.where(outdoor, 60.0, 3.0)[:, None]
    return light_at, strength


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
    standing = turn[:, 1:2] * torch.tensor([0.0, 1.0, 0.0], device=center.device)
    turn[:, row] = torch.where(use, standing.expand(-1, n, -1), turn[:, row])


def _scatter(
    center: torch.Tensor, half: torch.Tensor, turn: torch.Tensor, room: torch.Tensor, chosen: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Throw the things of the chosen worlds into the air, in place, at all distances from the origin: (B, P).

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
