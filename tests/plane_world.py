"""A world of one slanted, textured plane, exact in the outside conventions; and a small network that sweeps planes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from nasrecon.geometry import transform
from nasrecon.inference.adapter import Photo
from nasrecon.nas.network import Prediction
from nasrecon.nas.volume import depth_from_label, plane_inv_depth, plane_sample_grid, sample_on_planes
from nasrecon.types import Camera, ImageSource, View

PLANE_NORMAL_IN_WORLD = np.array([0.25, -0.4, -1.0]) / np.linalg.norm([0.25, -0.4, -1.0])
PLANE_POINT_IN_WORLD = np.array([0.1, 0.2, 3.0])


def rotation(x_deg, y_deg, z_deg):
    a, b, c = np.radians([x_deg, y_deg, z_deg])
    rx = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    ry = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    rz = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return rz @ ry @ rx


def make_view(name, width, height, focal, angles, center, unit=1.0, near=1.0):
    K = np.array([[focal, 0.3, width * 0.47], [0, focal * 1.05, height * 0.55], [0, 0, 1]])
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = rotation(*angles)
    cam_from_world[:3, 3] = -cam_from_world[:3, :3] @ (np.array(center) * unit)
    return View(
        name=name,
        image=ImageSource(path=Path(name)),
        camera=Camera(width=width, height=height, K=K),
        cam_from_world=cam_from_world,
        depth_range=(near * unit, 10 * unit),
    )


def plane_in_cam(view, unit=1.0):
    """The plane n . x = d (n, d) in the view's camera frame, scene units."""
    normal = view.cam_from_world[:3, :3] @ PLANE_NORMAL_IN_WORLD
    return normal, normal @ transform(view.cam_from_world, PLANE_POINT_IN_WORLD * unit)


def plane_depth(view, unit=1.0):
    """The exact depth (H, W) of the plane at the pixel centres, in the outside conventions."""
    normal, offset = plane_in_cam(view, unit)
    return offset / (
        view.camera.unproject(view.camera.pixel_centers(), np.ones((view.camera.height, view.camera.width))) @ normal
    )


def photograph(view, unit=1.0):
    """Draw the plane: at each pixel centre three waves over the plane's position, about 16 px long in the image."""
    points_in_cam = view.camera.unproject_depth(plane_depth(view, unit))
    position = transform(view.world_from_cam, points_in_cam)[..., :2] / unit
    phase = 2 * np.pi * (position @ np.array([[1.9, 0.0, 1.3], [0.0, 1.9, 1.3]]))
    return np.rint(127.5 + 120 * np.sin(phase)).astype(np.uint8)


def posed(view, unit=1.0):
    return Photo(rgb=photograph(view, unit), view=view)


def write_scene(folder, count=5, width=96, height=64, unit=1.0):
    """Write photographs of the plane and their cameras as plain files; returns (images, poses, K file, views).

    Cameras stand in a row 0.15 units apart, all turned to the plane; transforms are cam_from_world.
    """
    from PIL import Image

    images, poses = folder / "images", folder / "poses"
    images.mkdir(parents=True)
    poses.mkdir()
    views = []
    for i in range(count):
        place = (0.15 * (i - count // 2), 0.02 * (-1) ** i, 0.0)
        view = make_view(f"{i:04d}.png", width, height, 95 * width / 96, (1, 3.0 * (count // 2 - i), 0), place, unit)
        views.append(view)
        Image.fromarray(photograph(view, unit)).save(images / view.name)
        np.savetxt(poses / f"{i:04d}.txt", view.cam_from_world, fmt="%.17g")
    np.savetxt(folder / "K.txt", views[0].camera.K, fmt="%.17g")
    return images, poses, folder / "K.txt", views


class SweepNetwork(torch.nn.Module):
    """Colour differences over planes, averaged over a window: the smallest network that finds depth from images."""

    name = "sweep"
    planes = 64
    size_multiple = 4
    min_side = 32

    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(1))
        self.batch_sizes = []

    def forward(self, batch):
        self.batch_sizes.append(len(batch.ref_image))
        H, W = batch.ref_image.shape[-2:]
        inv_depth = plane_inv_depth(batch.min_depth, self.planes)
        cost = 0
        for s in range(batch.src_images.shape[1]):
            grid, inside = plane_sample_grid(
                batch.ref_K, batch.src_K[:, s], batch.src_from_ref[:, s], inv_depth, (H, W)
            )
            warped = sample_on_planes(batch.src_images[:, s], grid)
            off = (warped - batch.ref_image[:, :, None]).abs().mean(1)
            cost = cost + torch.where(inside, off, 0.5)
        cost = F.avg_pool2d(cost, 9, 1, 4, count_include_pad=False)
        best = cost.argmin(1, keepdim=True).clamp(1, self.planes - 2)
        left, mid, right = (cost.gather(1, best + step)[:, 0] for step in (-1, 0, 1))
        shift = 0.5 * (left - right) / (left - 2 * mid + right).clamp_min(1e-6)
        depth = depth_from_label(best[:, 0] + shift.clamp(-0.5, 0.5), batch.min_depth, self.planes) + self.bias
        normal = torch.zeros(len(depth), 3, H, W)
        normal[:, 2] = -1
        return Prediction(
            depth_initial=depth,
            depth=depth,
            normal=normal,
            refined_depth=depth,
            refined_normal=normal,
            confidence=torch.full_like(depth, 0.9),
            sigma=0.01 * depth,
        )
