"""Leaves and blades of grass by the thousand: bushes, crowns, ivy, meadows."""

from __future__ import annotations

import math

import numpy as np

from nasrecon.train.furnished.composer import Composer
from nasrecon.train.furnished.palette import plain
from nasrecon.train.furnished.scene import Material


def leaf_materials(rng: np.random.Generator) -> list[Material]:
    """Draw three to five related greens; now and then autumn colours."""
    base = np.array([0.10, 0.20, 0.04]) * math.exp(rng.uniform(-0.7, 0.7))
    if rng.random() < 0.15:
        base = np.array([0.35, 0.16, 0.05]) * rng.uniform(0.5, 1.2)
    shades = [
        base * math.exp(rng.uniform(-0.5, 0.5)) * (1 + rng.uniform(-0.25, 0.25, 3)) for _ in range(rng.integers(3, 6))
    ]
    return [plain(rng, shade.clip(0.005, 0.8), float(rng.uniform(0, 0.12))) for shade in shades]


def fill_ellipsoid(rng: np.random.Generator, center: np.ndarray, half: np.ndarray, count: int) -> np.ndarray:
    """Draw leaf places (count, 3), most of them in the outer third of an ellipsoid."""
    out = rng.normal(size=(count, 3))
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    lumps = 1 + 0.25 * np.sin(out @ rng.normal(size=(3, 3)) * 5).prod(axis=1)
    return center + out * half * (rng.uniform(0.4, 1, count) ** 0.4 * lumps)[:, None]


def fill_box(rng: np.random.Generator, center: np.ndarray, half: np.ndarray, count: int) -> np.ndarray:
    """Draw leaf places (count, 3) in a box, denser at its top and front."""
    share = rng.uniform(-1, 1, (count, 3))
    face = rng.random(count)
    share[face < 0.4, 1] = -1 + 0.15 * rng.random((face < 0.4).sum())
    share[face > 0.6, 2] = -1 + 0.15 * rng.random((face > 0.6).sum())
    return center + share * half


def add_leaves(
    composer: Composer, at: np.ndarray, size: float, materials: list[Material], facing: np.ndarray | None = None
) -> None:
    """Add a leaf of about ``size`` [m], two triangles, at each place (N, 3), facing a direction (3,) or any."""
    rng, n = composer.rng, len(at)
    rib = rng.normal(size=(n, 3)) + [0, 0.5, 0]
    rib /= np.linalg.norm(rib, axis=1, keepdims=True)
    out = rng.normal(size=(n, 3)) if facing is None else facing + 0.35 * rng.normal(size=(n, 3))
    across = np.cross(rib, out)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    up = np.cross(across, rib)
    length = size * np.exp(rng.uniform(-0.4, 0.4, n))[:, None]
    wide, fold = length * rng.uniform(0.2, 0.4), length * rng.uniform(0.0, 0.15)
    corners = np.stack(
        [at - rib * length / 2, at + across * wide + up * fold, at + rib * length / 2, at - across * wide + up * fold],
        axis=1,
    )
    first = np.arange(n)[:, None] * 4
    faces = np.concatenate([first + [0, 1, 2], first + [0, 2, 3]])
    _add(composer, corners.reshape(-1, 3), faces, np.tile(rng.integers(len(materials), size=n), 2), materials)


def add_core(composer: Composer, center: np.ndarray, half: np.ndarray, material: Material) -> None:
    """Add a dark ellipsoid of 240 faces, which a bush of leaves (``fill_ellipsoid``) hides."""
    turn, tilt = np.meshgrid(np.linspace(0, 2 * math.pi, 16), np.linspace(0, math.pi, 9))
    unit = np.stack([np.cos(turn) * np.sin(tilt), np.cos(tilt), np.sin(turn) * np.sin(tilt)], axis=-1).reshape(-1, 3)
    first = (np.arange(8)[:, None] * 16 + np.arange(15)).ravel()
    faces = np.concatenate(
        [np.stack([first, first + 1, first + 16], 1), np.stack([first + 1, first + 17, first + 16], 1)]
    )
    faces = faces[np.ptp(unit[faces], axis=1).max(1) > 0]
    _add(composer, center + unit * half, faces, np.zeros(len(faces), np.int32), [material])


def add_grass(composer: Composer, root: np.ndarray, tall: float, materials: list[Material]) -> None:
    """Add a blade, one thin triangle, at each root (N, 3)."""
    rng, n = composer.rng, len(root)
    heading = rng.uniform(0, 2 * math.pi, n)
    side = np.stack([np.cos(heading), np.zeros(n), np.sin(heading)], axis=1)
    height = (tall * np.exp(rng.uniform(-0.6, 0.4, n)))[:, None]
    wide = 0.04 * tall + 0.002
    lean = rng.normal(0, 0.35, (n, 3)) * [1, 0, 1] - [0, 1, 0]
    corners = np.stack([root - side * wide, root + side * wide, root + lean * height], axis=1)
    faces = np.arange(3 * n).reshape(-1, 3)
    _add(composer, corners.reshape(-1, 3), faces, rng.integers(len(materials), size=n), materials)


def _add(
    composer: Composer, vertices: np.ndarray, faces: np.ndarray, material: np.ndarray, materials: list[Material]
) -> None:
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    normals = np.repeat(normal[:, None], 3, axis=1)
    composer.builder.add_mesh(vertices, faces, normals, np.zeros((len(faces), 3, 2)), material, materials)
    composer.budget -= len(faces)
