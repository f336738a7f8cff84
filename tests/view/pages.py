"""What the tests of the pages have in common: a live page that is fed, and where its visitor stands."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time

import numpy as np
import pytest

from nasrecon.view.live import LivePage
from nasrecon.view.page_frame import overview

from .browser import CHROMIUM, WHY_NOT

_PROCESS = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS = itertools.count(18080 + 1000 * _PROCESS, 10)
"""A port of its own for every page of every test process: viser's page calls its port again when its server has
ended, and would be a visitor of the next test's page there."""

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)


@contextlib.contextmanager
def serving(folder):
    """A live page that is fed in the background, on a port that no page before it had."""
    page, end = LivePage(folder, port=next(_PORTS)), threading.Event()

    def feed():
        while not end.is_set():
            if not page.step():
                time.sleep(0.05)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield page
    finally:
        end.set()
        thread.join(20)
        page.close()


def until(is_true, seconds=60):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.05)


def colored(picture):
    """The part of the pixels that have a colour, not a grey."""
    return float((np.ptp(picture.astype(int), axis=-1) > 40).mean())


def press(browser, key, *, shift=False):
    """Press a key while the page has the focus."""
    text = {"text": key} if len(key) == 1 else {}
    browser.call("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=8 if shift else 0, **text)
    browser.call("Input.dispatchKeyEvent", type="keyUp", key=key)


def newest(page):
    """The page of the browser that came last, once it has a camera; None before."""
    visitors = dict(page.visitors)
    visitor = visitors[max(visitors)] if visitors else None
    return visitor if visitor is not None and visitor.cameras is not None else None


def opened(page, browser):
    """Open a page in the browser and return its visitor, once it stands where a page begins."""
    before = set(page.visitors)
    browser.open(f"http://127.0.0.1:{page.port}/")
    # The browser starts its workers while it is asked something.
    until(lambda: browser.evaluate("1") and set(page.visitors) - before and newest(page))
    visitor = newest(page)
    browser.wait("document.querySelector('.nasrecon-view') !== null")
    until(lambda: browser.evaluate("1") and stands_at_overview(page, visitor))
    return visitor


def stands_at_overview(page, visitor):
    """Whether a visitor's camera has come to where the page begins."""
    camera, views = visitor.client.camera, list(visitor.cameras.views.values())
    stand = overview(page.data.frame, views, page.data.survey.points_in_world, camera.aspect)
    return all(np.allclose(*pair, atol=1e-3) for pair in zip((camera.position, camera.look_at), stand, strict=True))


def canvas_box(browser):
    """The scene's canvas on the page [px]: left, top, width, height."""
    return browser.evaluate(
        "(() => { const r = [...document.querySelectorAll('canvas:not(.map)')].pop().getBoundingClientRect();"
        " return [r.left, r.top, r.width, r.height]; })()"
    )


def on_page(point, camera, box):
    """Where a point of the scene's page frame is on the page [px]; ``box``: as ``canvas_box``."""
    forward = camera.look_at - camera.position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    ray, focal = point - camera.position, box[3] / (2 * np.tan(camera.fov / 2))
    z = ray @ forward
    x, y = ray @ right / z, ray @ np.cross(forward, right) / z
    return box[0] + box[2] / 2 + focal * x, box[1] + box[3] / 2 + focal * y


def place_of_camera(page, visitor, view, box):
    """Where the middle of a frustum's picture is on the page [px]."""
    page_from_cam = page.data.frame.page_from_cam(view)
    frustum = visitor.cameras.frustums[view.name]
    tan_y = np.tan(frustum.fov / 2)
    far = frustum.scale / np.cbrt(tan_y * tan_y * frustum.aspect / 3)  # viser gives all frustums the same volume
    return on_page(page_from_cam[:3, 3] + far * page_from_cam[:3, 2], visitor.client.camera, box)


class Client:
    """A client of a live page without a browser: it sends what viser's page would, and reads nothing.

    Args:
        page: the live page, fed elsewhere.
    """

    def __init__(self, page, width=1300, height=640):
        import viser
        from websockets.sync.client import connect

        before = set(page.visitors)
        address = f"ws://127.0.0.1:{page.port}"
        version = f"viser-v{viser.__version__}"
        limits = {"max_size": None, "ping_interval": None, "close_timeout": 1}  # nothing is read: no goodbye comes
        self._socket = connect(address, subprotocols=[version], proxy=None, **limits)
        camera = {"wxyz": (1.0, 0, 0, 0), "position": (3.0, 3.0, 3.0), "fov": 0.8, "near": 0.01, "far": 1000.0}
        window = {"image_width": width, "image_height": height}
        self.send("ViewerCameraMessage", **camera, **window, look_at=(0.0, 0, 0), up_direction=(0.0, 0, 1))
        until(lambda: set(page.visitors) - before)
        (number,) = set(page.visitors) - before
        self.visitor = page.visitors[number]

    def send(self, kind, **content):
        import msgspec

        self._socket.send(msgspec.msgpack.encode({"type": kind, **content}))

    def set(self, widget, value):
        """Do what a visitor does with a widget."""
        self.send("GuiUpdateMessage", uuid=widget._impl.uuid, updates={"value": value})

    def click(self, origin, direction):
        """Click on what a ray meets."""
        ray = {"ray_origin": tuple(map(float, origin)), "ray_direction": tuple(map(float, direction))}
        self.send("ScenePointerMessage", event_type="click", **ray, screen_pos=((0.5, 0.5),), modifier=None)

    def close(self):
        self._socket.close()
