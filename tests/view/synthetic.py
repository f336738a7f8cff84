"""A world of soft hills with exact depths, and a results folder of it: views on a circle, cloud and mesh."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nasrecon.fuse.o3d import vertex_normals
from nasrecon.fuse.save import save_cloud, save_mesh
from nasrecon.geometry import normals_from_depth, transform
from nasrecon.results.digest import scene_digest
from nasrecon.results.fusion_record import write_fusion
from nasrecon.results.writer import ResultsWriter, Run
from nasrecon.types import Camera, Estimate, ImageSource, Mesh, PointCloud, Scene, SceneOrigin, View


@dataclass(frozen=True)
class HillWorld:
    """The surface z = height(x, y), x and y within ``half`` of 0; z is up. ``unit`` scales all lengths."""

    half: float = 2.0
    unit: float = 1.0

    def height(self, xy):
        x, y = np.moveaxis(xy / self.unit, -1, 0)
        return self.unit * (0.25 * np.sin(2 * x) * np.cos(1.5 * y) + 0.4 * np.exp(-4 * (x**2 + y**2)))

    def rgb(self, xy):
        x, y = np.moveaxis(xy / self.unit, -1, 0)
        check = (np.floor(2 * x) + np.floor(2 * y)) % 2
        shades = [150 + 60 * np.sin(3 * x), 110 + 80 * check, 90 + 50 * np.cos(2 * y)]
        return np.stack(shades, axis=-1).clip(0, 255).astype(np.uint8)

    def view(self, i, count, size):
        """Camera i of a circle of ``count``, above the hills and looking at their middle."""
        width, height = size
        angle = 2 * np.pi * i / count
        center = self.unit * np.array([2.6 * np.cos(angle), 2.6 * np.sin(angle), 1.9 + 0.2 * np.sin(5 * angle)])
        forward = -center / np.linalg.norm(center)
        right = np.cross(forward, (0, 0, 1))
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        cam_from_world = np.eye(4)
        cam_from_world[:3, :3], cam_from_world[:3, 3] = R, -R @ center
        K = np.array([[1.1 * width, 0, 0.49 * width], [0, 1.1 * width, 0.52 * height], [0, 0, 1]])
        return View(
            name=f"hills/{i:04d}.jpg",
            image=ImageSource(path=Path(f"{i:04d}.jpg")),
            cam_from_world=cam_from_world,
            camera=Camera(width=width, height=height, K=K),
            depth_range=(1.5 * self.unit, 8.0 * self.unit),
        )

    def estimate(self, view, sources=()):
        """The exact depth where a ray meets the hills within their border, by stepping and halving; 0 elsewhere."""
        camera, world_from_cam = view.camera, view.world_from_cam
        rays = camera.unproject(camera.pixel_centers(), np.ones((camera.height, camera.width)))

        def above(z):
            points = transform(world_from_cam, rays * z[..., None])
            return points[..., 2] - self.height(points[..., :2])

        low = np.full(rays.shape[:2], 0.5 * self.unit)
        high = low.copy()
        for step in np.arange(1.0, 8.0, 0.25) * self.unit:
            high = np.where((above(high) > 0), step, high)
            low = np.where(above(np.full_like(low, step)) > 0, np.where(high == step, step, low), low)
        for _ in range(14):
            middle = (low + high) / 2
            over = above(middle) > 0
            low, high = np.where(over, middle, low), np.where(over, high, middle)
        points = transform(world_from_cam, rays * high[..., None])
        inside = (np.abs(points[..., :2]) < self.half * self.unit).all(axis=-1) & (
            np.abs(above(high)) < 0.01 * self.unit
        )
        depth = np.where(inside, high, 0).astype(np.float32)
        x = np.linspace(0, 1, camera.width, dtype=np.float32)
        return Estimate(
            view=view,
            depth=depth,
            normal=normals_from_depth(depth, camera),
            sigma=0.01 * depth,
            confidence=np.broadcast_to(x, depth.shape).copy(),
            sources=tuple(sources),
            rgb=np.where(inside[..., None], self.rgb(points[..., :2]), np.uint8(200)),
        )

    def mesh(self, grid):
        line = np.linspace(-self.half, self.half, grid) * self.unit
        xy = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
        vertices = np.concatenate([xy, self.height(xy)[:, None]], axis=-1)
        a = (np.arange(grid - 1)[:, None] * grid + np.arange(grid - 1)).ravel()
        faces = np.concatenate([np.stack([a, a + 1, a + grid], 1), np.stack([a + 1, a + grid + 1, a + grid], 1)])
        faces = faces.astype(np.int32)
        return Mesh(vertices=vertices, faces=faces, normal=vertex_normals(vertices, faces), rgb=self.rgb(xy), unit="m")

    def cloud(self, count):
        random = np.random.default_rng(1)
        xy = random.uniform(-self.half, self.half, (count, 2)) * self.unit
        xyz = np.concatenate([xy, self.height(xy)[:, None]], axis=-1)
        normal = np.tile(np.array([0, 0, 1], np.float32), (count, 1))
        support = random.integers(3, 9, count, dtype=np.int32)
        return PointCloud(xyz=xyz, normal=normal, rgb=self.rgb(xy), support=support, unit="m")


def write_results(folder, world, *, views, size, grid=0, points=0, finished=None, distinct=None):
    """Write a results folder and return the views.

    ``finished``: only so many of the views, as while a run goes on. ``distinct``: compute only so many maps and give
    them to all views in turn, for runs that are large rather than right.
    """
    all_views = [world.view(i, views, size) for i in range(views)]
    scene = Scene(root=Path("hills"), views=tuple(all_views), unit="m", origin=SceneOrigin(format="synthetic hills"))
    options = {"sources": 4, "max_side": max(size), "size": None, "min_depth": None}
    run = Run.describe(
        scene, digest=scene_digest(scene), network="lite", weights="lite", weights_sha256="ab" * 32, options=options
    )
    names = [view.name for view in all_views]
    done, made = views if finished is None else finished, []
    with ResultsWriter(folder, run, names) as writer:
        for i, view in enumerate(all_views[:done]):
            sources = [names[(i + k) % views] for k in (-2, -1, 1, 2)]
            if view.name not in writer.finished:
                if distinct is None or len(made) < distinct:
                    made.append(world.estimate(view, sources))
                estimate = replace(
                    made[-1] if distinct is None else made[i % len(made)], view=view, sources=tuple(sources)
                )
                writer.add(estimate, seconds=1.5)
    if done < views:  # as it stands while the run goes on
        writer.write_manifest(complete=False)
    files = {}
    if grid:
        files["mesh"] = str(save_mesh(world.mesh(grid), folder / "mesh.ply"))
    if points:
        files["cloud"] = str(save_cloud(world.cloud(points), folder / "cloud.ply"))
    if files:
        stages = {"pixels": 1000, "with depth": 900, "3 views agree": 700, "merged points": points}
        write_fusion(
            folder, {**files, "stages": stages, "seconds": {"read": 0.5, "mesh": 1.25}, "options": {"voxel": None}}
        )
    return all_views
