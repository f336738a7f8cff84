"""What `nasrecon train` prints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nasrecon import cli
from nasrecon.cli import train as command
from nasrecon.train import loop


def test_a_run_that_ended_names_the_command_that_exports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_training_data", lambda *_: None)
    monkeypatch.setattr(loop, "train", lambda *_, **__: SimpleNamespace(step=3, seconds=36.0))
    run = tmp_path / "mine"
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "--run", str(run), "--steps", "3"])
    assert not end.value.code
    out = " ".join(capsys.readouterr().out.replace("\\\n", " ").split())
    assert f"{run}: 3 steps, 0.01 h" in out
    assert f"next: nasrecon train export --run {run} --name mine" in out
