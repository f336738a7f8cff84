"""A folder of weights of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.setups import TinyNetwork
from nasrecon.nas import weights


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty user folder, and "tiny" as a kind of network."""
    monkeypatch.setenv("NASRECON_WEIGHTS", str(tmp_path / "mine"))
    monkeypatch.setitem(weights.NETWORKS, "tiny", (TinyNetwork.__module__, "TinyNetwork"))
    return tmp_path / "mine"
