"""Generated sets for the tests of the check: procedural worlds, photographed from an arc, with cameras known exactly.

Unlike most real sets their pixels are not square, their principal points are off the centre, and every view has a K of
its own; so faults can be tried that change nothing elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from nasrecon.geometry import inverse, transform
from nasrecon.scene.source_views import sees
from nasrecon.train.cameras import draw_rig, look_at
from nasrecon.train.raycast import inside_any
from nasrecon.train.render import render
from nasrecon.train.sensor import expose
from nasrecon.train.textures import TextureBank
from nasrecon.train.worlds import Worlds, draw_worlds
from nasrecon.types import Camera, ImageSource, Scene, SceneOrigin, View

SIZES = ((400, 300), (300, 400))
TEXTURES = 24
# Fewer things than in training, all in full contrast: quicker to draw, and features to match.
BOXES, ROUND_ONES = 9, 5
MIN_CONTRAST = 0.12
POINTS_A_VIEW = 150
# The arc: from the reference's place so many median depths to either side, and up and down.
ARC, LIFT = 0.3, 0.08
MIN_NEAR = 0.3
# So many of the places on the arc must be free; else another world is drawn.
MIN_SHARE = 0.85


@torch.no_grad()
def generate_scene(folder: Path, seed: int, views: int = 8) -> Scene:
    """Render a set into a folder (PNG images) and return its scene, with sparse points; the same seed gives the same
    set."""
    generator = torch.Generator().manual_seed(seed)
    bank = TextureBank.make(TEXTURES, generator, "cpu")
    width, height = SIZES[seed % len(SIZES)]
    posed: list[np.ndarray] = []
    while len(posed) < MIN_SHARE * views:
        worlds, place, depth = _open_place(bank, generator, (height, width))
        posed = _arc(worlds, place, depth, views, generator)
    cameras = [_camera(width, height, generator) for _ in posed]
    shots = [
        render(worlds, bank, _tensor(c.K), _tensor(T), (height, width)) for c, T in zip(cameras, posed, strict=True)
    ]
    radiance = torch.stack([shot[0] for shot in shots], dim=1)
    images = (expose(radiance, generator)[0] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    depths = [shot[1][0].double().numpy() for shot in shots]
    made = [_write(folder, i, rgb, c, T) for i, (rgb, c, T) in enumerate(zip(images, cameras, posed, strict=True))]
    points, visible = _points(made, depths, np.random.default_rng(seed))
    return Scene(
        root=folder,
        views=tuple(made),
        points_in_world=points,
        visible=visible,
        unit="m",
        origin=SceneOrigin(format=f"generated world {seed}", images=f"{len(made)} images"),
    )


def _open_place(
    bank: TextureBank, generator: torch.Generator, size: tuple[int, int]
) -> tuple[Worlds, np.ndarray, float]:
    """Draw worlds until one has a place with room before it; returns it, world_from_cam (4, 4) and the median depth."""
    small = size[0] // 4, size[1] // 4
    while True:
        worlds = draw_worlds(1, bank, generator, BOXES, ROUND_ONES)
        worlds = replace(worlds, contrast=torch.ones_like(worlds.contrast), gloss=0.1 * worlds.gloss)
        K, world_from_cam = draw_rig(worlds, 1, small, generator)
        radiance, depth, _ = render(worlds, bank, K[:, 0], world_from_cam[:, 0], small)
        near, median = float(depth.quantile(0.02)), float(depth.median())
        steps = (radiance[..., 1:] - radiance[..., :-1]).abs().mean(dim=1) / radiance.mean()
        if near > MIN_NEAR * median and float(steps.mean()) > MIN_CONTRAST and not worlds.outdoor[0]:
            return worlds, world_from_cam[0, 0].double().numpy(), median


def _arc(worlds: Worlds, place: np.ndarray, depth: float, count: int, generator: torch.Generator) -> list[np.ndarray]:
    """Return world_from_cam (4, 4) of cameras on an arc that look at about one thing; places inside things are left
    out."""
    focus = place[:3, 3] + depth * place[:3, 2]
    centers_on_arc = []
    for s in np.linspace(-1, 1, count):
        lift, ahead, roll, aim = (float(value) for value in torch.rand(4, generator=generator) * 2 - 1)
        local = depth * np.array([ARC * s, LIFT * lift, ARC**2 * (1 - abs(s)) + 0.05 * ahead])
        eye = torch.tensor(place[:3, :3] @ local + place[:3, 3], dtype=torch.float32)[None]
        target = torch.tensor(focus + 0.1 * aim * depth * place[:3, 0], dtype=torch.float32)[None]
        if bool(inside_any(worlds, eye)):
            continue
        out = np.eye(4)
        out[:3, :3] = _orthonormal(look_at(eye, target, torch.tensor([0.06 * roll]))[0].double().numpy())
        out[:3, 3] = eye[0].double().numpy()
        centers_on_arc.append(out)
    return centers_on_arc


def _orthonormal(R: np.ndarray) -> np.ndarray:
    U, _, Vt = np.linalg.svd(R)
    return U @ Vt


def _camera(width: int, height: int, generator: torch.Generator) -> Camera:
    vary = (torch.rand(3, generator=generator) * 2 - 1).double().numpy()
    fx = 0.95 * max(width, height) * (1 + 0.05 * vary[0])
    K = np.array(
        [[fx, 0, width * (0.47 + 0.02 * vary[1])], [0, 1.25 * fx, height * (0.54 + 0.02 * vary[2])], [0, 0, 1]]
    )
    return Camera(width=width, height=height, K=K)


def _tensor(matrix: np.ndarray) -> torch.Tensor:
    return torch.tensor(matrix, dtype=torch.float32)[None]


def _write(folder: Path, i: int, rgb: np.ndarray, camera: Camera, world_from_cam: np.ndarray) -> View:
    import imageio.v3 as iio

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{i:02d}.png"
    iio.imwrite(path, rgb)
    return View(name=path.name, image=ImageSource(path=path), camera=camera, cam_from_world=inverse(world_from_cam))


def _points(
    views: list[View], depths: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return random surface points (P, 3) and which of them each view sees, by its exact depth."""
    points = []
    for view, depth in zip(views, depths, strict=True):
        row, column = (
            rng.integers(view.camera.height, size=POINTS_A_VIEW),
            rng.integers(view.camera.width, size=POINTS_A_VIEW),
        )
        in_cam = view.camera.unproject(np.stack([column, row], axis=1) + 0.5, depth[row, column])
        points.append(transform(view.world_from_cam, in_cam))
    points_in_world = np.concatenate(points)
    visible = []
    for view, depth in zip(views, depths, strict=True):
        inside = np.flatnonzero(sees(view, points_in_world))
        in_cam = transform(view.cam_from_world, points_in_world[inside])
        column, row = (
            np.minimum(view.camera.project(in_cam), (view.camera.width - 1, view.camera.height - 1)).astype(int).T
        )
        visible.append(inside[np.abs(depth[row, column] / in_cam[:, 2] - 1) < 0.02])
    return points_in_world, tuple(visible)
