"""Protocols by name."""

from __future__ import annotations

from typing import get_args

import pytest
from plane_world import SweepNetwork
from recorder import Recorder

from evaluation.setups import write_sequence
from nasrecon.cli.eval import ProtocolName
from nasrecon.errors import InputError
from nasrecon.evaluation import protocols
from nasrecon.evaluation.keyframes import frame_plan
from nasrecon.evaluation.options import FrameOptions
from nasrecon.evaluation.protocols import PROTOCOLS, Protocol, evaluate_protocol
from nasrecon.types import Scene

SHORT = Protocol(frames=FrameOptions(every=2, offset=1, sources=1, min_depth=0.8, max_depth=30), words="Short ones.")


def test_the_command_line_knows_the_protocols():
    assert get_args(ProtocolName) == tuple(PROTOCOLS)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_paragraph_states_the_numbers_of_the_options(name):
    protocol = PROTOCOLS[name]
    assert protocol.words.count("\n") == 0 and protocol.words.endswith(".")
    if protocol.frames is None:
        assert f"0.5 to {protocol.max_depth:g}" in protocol.words
    else:
        options = protocol.frames
        assert f"every {options.every} frames" in protocol.words
        assert f"{options.min_depth:g} to {options.max_depth:g}" in protocol.words
        assert str(options.offset) in protocol.words and f"{options.max_side} px" in protocol.words


def test_one_source_is_the_one_after(tmp_path):
    views = write_sequence(tmp_path, 7)
    plan = frame_plan(Scene(root=tmp_path, views=tuple(views)), FrameOptions(every=3, offset=2, sources=1))
    assert plan == [(0, (2,)), (3, (5,))]


def test_a_folder_of_sequences_is_scored_by_sequence_and_twice_to_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(protocols.PROTOCOLS, "short", SHORT)
    for name in ("a", "b"):
        write_sequence(tmp_path / name, 4)
    (tmp_path / "c").mkdir()
    found = evaluate_protocol("short", tmp_path, SweepNetwork(), keep_poses=True, progress=Recorder())
    again = evaluate_protocol("short", tmp_path, SweepNetwork(), keep_poses=True, progress=Recorder())
    assert found.protocol == "short" and found.rules[0] == "Short ones."
    assert found.subsets == ("a", "b", "all") and len(found.views) == 4
    assert found.views[0].name == "a/00000.png" and [name for name, _ in found.left_out] == ["c"]
    assert found.stage("refined") == again.stage("refined")
    one = evaluate_protocol("short", tmp_path / "a", SweepNetwork(), keep_poses=True, progress=Recorder())
    assert one.stage("refined") == found.stage("refined", "a")


def test_unknown_protocols_and_folders_are_refused(tmp_path):
    with pytest.raises(InputError, match="demon-32m, demon-10m"):
        evaluate_protocol("best", tmp_path, SweepNetwork())
    with pytest.raises(InputError, match="no cameras"):
        evaluate_protocol("frames-2src", tmp_path, SweepNetwork())
