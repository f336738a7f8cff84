"""Where the cameras of a procedural world stand: free, turned to things, with baselines of 1 to 50 % of the depth."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from nasrecon.train.raycast import cast, inside_any
from nasrecon.train.sensor import uniform
from nasrecon.train.worlds import Worlds, rotation_from_vector

_CANDIDATES = 10


def look_at(eye: torch.Tensor, target: torch.Tensor, roll: torch.Tensor) -> torch.Tensor:
    """Return world_from_cam rotations (B, 3, 3) of upright cameras (y down) at ``eye`` that face ``target`` (B, 3)."""
    forward = F.normalize(target - eye, dim=-1)
    down = torch.tensor([0.0, 1.0, 0.0], device=eye.device).expand_as(forward)
    right = F.normalize(torch.linalg.cross(down, forward), dim=-1)
    R = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1)
    zero = torch.zeros_like(roll)
    return R @ rotation_from_vector(torch.stack([zero, zero, roll], dim=-1))


def draw_rig(
    worlds: Worlds, views: int, size: tuple[int, int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw the cameras of each world.

    The image of ``size`` is a window into a larger virtual image (up to 2.6 times as wide), so that networks trained
    on small windows meet the pixel statistics of large photographs.

    Returns:
        K (B, V, 3, 3) [px, half-pixel centres] and world_from_cam (B, V, 4, 4).
    """
    (H, W), B, device = size, len(worlds.center), generator.device
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    zoom = torch.exp(r((B,), 0, 1) ** 1.5 * math.log(2.6))
    focal = torch.exp(r((B,), math.log(0.6), math.log(1.5))) * W * zoom
    # The window's centre in the virtual image, as an offset of the principal point.
    shift = r((B, 2), -0.5, 0.5) * (zoom[:, None] - 1) * torch.tensor([W, H], device=device)
    K = torch.zeros(B, views, 3, 3, device=device)
    vary = torch.where(r((B, 1), 0, 1) < 0.3, 0.12, 0.0)
    K[..., 0, 0] = focal[:, None] * torch.exp(vary * r((B, views), -1, 1))
    K[..., 1, 1] = K[..., 0, 0] * torch.exp(r((B, 1), -0.03, 0.03))
    K[..., 2, 2] = 1
    center = torch.tensor([W / 2, H / 2], device=device) + r((B, 1, 2), -0.03, 0.03) * W * zoom[:, None, None]
    K[..., :2, 2] = center - shift[:, None]

    eye, R, median = _reference(worlds, K[:, 0], size, generator)
    out = torch.eye(4, device=device).repeat(B, views, 1, 1)
    out[:, 0, :3, :3], out[:, 0, :3, 3] = R, eye
    middle = torch.tensor([W / 2, H / 2, 1.0], device=device) @ torch.linalg.inv(K[:, 0]).transpose(-1, -2)
    focus = eye + (R @ (middle * (median * torch.exp(r((B,), -0.4, 0.7)))[:, None])[..., None])[..., 0]
    base = torch.exp(r((B,), math.log(0.008), math.log(0.45)))
    for v in range(1, views):
        out[:, v] = _source(worlds, out[:, 0], middle, focus, median, base, generator)
        # Move the window so that it sees what the reference's window sees.
        in_cam = (torch.linalg.inv(out[:, v]) @ F.pad(focus, (0, 1), value=1.0)[..., None])[:, :3, 0]
        at = (K[:, v] @ (in_cam / in_cam[:, 2:].clamp_min(0.05))[..., None])[:, :2, 0]
        miss = at - torch.tensor([W / 2, H / 2], device=device)
        limit = (zoom[:, None] - 1) * 0.5 * torch.tensor([W, H], device=device)
        K[:, v, :2, 2] -= torch.maximum(torch.minimum(miss * r((B, 1), 0.5, 1.1), limit), -limit)
    return K, out


def _reference(
    worlds: Worlds, K: torch.Tensor, size: tuple[int, int], generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return eye (B, 3), rotation (B, 3, 3) and median depth (B,) of the best of a few random cameras."""
    (H, W), B, device = size, len(K), K.device
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    room = worlds.half[:, 0]
    x, y = torch.meshgrid(torch.linspace(0.1, 0.9, 8), torch.linspace(0.1, 0.9, 6), indexing="xy")
    pixels = torch.stack([x * W, y * H, torch.ones_like(x)], dim=-1).view(-1, 3).to(device)
    rays = pixels @ torch.linalg.inv(K).transpose(-1, -2)
    # Most cameras are held upright, some tilted, some turned to portrait.
    kind, roll = r((B,), 0, 1), r((B,), -1, 1)
    turned = torch.where(kind < 0.1, torch.sign(roll) * math.pi / 2 + 0.15 * roll.abs(), roll * math.pi)
    roll = torch.where(kind < 0.15, turned, 0.2 * roll)
    best = None
    for _ in range(_CANDIDATES):
        indoor_eye = r((B, 3), -0.9, 0.9) * room * torch.tensor([1.0, 0.6, 1.0], device=device)
        outdoor_eye = r((B, 3), -7, 7)
        outdoor_eye[:, 1] = room[:, 1] - r((B,), 0.8, 3.0)
        eye = torch.where(worlds.outdoor[:, None], outdoor_eye, indoor_eye)
        if worlds.floating.any():
            eye = torch.where(worlds.floating[:, None], r((B, 3), -0.4, 0.4), eye)
        chosen = torch.randint(1, worlds.center.shape[1], (B,), generator=generator, device=device)
        thing = worlds.center[torch.arange(B, device=device), chosen]
        anywhere = r((B, 3), -1, 1) * torch.where(worlds.outdoor[:, None], 8.0, room) * 0.9
        anywhere[:, 1] = torch.where(worlds.outdoor, room[:, 1] - r((B,), 0, 3), anywhere[:, 1])
        target = torch.where((r((B, 1), 0, 1) < 0.6) | worlds.floating[:, None], thing, anywhere) + 1e-3
        R = look_at(eye, target, roll)
        depth, _ = cast(worlds, eye[:, None].expand(-1, len(pixels), -1), rays @ R.transpose(-1, -2))
        near, median = depth.quantile(0.05, dim=1), depth.median(dim=1).values
        score = near.clamp(max=0.5) + 0.05 * median.clamp(max=2) - 10 * inside_any(worlds, eye)
        if best is None:
            best = [score, eye, R, median]
        else:
            better = score > best[0]
            for i, new in enumerate((score, eye, R, median)):
                best[i] = torch.where(better.view(-1, *[1] * (new.dim() - 1)), new, best[i])
    assert best is not None
    return best[1], best[2], best[3]


def _source(
    worlds: Worlds, ref: torch.Tensor, middle: torch.Tensor, focus: torch.Tensor, median: torch.Tensor,
    base: torch.Tensor, generator: torch.Generator,
) -> torch.Tensor:  # fmt: skip
    """Return world_from_cam (B, 4, 4) of a camera about ``base`` median depths away, turned to the same place."""
    B, device = len(ref), ref.device
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    R0, eye0 = ref[:, :3, :3], ref[:, :3, 3]
    eye = eye0
    done = torch.zeros(B, dtype=torch.bool, device=device)
    # Most cameras step aside; some are carried ahead or back: nothing moves about the epipole, which is then in the
    # image.
    walked = r((B, 1), 0, 1) < 0.3
    aside, ahead = (torch.tensor(shares, device=device) for shares in ([1.0, 0.7, 0.5], [0.35, 0.25, 1.0]))
    for _ in range(6):
        along = F.normalize(r((B, 3), -1, 1) * torch.where(walked, ahead, aside), dim=-1)
        length = base * median * torch.exp(r((B,), -0.7, 0.7))
        tried = eye0 + (R0 @ along[..., None])[..., 0] * length[:, None]
        free = ~inside_any(worlds, tried)
        eye = torch.where((free & ~done)[:, None], tried, eye)
        done = done | free
    # Turn from the reference's direction towards the focus as seen from here, by a random share, and a little more.
    now = F.normalize(middle, dim=-1)
    wanted = F.normalize((R0.transpose(-1, -2) @ (focus - eye)[..., None])[..., 0], dim=-1)
    turn = torch.linalg.cross(now, wanted) * r((B, 1), 0.3, 1.1)
    turn = turn * (0.42 / turn.norm(dim=-1, keepdim=True).clamp_min(1e-6)).clamp(max=1)
    out = torch.eye(4, device=device).repeat(B, 1, 1)
    shaken = r((B, 3), -0.06, 0.06)
    shaken[:, 2] += 0.8 * r((B,), -1, 1) ** 3  # held level, mostly
    out[:, :3, :3] = R0 @ rotation_from_vector(turn) @ rotation_from_vector(shaken)
    out[:, :3, 3] = eye
    return out
