"""Pairs in the layout of DeMoN with scores known beforehand, and the commands of the evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plane_world import make_view, plane_depth, plane_in_cam
from recorder import Recorder

from evaluation.setups import (
    FACTORS,
    KnowingNetwork,
    gate_opens,
    refined,
    write_pair,
    write_sequence,
)
from nasrecon import cli
from nasrecon.errors import EmptyResultError, InputError
from nasrecon.evaluation.demon import evaluate_demon
from nasrecon.evaluation.scoring import STAGES
from nasrecon.inference.adapter import Photo
from nasrecon.inference.passes import predict, predict_stages

torch.set_num_threads(1)
SHARED = Path(__file__).resolve().parents[2] / "../shared/data"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    names = ("indoor_test_1", "indoor_test_2", "made_test_1")
    return folder, [write_pair(folder / name, angle) for name, angle in zip(names, (0, 5, -4), strict=True)]


def test_demon_scores_each_stage_of_each_subset(pairs):
    folder, planes = pairs
    network = KnowingNetwork(planes, 0.5, FACTORS)
    found = evaluate_demon(folder, network, progress=(recorder := Recorder()))

    assert [batch.src_images.shape for batch in network.batches] == [(1, 1, 3, 480, 640)] * 3
    assert recorder.updates[-1] == ("pairs", 3, 3)
    assert found.subsets == ("indoor", "made", "all") and [view.name for view in found.of("indoor")] == [
        "indoor_test_1",
        "indoor_test_2",
    ]
    expected = {"Z1": (0.5, 0.5, 0.5), "Z2": (0.2, 0.4, 0.2), "refined": (0.1, 0.3, 0.0)}
    for stage, (one, two, three) in expected.items():
        # float32 of depth and K: a few parts in 1e7.
        assert found.stage(stage, "indoor")["abs_rel"] == pytest.approx((one + two) / 2, abs=1e-5)
        assert found.stage(stage, "made")["abs_rel"] == pytest.approx(three, abs=1e-5)
        assert found.stage(stage)["abs_rel"] == pytest.approx((one + two + three) / 3, abs=1e-5)
    assert found.stage("Z2", "indoor")["delta_1"] == 0.5 and found.stage("refined", "made")["delta_1"] == 1
    assert not [metric for metric in found.stage("Z1") if metric.startswith("normal")]
    assert found.stage("Z2")["normal_mean_deg"] == pytest.approx(20, abs=0.01)
    assert found.stage("refined")["normal_mean_deg"] < 0.01
    # Sigma is 15 % of the depth, its intervals reach 7 and 24 %: the errors are 10, 30 and 0 %.
    assert [view.calibration["within_50_pct"] for view in found.views] == [0, 0, 100]
    assert [view.calibration["within_90_pct"] for view in found.views] == [100, 0, 100]
    # Confidence is the same everywhere: nothing gained over removing pixels at random.
    assert abs(found.calibration()["aurg"]) < 1e-9
    assert all(view.pixels == 640 * 480 and view.missing == 0 and view.seconds > 0 for view in found.views)


def test_demon_takes_refined_poses_and_says_so(pairs, monkeypatch):
    folder, planes = pairs
    kept = KnowingNetwork(planes, 0.5, FACTORS)
    twice = [0, 1, 1, 2]  # the second pair passes under the refined poses, then under the given
    used = KnowingNetwork([planes[i] for i in twice], 0.5, [FACTORS[i] for i in twice])
    gate_opens(monkeypatch)
    monkeypatch.setattr("nasrecon.prepare.prepare.refine_scene", refined({1}))
    found = evaluate_demon(folder, used)
    assert "where the matches of a pair ask for others, seen under both and averaged: 1 of 3 pairs" in "\n".join(
        found.rules
    )
    monkeypatch.setattr("nasrecon.prepare.prepare.refine_scene", None)
    given = evaluate_demon(folder, kept, keep_poses=True)
    assert "poses as given" in given.rules
    off = [
        float((a.src_from_ref - b.src_from_ref)[0, 0, 0, 3] / a.min_depth[0]) * 0.5
        for a, b in zip(used.batches[:2] + used.batches[3:], kept.batches, strict=True)
    ]
    assert off == pytest.approx([0, 1, 0], abs=1e-5)


def test_demon_counts_true_depths_in_range_only(pairs):
    folder, planes = pairs
    limit = float(np.median(np.load(folder / "indoor_test_1" / "0000.npy")))
    found = evaluate_demon(folder, KnowingNetwork(planes, 0.5, FACTORS), max_depth=limit)
    depths = [np.load(folder / view.name / "0000.npy") for view in found.views]
    assert [view.pixels for view in found.views] == [int((depth <= limit).sum()) for depth in depths]
    assert found.views[0].pixels == pytest.approx(640 * 480 / 2, rel=0.01)
    assert f"{limit:g}" in found.protocol and any(f"true depth <= {limit:g}" in rule for rule in found.rules)
    # The range limits which pixels count, not what is found: 1.5 times the depth is beyond it and stays.
    assert found.stage("Z1")["abs_rel"] == pytest.approx(0.5, abs=1e-5)


HOLES = [(np.inf, 32, 1), (np.nan, 32, 1), (0, 32, 1), (-1, 32, 1), (100, 32, 0), (0.01, 0.5, 0)]
"""A value instead of the depth, what it counts as, and whether it is missing."""


@pytest.mark.parametrize("holes", [HOLES[:3], HOLES[3:]])
def test_depths_are_clamped_to_the_planes_and_holes_are_farthest(pairs, holes):
    folder, planes = pairs

    class Holes(KnowingNetwork):
        def __call__(self, batch):
            value, _, _ = holes[len(self.batches)]
            out = super().__call__(batch)
            depth = torch.full_like(out.refined_depth, value * float(batch.min_depth[0]) / self.near)
            return replace(out, refined_depth=depth)

    found = evaluate_demon(folder, Holes(planes, 0.5, FACTORS))
    for view, (_, clamped, missing) in zip(found.views, holes, strict=True):
        truth = np.load(folder / view.name / "0000.npy").astype(float)
        assert view.stages["refined"]["abs_rel"] == pytest.approx(np.mean(np.abs(clamped - truth) / truth), rel=1e-5)
        assert view.missing == missing * 640 * 480
    assert found.stage("Z2", "made")["abs_rel"] == pytest.approx(0.2, abs=1e-5)


def test_demon_says_what_it_cannot_score(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        evaluate_demon(tmp_path / "nowhere", None)
    with pytest.raises(InputError, match="expected folders of pairs"):
        evaluate_demon(tmp_path, None)
    planes = [write_pair(tmp_path / "set" / "a_1"), write_pair(tmp_path / "set" / "a_2")]
    (tmp_path / "set" / "a_1" / "0000.npy").unlink()
    np.save(tmp_path / "set" / "a_2" / "0000.npy", np.full((480, 640), 99, np.float32))
    with pytest.raises(EmptyResultError, match=r"a_1: .*no true depth.*a_2: no true depth within 0.5-32"):
        evaluate_demon(tmp_path / "set", KnowingNetwork(planes, 0.5, FACTORS))
    np.save(tmp_path / "set" / "a_2" / "0000.npy", np.full((480, 640), 3, np.float32))
    found = evaluate_demon(tmp_path / "set", KnowingNetwork(planes, 0.5, FACTORS))
    assert [view.name for view in found.views] == ["a_2"] and [name for name, _ in found.left_out] == ["a_1"]
    (tmp_path / "set" / "b").mkdir()
    with pytest.raises(InputError, match=r"no poses.txt in b"):
        evaluate_demon(tmp_path / "set", None)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_all_stages_cross_the_border_in_scene_units(unit):
    """At an image size that has to be padded, in metres and in millimetres."""
    ref = make_view("ref", 97, 71, 80, (4, -7, 2), (0.1, 0, 0), unit, near=0.9)
    src = make_view("src", 97, 71, 80, (1, -4, 0), (0.4, 0, 0), unit)
    image = np.zeros((71, 97, 3), np.uint8)
    plane = plane_in_cam(ref, unit)
    found = predict_stages(
        KnowingNetwork([plane], 0.9 * unit, [(1.5, 1.2, 1.1)]), Photo(rgb=image, view=ref), [Photo(rgb=image, view=src)]
    )
    depth = plane_depth(ref, unit)
    for name, factor in {"depth_initial": 1.5, "depth": 1.2, "refined_depth": 1.1, "sigma": 0.15}.items():
        np.testing.assert_allclose(getattr(found, name)[0], factor * depth, rtol=3e-6)
    network = KnowingNetwork([plane], 0.9 * unit, [(1.5, 1.2, 1.1)])
    (estimate,) = predict(network, [Photo(rgb=image, view=ref)], [[Photo(rgb=image, view=src)]])
    np.testing.assert_array_equal(found.refined_depth[0].numpy(), estimate.depth)
    assert found.normal.shape == found.refined_normal.shape == (1, 3, 71, 97)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line in this process with a network put in: (exit code, stdout, stderr)."""

    def call(network, *arguments):
        asked = []
        if network is not None:
            network.sha256 = "digest of zncc"
        load = lambda *args, **kw: asked.append((args, kw)) or network  # noqa: E731
        monkeypatch.setattr("nasrecon.nas.weights.load_network", load)
        monkeypatch.setattr("nasrecon.nas.weights.weights_digest", lambda name: f"digest of {name}")
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        call.asked = asked
        return end.value.code, *capsys.readouterr()

    return call


def test_eval_by_protocol_prints_its_paragraph_and_rows_and_writes_json(run, pairs, tmp_path):
    folder, planes = pairs
    file = tmp_path / "scores.json"
    arguments = ["eval", "--protocol", "demon-10m", folder, "--network", "my", "--device", "cpu", "--json", file]
    code, stdout, stderr = run(KnowingNetwork(planes, 0.5, FACTORS), *arguments)
    assert code == 0, stderr
    assert run.asked == [(("my",), {"device": "cpu"})]
    lines = stdout.splitlines()
    assert "true depth of 0.5 to 10 count" in " ".join(stdout.split())
    assert lines[0] == "protocol: demon-10m" and "network: knowing" in stdout
    assert "stages: Z1: depth before context aggregation" in stdout and "passes, s: forward passes" in stdout
    cells = [line.split() for line in lines]
    rows = [row for row in cells if len(row) > 3 and row[2] in STAGES and row[1].isdigit()]
    tables = [list(STAGES), ["Z2", "refined"], ["refined"], ["refined"]]
    expected = [[name, stage] for stages in tables for name in ("indoor", "made", "all") for stage in stages]
    assert [[row[0], row[2]] for row in rows] == expected
    assert rows[7][:4] == ["all", "3", "Z2", "0.2667"] and rows[13][:4] == ["all", "3", "Z2", "20.00"]
    assert all(row[-2] == "1" and float(row[-1]) >= 0 for row in rows[18:])  # passes and seconds
    assert max(len(line) for line in lines if line.startswith(("set", "indoor"))) <= 90  # names and errors grow
    # A plane of waves with nothing before it: no edge and nothing thin; a part is outside the source, crests are flat.
    zones = {zone: rows[17][k : k + 2] for zone, k in (("outside", 3), ("edge", 5), ("flat", 7), ("rest", 9))}
    assert zones.pop("edge") == ["-", "0.0"] and rows[17][11] == "-"
    assert all(error == "0.1333" and 0 < float(share) < 80 for error, share in zones.values())
    assert not [line for line in lines if len(line) > 100 and not line.startswith("data:")]
    stored = json.loads(file.read_text())
    assert stored["weights"] == "my" and stored["weights_sha256"] == "digest of my"
    assert stored["protocol"] == "demon-10m" and stored["network"] == "knowing"
    assert stored["scores"]["all"]["stages"]["Z2"]["abs_rel"] == pytest.approx(0.8 / 3, abs=1e-5)
    assert stored["scores"]["indoor"]["views"] == 2 and stored["scores"]["indoor"]["passes_per_view"] == 1
    shares = [stored["views"][0]["zones"][f"{zone}_share"] for zone in ("outside", "edge", "flat", "rest")]
    assert sum(shares) == pytest.approx(1) and stored["views"][0]["thin_pixels"] == 0
    assert stored["scores"]["all"]["thin_found_pct"] is None
    assert [view["name"] for view in stored["views"]] == ["indoor_test_1", "indoor_test_2", "made_test_1"]
    assert stored["views"][1]["stages"]["refined"]["abs_rel"] == pytest.approx(0.3, abs=1e-5)


def test_eval_frames_prints_its_rule(run, tmp_path):
    views = write_sequence(tmp_path)
    network = KnowingNetwork([plane_in_cam(views[i]) for i in (3, 6)], 0.7, [(1.5, 1.1, 1.0)] * 2)
    options = ["--every", 3, "--offset", 2, "--min-depth", 0.7, "--max-depth", 20, "--device", "cpu"]
    code, stdout, stderr = run(network, "eval", "frames", tmp_path, *options)
    assert code == 0, stderr
    assert stdout.startswith("protocol: frames, 3/2, 2 sources, depth 0.7-20")
    assert "references: every 3 frames; sources: 2 frames before and after" in stdout
    assert [line.split()[:4] for line in stdout.splitlines() if line.startswith("all")][:2] == [
        ["all", "2", "Z1", "0.5000"],
        ["all", "2", "Z2", "0.1000"],
    ]
    code, stdout, stderr = run(network, "eval", "frames", tmp_path, "--sources", 3)
    assert code == 2 and stdout == "" and "even number" in stderr and run.asked == []


def test_a_file_that_cannot_be_written_is_found_out_first(run, pairs, tmp_path):
    for file in (tmp_path / "nowhere" / "x.json", tmp_path):
        code, stdout, stderr = run(None, "eval", "--protocol", "demon-32m", pairs[0], "--json", file)
        assert code == 2 and stdout == "" and "--json" in stderr and run.asked == []


def test_floor_on_a_real_pair(tmp_path):
    """The whole path on real files: matching alone finds a textured wall seen by two cameras."""
    pair = SHARED / "demon_sample" / "mvs_test_00030"
    if not pair.is_dir():
        pytest.skip("needs demon_sample in ../shared/data")
    from nasrecon.nas.zncc import ZnccNetwork

    (tmp_path / pair.name).symlink_to(pair.resolve())
    found = evaluate_demon(tmp_path, ZnccNetwork())
    # Measured 0.149; the rest is sky, leaves, and what the other view does not show.
    assert found.stage("refined")["abs_rel"] < 0.2 and found.stage("refined")["delta_1"] > 0.7
    assert found.stage("refined")["abs_rel"] < 0.1 * found.stage("Z1")["abs_rel"]
