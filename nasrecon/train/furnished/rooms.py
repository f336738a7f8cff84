"""Rooms: walls with doors and windows that daylight comes through, ceilings, lamps; ``furnishing`` fills them."""

from __future__ import annotations

import math

import numpy as np

from nasrecon.train.furnished.composer import Composer, Placed
from nasrecon.train.furnished.furnishing import Furnishing
from nasrecon.train.furnished.models import Entry, Model, ModelLibrary
from nasrecon.train.furnished.palette import Palette, paint, plain, textured
from nasrecon.train.furnished.rigs import Viewpoint
from nasrecon.train.furnished.scene import Light, Material, MeshScene, Sky

WALLS = 4


class Room:
    """One room in the making; the floor is at y = 0, the ceiling at y = -height.

    Attributes:
        half: half the width (x) and depth (z) [m].
    """

    def __init__(self, rng: np.random.Generator, library: ModelLibrary, palette: Palette) -> None:
        self.rng = rng
        self.composer = Composer(rng, library, palette, restyled=rng.choice([0.15, 0.5, 0.75]), vivid=0.07)
        self.half = np.exp(rng.uniform(math.log(1.4), math.log(3.8), 2))
        if rng.random() < 0.1:
            self.half = np.array([rng.uniform(0.9, 1.4), rng.uniform(4, 12)])
        self.height = rng.uniform(2.3, 3.2)
        self._windows: list[tuple[int, np.ndarray]] = []
        color = paint(rng, 0.35, 0.85, 0.05)
        self._wall_color = np.clip(
            (color + color.mean()) / 2, 0.05, 0.88
        )  # walls are paler than what stands before them

    def build(self) -> tuple[MeshScene, list[Viewpoint]]:
        """Furnish the room and return the scene and proposed viewpoints."""
        self._walls(self._openings())
        self._floor_and_ceiling()
        Furnishing(self).fill()
        return self.composer.builder.build(self._lights(), self._sky()), self._viewpoints()

    def wall(self, i: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the middle of wall i at the floor, the direction along it, and the yaw of things with backs to it."""
        x, z = self.half
        middle = np.array([[0, 0, z], [0, 0, -z], [x, 0, 0], [-x, 0, 0]][i], float)
        along = np.array([1.0, 0, 0]) if i < 2 else np.array([0, 0, 1.0])
        return middle, along, [0.0, math.pi, math.pi / 2, -math.pi / 2][i]

    def length(self, i: int) -> float:
        """Return half the length of wall i [m]."""
        return float(self.half[0] if i < 2 else self.half[1])

    def inward(self, i: int) -> np.ndarray:
        """Return the direction from wall i into the room."""
        middle = self.wall(i)[0]
        return -middle / np.linalg.norm(middle)

    def against(self, model: Model, i: int, along: float, bottom: float, gap: float) -> tuple[np.ndarray, float]:
        """Return the place and yaw of a model with its back ``gap`` from wall i and its underside at ``bottom``."""
        middle, direction, yaw = self.wall(i)
        return middle + direction * along + self.inward(i) * (model.size[2] / 2 + gap) - [0, bottom, 0], yaw

    def holds(self, box: Placed) -> bool:
        """Return whether a box lies in the room."""
        limit = np.array([self.half[0], 0.01, self.half[1]]) - 0.005
        low = np.array([-self.half[0], -self.height, -self.half[1]]) + 0.005
        return bool((box.low > low).all() and (box.high < limit).all())

    def _openings(self) -> dict[int, list[float]]:
        """Put doors and windows into the walls; return the holes of windows: wall -> (left, right, low, high)."""
        rng, composer, holes = self.rng, self.composer, {}
        for _ in range(rng.integers(1, 5)):
            result = composer.pick("opening")
            i = int(rng.integers(WALLS))
            if result is None or result[1].size[0] > 2 * self.length(i) - 0.2 or result[1].size[1] > self.height - 0.05:
                continue
            entry, model = result
            along = rng.uniform(-1, 1) * (self.length(i) - model.size[0] / 2 - 0.05)
            bottom = min(entry.elevation, self.height - model.size[1] - 0.02)
            square = is_window(entry) and "arched" not in entry.name.lower()
            pierced = square and i not in holes and rng.random() < 0.75
            at, yaw = self.against(model, i, along, bottom, -model.size[2] / 2 if pierced else 0.0)
            if not composer.free(composer.box_of(model, at, yaw)):
                continue
            composer.place(entry, model, at, yaw)
            w, h = model.size[0] / 2 - 0.02, model.size[1] - 0.02
            if pierced:
                holes[i] = [along - w, along + w, bottom + 0.02, bottom + h]
                self._windows.append((i, at - [0, model.size[1] / 2, 0]))
            else:
                self._behind_panes(model, at, i)
        return holes

    def _behind_panes(self, model: Model, at: np.ndarray, i: int) -> None:
        """Put what is seen through panes on the wall behind: dusk, daylight, or a picture of the outside."""
        rng = self.rng
        middle, direction, _ = self.wall(i)
        center = middle + direction * ((at - middle) @ direction) + self.inward(i) * 0.004
        center = center + [0, at[1] - model.size[1] / 2, 0]
        glow = np.full(3, rng.uniform(0.02, 1.2)) * [0.93, 1.0, 1.08]
        material = Material(bias=np.full(3, 0.02), glow=glow)
        if rng.random() < 0.4:
            material = textured(rng, self.composer.palette.pick(rng, "photo", "cells", "rough"), 1.0, glow.clip(0, 1))
        up = np.array([0, -model.size[1] * 0.47, 0])
        self.composer.builder.add_quad(center, direction * model.size[0] * 0.47, up, material, (1.0, 1.0))

    def _walls(self, holes: dict[int, list[float]]) -> None:
        rng, composer, h = self.rng, self.composer, self.height
        materials = [plain(rng, self._wall_color, 0.0)] * WALLS
        kind = rng.random()
        if kind > 0.7:
            for i in rng.choice(WALLS, rng.integers(1, WALLS + 1), replace=False):
                materials[i] = composer.any_material("bricks", "tile", "tiles", "stripes", "plaster", "rough")
        elif kind > 0.4:
            tint = self._wall_color / self._wall_color.mean() * rng.uniform(0.6, 1)
            pyramid = composer.palette.pick(rng, "plaster", "rough", "fabric", "tile")
            materials = [textured(rng, pyramid, rng.uniform(0.05, 0.5), tint)] * WALLS
        scale = math.exp(rng.uniform(math.log(0.3), math.log(1.5)))
        skirting = plain(rng, paint(rng, 0.1, 0.9, 0.05)) if rng.random() < 0.7 else None
        tall = rng.uniform(0.05, 0.14)
        for i in range(WALLS):
            middle, along, _ = self.wall(i)
            length = self.length(i)
            left, right, low, high = holes.get(i, [length, length, 0, h])
            pieces = [(-length, left, 0, h), (right, length, 0, h), (left, right, 0, low), (left, right, high, h)]
            for a, b, bottom, top in pieces:
                if b - a > 1e-3 and top - bottom > 1e-3:
                    center = middle + along * (a + b) / 2 - [0, (bottom + top) / 2, 0]
                    composer.builder.add_quad(
                        center, along * (b - a) / 2, [0, (bottom - top) / 2, 0], materials[i],
                        ((b - a) * scale, (top - bottom) * scale), ((a + length) * scale, (h - top) * scale),
                    )  # fmt: skip
            if skirting is not None:
                half = np.abs(along) * length + [0, tall / 2, 0] + (1 - np.abs(along)) * [1, 0, 1] * 0.01
                composer.builder.add_box(middle - [0, tall / 2, 0], half, skirting, 1.0)

    def _floor_and_ceiling(self) -> None:
        rng, composer = self.rng, self.composer
        floor, kind = plain(rng, paint(rng, 0.05, 0.6, 0.05)), rng.random()
        if kind < 0.45:
            floor = composer.any_material("tile")
        elif kind < 0.85:  # wood, stone, carpet
            color = np.array([[0.35, 0.2, 0.1], [0.4, 0.38, 0.34], [0.12, 0.12, 0.13], [0.5, 0.42, 0.32]])[
                rng.integers(4)
            ]
            color = color * math.exp(rng.uniform(-0.5, 0.5)) * (1 + rng.uniform(-0.15, 0.15, 3))
            floor = composer.colored_material(color, "tiles", "fabric", "stripes", "rough", "cells", "bricks")
        ceiling = plain(rng, np.full(3, rng.uniform(0.5, 0.88)), 0.0)
        if rng.random() < 0.25:
            ceiling = composer.any_material("tiles", "tile", "stripes", "plaster")
        x, z = self.half
        for y, material, scale in (
            (0.0, floor, math.exp(rng.uniform(math.log(0.4), math.log(1.6)))),
            (-self.height, ceiling, 0.7),
        ):
            offset = tuple(rng.random(2))
            composer.builder.add_quad([0, y, 0], [x, 0, 0], [0, 0, z], material, (2 * x * scale, 2 * z * scale), offset)

    def _lights(self) -> list[Light]:
        """Return one or two lamps, and sky light or sunshine through a window."""
        rng, lights = self.rng, []
        if self._windows and rng.random() < 0.8:
            i, at = self._windows[rng.integers(len(self._windows))]
            if rng.random() < 0.5:
                toward = -self.inward(i) * rng.uniform(0.8, 2) + self.wall(i)[1] * rng.uniform(-0.8, 0.8) - [0, 1, 0]
                lights.append(Light(at=toward / np.linalg.norm(toward) * 4000, color=rng.uniform(0.8, 2.2) * warm(0.3),
                                    reach=4000, radius=rng.uniform(20, 80)))  # fmt: skip
            else:
                lights.append(Light(at=at + self.inward(i) * 0.2, color=rng.uniform(0.3, 1.1) * warm(-0.2), reach=2.5,
                                    radius=0.4))  # fmt: skip
        for _ in range(rng.integers(1, 3)):
            x, z = rng.uniform(-0.7, 0.7, 2) * self.half
            lights.append(Light(at=np.array([x, -self.height * rng.uniform(0.75, 0.95), z]),
                                color=rng.uniform(0.2, 0.9) * warm(rng.uniform(0, 1)), reach=self.height,
                                radius=rng.uniform(0.1, 0.4)))  # fmt: skip
        return lights

    def _sky(self) -> Sky:
        rng = self.rng
        level, day = rng.uniform(0.25, 0.8), rng.uniform(0.3, 2.5)
        bounced = self._wall_color / self._wall_color.max()
        return Sky(
            zenith=day * np.array([0.75, 0.9, 1.1]), horizon=day * np.array([0.95, 0.97, 1.0]),
            ambient=level * warm(rng.uniform(-0.3, 0.6)), below=level * rng.uniform(0.4, 0.9) * bounced,
            shelter=rng.uniform(0.5, 1.2), clouds=self.composer.palette.pick(rng, "photo", "cells", "rough"),
            cloudy=rng.uniform(0, 0.8),
        )  # fmt: skip

    def _viewpoints(self) -> list[Viewpoint]:
        rng, out = self.rng, []
        x, z = self.half - 0.12
        things = [p for p in self.composer.placed if p.entry is not None]
        tops = [p for p in things if (p.high - p.low).max() < 0.5]
        close = rng.random() < 0.3
        for _ in range(60):
            target = np.array([rng.uniform(-x, x), -rng.uniform(0, self.height), rng.uniform(-z, z)])
            among = tops if close and tops else things
            thing = among[rng.integers(len(among))] if among else None
            if thing is not None and rng.random() < 0.85:
                target = thing.low + (thing.high - thing.low) * rng.uniform(0, 1, 3)
            eye = np.array([rng.uniform(-x, x), -rng.uniform(0.4, min(1.95, self.height - 0.15)), rng.uniform(-z, z)])
            if close and thing is not None:
                away = rng.normal(size=3) * [1, 0.4, 1] - [0, 0.7, 0]
                eye = target + away / np.linalg.norm(away) * math.exp(rng.uniform(math.log(0.4), math.log(1.5)))
                eye = np.clip(eye, [-x, 0.12 - self.height, -z], [x, -0.1, z])
            inside = any(((eye > p.low - 0.08) & (eye < p.high + 0.08)).all() for p in self.composer.placed)
            if not inside and np.linalg.norm(target - eye) > 0.35:
                out.append(Viewpoint(eye=eye, target=target))
            if len(out) >= 12:
                break
        return out


def is_window(entry: Entry) -> bool:
    """Return whether an opening has panes."""
    return any(word in entry.name.lower() for word in ("window", "pane", "glass"))


def warm(amount: float) -> np.ndarray:
    """Return the colour (3,) of light between bluish (-1) and reddish (1)."""
    return np.array([1.0, 1 - 0.12 * amount, 1 - 0.3 * amount])
