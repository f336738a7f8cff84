"""``nasrecon train preview``: it counts the worlds, and ends with the picture's place and what to type next."""

from __future__ import annotations

import pytest

from nasrecon import cli


def test_preview_counts_worlds_and_says_what_comes_next(tmp_path, monkeypatch, capsys):
    out = tmp_path / "my worlds.png"

    def write_sheet(path, count, seed, options, progress):
        assert (path, count, seed, options.floating) == (out, 3, 7, 0.5)
        progress.update("worlds", count, count)

    monkeypatch.setattr("nasrecon.train.contact_sheet.write_sheet", write_sheet)
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "preview", "--out", str(out), "--count", "3", "--seed", "7", "--floating", "0.5"])
    assert not end.value.code
    stdout, stderr = capsys.readouterr()
    assert stderr.startswith("worlds rendered: 3 of 3 in ")
    assert stdout.splitlines() == [
        f"contact sheet of 3 worlds: '{out}'",
        "next: nasrecon train render --worlds runs/worlds --floating 0.5 --seed 7   # worlds to train on",
    ]


def test_the_sheet_reports_every_world(tmp_path):
    from recorder import Recorder

    from nasrecon.train.contact_sheet import write_sheet
    from nasrecon.train.world_files import WorldOptions

    recorder = Recorder()
    write_sheet(tmp_path / "worlds.png", 2, 0, WorldOptions(width=64, height=64), recorder)
    assert recorder.updates == [("worlds", 1, 2), ("worlds", 2, 2)] and (tmp_path / "worlds.png").is_file()
