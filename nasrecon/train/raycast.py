"""Rays against worlds of primitives, exactly: boxes, ellipsoids, cylinders, meshes."""

from __future__ import annotations

import torch

from nasrecon.train.meshes import cast_meshes
from nasrecon.train.worlds import Worlds

_FAR = 1e6
_NEAR = 1e-3


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
