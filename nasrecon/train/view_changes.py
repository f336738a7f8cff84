"""Other light, paint, gloss, frames and windows for the views of a rendered world: what its exact geometry allows.

Light and paint are functions of the point and the normal in the world, so that all views of a world show the same.
Reflections move over a glossy surface as the view does, and mislead the matching as those of real floors and doors. A
frame is turned and enlarged about the centre of its own camera, which a homography does without parallax.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from nasrecon.nas.volume import pixel_rays
from nasrecon.train.worlds import rotation_from_vector

REPAINTED, GLOSSY, REFRAMED = 0.25, 0.35, 0.3
"""Shares of the items whose views are painted or lit anew, get glossy surfaces, and are framed anew."""

_MIN_KNOWN_PX = 100  # pixels of the reference with a depth
_ATTEMPTS, _CLOSER, _CENTRAL = 12, 1.06, 0.8  # to find a frame within the image, each nearer to its middle
_MIN_WINDOW_PX = (128, 160)
_EDGE_ON, _MAX_DEEPER = 0.05, 0.05
_FLAT, _THICK = (0.93, 80.0), (0.04, 0.01)  # a plane: least cosine, steepness; half thickness, softness [scene sizes]
_SCHLICK, _MAX_REFLECTED = 5, 0.8


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedViews:
    """The views of one item, the reference first.

    Attributes:
        images: (V, 3, H, W) in [0, 1]. K: (V, 3, 3), integer pixel centres. cam_from_world: (V, 4, 4).
        depth: (V, H, W), 0 = none. normal: (V, 3, H, W) in the camera frames, 0 = none.
    """

    images: torch.Tensor
    K: torch.Tensor
    cam_from_world: torch.Tensor
    depth: torch.Tensor
    normal: torch.Tensor


def change_views(views: PosedViews, generator: torch.Generator) -> PosedViews:
    """Repaint, polish and reframe a share of the items."""
    if torch.rand(1, generator=generator) < REPAINTED:
        views = repainted(views, generator)
    if torch.rand(1, generator=generator) < GLOSSY:
        views = polished(views, generator)
    return reframed(views, generator) if torch.rand(1, generator=generator) < REFRAMED else views


def repainted(views: PosedViews, generator: torch.Generator) -> PosedViews:
    """Return views under other lights and with patterns painted over their surfaces, equal in all views.

    Up to three directional lights, up to two patterns (waves through space, smooth or with sharp borders, some only on
    surfaces that face one way). Waves that a pixel does not resolve fade. Nothing changes where no depth is known.
    """
    rand = lambda: float(torch.rand(1, generator=generator))  # noqa: E731
    known = views.depth > 0
    if known[0].sum() < _MIN_KNOWN_PX:
        return views
    V = len(views.images)
    points, facing, _ = _in_world(views)
    factor = torch.ones_like(views.images)
    if rand() < 0.6:
        factor = factor * _other_light(facing, known, generator)[:, None]
    size, footprint = float(views.depth[0][known[0]].median()), views.depth / views.K[:, 0, 0].view(V, 1, 1)
    for _ in range(int(rand() * 3) if rand() < 0.75 else 0):
        pattern = _pattern(points, footprint, size, generator)
        if rand() < 0.6:
            along = _direction(generator)
            pattern = pattern * torch.sigmoid(((facing @ along).abs() - (0.4 + 0.4 * rand())) * 25)
        colour = torch.randn(3, generator=generator) * 0.35 + torch.randn(1, generator=generator)
        strength = (0.03 + 0.3 * rand() ** 2) * colour.clamp(-2, 2)
        factor = factor * torch.exp(pattern[:, None] * strength.view(1, 3, 1, 1))
    return replace(views, images=(views.images * torch.where(known[:, None], factor, 1.0)).clamp(0, 1))


def polished(views: PosedViews, generator: torch.Generator) -> PosedViews:
    """Return views in which up to three planes of the world, or all surfaces, reflect an environment.

    It is a blurred view of the world itself on a sphere about the scene, with up to three bright windows. A surface
    reflects a share of the light, and more where it is seen edge-on (Schlick). Nothing changes where no depth is known.
    """
    rand = lambda: float(torch.rand(1, generator=generator))  # noqa: E731
    known = views.depth > 0
    if known[0].sum() < _MIN_KNOWN_PX:
        return views
    points, facing, along = _in_world(views)
    size = float(views.depth[0][known[0]].median())
    cosine = -(along * facing).sum(dim=-1)
    middle, radius = points[0][known[0]].mean(dim=0), size * (1 + 2 * rand())
    light = _environment(views.images, _on_sphere((points - middle) / radius, _mirrored(along, facing)), generator)
    glossy = torch.ones_like(cosine) if rand() < 0.2 else _some_planes(points, facing, known[0], size, generator)
    least = 0.02 + 0.5 * rand() ** 2
    share = least + (1 - least) * _MAX_REFLECTED * (1 - cosine.clamp(0, 1)) ** _SCHLICK
    share = (share * glossy * known)[:, None]
    return replace(views, images=(views.images * (1 - share) + light * share).clamp(0, 1))


def _mirrored(along: torch.Tensor, facing: torch.Tensor) -> torch.Tensor:
    """Return the directions (..., 3) in which surfaces with unit normals reflect rays along (..., 3)."""
    return along - 2 * (along * facing).sum(dim=-1, keepdim=True) * facing


def _on_sphere(start: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """Return where rays along unit vectors (V, H, W, 3) meet the unit sphere; starts are moved into it."""
    start = start.clamp(-0.95, 0.95) / math.sqrt(3)
    forward = (start * along).sum(dim=-1)
    reach = (forward**2 - (start * start).sum(dim=-1) + 1).clamp_min(0).sqrt() - forward
    return F.normalize(start + along * reach[..., None], dim=-1)


def _environment(images: torch.Tensor, towards: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the light (V, 3, H, W) that comes from directions (V, H, W, 3)."""
    rand = lambda: float(torch.rand(1, generator=generator))  # noqa: E731
    width = int(6 * 2 ** (4 * rand()))
    picture = F.interpolate(images[int(rand() * len(images))][None], (max(3, width * 3 // 4), width), mode="area")
    axes = F.normalize(torch.randn(3, 3, generator=generator), dim=1)
    x = torch.atan2(towards @ axes[0], towards @ axes[1]) / math.pi * (0.7 + 2 * rand())
    y = (towards @ axes[2]) * (0.7 + 1.5 * rand())
    picture = (picture * (0.4 + 1.2 * rand())).expand(len(images), -1, -1, -1)
    light = F.grid_sample(picture, torch.stack([x, y], dim=-1), padding_mode="reflection", align_corners=False)
    for _ in range(int(rand() * 4)):
        narrow = math.exp(1.5 + 3.5 * rand())
        window = torch.exp(narrow * (towards @ _direction(generator) - 1))
        light = light + (0.3 + 1.7 * rand()) * window[:, None]
    return light.clamp(0, 1.5)


def _some_planes(
    points: torch.Tensor, facing: torch.Tensor, known: torch.Tensor, size: float, generator: torch.Generator
) -> torch.Tensor:
    """Return 1 on up to three planes of the world, most of them one surface each, and 0 elsewhere: (V, H, W)."""
    rand = lambda: float(torch.rand(1, generator=generator))  # noqa: E731
    on = torch.zeros(points.shape[:3])
    pixels = known.nonzero()
    for _ in range(1 + int(rand() * 3)):
        row, column = pixels[int(rand() * len(pixels))]
        normal, point = facing[0, row, column], points[0, row, column]
        flat = torch.sigmoid((facing @ normal - _FLAT[0]) * _FLAT[1])
        near = torch.sigmoid((_THICK[0] - ((points - point) @ normal).abs() / size) / _THICK[1])
        on = torch.maximum(on, flat * near if rand() < 0.8 else flat)
    return on


def _in_world(views: PosedViews) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return points, unit normals and the unit rays to them in the frame of the world, (V, H, W, 3) each."""
    V, H, W = views.depth.shape
    world_from_cam = views.cam_from_world[:, :3, :3].transpose(1, 2)
    rays = pixel_rays(views.K, H, W).view(V, 3, H, W)
    turned = lambda vectors: torch.einsum("vij,vjhw->vhwi", world_from_cam, vectors)  # noqa: E731
    points = turned(rays * views.depth[:, None] - views.cam_from_world[:, :3, 3, None, None])
    return points, F.normalize(turned(views.normal), dim=-1), F.normalize(turned(rays), dim=-1)


def _other_light(facing: torch.Tensor, known: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return by how much lights brighten surfaces with normals (V, H, W, 3): (V, H, W), about 1 in the mean."""
    rand = lambda: float(torch.rand(1, generator=generator))  # noqa: E731
    shade = torch.full(known.shape, 0.3 + 0.7 * rand())
    for _ in range(1 + int(rand() * 3)):
        shade = shade + rand() * (facing @ _direction(generator)).clamp_min(0)
    return (shade / shade[known].mean()).clamp(0.25, 3) ** (0.3 + 0.6 * rand())


def _pattern(points: torch.Tensor, footprint: torch.Tensor, size: float, generator: torch.Generator) -> torch.Tensor:
    """Return values (V, H, W), about -1 to 1, of a sum of waves at points (V, H, W, 3).

    Args:
        footprint: (V, H, W), how much of a surface a pixel sees. size: of the scene; waves are 2 to 80 % of it long.
    """
    rand = lambda: float(torch.rand(1, generator=generator))  # noqa: E731
    waves = 1 + int(rand() ** 1.5 * 7)
    usual = math.log(2 * math.pi / (0.8 * size)) + rand() * math.log(40)
    value, finest = torch.zeros_like(footprint), torch.zeros_like(footprint)
    for _ in range(waves):
        frequency = math.exp(usual + 0.5 * float(torch.randn(1, generator=generator)))
        wave = torch.sin(points @ (_direction(generator) * frequency) + 2 * math.pi * rand())
        value = value + wave * torch.exp(-((frequency * footprint) ** 2) / 4) / math.sqrt(waves)
        finest = torch.maximum(finest, frequency * footprint)
    if rand() < 0.6:
        steepness = (1.5 / finest.clamp_min(1e-3)).clamp_max(2 + 30 * rand() ** 2)
        value = torch.tanh((value - (rand() - 0.5)) * steepness)
    return value


def _direction(generator: torch.Generator) -> torch.Tensor:
    return F.normalize(torch.randn(3, generator=generator), dim=0)


def reframed(views: PosedViews, generator: torch.Generator) -> PosedViews:
    """Return views that are rolled, tilted, enlarged and shifted, each in its own way, at the same size.

    Normals are those of the nearest pixel; depth is that of its plane. A view for which no frame within its image is
    drawn stays as it is.
    """
    rand = lambda *shape: torch.rand(shape, generator=generator)  # noqa: E731
    together, closer = 0.07 * float(torch.randn(1, generator=generator)), 1 + 0.35 * float(rand(1)) ** 2
    made = []
    for v in range(len(views.images)):
        vector = 0.03 * torch.randn(3, generator=generator) + torch.tensor([0.0, 0.0, together])
        zoom, offset = closer * (1 + 0.15 * float(rand(1))), rand(2) * 2 - 1
        turn = rotation_from_vector(vector)
        one = PosedViews(**{name: getattr(views, name)[v : v + 1] for name in PosedViews.__dataclass_fields__})
        for _ in range(_ATTEMPTS):
            framed = _framed(one, turn, zoom, offset)
            if framed is not None:
                break
            zoom, offset = zoom * _CLOSER, offset * _CENTRAL
        made.append(framed or one)
    return PosedViews(
        **{name: torch.cat([getattr(one, name) for one in made]) for name in PosedViews.__dataclass_fields__}
    )


def draw_window(height: int, width: int, generator: torch.Generator) -> tuple[int, int]:
    """Draw height and width [px] of windows: 0.55 to 0.88 times an image's, multiples of 16, of a size to match in."""
    share = 0.55 + 0.33 * float(torch.rand(1, generator=generator))
    cut = lambda side, least: min(side, max(least, int(side * share) // 16 * 16))  # noqa: E731
    return cut(height, _MIN_WINDOW_PX[0]), cut(width, _MIN_WINDOW_PX[1])


def cut_apart(views: PosedViews, size: tuple[int, int], generator: torch.Generator) -> PosedViews:
    """Return windows (height, width) of the views, each at a place of its own.

    More of the reference is outside its sources than in whole images, as in pairs of photos taken far apart; what is
    seen keeps its scale. The window of the reference holds a pixel with a depth, not sky alone.
    """
    (H, W), (h, w) = views.depth.shape[1:], size
    draw = lambda low, high: int(torch.randint(low, high + 1, (1,), generator=generator))  # noqa: E731
    places = [[draw(0, H - h), draw(0, W - w)] for _ in views.images]
    known = views.depth[0].nonzero()
    if len(known):
        row, column = known[draw(0, len(known) - 1)].tolist()
        places[0] = [draw(max(0, row - h + 1), min(row, H - h)), draw(max(0, column - w + 1), min(column, W - w))]
    cut = lambda maps: torch.stack([m[..., y : y + h, x : x + w] for m, (y, x) in zip(maps, places, strict=True)])  # noqa: E731
    K = views.K.clone()
    K[:, :2, 2] -= torch.tensor([[x, y] for y, x in places])
    return replace(views, images=cut(views.images), K=K, depth=cut(views.depth), normal=cut(views.normal))


def _framed(view: PosedViews, turn: torch.Tensor, zoom: float, offset: torch.Tensor) -> PosedViews | None:
    """Return a view (V = 1) turned and enlarged; None where the frame reaches beyond the image.

    Args:
        turn: (3, 3), from the camera as it was. offset: (2,) in -1 ... 1, of 0.7 of what the enlargement leaves room.
    """
    H, W = view.depth.shape[-2:]
    old_K, sides = view.K[0], torch.tensor([W, H])
    middle = (sides - 1) / 2
    K = old_K.clone()
    K[:2, :2] *= zoom
    K[:2, 2] = middle + (old_K[:2, 2] - middle) * zoom + offset * 0.7 * (zoom - 1) / 2 * sides
    rays = pixel_rays(K[None], H, W).view(3, H, W)
    projected = torch.einsum("ij,jhw->hwi", old_K @ turn.T, rays)
    pixels = projected[..., :2] / projected[..., 2:]
    if not bool(((pixels > -0.5) & (pixels < sides - 0.5)).all()):
        return None
    grid = ((pixels + 0.5) / sides * 2 - 1)[None]
    nearest = pixels.round()
    column, row = nearest[..., 0].long(), nearest[..., 1].long()
    nearest_rays = torch.einsum(
        "ij,hwj->ihw", turn @ torch.linalg.inv(old_K), torch.cat([nearest, torch.ones(H, W, 1)], dim=-1)
    )
    normal = torch.einsum("ij,vjhw->vihw", turn, view.normal[:, :, row, column])
    pose = view.cam_from_world.clone()
    pose[0, :3] = turn @ pose[0, :3]
    return PosedViews(
        images=F.grid_sample(view.images, grid, padding_mode="border", align_corners=False),
        K=K[None],
        cam_from_world=pose,
        depth=view.depth[:, row, column] * nearest_rays[2] * _along_plane(normal, nearest_rays / nearest_rays[2], rays),
        normal=normal,
    )


def _along_plane(normal: torch.Tensor, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return by how much a plane (V, 3, H, W) through a point on the ray ``start`` is deeper at the ray ``end``.

    Both rays (3, H, W) have z = 1. It is 1 where the plane is seen edge-on, or would change by more than _MAX_DEEPER.
    """
    before, after = (normal * start).sum(dim=1), (normal * end).sum(dim=1)
    ratio = torch.where(after.abs() > _EDGE_ON, before / after, 1.0)
    return torch.where((ratio - 1).abs() < _MAX_DEEPER, ratio, 1.0)
