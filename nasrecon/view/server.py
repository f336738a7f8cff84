"""The viser server behind the live page: this machine only, nothing shared."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import viser

HOST = "127.0.0.1"

SHEET_PX = 576
"""Of the window; up to this width viser puts the panels on a sheet over its lower half."""

BACKGROUND_RGB = {False: (200, 200, 200), True: (48, 48, 48)}
"""Neutral greys, light and dark: neither a hole nor a pale wall has this colour."""


def set_theme(page: viser.ViserServer | viser.ClientHandle, *, dark: bool) -> None:
    """Set light or dark panels, and the grey behind the scene, for all or for one visitor."""
    page.gui.configure_theme(show_logo=False, show_share_button=False, brand_color=(42, 96, 153), dark_mode=dark)
    page.scene.set_background_image(np.full((2, 2, 3), BACKGROUND_RGB[dark], np.uint8), format="png")


def start_server(port: int, label: str) -> viser.ViserServer:
    """Start a server on ``port``, or on the next one that is free."""
    import viser

    with contextlib.redirect_stdout(io.StringIO()):  # viser reports to stdout, which is for results
        # Silence websocket errors of clients that disconnect during the handshake.
        logging.getLogger("websockets").setLevel(logging.CRITICAL)
        warnings.filterwarnings("ignore", message="Queued a .* on a closed connection")
        server = viser.ViserServer(host=HOST, port=port, label=label, verbose=False)

    def refuse(verbose: bool = True) -> None:
        """Share nothing: viser would ask a server on the internet for a public address."""

    server.request_share_url = refuse  # type: ignore[method-assign]
    set_theme(server, dark=False)
    server.scene.set_up_direction("+z")
    server.scene.world_axes.visible = False
    return server
