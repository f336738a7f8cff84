"""Progress in a terminal and in a pipe, and the width of the tables."""

from __future__ import annotations

import io
import shlex
import sys
import time
from types import SimpleNamespace

import pytest

from nasrecon.cli import console
from nasrecon.cli.console import Bar, fusion_table, next_lines
from nasrecon.errors import broken
from nasrecon.progress import under_way


class Terminal(io.StringIO):
    """A terminal of 100 columns that remembers what is written."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_is_given_back_also_after_a_task_of_one_step_alone(monkeypatch) -> None:
    """The bar stands in for stderr while it lasts: what is printed later must not go to it."""
    for name, value in (("COLUMNS", "100"), ("TERM", "xterm"), ("NO_COLOR", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stderr", Terminal())
    before = sys.stderr
    with Bar() as bar, under_way(bar, "verify"):
        assert sys.stderr is not before
    assert sys.stderr is before


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
        agreement=dict.fromkeys(names, 0.75) | {names[9]: 0.25},
        scales=dict.fromkeys(names, 1.01) | {names[7]: 0.95},
        sigma_scales={},
    )
    seconds = dict.fromkeys(("read", "average", "filter", "points", "mesh", "colors"), 123.4)
    fusion = SimpleNamespace(stats=stats, cloud=None, mesh=None, voxel=None, seconds=seconds)
    lines = fusion_table(fusion, {}, dict.fromkeys(names, 1.25)).splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("least agreeing") and "DSC_00009_undistorted.jpg 25 %" in line for line in lines)
    assert any(
        line.startswith("depths scaled") and "200 views" in line and "DSC_00007_undistorted.jpg 0.950" in line
        for line in lines
    )
    assert not any(line.startswith("sigma scaled") for line in lines)
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


@pytest.mark.parametrize(
    ("task", "done", "said"),
    [("infer", 3, "depth of views: 3 of 12, "), ("infer", 0, "depth of views: 0 of 12, "), ("surface", 0, "so far")],
    ids=["of several steps", "before its first step", "of one step"],
)
def test_a_long_task_gets_lines_in_a_pipe_while_it_lasts(monkeypatch, task, done, said) -> None:
    """Also where it reports nothing for minutes; short ones get one line, when they are done."""
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.02)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bar() as bar:
        bar.update(task, done, 12)
        end = time.monotonic() + 20
        while not sys.stderr.getvalue().count("\n") >= 2:
            assert time.monotonic() < end, sys.stderr.getvalue()
            time.sleep(0.01)
        bar.update(task, 12, 12)
    lines = sys.stderr.getvalue().splitlines()
    assert said in lines[0] and ("left" in lines[0]) == (done > 0)
    assert lines[-1].startswith("depth of views: 12 of 12 in " if task == "infer" else "making cloud and mesh: ")


def test_a_short_task_gets_one_line_in_a_pipe(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Bar() as bar:
        for i in range(13):
            bar.update("infer", i, 12)
    (line,) = sys.stderr.getvalue().splitlines()
    assert line.startswith("depth of views: 12 of 12 in ")


def test_next_commands_fit_100_columns_and_a_shell_reads_them() -> None:
    folder = "/photos/Bilder und Filme/Sommer 2024 in den Bergen/dritter Tag"
    commands = (
        ("viz", [folder], "a page in the browser"),
        ("viz", [folder, "--html", f"{folder}/report.html"], "one file that opens offline"),
    )
    lines = next_lines(*commands)
    assert max(map(len, lines)) <= 100
    typed = "\n".join(lines).replace("next: ", "").replace("  or: ", "").replace("\\\n", "").splitlines()
    read = [shlex.split(line, comments=True) for line in typed]
    assert read == [["nasrecon", command, *arguments] for command, arguments, _ in commands]
    assert next_lines(("viz", ["out"], "a page"), ("viz", ["out", "--html", "r.html"], "a file")) == [
        "next: nasrecon viz out                 # a page",
        "  or: nasrecon viz out --html r.html   # a file",
    ]
