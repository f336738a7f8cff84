"""A few of the kills of ``kill.py``, each command in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("command", ["infer", "fuse", "train"])
def test_a_killed_command_is_made_good_by_a_rerun(command):
    script = Path(__file__).with_name("kill.py")
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "3", command], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "'kills': 3, 'aimed at writing': 1, 'with temporary files': " in done.stdout
    assert "'with temporary files': 0" not in done.stdout
