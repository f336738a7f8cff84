"""Worlds with known surfaces, and a renderer that casts one ray a pixel: exact depth and normals to fuse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nasrecon.geometry import transform
from nasrecon.types import Camera, Estimate, ImageSource, View


@dataclass(frozen=True)
class Sphere:
    center: tuple[float, float, float]
    radius: float

    def cast(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Return t (...) with origin + t ray on the surface, inf where missed; the camera is outside."""
        to_center = np.array(self.center) - origin
        a, b = np.sum(rays * rays, axis=-1), rays @ to_center
        root = b * b - a * (to_center @ to_center - self.radius**2)
        t = (b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root > 0) & (t > 0), t, np.inf)

    def normal(self, points: np.ndarray) -> np.ndarray:
        return (points - self.center) / self.radius

    def distance(self, points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points - self.center, axis=-1) - self.radius


@dataclass(frozen=True)
class Plane:
    """The points with n . p = offset; n points to the side that is seen."""

    n: tuple[float, float, float]
    offset: float

    def cast(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        n = np.array(self.n)
        with np.errstate(divide="ignore"):
            t = (self.offset - origin @ n) / (rays @ n)
        return np.where((t > 0) & (rays @ n < 0), t, np.inf)

    def normal(self, points: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.n, points.shape)

    def distance(self, points: np.ndarray) -> np.ndarray:
        return points @ np.array(self.n) - self.offset


World = Sequence[Sphere | Plane]

ROOM = tuple(Plane(n, -2.5) for n in ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)))
BALL = Sphere((0.1, -0.2, 0.15), 0.7)


def distance(world: World, points: np.ndarray) -> np.ndarray:
    """Return the distance (N,) of points (N, 3) to the nearest surface."""
    return np.min([np.abs(surface.distance(points)) for surface in world], axis=0)


def normals(world: World, points: np.ndarray) -> np.ndarray:
    """Return the outward normal (N, 3) of the surface nearest to each point."""
    nearest = np.argmin([np.abs(surface.distance(points)) for surface in world], axis=0)
    return np.choose(nearest[:, None], [surface.normal(points) for surface in world])


def colors(points: np.ndarray) -> np.ndarray:
    """Return the colour (..., 3) in [0, 255] of a place: slow waves, so that blurring by a pixel changes little."""
    return 127.5 + 100 * np.sin(points @ np.array([[1.0, 0.3, -0.2], [0.2, -1.1, 0.5], [-0.4, 0.6, 0.9]]))


def render(world: World, view: View, color_scale: float = 1.0) -> Estimate:
    """Return the exact estimate of a view, sure of itself."""
    camera = view.camera
    rays_in_cam = camera.unproject(camera.pixel_centers(), np.ones((camera.height, camera.width)))
    R = view.cam_from_world[:3, :3]
    rays, origin = rays_in_cam @ R, view.center_in_world
    depths = np.stack([surface.cast(origin, rays) for surface in world])
    depth = depths.min(axis=0)
    hit = np.isfinite(depth)
    depth = np.where(hit, depth, 0)
    points = origin + depth[..., None] * rays
    of_surface = np.stack([surface.normal(points) for surface in world])
    normal = np.take_along_axis(of_surface, depths.argmin(axis=0)[None, ..., None], axis=0)[0] @ R.T
    return Estimate(
        view=view,
        depth=depth.astype(np.float32),
        normal=np.where(hit[..., None], normal, 0).astype(np.float32),
        confidence=np.where(hit, 1, 0).astype(np.float32),
        sigma=(0.01 * depth).astype(np.float32),
        rgb=np.rint(colors(points / color_scale)).clip(0, 255).astype(np.uint8),
    )


def look_at(name: str, eye: Sequence[float], target: Sequence[float], camera: Camera) -> View:
    """Return a view from ``eye`` towards ``target``, its image upright against the world's -y."""
    forward = np.array(target, dtype=float) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    R = np.stack([right, np.cross(forward, right), forward])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3], cam_from_world[:3, 3] = R, -R @ np.asarray(eye, dtype=float)
    return View(name=name, image=ImageSource(path=Path(name)), camera=camera, cam_from_world=cam_from_world)


def small_camera(width: int = 160, height: int = 120, focal: float = 130.0) -> Camera:
    """Return a camera whose principal point is off the middle, so that flips and shifts show."""
    return Camera(
        width=width, height=height, K=np.array([[focal, 0, 0.48 * width], [0, 1.02 * focal, 0.53 * height], [0, 0, 1]])
    )


def ring(count: int, camera: Camera | None = None, radius: float = 2.0, arc_deg: float = 360.0) -> list[View]:
    """Return views on a wavy ring around the ball, looking a little past it."""
    camera = camera or small_camera()
    views = []
    for i in range(count):
        a = np.radians(arc_deg) * i / count
        eye = (radius * np.cos(a), 0.4 * np.sin(3 * a) - 0.3, radius * np.sin(a))
        views.append(look_at(f"{i:03d}.png", eye, (0.3 * np.sin(a), 0.1 * np.cos(2 * a), 0.0), camera))
    return views


def scaled(estimate: Estimate, s: float, shift: Sequence[float] = (0, 0, 0)) -> Estimate:
    """Return the estimate of the same scene in another unit and place: world' = s * world + shift."""
    view = estimate.view
    moved = view.cam_from_world.copy()
    moved[:3, 3] = s * moved[:3, 3] - moved[:3, :3] @ np.asarray(shift, dtype=float)
    return replace(
        estimate,
        view=replace(view, cam_from_world=moved),
        depth=estimate.depth * np.float32(s),
        sigma=estimate.sigma * np.float32(s),
    )


def lifted(estimate: Estimate) -> np.ndarray:
    """Return the estimate's pixels as points (H, W, 3) in the world."""
    return transform(estimate.view.world_from_cam, estimate.view.camera.unproject_depth(estimate.depth))
