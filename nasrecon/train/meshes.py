"""Triangle meshes for procedural worlds: free forms around a centre, of flat faces, ray cast exactly."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F

from nasrecon.train.sensor import uniform

_FAR = 1e6
_NEAR = 1e-3


@functools.cache
def _sphere(subdivisions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vertices (V, 3) of an icosahedron divided so many times, on the unit sphere, and its faces (F, 3)."""
    golden = (1 + math.sqrt(5)) / 2
    corners = []
    for a in (-1.0, 1.0):
        for b in (-golden, golden):
            corners += [(0.0, a, b), (a, b, 0.0), (b, 0.0, a)]
    vertices = F.normalize(torch.tensor(corners), dim=1)
    # Three corners are a face where all are neighbours: the nearest other corners of each other.
    near = torch.cdist(vertices, vertices) < 1.1
    faces = torch.tensor(
        [(i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]]
    )
    for _ in range(subdivisions):
        edges = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).sort(dim=1).values
        unique, which = edges.unique(dim=0, return_inverse=True)
        ab, bc, ca = (which + len(vertices)).chunk(3)
        a, b, c = faces.unbind(1)
        parts = [(a, ab, ca), (b, bc, ab), (c, ca, bc), (ab, bc, ca)]
        faces = torch.cat([torch.stack(part, dim=1) for part in parts])
        vertices = torch.cat([vertices, F.normalize(vertices[unique].sum(1), dim=1)])
    return vertices, faces


def draw_meshes(count: int, generator: torch.Generator, subdivisions: int = 2) -> torch.Tensor:
    """Draw meshes of triangles (count, F, 3, 3) in the unit ball; each ray from the origin leaves through one."""
    device = generator.device
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    vertices, faces = (x.to(device) for x in _sphere(subdivisions))
    waves = 6
    direction = torch.randn((count, waves, 3), generator=generator, device=device) * r((count, 1, 1), 0.8, 4.0)
    height = r((count, waves), -1, 1) * r((count, 1), 0.05, 0.35)
    phase = r((count, waves, 1), -math.pi, math.pi)
    bumps = (height[..., None] * torch.cos(direction @ vertices.T + phase)).sum(1)
    radius = torch.exp(bumps)
    # Half of them are cut off by planes, as stones, gems and things of many flat sides are.
    cut = F.normalize(torch.randn((count, 8, 3), generator=generator, device=device), dim=-1)
    along = (cut @ vertices.T).clamp_min(1e-3)
    flat = (r((count, 8, 1), 0.5, 1.0) / along).amin(1)
    radius = torch.where(r((count, 1), 0, 1) < 0.5, torch.minimum(radius, flat), radius)
    radius = radius / radius.amax(1, keepdim=True)
    return (vertices * radius[..., None])[:, faces]


def cast_meshes(triangles: torch.Tensor, o: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Return the distance t (B, M, N) in lengths of d along rays o + t d (B, M, 3, N); far off where nothing is hit.

    Args:
        triangles: (B, M, F, 3, 3) within the unit ball.
    """
    out = o.new_full((*o.shape[:2], o.shape[-1]), _FAR)
    # Only rays that meet the unit ball are tried against the faces.
    a, b, c = (d * d).sum(2), (o * d).sum(2), (o * o).sum(2) - 1
    meets = b * b - a * c > 0
    for i in range(o.shape[0]):
        for m in range(o.shape[1]):
            rays = meets[i, m].nonzero()[:, 0]
            for part in rays.split(8192):
                hit = _intersect(triangles[i, m], o[i, m][:, part].T, d[i, m][:, part].T)
                out[i, m, part] = hit.amin(1)
    return out


def face_normals(triangles: torch.Tensor, mesh: torch.Tensor, point: torch.Tensor) -> torch.Tensor:
    """Return the outward normals (K, 3), not unit, of the faces that points (K, 3) on meshes lie on.

    Args:
        triangles: (M, F, 3, 3). mesh: (K,) which mesh a point lies on.
    """
    out = torch.zeros_like(point)
    for m in mesh.unique():
        rows = (mesh == m).nonzero()[:, 0]
        flat = torch.linalg.cross(triangles[m, :, 1] - triangles[m, :, 0], triangles[m, :, 2] - triangles[m, :, 0])
        flat = flat * torch.sign((flat * triangles[m, :, 0]).sum(-1, keepdim=True))
        for part in rows.split(8192):
            # The ray from the origin through the point leaves through the point's face.
            t = _intersect(triangles[m], torch.zeros_like(point[part]), point[part], slack=1e-3)
            out[part] = flat[(t - 1).abs().argmin(1)]
    return out


def _intersect(triangles: torch.Tensor, o: torch.Tensor, d: torch.Tensor, slack: float = 1e-6) -> torch.Tensor:
    """Return t (K, F) where rays o + t d (K, 3) hit triangles (F, 3, 3), by Moeller and Trumbore; huge for misses."""
    a, e1, e2 = triangles[:, 0], triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    # Triple products with what is the same for all rays taken out: e1 x e2 . d and so on are matrix products.
    n = torch.linalg.cross(e1, e2)
    det = -(d @ n.T)
    safe = torch.where(det.abs() < 1e-12, 1e-12, det)
    m = torch.linalg.cross(o, d)
    # With s = o - a: u = (s x d) . e2 / det, v = -(s x d) . e1 / det, t = s . n / det.
    cross_e1 = m @ e1.T - d @ torch.linalg.cross(e1, a).T
    cross_e2 = m @ e2.T - d @ torch.linalg.cross(e2, a).T
    u, v = cross_e2 / safe, -cross_e1 / safe
    t = (o @ n.T - (a * n).sum(-1)) / safe
    hit = (u >= -slack) & (v >= -slack) & (u + v <= 1 + slack) & (t > _NEAR)
    return torch.where(hit, t, _FAR)
