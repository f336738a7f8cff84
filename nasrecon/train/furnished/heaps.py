"""Heaps: models and boxes in the air at all distances, before textured backdrops or in large halls."""

from __future__ import annotations

import math

import numpy as np

from nasrecon.train.furnished.composer import Composer, Placed
from nasrecon.train.furnished.models import ModelLibrary
from nasrecon.train.furnished.palette import Palette, paint, plain
from nasrecon.train.furnished.rigs import Viewpoint, rotation
from nasrecon.train.furnished.scene import Light, MeshScene, Sky


class Heap:
    """One heap in the making, seen from about the origin along +z."""

    def __init__(self, rng: np.random.Generator, library: ModelLibrary, palette: Palette) -> None:
        self.rng = rng
        self.composer = Composer(rng, library, palette, restyled=2 / 3)
        self.entries = library.entries

    def build(self) -> tuple[MeshScene, list[Viewpoint]]:
        """Pile the heap and return the scene and proposed viewpoints."""
        rng, composer = self.rng, self.composer
        far = math.exp(rng.uniform(math.log(4), math.log(40)))
        self._hall(far)
        near = math.exp(rng.uniform(math.log(0.6), math.log(2.5)))
        for _ in range(rng.integers(6, 25)):
            self._model(near, far)
        for _ in range(rng.integers(0, 14)):
            self._box(near, far)
        level = rng.uniform(0.15, 0.6)
        sky = Sky(
            zenith=paint(rng),
            horizon=paint(rng),
            ambient=np.full(3, level),
            below=np.full(3, level * rng.uniform(0.4, 1)),
            shelter=rng.uniform(0.5, 3),
        )
        lights = []
        for _ in range(rng.integers(1, 4)):
            at = rng.uniform(-1, 1, 3) * [0.5, 0.3, 0.3] * far + [0, -0.3 * min(far, 10), 0]
            lights.append(
                Light(
                    at=at,
                    color=rng.uniform(0.2, 0.9) * (1 + rng.uniform(-0.1, 0.1, 3)),
                    reach=0.4 * far + 1,
                    radius=rng.uniform(0.005, 0.03) * far,
                )
            )
        views = [Viewpoint(eye=rng.uniform(-0.3, 0.3, 3) * near, target=self._aim(far)) for _ in range(8)]
        return composer.builder.build(lights, sky), views

    def _aim(self, far: float) -> np.ndarray:
        yaw, pitch = self.rng.normal(0, 0.25), self.rng.normal(0, 0.12)
        return np.array([math.sin(yaw), math.sin(pitch), math.cos(yaw)]) * far

    def _hall(self, far: float) -> None:
        """Add a floor, a backdrop, and sometimes side walls and a ceiling; or a wall of large boxes."""
        rng, composer = self.rng, self.composer
        b = composer.builder
        wide, low, high = (
            far * rng.uniform(0.8, 2.0),
            rng.uniform(0.5, 3) * max(1, far / 12),
            far * rng.uniform(0.3, 1.2),
        )
        material = lambda: composer.any_material() if rng.random() < 0.7 else plain(rng, paint(rng, vivid=0.35))  # noqa: E731
        repeat = lambda *sides: tuple(s / rng.uniform(0.05, 0.5) / far for s in sides)  # noqa: E731
        middle = (low - high) / 2
        tall = (low + high) / 2
        b.add_quad(
            [0, middle, far],
            [wide, 0, far * rng.uniform(-0.3, 0.3)],
            [0, -tall, 0],
            material(),
            repeat(wide, tall),
            tuple(rng.random(2)),
        )
        b.add_quad([0, middle, -far], [wide * 2, 0, 0], [0, -tall, 0], material(), repeat(wide, tall))
        if rng.random() < 0.8:
            b.add_quad(
                [0, low, 0], [wide * 2, 0, 0], [0, 0, far * 1.2], material(), repeat(wide, far), tuple(rng.random(2))
            )
        if rng.random() < 0.7:
            for side in (-1, 1):
                b.add_quad(
                    [side * wide, middle, 0],
                    [0, 0, far * 1.3],
                    [0, -tall, 0],
                    material(),
                    repeat(far, tall),
                    tuple(rng.random(2)),
                )
        if rng.random() < 0.5:
            b.add_quad([0, -high, 0], [wide * 2, 0, 0], [0, 0, far * 1.2], material(), repeat(wide, far))

    def _spot(self, near: float, far: float) -> tuple[np.ndarray, float]:
        """Draw a place in view and its distance."""
        rng = self.rng
        away = math.exp(rng.uniform(math.log(near), math.log(0.9 * far)))
        yaw, pitch = rng.normal(0, 0.35), rng.normal(0.03, 0.22)
        return np.array(
            [math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)]
        ) * away, away

    def _model(self, near: float, far: float) -> None:
        rng, composer = self.rng, self.composer
        entry = self.entries[rng.integers(len(self.entries))]
        model = composer.fetch(entry)
        if model is None or composer.budget < len(model.faces):
            return
        at, away = self._spot(near, far)
        scale = away * math.exp(rng.uniform(math.log(0.15), math.log(1.0))) / max(model.size)
        standing = rng.random() < 0.35
        R = rotation([0, rng.uniform(-math.pi, math.pi), 0]) if standing else rotation(rng.uniform(-3, 3, 3))
        if np.linalg.norm(at) - 0.6 * max(model.size) * scale < 0.4 * near:
            return
        composer.place(entry, model, at, scale=scale, rotation=R)

    def _box(self, near: float, far: float) -> None:
        rng, composer = self.rng, self.composer
        at, away = self._spot(near, far)
        half = away * np.exp(rng.uniform(math.log(0.02), math.log(0.25), 3))
        if rng.random() < 0.4:
            half[rng.integers(3)] = away * math.exp(rng.uniform(math.log(0.002), math.log(0.02)))
        if np.linalg.norm(at) - np.linalg.norm(half) < 0.3 * near:
            return
        material = composer.any_material() if rng.random() < 0.6 else plain(rng, paint(rng, vivid=0.35))
        composer.builder.add_box(
            at,
            half,
            material,
            1 / (away * math.exp(rng.uniform(math.log(0.05), math.log(0.6)))),
            rotation(rng.uniform(-3, 3, 3)),
        )
        composer.placed.append(Placed(at - half, at + half))
