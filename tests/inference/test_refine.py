"""Depth of elsewhere: it reaches the network in its units, and what comes back is a results folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from plane_world import SweepNetwork, make_view, plane_depth, plane_in_cam, write_scene
from recorder import Recorder

from nasrecon import cli
from nasrecon.errors import InputError
from nasrecon.geometry import angle_between_deg, plane_normals
from nasrecon.inference.depth_maps import DepthMaps
from nasrecon.inference.refine import DepthRefiner, refine_to_folder
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene

QUICK = PrepareOptions(check=False, refine=False)


class Passing(SweepNetwork):
    """Gives back the prior with confidence 1; keeps it."""

    sha256, weights = "cd" * 32, "passing"

    def refine(self, batch, depth, normal):
        self.prior = depth, normal, batch.min_depth
        out = self(batch)
        fields = {"refined_depth": depth, "refined_normal": normal, "confidence": torch.ones_like(depth)}
        return type(out)(**{**vars(out), **fields})


def write_depths(folder, views, share=1.0):
    folder.mkdir()
    for view in views:
        np.savez(folder / f"{view.name}.npz", depth=share * plane_depth(view))


def test_given_depths_pass_through_the_network_in_its_units(tmp_path):
    images, poses, K, views = write_scene(tmp_path, count=3, unit=10.0)
    write_depths(tmp_path / "depths", [make_view_of(view, 10.0) for view in views[:2]], share=10.0)
    scene = prepare_scene(images, poses, QUICK, intrinsics=K, convention="cam-from-world", progress=Recorder())
    network = Passing()
    run = refine_to_folder(scene, DepthMaps(tmp_path / "depths"), network, tmp_path / "out", progress=Recorder())
    assert run.estimated == 2 and "no depth map" in dict(run.skipped)["0002.png"]
    for estimate in run.results:
        truth = plane_depth(estimate.view, unit=10.0)
        assert np.abs(estimate.depth / truth - 1).max() < 1e-5
        normal, _ = plane_in_cam(estimate.view)
        inner = estimate.normal[8:-8, 8:-8].reshape(-1, 3)
        assert np.median(angle_between_deg(inner, np.broadcast_to(normal, inner.shape))) < 0.5
    depth, _, near = network.prior
    assert float(near[0]) == 1.0 and 1.0 < float(depth[depth > 0].min()) < 1.5  # nearest plane at 0.8 of the map's
    again = refine_to_folder(scene, DepthMaps(tmp_path / "depths"), network, tmp_path / "out", progress=Recorder())
    assert again.kept == 2
    write_depths(tmp_path / "others", [make_view_of(view, 10.0) for view in views[:2]], share=11.0)
    with pytest.raises(InputError, match="refined_depths_sha256"):
        refine_to_folder(scene, DepthMaps(tmp_path / "others"), network, tmp_path / "out", progress=Recorder())


def make_view_of(view, unit):
    """The view with lengths divided by ``unit``, for ``plane_depth``."""
    from dataclasses import replace

    matrix = view.cam_from_world.copy()
    matrix[:3, 3] /= unit
    return replace(view, cam_from_world=matrix)


def test_a_network_without_a_consistency_module_is_refused():
    with pytest.raises(InputError, match="does not refine given depth"):
        DepthRefiner(SweepNetwork())


def test_normals_of_planes_with_noise_and_holes():
    view = make_view("a", 96, 64, 95, (5, 10, 0), (0, 0, 0))
    depth = plane_depth(view).astype(np.float32)
    noise = np.random.default_rng(0)
    depth *= 1 + 0.002 * noise.standard_normal(depth.shape)
    depth[noise.random(depth.shape) < 0.2] = 0
    normal, _ = plane_in_cam(view)
    error = angle_between_deg(plane_normals(depth, view.camera)[depth > 0], normal)
    assert np.median(error) < 6 and (plane_normals(depth, view.camera)[depth == 0] == 0).all()


def test_the_command(tmp_path, monkeypatch, capsys):
    images, poses, K, views = write_scene(tmp_path, count=3)
    write_depths(tmp_path / "depths", views)
    monkeypatch.setattr("nasrecon.nas.weights.load_network", lambda name, device="auto": Passing())
    command = ["refine", images, "--poses", poses, "--intrinsics", K, "--convention", "cam-from-world", "--keep-poses"]
    command += ["--depths", tmp_path / "depths", "--out", tmp_path / "out", "--json"]
    with pytest.raises(SystemExit) as end:
        cli.main([str(word) for word in command])
    assert not end.value.code and json.loads(capsys.readouterr().out)["estimated"] == 3
