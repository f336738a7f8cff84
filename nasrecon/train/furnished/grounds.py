"""Outdoor grounds: uneven ground, a building's front with windows and doors, shrubs, trees, benches, walls, a sky."""

from __future__ import annotations

import math

import numpy as np

from nasrecon.train.furnished.composer import Composer, Placed
from nasrecon.train.furnished.foliage import add_core, add_grass, add_leaves, fill_box, fill_ellipsoid, leaf_materials
from nasrecon.train.furnished.models import Entry, Model, ModelLibrary
from nasrecon.train.furnished.palette import Palette, paint, plain
from nasrecon.train.furnished.rigs import Viewpoint
from nasrecon.train.furnished.scene import Light, Material, MeshScene, Sky

_FIELD = 60.0


class Ground:
    """One open place in the making; the building's front faces -z, the cameras stand before it.

    Attributes:
        front: z of the building's front [m], None without a building.
    """

    def __init__(self, rng: np.random.Generator, library: ModelLibrary, palette: Palette) -> None:
        self.rng = rng
        self.composer = Composer(rng, library, palette, budget=350_000, restyled=rng.choice([0.05, 0.3]), vivid=0.07)
        self.front = rng.uniform(3, 14) if rng.random() < 0.75 else None
        self.close = rng.random() < 0.35
        self._phase = rng.uniform(0, 2 * math.pi, (6, 1, 1))
        self._wave = rng.normal(size=(6, 2, 1, 1)) * np.array([0.3, 0.6, 1.2, 2.4, 5, 9])[:, None, None, None]
        self._swell = np.array([0.15, 0.08, 0.04, 0.02, 0.01, 0.005])[:, None, None] * rng.uniform(0, 1.2)

    def build(self) -> tuple[MeshScene, list[Viewpoint]]:
        """Lay out the place and return the scene and proposed viewpoints."""
        rng, composer = self.rng, self.composer
        self._ground()
        if self.front is not None:
            self._building()
        self._backdrop()
        self._greenery()
        for roles, count in ((("tree",), rng.integers(0, 4)), (("shrub", "shrub", "tree"), rng.integers(1, 9)),
                             (("outdoor", "vehicle", "seat"), rng.integers(1, 7)), (("person",), rng.integers(0, 3)),
                             (("small", "outdoor"), rng.integers(0, 6))):  # fmt: skip
            for _ in range(count):
                self._thing(*roles)
        for _ in range(rng.integers(0, 4)):
            self._block()
        day = rng.uniform(0.4, 1.0)
        blue = np.array([0.35, 0.55, 1.0]) if rng.random() < 0.6 else np.array([0.8, 0.85, 0.9])
        sky = Sky(
            zenith=blue * rng.uniform(0.6, 1.2), horizon=np.full(3, rng.uniform(0.8, 1.4)),
            ambient=day * np.array([0.85, 0.95, 1.1]) * 0.8, below=day * np.array([0.5, 0.48, 0.4]) * 0.5,
            shelter=rng.uniform(1.5, 5), clouds=composer.palette.pick(rng, "rough"), cloudy=rng.uniform(0, 1),
        )  # fmt: skip
        lights = []
        if rng.random() < 0.65:
            toward = np.array([rng.uniform(-1, 1), -rng.uniform(0.3, 1.5), rng.uniform(-1.2, 0.4)])
            at = toward / np.linalg.norm(toward) * 5000
            lights.append(Light(at=at, color=rng.uniform(0.8, 1.8) * np.array([1.0, 0.93, 0.82]), reach=5000.0,
                                radius=5000 * rng.uniform(0.005, 0.05)))  # fmt: skip
        return composer.builder.build(lights, sky), self._viewpoints()

    def _height(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Return the height of the ground (y, down) at x, z [m]."""
        x, z = np.asarray(x, float)[None], np.asarray(z, float)[None]
        wave, phase, swell = self._wave, self._phase, self._swell
        if x.ndim == 2:
            wave, phase, swell = wave[..., 0], phase[..., 0], swell[..., 0]
        return (swell * np.sin(wave[:, 0] * x + wave[:, 1] * z + phase)).sum(0)

    def _natural(self) -> Material:
        """Return a material in the colours of grass, earth, stone."""
        rng = self.rng
        color = np.array([[0.16, 0.22, 0.07], [0.30, 0.22, 0.14], [0.32, 0.31, 0.29], [0.2, 0.19, 0.17]])[
            rng.integers(4)
        ]
        return self.composer.colored_material(
            color * math.exp(rng.uniform(-0.4, 0.5)), "rough", "rough", "cells", "tile"
        )

    def _masonry(self) -> Material:
        """Return a material in the colours of brick, stone, plaster."""
        rng = self.rng
        if rng.random() < 0.2:
            return self.composer.any_material("bricks", "tile", "tiles", "plaster")
        color = np.array([[0.33, 0.14, 0.09], [0.5, 0.38, 0.25], [0.4, 0.39, 0.36], [0.62, 0.6, 0.55]])[rng.integers(4)]
        color = color * math.exp(rng.uniform(-0.3, 0.3)) * (1 + rng.uniform(-0.1, 0.1, 3))
        return self.composer.colored_material(color, "bricks", "bricks", "bricks", "rough", "plaster", "tile")

    def _ground(self) -> None:
        rng = self.rng
        step = np.concatenate([np.linspace(0, 8, 56), np.geomspace(8.3, _FIELD, 16)])
        side = np.concatenate([-step[:0:-1], step])
        x, z = np.meshgrid(side, side)
        y = self._height(x, z)
        vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
        n = len(side)
        i = (np.arange(n - 1)[:, None] * n + np.arange(n - 1)).ravel()
        faces = np.concatenate([np.stack([i, i + 1, i + n], 1), np.stack([i + 1, i + n + 1, i + n], 1)])
        dy_dz, dy_dx = np.gradient(y, side, side)
        normal = np.stack([dy_dx, -np.ones_like(y), dy_dz], axis=-1).reshape(-1, 3)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        material = (
            self._natural() if rng.random() < 0.8 else self.composer.any_material("tiles", "bricks", "cells", "tile")
        )
        uv = vertices[:, [0, 2]] * math.exp(rng.uniform(math.log(0.25), math.log(2.0)))
        self.composer.builder.add_mesh(
            vertices, faces, normal[faces], uv[faces], np.zeros(len(faces), np.int32), [material]
        )

    def _building(self) -> None:
        """Add a front with rows of windows, a door, a plinth and eaves."""
        rng, composer = self.rng, self.composer
        wide, tall = rng.uniform(5, 15), rng.uniform(3, 9)
        material = self._masonry() if rng.random() < 0.85 else plain(rng, paint(rng, 0.3, 0.85, 0.1), 0.0)
        deep = rng.uniform(3, 10)
        scale = math.exp(rng.uniform(math.log(0.4), math.log(1.2)))
        middle = np.array([rng.uniform(-3, 3), 0.5 - tall / 2, self.front + deep])
        composer.builder.add_box(middle, np.array([wide, tall / 2 + 0.5, deep]), material, scale)
        composer.placed.append(Placed(middle - [wide, tall, deep], middle + [wide, tall, deep]))
        trim = plain(rng, paint(rng, 0.1, 0.85, 0.05))
        if rng.random() < 0.6:
            composer.builder.add_box(
                [middle[0], -tall - 0.1, self.front + deep - 0.2], np.array([wide + 0.4, 0.12, deep + 0.5]), trim, 1.0
            )
        if rng.random() < 0.4:
            composer.builder.add_box(
                [middle[0], -0.2, self.front + deep - 0.05], np.array([wide + 0.03, 0.4, deep]), trim, 1.0
            )
        windows = [e for e in self.composer.roles.get("opening", []) if "window" in e.name.lower()]
        doors = [e for e in self.composer.roles.get("opening", []) if "door" in e.name.lower()]
        if not windows:
            return
        entry = windows[rng.integers(len(windows))]
        model = composer.fetch(entry)
        if model is None:
            return
        gap = rng.uniform(1.2, 3.0)
        for floor in range(int(tall / 3)):
            for x in np.arange(-wide + 1.2, wide - 1, model.size[0] + gap) + middle[0]:
                if floor == 0 and doors and rng.random() < 0.25:
                    door = doors[rng.integers(len(doors))]
                    shape = composer.fetch(door)
                    if shape is not None:
                        self._opening(door, shape, np.array([x, 0.0, self.front]))
                else:
                    self._opening(entry, model, np.array([x, -3.0 * floor - max(entry.elevation, 0.7), self.front]))

    def _opening(self, entry: Entry, model: Model, at: np.ndarray) -> None:
        rng, composer = self.rng, self.composer
        pane = Material(bias=np.full(3, rng.uniform(0.01, 0.25)), gloss=0.3, shine=60)
        composer.builder.add_quad(
            at - [0, model.size[1] / 2, 0.004],
            [model.size[0] * 0.46, 0, 0],
            [0, -model.size[1] * 0.46, 0],
            pane,
            (1.0, 1.0),
        )
        composer.place(entry, model, at - [0, 0, model.size[2] / 2 - 0.06], 0.0)

    def _greenery(self) -> None:
        """Add bushes and hedges of leaves, ivy on the front, crowns overhead, grass."""
        rng, composer = self.rng, self.composer
        limit = self.front if self.front is not None else 12.0
        for _ in range(rng.integers(0, 6)):
            half = np.exp(rng.uniform(np.log([0.25, 0.2, 0.25]), np.log([2.0, 0.9, 0.8])))
            x = rng.uniform(-6, 6)
            z = limit - half[2] if rng.random() < 0.5 else rng.uniform(1, limit)
            center = np.array([x, self._level(x, z) - half[1] * 0.9, z])
            materials, box = leaf_materials(rng), rng.random() < 0.3
            leaf = math.exp(rng.uniform(math.log(0.03), math.log(0.13)))
            count = int(np.clip(12 * half[0] * max(half[1:]) / leaf**2, 400, 9000))
            add_leaves(composer, (fill_box if box else fill_ellipsoid)(rng, center, half, count), leaf, materials)
            if box:
                composer.builder.add_box(center, half * 0.93, materials[0], 1.0)
            elif rng.random() < 0.8:
                add_core(composer, center, half * 0.65, materials[0])
            composer.placed.append(Placed(center - half, center + half))
        if self.front is not None and rng.random() < 0.25:
            half = np.array([rng.uniform(0.5, 3), rng.uniform(0.5, 2), 0.04])
            at = fill_ellipsoid(
                rng, np.array([rng.uniform(-4, 4), -half[1], self.front - 0.05]), half, int(rng.integers(500, 4000))
            )
            add_leaves(composer, at, rng.uniform(0.05, 0.12), leaf_materials(rng), np.array([0.0, 0, -1]))
        for _ in range(rng.integers(0, 3)):
            center = np.array([rng.uniform(-4, 4), -rng.uniform(2, 4.5), rng.uniform(0, limit)])
            add_leaves(
                composer,
                fill_ellipsoid(rng, center, rng.uniform(0.4, 1.6, 3), int(rng.integers(300, 4000))),
                rng.uniform(0.06, 0.16),
                leaf_materials(rng),
            )
        if rng.random() < 0.4:
            x, z = rng.normal(rng.uniform(-3, 3), 2, 6000), rng.normal(rng.uniform(0, limit), 2, 6000)
            add_grass(
                composer, np.stack([x, self._height(x, z), z], axis=1), rng.uniform(0.04, 0.3), leaf_materials(rng)
            )

    def _level(self, x: float, z: float) -> float:
        return float(self._height(np.array([x]), np.array([z]))[0])

    def _backdrop(self) -> None:
        """Add far fronts and a line of hills around."""
        rng, composer = self.rng, self.composer
        for _ in range(rng.integers(1, 7)):
            angle, away = rng.uniform(-math.pi, math.pi), rng.uniform(18, _FIELD)
            half = np.array([rng.uniform(3, 15), rng.uniform(2, 9), rng.uniform(3, 15)])
            material = self._natural() if rng.random() < 0.3 else self._masonry()
            at = np.array([math.sin(angle) * away, 0.5 - half[1], math.cos(angle) * away])
            composer.builder.add_box(at, half, material, rng.uniform(0.1, 0.6))

    def _thing(self, *roles: str) -> None:
        rng, composer = self.rng, self.composer
        result = self.composer.pick(*roles)
        if result is None:
            return
        entry, model = result
        limit = self.front - 0.3 if self.front is not None else 15.0
        for _ in range(5):
            x, z = rng.uniform(-7, 7), rng.uniform(-2, limit)
            yaw, scale = rng.uniform(-math.pi, math.pi), rng.uniform(0.85, 1.2)
            at = np.array([x, self._level(x, z) + 0.02, z])
            if composer.free(composer.box_of(model, at, yaw, scale), 0.02):
                natural = any(role in ("tree", "shrub") for role in roles)
                composer.place(entry, model, at, yaw, scale, style=composer.own_style(model) if natural else None)
                return

    def _block(self) -> None:
        """Add a low wall, a step or a post."""
        rng, composer = self.rng, self.composer
        half = np.exp(rng.uniform(np.log([0.05, 0.1, 0.05]), np.log([2.5, 0.8, 0.6])))
        x, z = rng.uniform(-6, 6), rng.uniform(0, self.front or 12)
        at = np.array([x, self._level(x, z) - half[1] + 0.05, z])
        if composer.free(Placed(at - half, at + half)):
            material = self._masonry() if rng.random() < 0.7 else plain(rng, paint(rng))
            composer.builder.add_box(at, half, material, rng.uniform(0.5, 2))
            composer.placed.append(Placed(at - half, at + half))

    def _viewpoints(self) -> list[Viewpoint]:
        rng, out = self.rng, []
        things = [p for p in self.composer.placed if p.entry is not None]
        limit = self.front - 0.5 if self.front is not None else 10.0
        for _ in range(80):
            x, z = rng.uniform(-7, 7), rng.uniform(-6, limit)
            target = np.array([rng.uniform(-6, 6), -rng.uniform(0, 4), self.front or rng.uniform(4, 20)])
            if things and rng.random() < 0.7:
                thing = things[rng.integers(len(things))]
                target = thing.low + (thing.high - thing.low) * rng.uniform(0, 1, 3)
            eye = np.array([x, self._level(x, z) - rng.uniform(0.8, 2.2), z])
            if self.close:
                if rng.random() < 0.4:
                    target[1] = self._level(target[0], target[2])
                away = rng.normal(size=3) * [1, 0.3, 0.6] - [0, 0.5, 0.8]
                eye = target + away / np.linalg.norm(away) * math.exp(rng.uniform(math.log(0.6), math.log(3.5)))
            if eye[1] > self._level(eye[0], eye[2]) - 0.15:
                continue
            inside = any(((eye > p.low - 0.05) & (eye < p.high + 0.05)).all() for p in self.composer.placed)
            if not inside and np.linalg.norm(target - eye) > 0.4:
                out.append(Viewpoint(eye=eye, target=target))
            if len(out) >= 14:
                break
        return out
