"""What rooms, heaps and grounds are made with: looks from textures and paint, and models placed where nothing else is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from nasrecon.train.mesh_scene import Look, SceneBuilder, pack_pyramid
from nasrecon.train.models import Entry, Model, ModelLibrary
from nasrecon.train.roles import sort_by_role
from nasrecon.train.textures import KINDS, draw_texture, read_textures

_SEAM = 0.12
_USUAL = ("photo",) * 6 + ("tile",) * 4 + tuple(KINDS)


class Palette:
    """Texture pyramids by kind: those of ``textures.KINDS``, ``photo`` (a folder's) and ``tile`` (of them, those that repeat without a seam).

    Args:
        count: textures drawn for each kind. seed: the same seed draws the same. folder: of .jpg or .png files, or None.
    """

    def __init__(self, count: int, seed: int, folder: Path | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.kinds: dict[str, list[np.ndarray]] = {}
        for kind in KINDS:
            # Two in three are faded: real walls, floors and fabrics are hardly ever as colourful as drawn ones.
            drawn = [draw_texture(generator, kind) for _ in range(count)]
            self.kinds[kind] = [_pyramid(image if i % 3 == 0 else _faded(image)) for i, image in enumerate(drawn)]
        photos = read_textures(folder) if folder is not None else []
        self.kinds["photo"] = [_pyramid(image) for image in photos]
        self.kinds["tile"] = [p for p, image in zip(self.kinds["photo"], photos, strict=True) if _repeats(image)]
        self.kinds = {kind: pyramids for kind, pyramids in self.kinds.items() if pyramids}

    def pick(self, rng: np.random.Generator, *kinds: str) -> np.ndarray:
        """Return a pyramid of one of the kinds that there are, of any kind without a name (photographs more often than not)."""
        names = [kind for kind in kinds or _USUAL if kind in self.kinds] or list(self.kinds)
        chosen = self.kinds[names[rng.integers(len(names))]]
        return chosen[rng.integers(len(chosen))]


def _pyramid(image: torch.Tensor) -> np.ndarray:
    return pack_pyramid((image * 255).round().byte().permute(1, 2, 0).numpy())


def _faded(image: torch.Tensor) -> torch.Tensor:
    return torch.lerp(image, image.mean(dim=0, keepdim=True).expand_as(image), 0.7)


def _repeats(image: torch.Tensor) -> bool:
    seam = (image[:, 0] - image[:, -1]).abs().mean() + (image[:, :, 0] - image[:, :, -1]).abs().mean()
    return bool(seam < _SEAM and image.std() > 0.02)


def paint(rng: np.random.Generator, low: float = 0.03, high: float = 0.85, vivid: float = 0.15) -> np.ndarray:
    """Draw a linear RGB colour (3,); a share ``vivid`` of them is saturated."""
    value = math.exp(rng.uniform(math.log(low), math.log(high)))
    strength = rng.uniform(0.4, 1.0) if rng.random() < vivid else rng.uniform(0, 0.3) ** 1.3
    color = rng.random(3)
    color = 1 + (color - color.mean()) / max(float(np.abs(color - color.mean()).max()), 1e-6) * strength
    return np.clip(value * color, 0.01, 0.9)


def plain(rng: np.random.Generator, color: np.ndarray, gloss: float | None = None) -> Look:
    """Return a look of one colour."""
    shine = float(rng.uniform(0, 1) ** 4 * 0.4) if gloss is None else gloss
    return Look(bias=np.asarray(color), gloss=shine, shine=float(math.exp(rng.uniform(2, 4.5))))


def textured(
    rng: np.random.Generator, pyramid: np.ndarray, contrast: float = 1.0, tint: np.ndarray | None = None
) -> Look:
    """Return a look with a texture, faded towards its mean colour where ``contrast`` is below 1."""
    mean = (pyramid[-1:].view(np.uint8)[:3] / 255) ** 2.2
    tint = np.ones(3) if tint is None else np.asarray(tint)
    gloss = float(rng.uniform(0, 1) ** 5 * 0.4)
    return Look(pyramid=pyramid, gain=contrast * tint, bias=(1 - contrast) * mean * tint, gloss=gloss,
                shine=float(math.exp(rng.uniform(2, 4.5))))  # fmt: skip


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


class Stage:
    """A scene in the making.

    Attributes:
        builder: takes the triangles. placed: the things that stand in it. budget: triangles that may still be added.
        restyled: share of the models that get other looks than their own. vivid: share of saturated paint among them.
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
        """Tell whether a box overlaps nothing placed so far, ``but`` left out, by more than ``slack`` [m]."""
        others = [p for p in self.placed if p is not but]
        if not others:
            return True
        low, high = np.array([p.low for p in others]), np.array([p.high for p in others])
        return not bool(((box.low + slack < high) & (box.high - slack > low)).all(1).any())

    def put(
        self, entry: Entry, model: Model, at: np.ndarray, yaw: float = 0.0, scale: float = 1.0,
        rotation: np.ndarray | None = None, style: tuple[list[Look], np.ndarray] | None = None,
    ) -> Placed:  # fmt: skip
        """Add a model whose origin stands at ``at``, turned about the vertical or by ``rotation``, and return its box.

        ``style``: looks and texture coordinates of ``dress``, drawn anew by default.
        """
        R = turn_about_y(yaw) if rotation is None else rotation
        vertices = (model.vertices * scale) @ R.T.astype(np.float32) + np.asarray(at, np.float32)
        normals = model.normals.astype(np.float32) @ R.T.astype(np.float32)
        looks, uv = self.dress(model, scale) if style is None else style
        self.builder.add_mesh(vertices, model.faces, normals, uv, model.material, looks)
        self.budget -= len(model.faces)
        box = Placed(vertices.min(0), vertices.max(0), entry, yaw)
        self.placed.append(box)
        return box

    def dress(self, model: Model, scale: float = 1.0) -> tuple[list[Look], np.ndarray]:
        """Return looks for a model's materials and texture coordinates: its own, plain paint, or other textures."""
        rng = self.rng
        kind = rng.random()
        if kind > self.restyled:
            return self.own_style(model)
        if kind > self.restyled / 2:
            colors = [paint(rng, vivid=self.vivid) for _ in range(1 + int(rng.random() < 0.5))]
            return [plain(rng, colors[rng.integers(len(colors))] * rng.uniform(0.8, 1)) for _ in model.color], model.uv
        repeats = math.exp(rng.uniform(math.log(0.5), math.log(4.0))) * scale
        main = self.any_look()
        looks = [main if rng.random() < 0.6 else self.any_look() for _ in model.color]
        return looks, box_uv(model, repeats)

    def own_style(self, model: Model) -> tuple[list[Look], np.ndarray]:
        """Return the looks and texture coordinates that the model comes with, its colours shifted a little."""
        rng = self.rng
        gain = rng.uniform(0.7, 1.1) * (1 + rng.uniform(-0.06, 0.06, 3))
        pyramids = _pyramids_of(model)
        out = []
        for color, texture, gloss in zip(model.color, model.texture, model.gloss, strict=True):
            shine, strength = float(math.exp(rng.uniform(2.5, 4.5))), float(0.35 * gloss)
            if texture >= 0:
                out.append(Look(pyramid=pyramids[texture], gain=np.minimum(gain, 1), gloss=strength, shine=shine))
            else:
                out.append(Look(bias=np.clip(color * gain, 0.01, 0.9), gloss=strength, shine=shine))
        return out, model.uv

    def any_look(self, *kinds: str) -> Look:
        """Return a textured look with a random contrast and tint."""
        rng = self.rng
        contrast = rng.uniform(0.05, 0.4) if rng.random() < 0.25 else rng.uniform(0.6, 1.0)
        tint = rng.uniform(0.5, 1.1) * (1 + rng.uniform(-0.08, 0.08, 3))
        return textured(rng, self.palette.pick(rng, *kinds), contrast, tint)


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
