"""The process that pycolmap works in: its reports, errors and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ingest.worlds import REPO
from recorder import Recorder

from nasrecon.cli.interrupt import EXIT_CODE
from nasrecon.errors import InputError, NasReconError
from nasrecon.sfm.child import run_in_child


def report_all(first, second, progress):
    print("a line of a library")
    progress.update("task", 1, 2)
    progress.note("note")
    progress.skipped("name", "reason")
    return os.getpid(), first + second


class TwoArguments(Exception):
    """An error that cannot be read from its pickle."""

    def __init__(self, first, second):
        super().__init__(f"{first} {second}")


def fail(error, progress):
    if error == "two":
        raise TwoArguments("one", "two")
    raise error


def die(progress):
    os.kill(os.getpid(), signal.SIGKILL)


def hold(progress):
    """Hold the interpreter's lock for a minute, as a call of a C library does."""
    import ctypes

    progress.note(str(os.getpid()))
    ctypes.PyDLL(None).sleep(60)


def test_reports_and_the_result_come_from_another_process():
    said = Recorder()
    process, total = run_in_child(report_all, 1, 2, progress=said)
    assert process != os.getpid() and total == 3
    assert (said.updates, said.notes, said.skips) == ([("task", 1, 2)], ["note"], [("name", "reason")])


@pytest.mark.parametrize("error", [InputError("file: what is wrong"), OSError(28, "full", "place"), ValueError("odd")])
def test_an_error_is_raised_as_it_is(error):
    with pytest.raises(type(error)) as caught:
        run_in_child(fail, error, progress=Recorder())
    assert str(caught.value) == str(error)
    assert isinstance(error, NasReconError) or "in fail" in caught.value.__notes__[0]


def test_an_error_that_cannot_be_sent_comes_as_text():
    with pytest.raises(RuntimeError, match="TwoArguments: one two"):
        run_in_child(fail, "two", progress=Recorder())


def test_a_process_that_is_killed_is_an_error():
    with pytest.raises(NasReconError, match=r"ended before its work was done .signal 9; was there too little memory"):
        run_in_child(die, progress=Recorder())


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interruption_ends_a_process_that_holds_the_interpreter():
    class Interrupting(Recorder):
        def note(self, text):
            super().note(text)
            signal.setitimer(signal.ITIMER_REAL, 0.5)

    def interrupt(*_):
        raise KeyboardInterrupt

    former, said = signal.signal(signal.SIGALRM, interrupt), Interrupting()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_in_child(hold, progress=said)
    finally:
        signal.signal(signal.SIGALRM, former)
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.notes[0]), 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_reconstruction_leaves_nothing(tmp_path: Path, number):
    """The signal comes once COLMAP has written to its log, so during its work."""
    out = tmp_path / "out"
    photos = tmp_path / "photos"
    photos.mkdir()
    for path in (REPO / "examples" / "room" / "images").iterdir():
        (photos / path.name).symlink_to(path)
    command = [sys.executable, "-m", "nasrecon", "reconstruct", str(photos), "--out", str(out)]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    until = time.monotonic() + 60
    while not any(log.stat().st_size for log in out.glob(".sfm.*/colmap.log")):
        assert process.poll() is None and time.monotonic() < until, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=30)  # ends when the child has closed its stderr, too
    assert process.returncode == EXIT_CODE and "interrupted" in stderr and "Traceback" not in stderr
    assert not list(temporary.iterdir()) and not (out.exists() and list(out.iterdir()))
