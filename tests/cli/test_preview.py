"""``nasrecon train preview``: it reports while it works, and ends with the picture's place and what to type next."""

from __future__ import annotations

import threading

import pytest

from nasrecon import cli
from nasrecon.cli import console


def test_preview_reports_while_it_renders_and_says_what_comes_next(tmp_path, monkeypatch, capsys):
    out, reported, notes = tmp_path / "my worlds.png", threading.Event(), []

    def note(message):
        notes.append(message)
        if "so far" in message:
            reported.set()

    def write_sheet(path, count, seed, options):
        assert reported.wait(20), "nothing was reported while the worlds were rendered"
        assert (path, count, seed, options.floating) == (out, 3, 7, 0.5)

    monkeypatch.setattr(console, "WORKING_EVERY_S", 0.01)
    monkeypatch.setattr(console, "print_note", note)
    monkeypatch.setattr("nasrecon.train.contact_sheet.write_sheet", write_sheet)
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "preview", "--out", str(out), "--count", "3", "--seed", "7", "--floating", "0.5"])
    assert not end.value.code
    assert notes[0].startswith("rendering 3 worlds;") and notes[-1].startswith("rendering 3 worlds: ")
    assert capsys.readouterr().out.splitlines() == [
        f"contact sheet of 3 worlds: '{out}'",
        "next: nasrecon train render --worlds runs/worlds --floating 0.5 --seed 7   # such worlds, to train on",
    ]
