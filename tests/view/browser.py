"""A headless Chromium, driven over its own debugging protocol: pages, clicks, screenshots, and what they asked for."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import tempfile
import time
from io import BytesIO
from pathlib import Path

import numpy as np

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
WHY_NOT = "no Chromium on this machine (Debian: apt-get install chromium), so no page can be opened"

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu-sandbox",
    "--no-first-run",
    "--disable-quic",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--mute-audio",
    # WebGL in software: no graphics card is needed.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # Names are not even looked up: what is asked for all the same is in ``requests``.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--remote-debugging-port=0",
]


class Browser:
    """A browser with one page; use it in a ``with``.

    Attributes:
        requests: every address that the page asked for, data: and blob: left out.
        errors: messages of level error in the console, and uncaught exceptions.
    """

    def __init__(self, width: int = 1600, height: int = 900) -> None:
        from websockets.sync.client import connect

        assert CHROMIUM is not None
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._last = 0
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--window-size={width},{height}", f"--user-data-dir={self._profile.name}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        where = Path(self._profile.name) / "DevToolsActivePort"
        _until(lambda: where.is_file() and len(where.read_text().split()) == 2, 60, "Chromium did not start")
        port, path = where.read_text().split()
        self._socket = connect(
            f"ws://127.0.0.1:{port}{path}", max_size=None, proxy=None, ping_interval=None, close_timeout=1
        )
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        # Workers open connections too: they wait until their network is listened to.
        self.call("Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True)
        self.resize(width, height)

    @property
    def process_id(self) -> int:
        """The number of the browser's first process."""
        return self._process.pid

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(20)
        self._profile.cleanup()

    def resize(self, width: int, height: int) -> None:
        """Give the page this size [px]."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def call(self, method: str, **params: object) -> dict:
        """Call a method of the protocol and return its result."""
        self._last += 1
        number = self._last
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            answer = json.loads(self._socket.recv(timeout=120))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _note(self, event: dict) -> None:
        what, params = event.get("method", ""), event.get("params", {})
        if what == "Target.attachedToTarget":
            for method in ("Network.enable", "Runtime.runIfWaitingForDebugger"):
                self._last += 1
                self._socket.send(json.dumps({"id": self._last, "method": method, "sessionId": params["sessionId"]}))
        if what == "Network.requestWillBeSent":
            self._add_request(params["request"]["url"])
        elif what == "Network.webSocketCreated":
            self._add_request(params["url"])
        elif what == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:800])
        elif what == "Runtime.consoleAPICalled" and params["type"] in ("error", "assert"):
            self.errors.append(json.dumps(params["args"])[:800])
        elif what == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(json.dumps(params["entry"])[:800])

    def _add_request(self, url: str) -> None:
        if not url.startswith(("data:", "blob:", "about:")):
            self.requests.append(url)

    def open(self, url: str) -> None:
        """Go to an address, with no request and no error noted yet."""
        self.call("Page.navigate", url="about:blank")
        self.requests.clear()
        self.errors.clear()
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> object:
        """Return the value of a JavaScript expression; a promise is awaited."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, expression: str, seconds: float = 60) -> None:
        """Wait until an expression is true."""
        _until(lambda: bool(self.evaluate(expression)), seconds, f"waited {seconds} s for: {expression}")

    def text(self) -> str:
        """Return the text of the page, as it is seen."""
        return str(self.evaluate("document.body.innerText"))

    def click(self, x: float, y: float) -> None:
        """Press and release the left button at a place of the page [px]."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        time.sleep(0.3)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
            time.sleep(0.1)

    def screenshot(self, path: Path | None = None) -> np.ndarray:
        """Return the page as a picture (H, W, 3) uint8, and write it as PNG where a path is given."""
        from PIL import Image

        content = base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])
        if path is not None:
            path.write_bytes(content)
        return np.asarray(Image.open(BytesIO(content)).convert("RGB"))


def _until(is_true, seconds: float, message: str) -> None:
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, message
        time.sleep(0.1)
