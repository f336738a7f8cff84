"""Progress in a terminal and in a pipe, and the width of the tables."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from nasrecon.cli.console import Bar, fusion_table
from nasrecon.errors import broken
from nasrecon.progress import under_way


class Terminal(io.StringIO):
    """A terminal of 100 columns that remembers what is written."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_task_of_one_step_is_shown_while_it_lasts_and_leaves_no_line(monkeypatch, stream) -> None:
    for name, value in (("COLUMNS", "100"), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", stream())
    with Bar() as bar:
        with under_way(bar, "load"):
            pass
        bar.update("infer", 2, 2)
    shown = sys.stderr.getvalue()
    assert ("loading the network" in shown) == (stream is Terminal)
    last = shown.rpartition("\x1b[2K")[2]
    assert "loading the network" not in last and "depth of views" in last


def test_the_table_of_a_fusion_fits_100_columns_with_long_names() -> None:
    names = [f"courtyard/left camera/DSC_{i:05d}_undistorted.jpg" for i in range(200)]
    stats = SimpleNamespace(
        views=200,
        pixels=10**9,
        isolated_views=[],
        stages=lambda: [("pixels", 10**9), ("with depth", 10**8)],
        confirmed=dict.fromkeys(names, 0.5),
    )
    seconds = dict.fromkeys(("read", "average", "filter", "points", "mesh", "colors"), 123.4)
    fusion = SimpleNamespace(stats=stats, cloud=None, mesh=None, voxel=None, seconds=seconds)
    lines = fusion_table(fusion, {}, dict.fromkeys(names, 1.25)).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("epipolar error") and "_undistorted.jpg 1.25 px" in line for line in lines)
    assert any(line.startswith("time") and "740.4 s" in line and "read 123" in line for line in lines)


def test_a_long_line_is_broken_at_its_semicolons():
    text = "photos: COLMAP model: 12 of 12 images, K of cameras.bin; 1779 sparse points; 1 camera"
    assert broken(text) == [text]
    assert broken(text, 60) == [
        "photos: COLMAP model: 12 of 12 images, K of cameras.bin;",
        "1779 sparse points; 1 camera",
    ]
    assert broken("a" * 70, 60) == ["a" * 70]
