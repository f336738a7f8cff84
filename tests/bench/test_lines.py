"""The lines of ``nasrecon bench check`` fit a terminal of 100 columns and name what matters of a trial."""

from __future__ import annotations

from dataclasses import replace

from nasrecon.bench.faults import FAULTS
from nasrecon.bench.run import Trial, summary, trial_line

TRIAL = Trial(
    set_name="redkitchen_sample",
    fault="",
    expected=(),
    named_faults=("world-from-cam", "opengl-axes"),
    fixes=("world-from-cam", "opengl-axes"),
    repaired=True,
    correct=True,
    seconds=12.34,
)


def test_every_line_fits_100_columns():
    fix = "quaternion-xyzw=world-from-cam"  # the longest
    lines = [trial_line(replace(TRIAL, fault=fault.name, fixes=(fix,))) for fault in FAULTS]
    assert max(map(len, lines)) <= 100
    assert all(line.endswith(f"12.3 s  {fix}") for line in lines)
    some = trial_line(replace(TRIAL, fault="a few wrong poses", fixes=("drop=room_07.jpg", "drop=room_09.jpg")))
    assert len(some) <= 100 and some.endswith("  drop=room_07.jpg ...")
    for correct in (True, False):
        many = [replace(TRIAL, correct=correct, fault="some")] * 1000
        assert max(map(len, summary(many).splitlines())) <= 100


def test_a_wrong_trial_states_what_was_named_and_its_repair():
    line = trial_line(replace(TRIAL, correct=False, fault="order reversed", named_faults=(), fixes=()))
    assert line.splitlines() == [
        f"WRONG redkitchen_s {'order reversed':<41} 12.3 s",
        "      named: no fault; repair: none",
    ]
