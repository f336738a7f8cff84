"""A function in a process of its own, which ends at once when this one is interrupted.

A native call that holds the interpreter for seconds would make an interruption wait for it.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO

from nasrecon.errors import NasReconError
from nasrecon.progress import Progress

_COMMAND = (sys.executable, "-P", "-m", "nasrecon.sfm.child")


def run_in_child(function: Callable[..., Any], *args: Any, progress: Progress) -> Any:
    """Return ``function(*args, progress)``, computed by another process, which is gone when this returns or raises.

    Args:
        function: of a module that can be imported; it, its arguments and its result can be pickled.
        progress: receives what the function reports, in the thread that called.

    Raises:
        NasReconError: if the process ends without a result, as the system ends one for which there is no memory.
        Exception: what the function raises.
    """
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "GLOG_logtostderr": "1",  # COLMAP would leave a second log in the folder for temporary files
    }
    task = pickle.dumps((function, args))
    # In a session of its own Ctrl-C in the terminal does not reach it: it is ended from here.
    process = subprocess.Popen(
        _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        return _follow(process, task, progress)
    except (EOFError, BrokenPipeError) as error:
        code = process.wait()
        ending = f"signal {-code}; was there too little memory?" if code < 0 else f"exit code {code}"
        raise NasReconError(f"the process for COLMAP ended before its work was done ({ending})") from error
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _follow(process: subprocess.Popen[bytes], task: bytes, progress: Progress) -> Any:
    """Send the task, pass reports on until the result comes, and return it or raise the error."""
    assert process.stdin is not None and process.stdout is not None
    with process.stdin as stdin:
        stdin.write(task)
    while True:
        kind, content = pickle.load(process.stdout)
        if kind == "result":
            return content
        if kind == "error":
            raise content
        getattr(progress, kind)(*content)


class _Relay:
    """Send reports to the process that started this one; where it is gone, this one ends, too."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, kind: str, content: Any) -> None:
        message = pickle.dumps((kind, content))
        try:
            with self._lock:
                self._pipe.write(message)
                self._pipe.flush()
        except BrokenPipeError:
            os._exit(1)

    def update(self, task: str, done: int, total: int) -> None:
        self.send("update", (task, done, total))

    def note(self, text: str) -> None:
        self.send("note", (text,))

    def skipped(self, name: str, reason: str) -> None:
        self.send("skipped", (name, reason))


def _sendable(error: Exception) -> Exception:
    """Return an error that can be pickled, with where it arose if it was not foreseen."""
    if not isinstance(error, NasReconError):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


def _main() -> None:
    relay = _Relay(os.fdopen(os.dup(1), "wb"))
    os.dup2(2, 1)  # what libraries print must not come between the messages
    try:
        function, args = pickle.load(sys.stdin.buffer)
        result = function(*args, relay)
    except Exception as error:
        relay.send("error", _sendable(error))
    else:
        relay.send("result", result)


if __name__ == "__main__":
    _main()
