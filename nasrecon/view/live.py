"""The live page: a viser server on this machine only, fed from a results folder while that grows.

One thread (``LivePage.step``, called in a loop) reads the folder and draws what is new for every visitor; viser's own
threads answer the widgets of a visitor. Both hold ``_lock`` while they touch a page. Every browser has a page of its
own: what one switches changes no other.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import socket
import threading
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nasrecon.progress import Progress
from nasrecon.view.page_data import PageData
from nasrecon.view.page_frame import OVERVIEW_FOV_DEG
from nasrecon.view.server import HOST, start_server
from nasrecon.view.visitor import Visitor

if TYPE_CHECKING:
    import viser


def serve(folder: Path, *, port: int, open_browser: bool, progress: Progress) -> None:
    """Serve the live page until the process is interrupted (KeyboardInterrupt, which is its normal end).

    Args:
        folder: a results folder; it may still be written to, and need not exist yet.
        port: the first port to try; the next free one is taken.
        open_browser: whether to open the page in this machine's browser.
        progress: receives the address and how to reach it.

    Raises:
        InputError: if it is a folder of something else.
    """
    page = LivePage(folder, port=port)
    try:
        if page.port != port:
            progress.note(f"port {port} is in use, took {page.port}")
        address = f"http://{HOST}:{page.port}"
        progress.note(address)
        progress.note(
            f"from another machine: ssh -L {page.port}:{HOST}:{page.port} {getpass.getuser()}@{socket.gethostname()}"
        )
        if page.data.contents is None:
            state = "holds no finished view yet" if folder.exists() else "does not exist yet"
            progress.note(f"{folder} {state}: the page waits for the first view and fills")
        if open_browser and not webbrowser.open(address):
            progress.note("no browser was found on this machine: open the address yourself")
        progress.note("Ctrl-C ends it")
        while True:
            if not page.step():
                time.sleep(0.2)
    except KeyboardInterrupt:
        progress.note("stopped")
    finally:
        page.close()


class LivePage:
    """A page that shows a results folder; call ``step`` again and again, and ``close`` in the end.

    Args:
        folder: the results folder; it may hold no finished view yet.
        port: the first port to try.

    Attributes:
        server: the viser server behind the page.
        data: what there is to show.
        visitors: the pages of the browsers that are connected, by the client's number.

    Raises:
        InputError: if it is a folder of something else, or a file of it is damaged.
    """

    def __init__(self, folder: Path, *, port: int) -> None:
        self.data = PageData(folder)
        self.visitors: dict[int, Visitor] = {}
        self._lock = threading.RLock()
        self._home: object = None
        self.server = start_server(port, f"nasrecon: {folder.resolve().name}")
        self.server.on_client_connect(self._welcome)
        self.server.on_client_disconnect(self._forget)

    @property
    def port(self) -> int:
        """The port that was taken."""
        return self.server.get_port()

    def close(self) -> None:
        """Stop the server."""
        with contextlib.redirect_stdout(io.StringIO()):  # viser reports to stdout, which is for results
            self.server.stop()

    def step(self) -> bool:
        """Read one more piece and draw what is new; return whether there was any."""
        done = self.data.step()
        with self._lock:
            self._set_home()
            for visitor in list(self.visitors.values()):
                visitor.update(at_rest=not done)
        return done

    def _set_home(self) -> None:
        if self.data.home is None or self._home is self.data.home:
            return
        self._home = self.data.home
        camera = self.server.initial_camera
        camera.position, camera.look_at = self.data.home
        camera.fov = np.radians(OVERVIEW_FOV_DEG)

    def _welcome(self, client: viser.ClientHandle) -> None:
        with self._lock:
            self._set_home()
            self.visitors[client.client_id] = Visitor(client, self.data, self._lock, self.server.get_event_loop())

    def _forget(self, client: viser.ClientHandle) -> None:
        with self._lock:
            self.visitors.pop(client.client_id, None)
