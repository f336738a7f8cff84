"""The table of speeds: its numbers fit together. How fast the machine is, is not tested."""

from __future__ import annotations

import json

import pytest
import torch
from recorder import Recorder

from nasrecon import cli
from nasrecon.bench import speed
from nasrecon.bench.speed import SpeedOptions, measure, speed_rows
from nasrecon.cli.threads import prepare_for_networks
from nasrecon.errors import InputError

CPU = torch.device("cpu")


def test_the_command_prints_the_cases_as_json(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["bench", "--network", "lite", "--size", "64x64", "--sources", "1", "--device", "cpu", "--json"])
    assert not end.value.code
    content = json.loads(capsys.readouterr().out)
    (case,) = content["cases"]
    assert case["network"] == "lite" and case["seconds"] > 0 and case["pipeline_seconds"] > 0
    ceiling = max(content["gflop_per_second"][case["precision"]].values())
    assert case["share"] == pytest.approx(case["gflop"] / case["seconds"] / ceiling)
    assert 0.01 < case["gflop"] < 100


def test_peak_memory_counts_what_was_freed_before_and_is_taken_again():
    prepare_for_networks(None)  # the process keeps freed memory
    for _ in range(2):
        if (before := speed._start_peak(CPU)) is None:
            pytest.skip("this system does not state the peak of a process")
        tensors = [torch.ones(1 << 20) for _ in range(16)]
        del tensors
        assert speed._peak(CPU) - before > 12 * 4 * (1 << 20)


def test_a_case_without_time_is_left_out_and_said():
    options = SpeedOptions(networks=("lite",), sizes=((64, 64), (96, 64)), sources=(1,), seconds=1e-3)
    ceilings, rows = measure(options, CPU, recorder := Recorder())
    assert [row.width for row in rows] == [64] and rows[0].pipeline_seconds is None
    assert "0 s are left" in recorder.skips[0][1]
    assert all(value > 0 for values in ceilings.values() for value in values.values())
    assert len(speed_rows(rows)) == 2


@pytest.mark.parametrize("wrong", [{"sizes": ((65, 64),)}, {"sizes": ((32, 32),)}, {"sources": (0,)}])
def test_options_are_checked(wrong):
    with pytest.raises(InputError):
        SpeedOptions(**wrong)
