"""Runs into a folder: interruption, reruns, failed writes, masks, and what the manifest holds."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from plane_world import SweepNetwork
from recorder import Recorder

from inference.setups import estimate_views, names, to_folder
from nasrecon.errors import InputError
from nasrecon.geometry import transform
from nasrecon.inference import run
from nasrecon.prepare import prepare
from nasrecon.results.reader import Results
from nasrecon.types import Scene


class Interrupting(SweepNetwork):
    """Ctrl-C during the third view."""

    def forward(self, batch):
        if len(self.batch_sizes) == 2:
            raise KeyboardInterrupt
        return super().forward(batch)


def test_an_interrupted_run_keeps_what_is_finished_and_goes_on(scene, tmp_path):
    options = dict(min_depth=1.5)
    with pytest.raises(KeyboardInterrupt):
        to_folder(scene, Interrupting(), tmp_path / "a", options, weights_sha256="1")
    part = Results.open(tmp_path / "a")
    assert part.names == ("0000.png", "0001.png") and not part.manifest["complete"]
    network = SweepNetwork()
    resumed = to_folder(scene, network, tmp_path / "a", options, weights_sha256="1")
    assert network.batch_sizes == [1, 1, 1]
    whole = to_folder(scene, SweepNetwork(), tmp_path / "b", options, weights_sha256="1")
    assert resumed.names == whole.names == tuple(view.name for view in scene.views) and resumed.manifest["complete"]
    for a, b in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(a.depth, b.depth)
        assert a.sources == b.sources


def test_finished_views_stay_until_overwrite(scene, tmp_path):
    options = dict(min_depth=1.5)
    to_folder(scene, SweepNetwork(), tmp_path, options, weights_sha256="1")
    second = SweepNetwork()
    to_folder(scene, second, tmp_path, options | {"batch": 3, "cached_images": 7}, weights_sha256="1")
    assert second.batch_sizes == []
    for changed, sha in [(options | {"sources": 1}, "1"), (options, "2")]:
        with pytest.raises(InputError, match="--overwrite"):
            to_folder(scene, second, tmp_path, changed, weights_sha256=sha)
    assert second.batch_sizes == []
    again = to_folder(scene, second, tmp_path, options | {"sources": 1}, weights_sha256="1", overwrite=True)
    assert len(second.batch_sizes) == len(again) == 5 and all(len(found.sources) == 1 for found in again)


def test_a_failed_write_ends_the_run(scene, tmp_path, monkeypatch):
    """Writing goes on beside computing; the disk is full at the very last view."""
    real = run.ResultsWriter.add

    def add(writer, found, **about):
        if found.view.name == "0004.png":
            raise OSError("disk full")
        real(writer, found, **about)

    monkeypatch.setattr(run.ResultsWriter, "add", add)
    with pytest.raises(OSError, match="disk full"):
        to_folder(scene, SweepNetwork(), tmp_path, dict(min_depth=1.5))
    assert len(Results.open(tmp_path)) == 4


def test_the_manifest_tells_the_run(scene, tmp_path):
    dropped = replace(scene, dropped=(("x.png", "no camera"),))
    since = time.perf_counter()
    results = to_folder(dropped, SweepNetwork(), tmp_path, dict(min_depth=1.5, batch=5), weights_sha256="ab")
    elapsed = time.perf_counter() - since
    manifest = results.manifest
    assert manifest["dropped"] == [{"name": "x.png", "reason": "no camera"}]
    assert manifest["settings"]["network"] == "sweep" and manifest["settings"]["weights_sha256"] == "ab"
    assert manifest["settings"]["options"] == {
        "sources": 4,
        "max_side": 640,
        "size": None,
        "min_depth": 1.5,
        "passes": "auto",
    }
    for line, found in zip(manifest["views"], results, strict=True):
        assert line["depth_range"][0] == 1.5 and "1.5" in line["depth_range_from"]
        assert tuple(line["sources"]) == found.sources and line["seconds"] > 0
    # One batch of five: its time is shared out, not counted five times.
    seconds = [line["seconds"] for line in manifest["views"]]
    assert len(set(seconds)) == 1
    assert sum(seconds) < elapsed


def test_nothing_estimated_is_an_error_with_the_reasons(scene, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "select_source_views", lambda *_: ())
    with pytest.raises(InputError, match=r"none of 5 views.*source"):
        to_folder(scene, SweepNetwork(), tmp_path, dict(min_depth=1.5))
    with pytest.raises(InputError, match="no views"):
        to_folder(Scene(root=tmp_path, views=()), SweepNetwork(), tmp_path / "empty", dict(min_depth=1.5))


def write_masks(scene, folder):
    """Zero in the left 40 of 96 columns, for all views but the first."""
    keep = np.full((64, 96), 255, dtype=np.uint8)
    keep[:, :40] = 0
    folder.mkdir()
    for view in scene.views[1:]:
        Image.fromarray(keep).save(folder / f"{view.name}.png")


@pytest.mark.parametrize("size", [(96, 64), (64, 64)])
def test_masked_pixels_get_no_depth_and_are_not_fused(fresh_scene, tmp_path, size):
    from nasrecon.fuse.fusion import fuse_estimates
    from nasrecon.fuse.options import FuseOptions
    from nasrecon.ingest.masks import with_masks

    write_masks(fresh_scene, tmp_path / "masks")
    options = dict(min_depth=1.5, size=size)
    whole = to_folder(fresh_scene, SweepNetwork(), tmp_path / "whole", options)
    masked = with_masks(fresh_scene, tmp_path / "masks")
    with pytest.raises(InputError, match="scene_sha256"):  # other depths: not to be mixed with those without masks
        to_folder(masked, SweepNetwork(), tmp_path / "whole", options)
    results = to_folder(masked, SweepNetwork(), tmp_path / "masked", options)
    assert "masks of 4 of 5 views (masks), none for 0000.png" in results.manifest["scene"]["origin"]["notes"][0]
    edge = round(40 * size[0] / 96)
    for i, (a, b) in enumerate(zip(whole, results, strict=True)):
        np.testing.assert_array_equal(a.depth[:, edge + 1 :], b.depth[:, edge + 1 :])
        for name in ("depth", "normal", "confidence", "sigma"):
            left = getattr(b, name)[:, : edge - 1]
            assert (left == 0).all() if i else (left != 0).any(), name
    one = fuse_estimates(results[1:2], FuseOptions(min_views=1), mesh=False).cloud
    pixels = results[1].view.camera.project(transform(results[1].view.cam_from_world, one.xyz))
    assert len(one) > 500 and pixels[:, 0].min() > edge - 1


def test_a_view_whose_mask_cannot_be_read_is_dropped(fresh_scene, tmp_path):
    from nasrecon.ingest.masks import with_masks

    write_masks(fresh_scene, tmp_path / "masks")
    masked = with_masks(fresh_scene, tmp_path / "masks")
    (tmp_path / "masks" / "0002.png.png").write_bytes(b"no image")
    recorder = Recorder()
    options = dict(min_depth=1.5)
    estimates = list(estimate_views(masked, SweepNetwork(), options, progress=recorder))
    assert names(estimates) == ["0000.png", "0001.png", "0003.png", "0004.png"]
    assert [name for name, _ in recorder.skips] == ["0002.png"] and "cannot be read as a mask" in recorder.skips[0][1]
