"""Cameras in triangle scenes: free, looking at things, 2 to 50 % of the depth apart, all seeing what the first sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from nasrecon.train.furnished.scene import MeshScene

_GRID = (14, 18)


@dataclass(frozen=True, kw_only=True)
class Viewpoint:
    """A proposed first camera: where it stands and what point it faces, both (3,) [m]."""

    eye: np.ndarray
    target: np.ndarray


def look_at(eye: np.ndarray, target: np.ndarray, roll: float) -> np.ndarray:
    """Return world_from_cam (4, 4) of a camera at ``eye`` facing ``target``, upright (y down) but for its roll."""
    forward = target - eye
    forward = forward / max(np.linalg.norm(forward), 1e-9)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right = right / max(np.linalg.norm(right), 1e-9) if np.linalg.norm(right) > 1e-6 else np.array([1.0, 0, 0])
    out = np.eye(4)
    out[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1) @ rotation([0, 0, roll])
    out[:3, 3] = eye
    return out


def rotation(vector: np.ndarray) -> np.ndarray:
    """Turn an axis-angle vector (3,) [rad] into a rotation (3, 3)."""
    vector = np.asarray(vector, float)
    angle = np.linalg.norm(vector)
    if angle < 1e-12:
        return np.eye(3)
    x, y, z = vector / angle
    skew = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * skew + (1 - math.cos(angle)) * skew @ skew


def draw_intrinsics(rng: np.random.Generator, views: int, size: tuple[int, int]) -> np.ndarray:
    """Return K (V, 3, 3) [px], half-pixel centres: focals of 0.6 to 1.6 image widths, principal point off centre."""
    H, W = size
    K = np.zeros((views, 3, 3))
    vary = 0.12 if rng.random() < 0.3 else 0.0
    K[:, 0, 0] = W * math.exp(rng.uniform(math.log(0.6), math.log(1.6))) * np.exp(vary * rng.uniform(-1, 1, views))
    K[:, 1, 1] = K[:, 0, 0] * math.exp(rng.uniform(-0.03, 0.03))
    off = 0.2 if rng.random() < 0.25 else 0.04
    K[:, 0, 2] = W / 2 + W * off * rng.uniform(-1, 1)
    K[:, 1, 2] = H / 2 + H * off * rng.uniform(-1, 1)
    K[:, 2, 2] = 1
    return K


def _probe(scene: MeshScene, K: np.ndarray, pose: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Cast a coarse grid of the view: depth (N,), infinite for a miss, material (N,), point (N, 3)."""
    x, y = np.meshgrid(
        (np.arange(_GRID[1]) + 0.5) / _GRID[1] * size[1], (np.arange(_GRID[0]) + 0.5) / _GRID[0] * size[0]
    )
    pixels = np.stack([x.ravel(), y.ravel(), np.ones(x.size)], axis=1)
    ray = pixels @ np.linalg.inv(K).T @ pose[:3, :3].T
    origin = np.broadcast_to(pose[:3, 3], ray.shape)
    hit = scene.cast(torch.from_numpy(np.concatenate([origin, ray], axis=1).astype(np.float32)))
    t = hit["t"].numpy()
    point = origin + ray * np.where(np.isfinite(t), t, 0)[:, None]
    toward = (hit["normal"].numpy() * ray).sum(1) / np.linalg.norm(ray, axis=1)
    return {"depth": t, "material": scene.material[hit["face"]].numpy(), "point": point, "facing": np.abs(toward)}


def _worth(visible: dict[str, np.ndarray], room: float) -> float:
    """Rate a first view: many things, nothing against the lens, not all sky; negative if it is useless."""
    result = np.isfinite(visible["depth"])
    if result.mean() < 0.55:
        return -1.0
    depth = np.where(result, visible["depth"], 1000.0)
    near, median = np.percentile(depth, 4), np.median(depth)
    if near < 0.12 or median < 0.3 or median > 200:
        return -1.0
    counts = np.unique(visible["material"][result], return_counts=True)[1]
    things = float((counts >= 2).sum())
    largest = counts.max() / len(depth)
    return things * (1.3 - largest) + 4 * min(np.log(np.percentile(depth, 85) / near), 1.5) + room


def overlap(
    scene: MeshScene, visible: dict[str, np.ndarray], K: np.ndarray, pose: np.ndarray, size: tuple[int, int]
) -> float:
    """Return the share of the first view's probed points that another camera sees."""
    result = np.isfinite(visible["depth"])
    inside = (visible["point"] - pose[:3, 3]) @ pose[:3, :3]
    pixel = inside @ K.T
    at = pixel[:, :2] / np.maximum(pixel[:, 2:], 1e-6)
    shown = result & (inside[:, 2] > 0.05) & (at > 0).all(1) & (at < [size[1], size[0]]).all(1)
    if not shown.any():
        return 0.0
    points = visible["point"][shown]
    rays = np.concatenate([np.broadcast_to(pose[:3, 3], points.shape), points - pose[:3, 3]], axis=1)
    hidden = scene.blocked(torch.from_numpy(rays.astype(np.float32)), 0.99).numpy()
    return float((~hidden).sum() / result.sum())


def draw_rig(
    scene: MeshScene, viewpoints: list[Viewpoint], views: int, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray] | None:
    """Draw the cameras of one scene from proposed viewpoints.

    Returns:
        K (V, 3, 3) [px, half-pixel centres] and world_from_cam (V, 4, 4); None where no proposal is worth seeing, or
        sources that see enough of it are not found.
    """
    K = draw_intrinsics(rng, views, size)
    kind, amount = rng.random(), rng.uniform(-1, 1)
    roll = 0.2 * amount
    if kind < 0.08:
        roll = math.copysign(math.pi / 2, amount) + 0.15 * abs(amount)
    elif kind < 0.13:
        roll = math.pi * amount
    best, best_worth, ref = None, 0.0, None
    for view in viewpoints:
        pose = look_at(view.eye, view.target, roll)
        visible = _probe(scene, K[0], pose, size)
        worth = _worth(visible, rng.uniform(0, 2))
        if worth > best_worth:
            best, best_worth, ref = visible, worth, pose
    if best is None or ref is None:
        return None
    result = np.isfinite(best["depth"])
    median = float(np.median(best["depth"][result]))
    base = math.exp(rng.uniform(math.log(0.02), math.log(0.5)))
    middle = np.linalg.inv(K[0]) @ [size[1] / 2, size[0] / 2, 1.0]
    focus = ref[:3, 3] + ref[:3, :3] @ middle * median * math.exp(rng.uniform(-0.4, 0.5))
    poses = [ref]
    for v in range(1, views):
        pose = _source(scene, best, K[v], ref, middle, focus, median, base, size, rng)
        if pose is None:
            return None
        poses.append(pose)
    return K, np.stack(poses)


def _source(
    scene: MeshScene, visible: dict[str, np.ndarray], K: np.ndarray, ref: np.ndarray, middle: np.ndarray,
    focus: np.ndarray, median: float, base: float, size: tuple[int, int], rng: np.random.Generator,
) -> np.ndarray | None:  # fmt: skip
    """Draw a source camera ``base`` median depths from the first until one sees enough of what the first sees."""
    sufficient = rng.uniform(0.35, 0.6)
    walked = rng.random() < 0.25
    for trial in range(14):
        along = rng.uniform(-1, 1, 3) * ([0.35, 0.25, 1.0] if walked else [1.0, 0.7, 0.4])
        along /= max(np.linalg.norm(along), 1e-6)
        length = median * np.clip(base * math.exp(rng.uniform(-0.6, 0.6)) * 0.93**trial, 0.02, 0.5)
        eye = ref[:3, 3] + ref[:3, :3] @ along * length
        step = torch.from_numpy(np.concatenate([ref[:3, 3], (eye - ref[:3, 3]) * 1.2])[None].astype(np.float32))
        if scene.blocked(step, 1.0).item():
            continue
        now = middle / np.linalg.norm(middle)
        wanted = ref[:3, :3].T @ (focus - eye)
        wanted /= max(np.linalg.norm(wanted), 1e-6)
        turn = np.cross(now, wanted) * rng.uniform(0.3, 1.1)
        turn = turn + rng.uniform(-0.07, 0.07, 3)
        turn *= min(1.0, 0.4 / max(np.linalg.norm(turn), 1e-6))
        pose = np.eye(4)
        pose[:3, :3] = ref[:3, :3] @ rotation(turn) @ rotation([0, 0, 0.35 * rng.uniform(-1, 1) ** 3])
        pose[:3, 3] = eye
        probe = _probe(scene, K, pose, size)
        depth = np.where(np.isfinite(probe["depth"]), probe["depth"], 1000)
        if np.percentile(depth, 3) < 0.1:
            continue
        if overlap(scene, visible, K, pose, size) >= sufficient:
            return pose
    return None
