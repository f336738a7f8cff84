"""What stands, lies and hangs in a room, where nothing else does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nasrecon.train.furnished.composer import Placed
from nasrecon.train.furnished.models import Entry, Model
from nasrecon.train.furnished.palette import paint, plain, textured
from nasrecon.train.furnished.scene import tube

if TYPE_CHECKING:
    from nasrecon.train.furnished.rooms import Room


class Furnishing:
    """Fills a ``Room``."""

    def __init__(self, room: Room) -> None:
        self.room, self.rng, self.composer = room, room.rng, room.composer

    def fill(self) -> None:
        """Furnish the room: some rooms are almost empty, others crowded."""
        rng, room = self.rng, self.room
        if rng.random() < 0.25:
            self._partition()
        self._tables(int(rng.integers(0, 3) + (room.half.min() > 2.5)))
        self._along_walls(rng.uniform(0.2, 1.0))
        self._on_walls(int(rng.integers(1, 8)))
        self._about(int(rng.integers(0, 7)))
        self._on_tops(int(rng.integers(4, 30)))
        self._under_ceiling()

    def _tables(self, count: int) -> None:
        rng, composer, half = self.rng, self.composer, self.room.half
        for _ in range(count):
            result, seat = composer.pick("table"), composer.pick("seat")
            if result is None or max(result[1].size[0], result[1].size[2]) > 1.6 * half.min():
                continue
            entry, model = result
            for _ in range(6):
                at = np.array([rng.uniform(-0.8, 0.8) * half[0], 0, rng.uniform(-0.8, 0.8) * half[1]])
                yaw = rng.integers(4) * math.pi / 2 + (rng.uniform(-0.5, 0.5) if rng.random() < 0.4 else 0)
                box = composer.box_of(model, at, yaw)
                if self.room.holds(box) and composer.free(box):
                    table = composer.place(entry, model, at, yaw)
                    if seat is not None:
                        self._seats(table, at, yaw, model, *seat)
                    break

    def _seats(self, table: Placed, at: np.ndarray, yaw: float, shape: Model, entry: Entry, model: Model) -> None:
        """Put seats of one kind along the sides of a table, facing it, some of them pushed in."""
        rng, composer = self.rng, self.composer
        style = composer.style_of(model)
        c, s = math.cos(yaw), math.sin(yaw)
        for side in range(4):
            wide, deep = shape.size[0::2] if side % 2 == 0 else shape.size[2::-2]
            most = max(1, int(wide / 0.7))
            for k in range(int(rng.integers(0, most + 1))):
                shift = (k + 0.5) / most * wide - wide / 2
                out = deep / 2 + model.size[2] * rng.uniform(0.05, 0.7)
                x, z = [(shift, -out), (out, shift), (shift, out), (-out, shift)][side]
                place = at + np.array([c * x + s * z, 0, -s * x + c * z])
                # A seat's front is at -z: on a table's -z side it is turned about to face it.
                turn = yaw + [math.pi, math.pi / 2, 0.0, -math.pi / 2][side] + rng.uniform(-0.25, 0.25)
                box = composer.box_of(model, place, turn)
                if self.room.holds(box) and composer.free(box, 0.02, but=table) and composer.budget > len(model.faces):
                    composer.place(entry, model, place, turn, style=style)

    def _along_walls(self, crowded: float) -> None:
        rng, composer, room = self.rng, self.composer, self.room
        for i in range(4):
            length = room.length(i)
            for _ in range(int(np.ceil(crowded * length * 1.6))):
                result = composer.pick("furniture", "furniture", "furniture", "table", "seat", "shrub")
                if result is None or result[1].size[0] > 2 * length - 0.1:
                    continue
                entry, model = result
                along = rng.uniform(-1, 1) * (length - model.size[0] / 2)
                style = composer.style_of(model)
                row = int(rng.integers(2, 6)) if rng.random() < 0.2 else 1
                gap, skew = rng.uniform(0.015, 0.08), rng.uniform(-0.3, 0.3) if rng.random() < 0.15 else 0.0
                for k in range(row):
                    at, yaw = room.against(
                        model, i, along + k * (model.size[0] + 0.003), 0.0, gap if row == 1 else 0.015
                    )
                    box = composer.box_of(model, at, yaw + (skew if row == 1 else 0))
                    if room.holds(box) and composer.free(box, 0.001) and composer.budget > len(model.faces):
                        composer.place(entry, model, at, yaw + (skew if row == 1 else 0), style=style)

    def _on_walls(self, count: int) -> None:
        rng, composer, room = self.rng, self.composer, self.room
        for _ in range(count):
            i = int(rng.integers(4))
            result = composer.pick("wall") if rng.random() < 0.4 else None
            if result is None:
                self._picture(i)
                continue
            entry, model = result
            if model.size[0] < 2 * room.length(i) and entry.elevation + model.size[1] < room.height:
                along = rng.uniform(-1, 1) * (room.length(i) - model.size[0] / 2)
                at, yaw = room.against(model, i, along, entry.elevation, 0.005)
                if composer.free(composer.box_of(model, at, yaw), 0.0):
                    composer.place(entry, model, at, yaw)

    def _picture(self, i: int) -> None:
        rng, composer, room = self.rng, self.composer, self.room
        w, h = np.exp(rng.uniform(math.log(0.1), math.log(0.6), 2))
        if w > room.length(i) - 0.1 or h > room.height / 2 - 0.2:
            return
        middle, direction, _ = room.wall(i)
        inward = room.inward(i)
        center = middle + direction * rng.uniform(-1, 1) * (room.length(i) - w) + inward * 0.015
        center = center - [0, rng.uniform(1.1, 1.8), 0]
        extent = np.abs(direction) * w + np.array([0, h, 0]) + np.abs(inward) * 0.0148
        box = Placed(center - extent, center + extent)
        if box.low[1] < -room.height + 0.02 or not composer.free(box, 0.0):
            return
        composer.placed.append(box)
        composer.builder.add_box(center, extent, plain(rng, paint(rng, vivid=0.1)), 1.0)
        border = rng.uniform(0.8, 0.98)
        photo = textured(
            rng, composer.palette.pick(rng, "photo", "photo", "print", "text"), 1.0, np.full(3, rng.uniform(0.6, 1))
        )
        across = direction * w * border * (1 if i in (0, 3) else -1)
        composer.builder.add_quad(center + inward * 0.0155, across, [0, -h * border, 0], photo, (1.0, 1.0))

    def _about(self, count: int) -> None:
        """Put rugs, plants, people, bags and toys about the floor."""
        rng, composer, half = self.rng, self.composer, self.room.half
        for _ in range(count):
            result = composer.pick(["rug", "shrub", "person", "small", "seat", "furniture"][rng.integers(6)])
            if result is None:
                continue
            entry, model = result
            for _ in range(4):
                at = np.array([rng.uniform(-0.9, 0.9) * half[0], 0, rng.uniform(-0.9, 0.9) * half[1]])
                yaw = rng.uniform(-math.pi, math.pi)
                box = composer.box_of(model, at, yaw)
                if self.room.holds(box) and composer.free(box, 0.005):
                    composer.place(entry, model, at, yaw)
                    break

    def _on_tops(self, count: int) -> None:
        """Put small things, books and cables on what carries them, most of them on one."""
        rng, composer = self.rng, self.composer
        tops = [p for p in composer.placed if p.entry is not None and 0.3 < top_of(p.entry) < 1.6]
        tops = [p for p in tops if (p.high - p.low)[[0, 2]].min() > 0.25]
        if not tops:
            return
        favourite = tops[rng.integers(len(tops))]
        for _ in range(count):
            top = favourite if rng.random() < 0.5 else tops[rng.integers(len(tops))]
            kind = rng.random()
            if kind < 0.25:
                self._book(top)
            elif kind < 0.35:
                self._cable(top)
            else:
                self._thing_on(top)

    def _level(self, top: Placed) -> float:
        return float(top.high[1] - top_of(top.entry))

    def _spot(self, top: Placed, reach: float) -> np.ndarray | None:
        """Draw a place on a top for a thing of radius ``reach``."""
        extent = (top.high - top.low)[[0, 2]] / 2 - reach - 0.02
        if (extent <= 0).any():
            return None
        x, z = top.center[[0, 2]] + self.rng.uniform(-1, 1, 2) * extent
        return np.array([x, self._level(top) - 0.002, z])

    def _thing_on(self, top: Placed) -> None:
        rng, composer = self.rng, self.composer
        result = composer.pick("small")
        if result is None:
            return
        entry, model = result
        for _ in range(4):
            at, yaw = self._spot(top, max(model.size[0], model.size[2]) / 2), rng.uniform(-math.pi, math.pi)
            if at is None:
                return
            box = composer.box_of(model, at, yaw)
            if composer.free(box, 0.004, but=top) and box.low[1] > -self.room.height:
                composer.place(entry, model, at, yaw)
                return

    def _book(self, top: Placed) -> None:
        """Lay a book, a sheet or a pile of them on a top."""
        rng, composer = self.rng, self.composer
        half = np.array([rng.uniform(0.06, 0.15), 0, rng.uniform(0.08, 0.2)])
        at = self._spot(top, float(half.max()))
        if at is None:
            return
        for _ in range(rng.integers(1, 5) if rng.random() < 0.4 else 1):
            half[1] = math.exp(rng.uniform(math.log(0.001), math.log(0.03)))
            center = at - [0, half[1], 0]
            box = Placed(center - half, center + half)
            if not composer.free(box, 0.006, but=top):
                return
            yaw = rng.uniform(-math.pi, math.pi)
            turn = np.array([[math.cos(yaw), 0, math.sin(yaw)], [0, 1, 0], [-math.sin(yaw), 0, math.cos(yaw)]])
            kinds = ("text", "print", "photo", "photo")
            cover = textured(rng, composer.palette.pick(rng, *kinds), 1.0, np.full(3, rng.uniform(0.5, 1)))
            side = cover if rng.random() < 0.3 else plain(rng, paint(rng, 0.2, 0.85), 0.0)
            composer.builder.add_box(center, half, side, 3.0, turn)
            lid = center - [0, half[1] + 0.0005, 0]
            composer.builder.add_quad(lid, turn[:, 0] * half[0], -turn[:, 2] * half[2], cover, (1.0, 1.0))
            at = at - [0, 2 * half[1] + 0.001, 0]
        composer.placed.append(box)

    def _cable(self, top: Placed) -> None:
        """Lay a cable in loops on a top; its end may hang over the edge."""
        rng, composer = self.rng, self.composer
        at = self._spot(top, 0.05)
        if at is None:
            return
        radius, steps = rng.uniform(0.0015, 0.005), int(rng.integers(20, 60))
        heading = np.cumsum(np.cumsum(rng.normal(0, 0.12, steps))) + rng.uniform(0, 6)
        path = np.cumsum(np.stack([np.cos(heading), np.zeros(steps), np.sin(heading)], axis=1) * 0.025, axis=0) + at
        extent = (top.high - top.low)[[0, 2]] / 2 - 0.01
        off = (np.abs(path[:, [0, 2]] - top.center[[0, 2]]) > extent).any(1)
        path = path[: max(int(off.argmax()) if off.any() else steps, 4)] - [0, radius, 0]
        composer.builder.add_mesh(*tube(path, radius), [plain(rng, paint(rng, 0.01, 0.7, 0.1))])

    def _under_ceiling(self) -> None:
        """Hang lamps; in some rooms, lay beams or pipes below the ceiling."""
        rng, composer, room = self.rng, self.composer, self.room
        for _ in range(rng.integers(0, 4)):
            result = composer.pick("ceiling")
            if result is None or result[1].size[1] > 1.2:
                continue
            entry, model = result
            x, z = rng.uniform(-0.7, 0.7, 2) * room.half
            at = np.array([x, -room.height + model.size[1] + 0.001, z])
            if composer.free(composer.box_of(model, at, 0.0), 0.0):
                composer.place(entry, model, at, rng.uniform(-math.pi, math.pi))
        if rng.random() < 0.2:
            material = (
                plain(rng, paint(rng, 0.05, 0.8, 0.05))
                if rng.random() < 0.5
                else composer.any_material("tile", "stripes")
            )
            deep, wide = rng.uniform(0.03, 0.2), rng.uniform(0.02, 0.1)
            for x in np.arange(-room.half[0] + 0.2, room.half[0], rng.uniform(0.4, 1.2)):
                composer.builder.add_box(
                    [x, -room.height + deep, 0], np.array([wide, deep, room.half[1]]), material, 1.0
                )

    def _partition(self) -> None:
        """Add a wall that ends in the room, or a pillar."""
        rng, composer, room = self.rng, self.composer, self.room
        half = np.array([rng.uniform(0.05, 0.2), room.height / 2, rng.uniform(0.1, 0.7) * room.half[1]])
        at = np.array(
            [rng.uniform(-0.6, 0.6) * room.half[0], -room.height / 2, rng.choice([-1, 1]) * (room.half[1] - half[2])]
        )
        box = Placed(at - half, at + half)
        if composer.free(box):
            composer.placed.append(box)
            composer.builder.add_box(at, half, plain(rng, paint(rng, 0.3, 0.85, 0.05), 0.0), 1.0)


def top_of(entry: Entry) -> float:
    """Return the height of the surface that carries things [m]; a table's own height where the catalogue is silent."""
    if entry.top > 0:
        return entry.top
    return entry.size[1] if any(word in entry.name.lower() for word in ("table", "desk", "dresser", "chest")) else -1.0
