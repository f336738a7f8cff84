"""Two runs, interrupted runs, and files of any bytes."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.harness import INFER, arguments, snapshot, write_inputs
from nasrecon.cli import interrupt
from nasrecon.errors import InputError
from nasrecon.ingest.images import read_image
from nasrecon.results.lock import LOCK_FILE, locked
from nasrecon.results.reader import Results, read_fusion


def test_a_second_run_is_refused_and_names_the_owner(tmp_path):
    """The lock is one of the system: another open file stands for another process."""
    out = tmp_path / "out"
    with locked(out):
        owner = (out / LOCK_FILE).read_bytes()
        assert json.loads(owner)["process"] == os.getpid()
        code = f"from nasrecon.results.lock import locked\nwith locked({str(out)!r}): pass"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert f"process {os.getpid()} on {socket.gethostname()}" in done.stderr
        with locked(out):
            pass  # nested calls of one process
        assert (out / LOCK_FILE).read_bytes() == owner
    assert not out.exists()


def test_the_lock_of_a_process_that_is_gone_holds_nothing(tmp_path):
    (tmp_path / LOCK_FILE).write_text('{"process": 1, "host": "x", "since": "y"}')
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK_FILE).exists()


def test_a_run_in_a_locked_folder_exits_before_any_work(tmp_path, monkeypatch, capsys):
    from nasrecon import cli

    write_inputs(tmp_path)
    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / LOCK_FILE).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = snapshot(tmp_path)
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as end:
            cli.main(arguments(INFER))
        assert end.value.code == 2 and "another run writes to this folder" in capsys.readouterr().err
        assert snapshot(tmp_path) == before


STUCK = """
import time
from nasrecon.cli import interrupt
with interrupt.interruptible():
    interrupt.on_interrupt(lambda: "interrupted: 3 finished views")
    words = ["ready"]
    while True:
        try:  # the signal may come as soon as the word is out
            if words:
                print(words.pop(), flush=True)
            time.sleep(30)
        except KeyboardInterrupt:
            pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_that_does_not_react(number):
    process = subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == interrupt.EXIT_CODE and "3 finished views" in stderr


@given(
    content=st.binary(max_size=300),
    head=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"RIFF"]),
)
def test_any_bytes_give_an_error_or_an_image(tmp_path_factory, content, head):
    path = tmp_path_factory.mktemp("any") / "a.png"
    path.write_bytes(head + content)
    try:
        assert read_image(path).shape[2] == 3
    except InputError as error:
        assert str(path) in str(error)


@given(content=st.binary(max_size=300))
def test_any_bytes_give_an_error_or_results(tmp_path_factory, content):
    folder: Path = tmp_path_factory.mktemp("any")
    (folder / "manifest.json").write_bytes(content)
    (folder / "fusion.json").write_bytes(content)
    for read in (Results.open, read_fusion):
        with pytest.raises(InputError):
            read(folder)


def test_an_error_that_a_library_makes_of_an_interruption_ends_like_one(monkeypatch, capsys):
    from nasrecon import cli

    def broken(*_, **__):
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1)
        except KeyboardInterrupt:
            raise InputError("the library cannot be loaded") from None

    monkeypatch.setattr(cli, "app", broken)
    with pytest.raises(SystemExit) as end:
        cli.main(["check", "x"])
    assert end.value.code == interrupt.EXIT_CODE
    err = capsys.readouterr().err
    assert "interrupted" in err and "cannot be loaded" not in err


def test_an_interruption_while_the_command_line_is_loaded_ends_with_one_line(monkeypatch, capsys):
    from nasrecon import __main__

    class Interrupting:
        def find_spec(self, name, *_):
            if name == "nasrecon.cli":
                raise KeyboardInterrupt

    for name in [name for name in sys.modules if name.startswith("nasrecon.cli")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
    with pytest.raises(SystemExit) as end:
        __main__.main()
    assert end.value.code == interrupt.EXIT_CODE and "nothing was begun" in capsys.readouterr().err


def test_an_interrupted_command_does_not_wait_for_libraries_to_unload():
    code = (
        "import atexit, nasrecon.cli, nasrecon.__main__ as program\n"
        "def run():\n    raise SystemExit(130)\n"
        "nasrecon.cli.main = run\natexit.register(print, 'unloaded')\nprint('begun')\nprogram.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (interrupt.EXIT_CODE, "begun\n"), done.stderr


def test_an_interrupted_fusion_names_the_files_that_are_written(tmp_path):
    from nasrecon.atomic import write_atomically
    from nasrecon.cli.fuse import interrupted

    cloud, mesh = tmp_path / "cloud.ply", tmp_path / "mesh.ply"
    cloud.write_bytes(b"an earlier one")
    words = interrupted(tmp_path, [cloud, mesh])
    assert "nothing of this fusion is written" in words()
    write_atomically(cloud, b"an earlier one")
    assert f"{cloud} is written, {mesh} is not; the views in {tmp_path}" in words()
    write_atomically(mesh, b"mesh")
    assert f"{cloud} and {mesh} are written; the views" in words()
