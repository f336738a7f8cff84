"""Render the example set ``examples/room``: 12 photographs of a made-up room, its COLMAP model and the exact depths.

    python examples/render_room.py

Everything in it comes from nasrecon's own renderer, so the set has the licence of the code and its truth is exact:
``images/*.jpg`` 640x480, ``sparse/0`` (a COLMAP model with points), ``depth/*.png``
(uint16 millimetres, z in the camera).
"""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pycolmap
import torch
import torch.nn.functional as F

from nasrecon.train.cameras import look_at
from nasrecon.train.render import render
from nasrecon.train.sensor import expose
from nasrecon.train.textures import TextureBank, draw_texture
from nasrecon.train.worlds import Worlds, rotation_from_vector

OUT = Path(__file__).parent / "room"
WIDTH, HEIGHT, FOCAL = 640, 480, 520.0
VIEWS = 12
FLOOR, WALL_X, WALL_Z = 1.3, 2.5, 2.1
LOOKS = (
    "plaster",
    "tiles",
    "stripes",
    "print",
    "bricks",
    "text",
    "cells",
    "fabric",
    "rough",
    "print",
    "print",
    "stripes",
)


def furniture() -> tuple[list[list[tuple]], float]:
    """Return boxes, ellipsoids and cylinders as
    (center, half extents, turn about y, look, repeats a metre, contrast)."""
    top, legs = 0.55, (FLOOR - 0.55) / 2
    boxes = [
        ((0, 0, 0), (WALL_X, FLOOR, WALL_Z), 0, 0, 0.4, 0.7),
        ((0, FLOOR - 0.01, 0.3), (1.5, 0.01, 1.0), 0.15, 1, 0.8, 1.0),  # rug
        ((0.2, top, 0.5), (0.65, 0.025, 0.4), 0.3, 2, 1.2, 1.0),  # table
        ((-1.9, 0.4, 1.75), (0.5, 0.9, 0.3), 0, 7, 1.0, 0.8),  # cabinet
        ((1.7, FLOOR - 0.25, 1.5), (0.7, 0.25, 0.45), -0.35, 7, 1.5, 0.9),  # sofa
        ((1.95, FLOOR - 0.7, 1.75), (0.7, 0.45, 0.12), -0.35, 7, 1.5, 0.9),
        ((-0.2, -0.35, WALL_Z - 0.02), (0.55, 0.4, 0.02), 0, 3, 0.9, 1.0),  # pictures
        ((1.2, -0.45, WALL_Z - 0.02), (0.35, 0.3, 0.02), 0, 9, 1.4, 1.0),
        ((WALL_X - 0.02, -0.3, 0.4), (0.02, 0.45, 0.6), 0, 10, 0.8, 1.0),
        ((-WALL_X + 0.02, -0.3, 0.2), (0.02, 0.35, 0.5), 0, 3, 1.1, 1.0),
        ((-1.0, FLOOR - 0.22, 0.9), (0.22, 0.22, 0.22), 0.6, 4, 1.8, 1.0),  # crates
        ((-1.05, FLOOR - 0.59, 0.88), (0.16, 0.15, 0.16), 0.2, 8, 2.0, 1.0),
        ((0.45, top - 0.06, 0.35), (0.12, 0.035, 0.16), 0.7, 5, 3.0, 1.0),  # books on the table
        ((0.43, top - 0.12, 0.36), (0.11, 0.03, 0.14), 0.4, 9, 3.0, 1.0),
    ]
    boxes += [
        ((-2.2 + 0.12 * i, -0.62, 1.75), (0.045, 0.11 + 0.02 * (i % 3), 0.1), 0, 5 + i % 2 * 4, 3.0, 1.0)
        for i in range(6)
    ]
    balls = [
        ((0.95, FLOOR - 0.2, 0.1), (0.2, 0.2, 0.2), 0, 6, 2.0, 1.0),
        ((-0.05, top - 0.16, 0.55), (0.1, 0.14, 0.1), 0, 6, 3.0, 1.0),  # vase
        ((-1.75, -0.35, 0.9), (0.22, 0.16, 0.22), 0, 0, 1.0, 0.5),  # lamp shade
    ]
    pole = FLOOR / 2 + 0.15
    tubes = [
        ((-1.75, FLOOR - pole, 0.9), (0.02, pole, 0.02), 0, 8, 2.0, 0.6),
        ((2.1, FLOOR - 0.3, -0.2), (0.17, 0.3, 0.17), 0, 4, 2.0, 1.0),
    ]
    turn = rotation_from_vector(torch.tensor([0.0, 0.3, 0.0]))
    for x, z in ((-0.58, -0.33), (0.58, -0.33), (-0.58, 0.33), (0.58, 0.33)):
        foot = turn @ torch.tensor([x, 0.0, z])
        tubes.append(
            ((0.2 + float(foot[0]), FLOOR - legs, 0.5 + float(foot[2])), (0.028, legs, 0.028), 0.3, 2, 2.0, 0.7)
        )
    return [boxes, balls, tubes], top


def make_world(generator: torch.Generator) -> tuple[Worlds, TextureBank]:
    """Put the furniture into a ``Worlds`` of one world and draw its textures."""
    kinds, _ = furniture()
    things = [thing for kind in kinds for thing in kind]
    column = lambda i: torch.tensor([thing[i] for thing in things], dtype=torch.float32)[None]  # noqa: E731
    turn = F.pad(column(2)[..., None], (1, 1))
    textures = column(3).long()[..., None].expand(-1, -1, 3).clone()
    textures[0, 0, 1] = 11  # floor and ceiling of the room: boards
    bank = TextureBank(torch.stack([draw_texture(generator, kind) for kind in LOOKS]), "cpu")
    count = len(things)
    world = Worlds(
        counts=(len(kinds[0]), len(kinds[1]), len(kinds[2]), 0),
        center=column(0),
        half=column(1),
        rotation=rotation_from_vector(turn),
        outdoor=torch.zeros(1, dtype=torch.bool),
        floating=torch.zeros(1, dtype=torch.bool),
        triangles=torch.zeros(1, 0, 1, 3, 3),
        texture=textures,
        scale=column(4),
        offset=torch.zeros(1, count, 3, 2),
        contrast=column(5),
        tint=torch.ones(1, count, 3),
        gloss=torch.full((1, count), 0.05),
        ambient=torch.tensor([0.6]),
        light_at=torch.tensor([[[-0.6, -1.1, -0.8], [1.5, -1.0, 1.0]]]),
        light=torch.tensor([[1.6, 0.8]]),
    )
    return world, bank


def cameras() -> tuple[torch.Tensor, torch.Tensor]:
    """Return K (3, 3) (half-pixel centres) and world_from_cam (VIEWS, 4, 4): an arc through the room, at two
    heights."""
    K = torch.tensor([[FOCAL, 0, WIDTH / 2], [0, FOCAL, HEIGHT / 2], [0, 0, 1.0]])
    out = torch.eye(4).repeat(VIEWS, 1, 1)
    for i in range(VIEWS):
        s = 2 * i / (VIEWS - 1) - 1
        eye = torch.tensor([[1.45 * s, -0.25 + 0.3 * (i % 2), -1.75 + 0.35 * math.cos(2 * s)]])
        target = torch.tensor([[0.25 * s, 0.45, 0.9]])
        out[i, :3, :3], out[i, :3, 3] = look_at(eye, target, torch.tensor([0.02 * s]))[0], eye[0]
    return K, out


def photograph(
    world: Worlds, bank: TextureBank, K: torch.Tensor, world_from_cam: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return radiance (3, H, W), four rays a pixel, and exact depth (H, W) through the pixel centres."""
    rows = 60
    strips, depths = [], []
    for top in range(0, HEIGHT, rows):
        strip = K.clone()
        strip[1, 2] -= top
        depths.append(render(world, bank, strip[None], world_from_cam[None], (rows, WIDTH))[1][0])
        fine = strip.clone()
        fine[:2] *= 2
        radiance = render(world, bank, fine[None], world_from_cam[None], (rows * 2, WIDTH * 2))[0]
        strips.append(F.avg_pool2d(radiance, 2)[0])
    return torch.cat(strips, dim=1), torch.cat(depths)


def write_model(
    folder: Path, names: list[str], K: np.ndarray, cam_from_world: np.ndarray, depths: np.ndarray, images: np.ndarray
) -> int:
    """Write the COLMAP model; its points are random surface points with every view that sees them. Returns their
    number."""
    rng = np.random.default_rng(0)
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        model="PINHOLE", width=WIDTH, height=HEIGHT, params=[FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2], camera_id=1
    )
    model.add_camera_with_trivial_rig(camera)
    seen: list[list[np.ndarray]] = [[] for _ in names]
    tracks, points, colors = [], [], []
    for i in range(len(names)):
        x, y = rng.integers(8, WIDTH - 8, 150), rng.integers(8, HEIGHT - 8, 150)
        ray = np.stack([x + 0.5, y + 0.5, np.ones(150)]).T @ np.linalg.inv(K).T
        in_cam = ray * depths[i][y, x][:, None]
        in_world = (in_cam - cam_from_world[i, :3, 3]) @ cam_from_world[i, :3, :3]
        for point, color in zip(in_world, images[i][y, x], strict=True):
            track = []
            for j in range(len(names)):
                p = cam_from_world[j, :3, :3] @ point + cam_from_world[j, :3, 3]
                u = K @ (p / p[2])
                if (
                    p[2] > 0
                    and 0 < u[0] < WIDTH
                    and 0 < u[1] < HEIGHT
                    and abs(depths[j][int(u[1]), int(u[0])] / p[2] - 1) < 0.01
                ):
                    track.append((j, len(seen[j])))
                    seen[j].append(u[:2])
            tracks.append(track)
            points.append(point)
            colors.append(color)
    for i, name in enumerate(names):
        image = pycolmap.Image(name=name, camera_id=1, image_id=i + 1, points2D=[pycolmap.Point2D(u) for u in seen[i]])
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(cam_from_world[i, :3]))
    for point, color, track in zip(points, colors, tracks, strict=True):
        if len(track) >= 2:
            elements = pycolmap.Track([pycolmap.TrackElement(j + 1, k) for j, k in track])
            model.add_point3D(point, elements, color)
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(str(folder))
    return model.num_points3D()


@torch.no_grad()
def main() -> None:
    """Render and write the set."""
    shutil.rmtree(OUT, ignore_errors=True)
    for name in ("images", "depth"):
        (OUT / name).mkdir(parents=True)
    generator = torch.Generator().manual_seed(11)
    world, bank = make_world(generator)
    K, world_from_cam = cameras()
    shots = [photograph(world, bank, K, pose) for pose in world_from_cam]
    radiance, depths = torch.stack([s[0] for s in shots]), torch.stack([s[1] for s in shots]).numpy()
    exposed = expose(radiance[None], generator)[0]
    images = (exposed * 255).round().byte().permute(0, 2, 3, 1).numpy()
    names = [f"room_{i:02d}.jpg" for i in range(VIEWS)]
    for name, image, depth in zip(names, images, depths, strict=True):
        iio.imwrite(OUT / "images" / name, image, quality=92)
        iio.imwrite(OUT / "depth" / name.replace(".jpg", ".png"), (depth * 1000).round().astype(np.uint16))
    cam_from_world = torch.linalg.inv(world_from_cam.double()).numpy()
    points = write_model(OUT / "sparse" / "0", names, K.double().numpy(), cam_from_world, depths, images)
    print(f"{OUT}: {VIEWS} views, {points} points")


if __name__ == "__main__":
    main()
