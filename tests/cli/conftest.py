"""The command line run in this process, and a scene's files."""

from __future__ import annotations

import pytest
from plane_world import SweepNetwork, write_scene

from nasrecon import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line in this process: (exit code, stdout, stderr); the network is a small plane sweep."""
    state = {"network": SweepNetwork(), "sha256": "ab" * 32, "asked": []}

    def load_network(name, device="auto"):
        state["asked"].append((name, device))
        state["network"].weights, state["network"].sha256 = name, state["sha256"]
        return state["network"]

    monkeypatch.setattr("nasrecon.nas.weights.load_network", load_network)

    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    call.state = state
    return call


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("scene"))
