"""The live page: a viser server on this machine only, fed from a results folder while that grows.

One thread (``LivePage.step``, called in a loop) reads the folder and adds what is new; viser's own threads answer the
page's controls. Both hold ``_lock`` while they touch the page.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasrecon.errors import InputError, NasReconError
from nasrecon.progress import Progress
from nasrecon.results.reader import MANIFEST_FILE
from nasrecon.types import Estimate
from nasrecon.view.contents import Contents, Survey, look, survey_depths
from nasrecon.view.controls import Controls, status_html, view_html, waiting_html
from nasrecon.view.frustums import Cameras
from nasrecon.view.keys import connect_keys
from nasrecon.view.layers import MAX_POINTS, Layers
from nasrecon.view.overlay import Overlay
from nasrecon.view.page_frame import OVERVIEW_FOV_DEG, PageFrame, choose_frame
from nasrecon.view.pictures import downscale
from nasrecon.view.server import HOST, set_theme, start_server

if TYPE_CHECKING:
    import viser


_POLL_S = 1.0
_REFRESH_S = 2.0
_FRUSTUM_IMAGE_PX = 192


def serve(folder: Path, *, port: int, progress: Progress) -> None:
    """Serve the live page until the process is interrupted (KeyboardInterrupt, which is its normal end).

    Args:
        folder: a results folder; it may still be written to.
        port: the first port to try; the next free one is taken.
        progress: receives the address and how to reach it.

    Raises:
        InputError: if it is no results folder.
    """
    page = LivePage(folder, port=port)
    try:
        if page.port != port:
            progress.note(f"port {port} is in use, took {page.port}")
        progress.note(f"http://{HOST}:{page.port}")
        progress.note(
            f"from another machine: ssh -L {page.port}:{HOST}:{page.port} {getpass.getuser()}@{socket.gethostname()}"
        )
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
        folder: the results folder.
        port: the first port to try.

    Attributes:
        server: the viser server behind the page.
        controls: its widgets.
        frame, survey: the frame of the page and what it was chosen from; None until the first view is there.
        cameras: its frustums; None until then, too.

    Raises:
        InputError: if it is no results folder, or a file of it is damaged.
    """

    def __init__(self, folder: Path, *, port: int) -> None:
        self._folder = folder
        self._contents: Contents | None = _look(folder)
        self._lock = threading.RLock()
        self.server = start_server(port, f"nasrecon: {folder.resolve().name}")
        self._looked_at = time.monotonic()
        self.frame: PageFrame | None = None
        self.survey: Survey | None = None
        self.cameras: Cameras | None = None
        self._pictures: dict[str, np.ndarray] = {}
        self._files: dict[str, tuple[Path, float]] = {}
        self._observed: set[str] = set()
        self._problems: dict[str, str] = {}
        # A cloud lies on the mesh and hides it.
        has_mesh = self._contents is not None and self._contents.mesh is not None
        self.controls = Controls(self.server, show_cloud=not has_mesh)
        self.layers = Layers(self.server, self.controls)
        self.overlay = Overlay(self.server)
        self._connect_controls()
        self._show_status()

    @property
    def port(self) -> int:
        """The port that was taken."""
        return self.server.get_port()

    def close(self) -> None:
        """Stop the server."""
        with contextlib.redirect_stdout(io.StringIO()):  # viser reports to stdout, which is for results
            self.server.stop()

    def step(self) -> bool:
        """Do one piece of what is to be done; return whether there was any."""
        if time.monotonic() - self._looked_at > _POLL_S:
            self._look_again()
        with self._lock:
            if self._contents is None:
                return False
            done = (
                self._choose_frame()
                or self._add_frustums()
                or self._read_file("mesh", self.layers.read_mesh)
                or self._read_file("cloud", self._read_cloud)
                or self._read_next_view()
            )
            if self.layers.stale and (not done or time.monotonic() - self.layers.drawn_at > _REFRESH_S):
                self.layers.draw_points()
            if done:
                self._show_status()
        return done

    def _look_again(self) -> None:
        self._looked_at = time.monotonic()
        try:
            contents, problem = _look(self._folder), None
        except (NasReconError, OSError) as error:  # a file that is just being replaced, or damaged
            contents, problem = self._contents, str(error)
        with self._lock:
            self._contents = contents
            self._problems.pop("folder", None)
            if problem is not None:
                self._problems["folder"] = problem
            self._show_status()

    def _choose_frame(self) -> bool:
        if self.frame is not None:
            return False
        assert self._contents is not None
        results = self._contents.results
        self.survey = survey_depths(results, problems={})  # what cannot be read is said when its turn comes
        self.frame = choose_frame(results.views, self.survey.points_in_world)
        self.layers.frame, self.layers.survey, self.layers.unit = self.frame, self.survey, results.unit
        crowd = max(1.0, self._contents.expected_views / 30)  # many cameras stand close
        self.controls.camera_size.value = max(2.0, self.controls.camera_size.value / crowd**0.5)
        self.cameras = Cameras(self.server, self.controls, self.frame, self.survey, self._go_to)
        self._add_frustums()
        camera = self.server.initial_camera
        camera.position, camera.look_at = self.cameras.overview()
        camera.fov = np.radians(OVERVIEW_FOV_DEG)
        self.server.on_client_connect(self.cameras.greet)  # those that are connected already, too
        return True

    def _add_frustums(self) -> bool:
        assert self._contents is not None and self.cameras is not None
        results = self._contents.results
        if all(name in self.cameras.views for name in results.names):
            return False
        for view in results.views:
            if view.name not in self.cameras.views:
                self.cameras.add(view)
        self.controls.view.options = tuple(self.cameras.views)  # pyright: ignore[reportAttributeAccessIssue]
        if self.cameras.chosen is None:
            self._choose(results.names[0])
        return True

    def _read_file(self, what: str, read: Callable[[Path], None]) -> bool:
        """Read the mesh or the cloud if it is new or has changed."""
        assert self._contents is not None
        path: Path | None = getattr(self._contents, what)
        current = (path, path.stat().st_mtime) if path and path.is_file() else None
        if current is None or self._files.get(what) == current:
            return False
        self._files[what] = current
        try:
            read(current[0])
            self._problems.pop(what, None)
        except (NasReconError, OSError) as error:
            self._problems[what] = str(error)
        return True

    def _read_cloud(self, path: Path) -> None:
        self.layers.read_cloud(path)
        self._observed = set()  # its points are to observe every view

    def _read_next_view(self) -> bool:
        assert self._contents is not None and self.cameras is not None
        results = self._contents.results
        waiting = [i for i, name in enumerate(results.names) if name not in self._observed]
        if not waiting:
            return False
        name = results.names[waiting[0]]
        self._observed.add(name)
        try:
            estimate = results[waiting[0]]
        except InputError as error:
            self._problems[name] = str(error)
            return True
        self._pictures[name] = downscale(estimate.rgb, _FRUSTUM_IMAGE_PX)
        self.cameras.set_image(name, self._pictures[name])
        self.layers.add_view(estimate, max(1000, MAX_POINTS // self._contents.expected_views))
        return True

    def _show_status(self) -> None:
        contents = self._contents
        if contents is None:
            self.controls.status.content = waiting_html(self._folder)
            return
        layers = self.layers
        pieces = {
            "views": (len(self.cameras.views) if self.cameras else 0, contents.expected_views),
            "points": (layers.points_shown, layers.points),
            "faces": (len(layers.mesh.faces) if layers.mesh else 0, layers.mesh_faces),
        }
        unread = len(contents.results) - len(self._observed)
        missing = [*contents.missing, *self._problems.values()]
        self.controls.status.content = status_html(pieces, contents.is_running, unread, missing)

    def _connect_controls(self) -> None:
        controls = self.controls
        for handle, act in (
            (controls.mesh, self._set_visibility),
            (controls.cloud, self._set_visibility),
            (controls.cameras, self._set_visibility),
            (controls.camera_size, self._set_visibility),
            (controls.point_size, self.layers.set_point_size),
            (controls.surface, self.layers.draw_mesh),
            (controls.coloring, self.layers.draw_points),
            (controls.points, self.layers.draw_points),
            (controls.threshold, self._set_threshold),
            (controls.photo, self._set_overlay),
            (controls.depth, self._set_overlay),
            (controls.dark, lambda: set_theme(self.server, dark=controls.dark.value)),
        ):
            handle.on_update(self._locked(act))

        @controls.view.on_update
        def _(event: Any) -> None:
            if event.client is not None and self.cameras and controls.view.value != self.cameras.chosen:
                self._go_to(controls.view.value, event.client)

        @controls.steps.on_click
        def _(event: Any) -> None:
            self._step(1 if event.target.value == controls.NEXT else -1, event.client)

        controls.overview.on_click(self._stand_back)
        connect_keys(self.server, controls, self._step, self._stand_back)

    def _step(self, by: int, client: viser.ClientHandle) -> None:
        if self.cameras:
            self._go_to(self.cameras.neighbor(by), client)

    async def _stand_back(self, event: Any) -> None:
        if self.cameras and event.client is not None:
            self.cameras.show_images(True)
            self.overlay.hide()
            await self.cameras.stand_back(event.client)

    def _locked(self, act: Callable[[], None]) -> Callable[[Any], None]:
        def run(event: Any) -> None:
            with self._lock:
                act()
                self._show_status()

        return run

    def _set_visibility(self) -> None:
        self.layers.set_visibility()
        if self.cameras:
            self.cameras.restyle()

    def _set_overlay(self) -> None:
        self.overlay.show(self.controls.photo.value, self.controls.depth.value)

    def _set_threshold(self) -> None:
        self.layers.draw_points()
        self._show_view()

    def _go_to(self, name: str, client: viser.ClientHandle) -> None:
        """Choose a view, and put the client's camera in its place."""
        with self._lock:
            assert self.cameras is not None
            self._choose(name)
            self.cameras.show_images(False)
            self._set_overlay()
            self.cameras.stand_in(name, client)

    def _choose(self, name: str) -> None:
        assert self.cameras is not None
        self.cameras.choose(name)
        self._show_view()

    def _show_view(self) -> None:
        contents, name = self._contents, self.cameras.chosen if self.cameras else None
        if contents is None or name not in contents.results.names:
            return
        try:
            estimate = self._estimate(name)
            sources = {source: self._picture(source) for source in estimate.sources}
        except InputError as error:
            self._problems[name] = str(error)
            return
        if self.frame and self.survey:
            self.overlay.choose(estimate, self.frame, self.survey.near, self.survey.far)
        self.controls.pictures.content = view_html(
            estimate, sources, contents.results.unit, min_confidence=self.controls.threshold.value
        )

    def _estimate(self, name: str) -> Estimate:
        assert self._contents is not None
        return self._contents.results[self._contents.results.names.index(name)]

    def _picture(self, name: str) -> np.ndarray | None:
        """Return the small image of a view, None where it is not finished."""
        assert self._contents is not None
        if name not in self._pictures and name in self._contents.results.names:
            self._pictures[name] = downscale(self._estimate(name).rgb, _FRUSTUM_IMAGE_PX)
        return self._pictures.get(name)


def _look(folder: Path) -> Contents | None:
    """Look at a folder; None where no view is finished yet."""
    try:
        return look(folder)
    except InputError:
        if (folder / MANIFEST_FILE).is_file() and not any((folder / "views").glob("*.npz")):
            return None
        raise
