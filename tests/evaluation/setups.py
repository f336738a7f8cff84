"""A network whose errors are known, pairs and sequences with exact depth, and stand-ins for refining."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import torch
from plane_world import make_view, photograph, plane_depth, plane_in_cam

from nasrecon.check.findings import Diagnosis
from nasrecon.nas.network import Prediction
from nasrecon.nas.volume import pixel_rays
from nasrecon.refine.poses import RefinedPoses


class KnowingNetwork:
    """Knows the plane of each reference, in the order it is asked, and is off by factors of its own.

    Args:
        planes_in_ref: (n, d) of each reference, in scene units. near: of the nearest plane, in scene units.
        factors: of each reference's Z1, Z2 and refined depth. tilt_deg: of Z2's normals; the refined are exact.
    """

    name = "knowing"
    planes = 64
    size_multiple = 32
    min_side = 32

    def __init__(self, planes_in_ref, near, factors, tilt_deg=20.0):
        self.planes_in_ref, self.near, self.factors, self.tilt_deg = planes_in_ref, near, factors, tilt_deg
        self.batches = []

    def __call__(self, batch):
        n, d = self.planes_in_ref[len(self.batches)]
        first, second, refined = self.factors[len(self.batches)]
        self.batches.append(batch)
        (H, W), unit = batch.ref_image.shape[-2:], float(batch.min_depth[0]) / self.near
        rays = pixel_rays(batch.ref_K.double(), H, W)[0]
        depth = (unit * d / (torch.from_numpy(n) @ rays)).view(1, H, W)
        across = np.cross(n, [1.0, 0, 0]) / np.linalg.norm(np.cross(n, [1.0, 0, 0]))
        tilt = np.radians(self.tilt_deg)
        tilted = np.cos(tilt) * n + np.sin(tilt) * across
        constant = lambda v: torch.from_numpy(np.array(v)).view(1, 3, 1, 1).expand(1, 3, H, W)  # noqa: E731
        return Prediction(
            depth_initial=first * depth,
            depth=second * depth,
            normal=constant(tilted),
            refined_depth=refined * depth,
            refined_normal=constant(n),
            confidence=torch.full_like(depth, 0.5),
            sigma=0.15 * depth,
        )


def straight(view):
    """The view without the skew that the layouts of real sets cannot write down."""
    K = view.camera.K.copy()
    K[0, 1] = 0
    return replace(view, camera=replace(view.camera, K=K))


def write_image(path, view):
    from PIL import Image

    Image.fromarray(photograph(view)).save(path)


def write_pair(folder, angle=0.0):
    """Write a pair with exact depth and 640x480 images in the layout of DeMoN; returns the reference's plane."""
    folder.mkdir(parents=True)
    ref = straight(make_view("ref", 640, 480, 600, (4, -7 + angle, 2), (0.1, 0, 0)))
    src = replace(make_view("src", 640, 480, 600, (1, -4, 0), (0.4, 0.05, 0)), camera=ref.camera)
    for i, view in enumerate((ref, src)):
        write_image(folder / f"{i:04d}.png", view)
        np.save(folder / f"{i:04d}.npy", plane_depth(view).astype(np.float32))
    np.savetxt(folder / "cam.txt", ref.camera.K)
    np.savetxt(folder / "poses.txt", [view.cam_from_world[:3].ravel() for view in (ref, src)])
    return plane_in_cam(ref)


FACTORS = [(1.5, 1.2, 1.1), (1.5, 1.4, 1.3), (0.5, 0.8, 1.0)]


def refined(changed):
    """Stand in for refining: the scenes in ``changed``, by their turn, get their last view moved by 1."""
    calls = []

    def refine(scene, progress=None, store=None):
        calls.append(scene)
        views = list(scene.views)
        if len(calls) - 1 in changed:
            moved = views[-1].cam_from_world.copy()
            moved[0, 3] += 1
            views[-1] = replace(views[-1], cam_from_world=moved)
        still = np.zeros(len(views))
        return RefinedPoses(
            scene=scene.replace_views(views),
            turn_rad=0.01,
            turned_deg=still,
            moved=still,
            before_px=3.0,
            after_px=0.3,
            pairs=1,
            changed=len(calls) - 1 in changed,
        )

    return refine


def gate_opens(monkeypatch):
    """Let the quick check find matches that are off."""
    monkeypatch.setattr("nasrecon.prepare.prepare.check_scene", lambda *_, **__: Diagnosis(findings=()))
    monkeypatch.setattr("nasrecon.prepare.prepare.is_off", lambda *_: True)


def write_sequence(folder, count=9):
    """Write a sequence with exact depth in Redwood's layout; returns its views."""
    for name in ("image", "depth"):
        (folder / name).mkdir(parents=True)
    log, views = [], []
    for i in range(count):
        view = straight(make_view(f"{i:05d}.png", 96, 64, 95, (1, -2.0 * i, 0), (0.05 * i, 0, 0)))
        views.append(view)
        write_image(folder / "image" / view.name, view)
        np.save(folder / "depth" / f"{i:05d}.npy", plane_depth(view))
        rows = [" ".join(f"{x:.17g}" for x in row) for row in view.world_from_cam]
        log += [f"{i} {i} {i + 1}", *rows]
    (folder / "trajectory.log").write_text("\n".join(log) + "\n")
    (fx, _, cx), (_, fy, cy), _ = views[0].camera.K
    camera = {"width": 96, "height": 64, "fx": fx, "fy": fy, "cx": cx, "cy": cy, "pixel_center_of_first": 0.5}
    (folder / "camera.json").write_text(json.dumps(camera))
    return views
