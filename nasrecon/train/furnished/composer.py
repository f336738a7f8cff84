"""Scenes in the making: models placed where nothing else is, in their own materials, plain paint or other textures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nasrecon.train.furnished.models import Entry, Model, ModelLibrary
from nasrecon.train.furnished.palette import Palette, paint, plain, textured
from nasrecon.train.furnished.roles import sort_by_role
from nasrecon.train.furnished.scene import Material, SceneBuilder, pack_pyramid


@dataclass
class Placed:
    """A thing in the scene: its box low, high (3,) in the world, its catalogue entry if it is a model."""

    low: np.ndarray
    high: np.ndarray
    entry: Entry | None = None
    yaw: float = 0.0

    @property
    def center(self) -> np.ndarray:
        return (self.low + self.high) / 2


def turn_about_y(yaw: float) -> np.ndarray:
    """Return the rotation (3, 3) about the vertical."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


class Composer:
    """A scene in the making.

    Attributes:
        builder: takes the triangles. placed: the things that stand in it. budget: triangles that may still be added.
        restyled: share of the models that get other materials than theirs. vivid: share of saturated paint in them.
    """

    def __init__(
        self, rng: np.random.Generator, library: ModelLibrary, palette: Palette, budget: int = 250_000,
        restyled: float = 2 / 3, vivid: float = 0.3,
    ) -> None:  # fmt: skip
        self.rng, self.library, self.palette, self.restyled, self.vivid = rng, library, palette, restyled, vivid
        self.roles = sort_by_role(library.entries)
        self.builder = SceneBuilder()
        self.placed: list[Placed] = []
        self.budget = budget

    def fetch(self, entry: Entry) -> Model | None:
        """Return the entry's model if it can be used and fits what is left of the budget."""
        model = self.library.get(entry)
        return None if model is None or len(model.faces) > self.budget * 0.6 else model

    def pick(self, *roles: str) -> tuple[Entry, Model] | None:
        """Draw an entry of the roles, with its model; None if it cannot be used."""
        entries = [entry for role in roles for entry in self.roles.get(role, [])]
        entry = entries[self.rng.integers(len(entries))] if entries else None
        model = self.fetch(entry) if entry is not None else None
        return None if entry is None or model is None else (entry, model)

    def box_of(self, model: Model, at: np.ndarray, yaw: float, scale: float = 1.0) -> Placed:
        """Return the box that an upright model would fill."""
        corner = (np.abs(turn_about_y(yaw)) @ [model.size[0] / 2, 0, model.size[2] / 2]) * scale
        low, high = np.asarray(at) - corner, np.asarray(at) + corner
        low[1] = at[1] - model.size[1] * scale
        return Placed(low, high)

    def free(self, box: Placed, slack: float = 0.01, but: Placed | None = None) -> bool:
        """Return whether a box overlaps nothing placed so far, ``but`` left out, by more than ``slack`` [m]."""
        others = [p for p in self.placed if p is not but]
        if not others:
            return True
        low, high = np.array([p.low for p in others]), np.array([p.high for p in others])
        return not bool(((box.low + slack < high) & (box.high - slack > low)).all(1).any())

    def place(
        self, entry: Entry, model: Model, at: np.ndarray, yaw: float = 0.0, scale: float = 1.0,
        rotation: np.ndarray | None = None, style: tuple[list[Material], np.ndarray] | None = None,
    ) -> Placed:  # fmt: skip
        """Add a model whose origin stands at ``at``, turned about the vertical or by ``rotation``, and return its box.

        ``style``: materials and texture coordinates of ``style_of``, drawn anew by default.
        """
        R = turn_about_y(yaw) if rotation is None else rotation
        vertices = (model.vertices * scale) @ R.T.astype(np.float32) + np.asarray(at, np.float32)
        normals = model.normals.astype(np.float32) @ R.T.astype(np.float32)
        materials, uv = self.style_of(model, scale) if style is None else style
        self.builder.add_mesh(vertices, model.faces, normals, uv, model.material, materials)
        self.budget -= len(model.faces)
        box = Placed(vertices.min(0), vertices.max(0), entry, yaw)
        self.placed.append(box)
        return box

    def style_of(self, model: Model, scale: float = 1.0) -> tuple[list[Material], np.ndarray]:
        """Return materials for a model's materials and texture coordinates: its own, plain paint, or other textures."""
        rng = self.rng
        kind = rng.random()
        if kind > self.restyled:
            return self.own_style(model)
        if kind > self.restyled / 2:
            colors = [paint(rng, vivid=self.vivid) for _ in range(1 + int(rng.random() < 0.5))]
            return [plain(rng, colors[rng.integers(len(colors))] * rng.uniform(0.8, 1)) for _ in model.color], model.uv
        repeats = math.exp(rng.uniform(math.log(0.5), math.log(4.0))) * scale
        main = self.any_material()
        materials = [main if rng.random() < 0.6 else self.any_material() for _ in model.color]
        return materials, box_uv(model, repeats)

    def own_style(self, model: Model) -> tuple[list[Material], np.ndarray]:
        """Return the materials and texture coordinates that the model comes with, its colours shifted a little."""
        rng = self.rng
        gain = rng.uniform(0.7, 1.1) * (1 + rng.uniform(-0.06, 0.06, 3))
        pyramids = _pyramids_of(model)
        out = []
        for color, texture, gloss in zip(model.color, model.texture, model.gloss, strict=True):
            shine, strength = float(math.exp(rng.uniform(2.5, 4.5))), float(0.35 * gloss)
            if texture >= 0:
                out.append(Material(pyramid=pyramids[texture], gain=np.minimum(gain, 1), gloss=strength, shine=shine))
            else:
                out.append(Material(bias=np.clip(color * gain, 0.01, 0.9), gloss=strength, shine=shine))
        return out, model.uv

    def any_material(self, *kinds: str) -> Material:
        """Return a textured material with a random contrast and tint."""
        rng = self.rng
        contrast = rng.uniform(0.05, 0.4) if rng.random() < 0.25 else rng.uniform(0.6, 1.0)
        tint = rng.uniform(0.5, 1.1) * (1 + rng.uniform(-0.08, 0.08, 3))
        return textured(rng, self.palette.pick(rng, *kinds), contrast, tint)

    def colored_material(self, color: np.ndarray, *kinds: str) -> Material:
        """Return a textured material whose mean is about ``color`` (3,), linear; drawn textures are muted."""
        rng = self.rng
        pyramid = self.palette.pick(rng, *(kind if kind == "tile" else f"muted {kind}" for kind in kinds))
        mean = (pyramid[-1:].view(np.uint8)[:3] / 255) ** 2.2
        mean = 0.7 * mean + 0.3 * mean.mean()
        return textured(rng, pyramid, rng.uniform(0.5, 1.0), np.minimum(color / np.maximum(mean, 0.03), 4.0))


def box_uv(model: Model, repeats: float) -> np.ndarray:
    """Return texture coordinates (F, 3, 2) from the two axes that a face lies along best, ``repeats`` a metre."""
    corners = model.vertices[model.faces]
    flat = np.abs(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    axes = np.array([[2, 1], [0, 2], [0, 1]])[flat.argmax(1)]
    return np.take_along_axis(corners, axes[:, None, :], axis=2) * np.float32(repeats)


_PYRAMIDS: dict[int, tuple[Model, list[np.ndarray]]] = {}


def _pyramids_of(model: Model) -> list[np.ndarray]:
    """Pack a model's textures, once."""
    if id(model) not in _PYRAMIDS:
        _PYRAMIDS[id(model)] = (model, [pack_pyramid(image) for image in model.textures])
    return _PYRAMIDS[id(model)][1]
