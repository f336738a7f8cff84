"""Files that are replaced only once they are complete, and what killed processes leave of them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nasrecon.atomic import part_of, replacing, write_atomically


def test_what_a_killed_process_left_of_a_file_goes_when_the_file_is_written(tmp_path):
    file = tmp_path / "fusion.json"
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    stale = part_of(file).name.replace(f"-{os.getpid()}.", f"-{ended.stdout.strip()}.")
    running = part_of(file).name.replace(f"-{os.getpid()}.", f"-{os.getppid()}.")
    other = stale.replace("fusion", "manifest")
    for name in (stale, running, other):
        (tmp_path / name).write_bytes(b"half")
    write_atomically(file, b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"fusion.json", running, other}


def test_a_file_stays_as_it_was_where_writing_fails(tmp_path):
    file = tmp_path / "mesh.ply"
    file.write_bytes(b"before")
    with pytest.raises(ValueError, match="stop"), replacing(file) as part:
        part.write_bytes(b"half")
        raise ValueError("stop")
    assert file.read_bytes() == b"before" and list(tmp_path.iterdir()) == [file]
