"""Furnished rooms: furniture along walls, chairs at tables, small things on tables, doors, windows, pictures, lamps."""

from __future__ import annotations

import math

import numpy as np

from nasrecon.train.mesh_scene import Light, Look, MeshScene, Sky
from nasrecon.train.models import Entry, Model, ModelLibrary
from nasrecon.train.rigs import Viewpoint
from nasrecon.train.roles import sort_by_role
from nasrecon.train.staging import Palette, Placed, Stage, paint, plain, textured

_WALLS = 4


class Room:
    """One room in the making; the floor is at y = 0, the ceiling at y = -height.

    Attributes:
        half: half the width (x) and depth (z) [m].
    """

    def __init__(self, rng: np.random.Generator, library: ModelLibrary, palette: Palette) -> None:
        self.rng = rng
        self.stage = Stage(rng, library, palette, restyled=rng.choice([0.15, 0.5, 0.8]))
        self.roles = sort_by_role(library.entries)
        self.half = np.exp(rng.uniform(math.log(1.4), math.log(3.8), 2))
        if rng.random() < 0.1:
            self.half = np.array([rng.uniform(0.9, 1.4), rng.uniform(4, 12)])
        self.height = rng.uniform(2.3, 3.2)
        self.lights: list[Light] = []
        self.wall_tint = np.ones(3)

    def build(self) -> tuple[MeshScene, list[Viewpoint]]:
        """Furnish the room and return the scene and proposed viewpoints."""
        rng = self.rng
        self._shell()
        self._openings()
        crowded = rng.uniform(0.3, 1.0)
        self._tables(int(rng.integers(0, 3) + (self.half.min() > 2.5)))
        self._along_walls(crowded)
        self._on_walls(int(rng.integers(1, 7)))
        self._about(int(rng.integers(0, 7)))
        self._on_tops(int(rng.integers(4, 26)))
        self._under_ceiling()
        warm = lambda amount: np.array([1.0, 1 - 0.12 * amount, 1 - 0.3 * amount])  # noqa: E731
        level = rng.uniform(0.25, 0.8)
        sky = Sky(
            zenith=np.full(3, 0.9), horizon=np.full(3, 0.9), ambient=level * warm(rng.uniform(-0.3, 0.6)),
            below=level * rng.uniform(0.4, 0.9) * self.wall_tint, shelter=rng.uniform(0.5, 1.5),
        )  # fmt: skip
        lamps = [
            Light(
                at=np.array([*(rng.uniform(-0.7, 0.7, 1) * self.half[0]), -self.height * rng.uniform(0.75, 0.96),
                             *(rng.uniform(-0.7, 0.7, 1) * self.half[1])]),
                color=rng.uniform(0.2, 0.9) * warm(rng.uniform(0, 1)), reach=self.height, radius=rng.uniform(0.08, 0.4),
            )
            for _ in range(rng.integers(1, 3))
        ]  # fmt: skip
        lights = (self.lights[:1] if rng.random() < 0.8 else []) + lamps
        return self.stage.builder.build(lights[:3], sky), self._viewpoints()

    def _wall(self, i: int) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the middle of wall i at the floor, the direction along it, and the yaw of a thing with its back to it."""
        x, z = self.half
        middle = np.array([[0, 0, z], [0, 0, -z], [x, 0, 0], [-x, 0, 0]][i], float)
        along = np.array([1.0, 0, 0]) if i < 2 else np.array([0, 0, 1.0])
        return middle, along, [0.0, math.pi, math.pi / 2, -math.pi / 2][i]

    def _shell(self) -> None:
        rng, stage, (x, z), h = self.rng, self.stage, self.half, self.height
        kind = rng.random()
        color = np.clip(paint(rng, 0.35, 0.85, 0.08), 0.05, 0.88)
        if kind < 0.45:
            walls = [plain(rng, color, 0.0)] * _WALLS
        elif kind < 0.7:
            walls = [textured(rng, stage.palette.pick(rng, "plaster", "rough", "fabric", "tile"), rng.uniform(0.05, 0.5), color / color.mean() * rng.uniform(0.6, 1))] * _WALLS
        else:
            walls = [plain(rng, color, 0.0)] * _WALLS
            for i in rng.choice(_WALLS, rng.integers(1, _WALLS + 1), replace=False):
                walls[i] = stage.any_look("bricks", "tile", "tiles", "stripes", "plaster", "rough", "photo")
        self.wall_tint = color / color.max()
        scale = math.exp(rng.uniform(math.log(0.3), math.log(1.5)))
        up = np.array([0, h / 2, 0])
        for i in range(_WALLS):
            middle, along, _ = self._wall(i)
            length = self.half[0] if i < 2 else self.half[1]
            stage.builder.add_quad(middle - up, along * length, -up, walls[i], (2 * length * scale, h * scale), tuple(rng.random(2)))
        floor = stage.any_look("tile", "tile", "tiles", "fabric", "stripes", "rough", "cells", "photo") if rng.random() < 0.85 else plain(rng, paint(rng, 0.05, 0.6))
        self._flat(0.0, floor, math.exp(rng.uniform(math.log(0.4), math.log(1.6))))
        ceiling = plain(rng, np.full(3, rng.uniform(0.5, 0.88)), 0.0) if rng.random() < 0.75 else stage.any_look("tiles", "tile", "stripes", "plaster")
        self._flat(-h, ceiling, rng.uniform(0.4, 1.2))
        if rng.random() < 0.7:
            look, tall = plain(rng, paint(rng, 0.1, 0.9, 0.05)), rng.uniform(0.05, 0.14)
            for i in range(_WALLS):
                middle, along, _ = self._wall(i)
                length = self.half[0] if i < 2 else self.half[1]
                half = np.abs(along) * length + np.array([0, tall / 2, 0]) + (1 - np.abs(along)) * [1, 0, 1] * 0.01
                stage.builder.add_box(middle - [0, tall / 2, 0], half, look, 1.0)

    def _flat(self, y: float, look: Look, scale: float) -> None:
        x, z = self.half
        self.stage.builder.add_quad(np.array([0, y, 0]), [x, 0, 0], [0, 0, z], look, (2 * x * scale, 2 * z * scale), tuple(self.rng.random(2)))

    def _pick(self, *roles: str) -> tuple[Entry, Model] | None:
        entries = [entry for role in roles for entry in self.roles.get(role, [])]
        if not entries:
            return None
        entry = entries[self.rng.integers(len(entries))]
        model = self.stage.fetch(entry)
        return None if model is None else (entry, model)

    def _against(self, model: Model, i: int, along: float, bottom: float, gap: float = 0.01) -> tuple[np.ndarray, float]:
        """Return the place and yaw of a model with its back to wall i."""
        middle, direction, yaw = self._wall(i)
        inward = -middle / max(np.linalg.norm(middle), 1e-9)
        return middle + direction * along + inward * (model.size[2] / 2 + gap) - np.array([0, bottom, 0]), yaw

    def _openings(self) -> None:
        rng, stage = self.rng, self.stage
        for _ in range(rng.integers(1, 5)):
            found = self._pick("opening")
            i = int(rng.integers(_WALLS))
            length = self.half[0] if i < 2 else self.half[1]
            if found is None or found[1].size[0] > 2 * length - 0.2 or found[1].size[1] > self.height:
                continue
            entry, model = found
            along = rng.uniform(-1, 1) * (length - model.size[0] / 2 - 0.05)
            at, yaw = self._against(model, i, along, min(entry.elevation, self.height - model.size[1] - 0.02))
            at = at + (at * [1, 0, 1] - self._wall(i)[0]) * 0  # in front of the wall: its depth is the frame's
            box = stage.box_of(model, at, yaw)
            if not stage.free(box):
                continue
            stage.put(entry, model, at, yaw)
            self._behind_panes(model, at, i)
            if "window" in entry.name.lower() and not self.lights:
                inward = -self._wall(i)[0] / np.linalg.norm(self._wall(i)[0])
                middle = at - [0, model.size[1] / 2, 0] + inward * 0.25
                self.lights.append(Light(at=middle, color=rng.uniform(0.3, 1.1) * np.array([0.95, 1.0, 1.08]),
                                         reach=2.5, radius=min(model.size[:2]) * 0.45))  # fmt: skip

    def _behind_panes(self, model: Model, at: np.ndarray, i: int) -> None:
        """Put what is seen through panes on the wall behind: daylight, or a picture of the outside."""
        rng = self.rng
        middle, direction, _ = self._wall(i)
        inward = -middle / max(np.linalg.norm(middle), 1e-9)
        center = middle + direction * ((at - middle) @ direction) + inward * 0.004 + [0, at[1] - model.size[1] / 2, 0]
        glow = np.full(3, rng.uniform(0.2, 1.4)) * [0.93, 1.0, 1.08]
        look = Look(bias=np.full(3, 0.02), glow=glow)
        if rng.random() < 0.5:
            look = textured(rng, self.stage.palette.pick(rng, "photo", "cells", "rough"), 1.0, glow)
        self.stage.builder.add_quad(center, direction * model.size[0] * 0.47, np.array([0, -model.size[1] * 0.47, 0]), look, (1.0, 1.0))

    def _tables(self, count: int) -> None:
        rng, stage = self.rng, self.stage
        for _ in range(count):
            found, seat = self._pick("table"), self._pick("seat")
            if found is None or max(found[1].size[0], found[1].size[2]) > 1.6 * self.half.min():
                continue
            entry, model = found
            for _ in range(6):
                at = np.array([rng.uniform(-0.8, 0.8) * self.half[0], 0, rng.uniform(-0.8, 0.8) * self.half[1]])
                yaw = rng.integers(4) * math.pi / 2 + (rng.uniform(-0.5, 0.5) if rng.random() < 0.4 else 0)
                box = stage.box_of(model, at, yaw)
                if not (self._inside(box) and stage.free(box)):
                    continue
                stage.put(entry, model, at, yaw)
                if seat is not None:
                    self._seats(at, yaw, model, *seat)
                break

    def _seats(self, at: np.ndarray, yaw: float, table: Model, entry: Entry, model: Model) -> None:
        rng, stage = self.rng, self.stage
        style = stage.dress(model, 1.0)
        c, s = math.cos(yaw), math.sin(yaw)
        for side in range(4):
            wide, deep = (table.size[0], table.size[2]) if side % 2 == 0 else (table.size[2], table.size[0])
            for k in range(int(rng.integers(0, max(2, int(wide / 0.7) + 1)))):
                shift = (k + 0.5) / max(1, int(wide / 0.7)) * wide - wide / 2 if wide > 0.8 else 0.0
                out = deep / 2 + model.size[2] * rng.uniform(0.05, 0.7)
                local = [np.array([shift, 0, -out]), np.array([out, 0, shift]), np.array([shift, 0, out]), np.array([-out, 0, shift])][side]
                place = at + np.array([c * local[0] + s * local[2], 0, -s * local[0] + c * local[2]])
                # A seat's front is at -z: at a table's -z side it is turned about to face it.
                turn = yaw + [math.pi, math.pi / 2, 0.0, -math.pi / 2][side] + rng.uniform(-0.25, 0.25)
                box = stage.box_of(model, place, turn)
                others = [p for p in stage.placed if p.entry is not None and p.entry.name != "" and abs(p.center[0] - at[0]) + abs(p.center[2] - at[2]) > 1e-6]
                if self._inside(box) and all(not _meets(box, p, 0.03) for p in others) and stage.budget > len(model.faces):
                    looks, uv = style
                    self._put_styled(entry, model, place, turn, looks, uv)

    def _put_styled(self, entry: Entry, model: Model, at: np.ndarray, yaw: float, looks: list[Look], uv: np.ndarray) -> None:
        same = Model(**{**model.__dict__, "uv": uv})
        self.stage.put(entry, same, at, yaw, style=looks)

    def _inside(self, box: Placed) -> bool:
        x, z = self.half - 0.01
        return bool(box.low[0] > -x and box.high[0] < x and box.low[2] > -z and box.high[2] < z and box.low[1] > -self.height)

    def _along_walls(self, crowded: float) -> None:
        rng, stage = self.rng, self.stage
        for i in range(_WALLS):
            length = self.half[0] if i < 2 else self.half[1]
            for _ in range(int(np.ceil(crowded * length * 1.6))):
                found = self._pick("furniture", "furniture", "furniture", "table", "seat", "shrub")
                if found is None or found[1].size[1] > self.height - 0.05 or found[1].size[0] > 2 * length - 0.1:
                    continue
                entry, model = found
                along = rng.uniform(-1, 1) * (length - model.size[0] / 2)
                looks, uv = stage.dress(model, 1.0)
                row = int(rng.integers(2, 6)) if rng.random() < 0.2 else 1
                for k in range(row):
                    at, yaw = self._against(model, i, along + k * (model.size[0] + 0.003), 0.0, rng.uniform(0.01, 0.08) if row == 1 else 0.02)
                    yaw = yaw + (rng.uniform(-0.3, 0.3) if row == 1 and rng.random() < 0.15 else 0)
                    box = stage.box_of(model, at, yaw)
                    if self._inside(box) and stage.free(box, 0.001) and stage.budget > len(model.faces):
                        self._put_styled(entry, model, at, yaw, looks, uv)

    def _on_walls(self, count: int) -> None:
        rng, stage = self.rng, self.stage
        for _ in range(count):
            i = int(rng.integers(_WALLS))
            length = self.half[0] if i < 2 else self.half[1]
            found = self._pick("wall") if rng.random() < 0.4 else None
            if found is not None and found[1].size[0] < 2 * length and found[0].elevation + found[1].size[1] < self.height:
                entry, model = found
                at, yaw = self._against(model, i, rng.uniform(-1, 1) * (length - model.size[0] / 2), entry.elevation)
                if stage.free(stage.box_of(model, at, yaw), 0.0):
                    stage.put(entry, model, at, yaw)
                continue
            self._picture(i, length)

    def _picture(self, i: int, length: float) -> None:
        rng, stage = self.rng, self.stage
        w, h = np.exp(rng.uniform(math.log(0.1), math.log(0.6), 2))
        if w > length - 0.1 or h > self.height / 2 - 0.2:
            return
        middle, direction, _ = self._wall(i)
        inward = -middle / np.linalg.norm(middle)
        center = middle + direction * rng.uniform(-1, 1) * (length - w) + inward * 0.015 - [0, rng.uniform(1.1, 1.8), 0]
        extent = np.abs(direction) * w + np.array([0, h, 0]) + np.abs(inward) * 0.0148
        box = Placed(center - extent, center + extent)
        if box.low[1] < -self.height + 0.02 or not stage.free(box, 0.0):
            return
        stage.placed.append(box)
        stage.builder.add_box(center, extent, plain(rng, paint(rng)), 1.0)
        border = rng.uniform(0.8, 0.98)
        photo = textured(rng, stage.palette.pick(rng, "photo", "photo", "print", "text"), 1.0, np.full(3, rng.uniform(0.6, 1)))
        stage.builder.add_quad(center + inward * 0.0155, direction * w * border * (1 if i % 2 else -1), np.array([0, -h * border, 0]), photo, (1.0, 1.0))

    def _about(self, count: int) -> None:
        """Put rugs, plants, people, bags and toys about the floor."""
        rng, stage = self.rng, self.stage
        for _ in range(count):
            found = self._pick(*[("rug",), ("shrub",), ("person",), ("small",), ("seat",), ("furniture",)][rng.integers(6)])
            if found is None or stage.budget < len(found[1].faces):
                continue
            entry, model = found
            for _ in range(4):
                at = np.array([rng.uniform(-0.9, 0.9) * self.half[0], 0, rng.uniform(-0.9, 0.9) * self.half[1]])
                yaw = rng.uniform(-math.pi, math.pi)
                box = stage.box_of(model, at, yaw)
                if self._inside(box) and stage.free(box, 0.005):
                    stage.put(entry, model, at, yaw)
                    break

    def _on_tops(self, count: int) -> None:
        """Put small things on what carries them."""
        rng, stage = self.rng, self.stage
        tops = [p for p in stage.placed if p.entry is not None and 0.3 < top_of(p.entry) < 1.6 and (p.high - p.low)[[0, 2]].min() > 0.25]
        if not tops:
            return
        favourite = tops[rng.integers(len(tops))]
        for _ in range(count):
            top = favourite if rng.random() < 0.5 else tops[rng.integers(len(tops))]
            found = self._pick("small")
            if found is None or top.entry is None or stage.budget < len(found[1].faces):
                continue
            entry, model = found
            y = top.high[1] - top_of(top.entry)
            extent = (top.high - top.low)[[0, 2]] / 2 - max(model.size[0], model.size[2]) / 2 - 0.02
            if (extent <= 0).any():
                continue
            for _ in range(4):
                place = top.center[[0, 2]] + rng.uniform(-1, 1, 2) * extent
                at = np.array([place[0], y - 0.002, place[1]])
                yaw = rng.uniform(-math.pi, math.pi)
                box = stage.box_of(model, at, yaw)
                others = [p for p in stage.placed if p is not top]
                if all(not _meets(box, p, 0.004) for p in others) and box.low[1] > -self.height:
                    stage.put(entry, model, at, yaw)
                    break

    def _under_ceiling(self) -> None:
        rng = self.rng
        for _ in range(rng.integers(0, 4)):
            found = self._pick("ceiling")
            if found is None or found[1].size[1] > 1.2:
                continue
            entry, model = found
            at = np.array([rng.uniform(-0.7, 0.7) * self.half[0], -self.height + model.size[1] + 0.001, rng.uniform(-0.7, 0.7) * self.half[1]])
            if self.stage.free(self.stage.box_of(model, at, 0.0), 0.0):
                self.stage.put(entry, model, at, rng.uniform(-math.pi, math.pi))

    def _viewpoints(self) -> list[Viewpoint]:
        rng, out = self.rng, []
        x, z = self.half - 0.12
        things = [p for p in self.stage.placed if p.entry is not None]
        close = rng.random() < 0.3
        for _ in range(60):
            thing = things[rng.integers(len(things))] if things else None
            target = np.array([rng.uniform(-x, x), -rng.uniform(0, self.height), rng.uniform(-z, z)])
            if thing is not None and rng.random() < 0.85:
                target = thing.low + (thing.high - thing.low) * rng.uniform(0, 1, 3)
            eye = np.array([rng.uniform(-x, x), -rng.uniform(0.4, min(1.95, self.height - 0.15)), rng.uniform(-z, z)])
            if close and thing is not None:
                away = rng.normal(size=3) * [1, 0.4, 1] - [0, 0.5, 0]
                eye = target + away / np.linalg.norm(away) * math.exp(rng.uniform(math.log(0.4), math.log(1.5)))
                eye = np.clip(eye, [-x, 0.12 - self.height, -z], [x, -0.1, z])
            inside = any(((eye > p.low - 0.08) & (eye < p.high + 0.08)).all() for p in self.stage.placed)
            if not inside and np.linalg.norm(target - eye) > 0.35:
                out.append(Viewpoint(eye=eye, target=target))
            if len(out) >= 12:
                break
        return out


def top_of(entry: Entry) -> float:
    """Return the height of the surface that carries things [m]; a table's own height where the catalogue is silent."""
    if entry.top > 0:
        return entry.top
    return entry.size[1] if any(word in entry.name.lower() for word in ("table", "desk", "dresser", "chest")) else -1.0


def _meets(a: Placed, b: Placed, slack: float) -> bool:
    return bool(((a.low + slack < b.high) & (a.high - slack > b.low)).all())
