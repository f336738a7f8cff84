"""Frames of a sequence: which are estimated, their sources, and their scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plane_world import make_view, plane_depth, plane_in_cam

from evaluation.setups import KnowingNetwork, gate_opens, refined, write_sequence
from nasrecon.errors import InputError
from nasrecon.evaluation.frames import evaluate_frames
from nasrecon.evaluation.keyframes import frame_plan, keyframes
from nasrecon.evaluation.options import FrameOptions
from nasrecon.types import Scene

torch.set_num_threads(1)


def test_frames_refines_the_frames_in_use_together(tmp_path, monkeypatch):
    views = write_sequence(tmp_path)
    planes, options = [plane_in_cam(views[4])], FrameOptions(every=4, offset=2, sources=4, min_depth=0.8, max_depth=30)
    networks = [KnowingNetwork(planes, 0.8, [(1.5, 1.1, 1.0)]) for _ in range(2)]
    refine = refined({0})
    gate_opens(monkeypatch)
    monkeypatch.setattr("nasrecon.prepare.prepare.refine_scene", refine)
    assert "poses refined by the matches of the images" in evaluate_frames(tmp_path, networks[0], options).rules
    assert "poses as given" in evaluate_frames(tmp_path, networks[1], options, keep_poses=True).rules
    moved = [
        (a != b).any(dim=-1).any(dim=-1) for a, b in zip(*(n.batches[0].src_from_ref for n in networks), strict=True)
    ]
    assert sum(int(view.sum()) for view in moved) == 1  # the last of the frames in use


def test_frames_takes_the_sources_of_the_rule_and_scores_them(tmp_path):
    views = write_sequence(tmp_path)
    network = KnowingNetwork([plane_in_cam(views[i]) for i in (2, 4, 6)], 0.8, [(1.5, 1.1, 1.0)] * 3)
    found = evaluate_frames(tmp_path, network, FrameOptions(every=2, offset=1, sources=4, min_depth=0.8, max_depth=30))
    assert [view.name for view in found.views] == ["00002.png", "00004.png", "00006.png"]
    assert found.views[0].sources == ("00001.png", "00003.png", "00000.png", "00004.png")
    assert network.batches[0].src_images.shape == (1, 4, 3, 64, 96)
    for stage, off in {"Z1": 0.5, "Z2": 0.1, "refined": 0.0}.items():
        assert found.stage(stage)["abs_rel"] == pytest.approx(off, abs=1e-5)
    assert found.stage("Z2")["normal_median_deg"] == pytest.approx(20, abs=0.01)
    assert found.subsets == ("all",)
    assert "every 2 frames; sources: 1, 2 frames before and after" in found.rules[0]


def test_frames_clamps_to_the_range_that_is_given(tmp_path):
    views = write_sequence(tmp_path, 3)
    depth = plane_depth(views[1])
    most = float(depth.max())
    network = KnowingNetwork([plane_in_cam(views[1])], 0.8, [(1.0, 1.0, 50.0)])
    found = evaluate_frames(tmp_path, network, FrameOptions(every=1, offset=1, min_depth=0.8, max_depth=most + 1e-3))
    expected = np.mean((most + 1e-3 - depth) / depth)
    assert found.stage("refined")["abs_rel"] == pytest.approx(expected, rel=1e-4)


def test_the_protocol_of_livingroom1():
    """211 frames, every 20th with those 10 before and after; a reference has all of its sources."""
    view = make_view("v", 64, 64, 60, (0, 0, 0), (0, 0, 0))
    scene = Scene(root=Path(), views=[replace(view, name=str(i)) for i in range(211)])
    assert frame_plan(scene, FrameOptions()) == [(i, (i - 10, i + 10)) for i in range(20, 201, 20)]
    four = [(i, (i - 10, i + 10, i - 20, i + 20)) for i in range(20, 181, 20)]
    assert frame_plan(scene, FrameOptions(sources=4)) == four
    assert frame_plan(scene.subset(range(211 - 10)), FrameOptions())[-1][0] == 180


def test_keyframes_by_baseline_and_angle():
    """0.03 a frame sideways for 12 frames, then turning on the spot by 5.5 degrees a frame, then sideways again."""
    places = [(0.03 * i, 0.0) for i in range(13)] + [(0.36, 5.5 * i) for i in range(1, 9)]
    places += [(0.36 + 0.03 * i, 44.0) for i in range(1, 9)]
    views = [make_view(str(i), 64, 64, 60, (0, turn, 0), (x, 0, 0)) for i, (x, turn) in enumerate(places)]
    scene = Scene(root=Path(), views=views)
    # A tenth of a unit takes 4 frames, 15 degrees 3; after frame 18 it is the baseline again.
    assert keyframes(scene, 0.1) == [0, 4, 8, 12, 15, 18, 24, 28]
    # 12, 15 and 18 stand in one place; 12 and 18 have nobody within 30 degrees on one side.
    plan = frame_plan(scene, FrameOptions(rule="baseline", min_depth=0.5))
    assert plan == [(4, (0, 8)), (8, (4, 12)), (15, (8, 24)), (24, (18, 28))]
    shrunk = FrameOptions(rule="baseline", min_depth=0.25)  # half the least depth: half the baseline
    assert len(frame_plan(scene, shrunk)) > len(plan)


@pytest.mark.parametrize(
    "wrong", [{"rule": "best"}, {"every": 0}, {"offset": 0}, {"sources": 3}, {"sources": 0}, {"min_depth": 7.0}]
)
def test_frame_options_are_checked(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FrameOptions(**wrong)


def test_a_sequence_too_short_for_the_rule_is_bad_input(tmp_path):
    write_sequence(tmp_path, 3)
    with pytest.raises(InputError, match=r"no frame of 3 has 2 sources .*every 20 frames"):
        evaluate_frames(tmp_path, KnowingNetwork([], 0.5, []), FrameOptions())
