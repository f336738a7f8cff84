"""A visitor of the live page: the widgets, layers and cameras of one browser, drawn from the data that all share."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nasrecon.errors import InputError
from nasrecon.view.clipping import ClippingBox
from nasrecon.view.controls import Controls
from nasrecon.view.frustums import Cameras
from nasrecon.view.keys import connect_keys
from nasrecon.view.layers import Layers
from nasrecon.view.measuring import Measuring, draw_scale_bar, first_hit, first_point
from nasrecon.view.overlay import Overlay
from nasrecon.view.page_data import PageData
from nasrecon.view.panels import quality_html, status_html, view_html
from nasrecon.view.quality import ViewQuality
from nasrecon.view.server import set_theme

if TYPE_CHECKING:
    import viser


class Visitor:
    """The page of one browser.

    Args:
        client: the browser.
        data: what there is to show.
        lock: held while a page is touched.
        loop: the event loop of the server.

    Attributes:
        controls: its widgets.
        cameras: its frustums; None until the first view is there.
        layers, measuring, box: its mesh and points, its tools.
    """

    def __init__(
        self, client: viser.ClientHandle, data: PageData, lock: threading.RLock, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.client, self._data, self._lock, self._loop = client, data, lock, loop
        # A cloud lies on the mesh and hides it.
        has_mesh = data.contents is not None and data.contents.mesh is not None
        self.controls = Controls(client, show_cloud=not has_mesh)
        self.box = ClippingBox(client, self._clipped)
        self.layers = Layers(client, self.controls, data, self.box)
        self.measuring = Measuring(client, self._pick, self._report_distance)
        self.overlay = Overlay(client)
        self.cameras: Cameras | None = None
        self._ranking: list[ViewQuality] = []
        self._connect_controls()
        self.update(at_rest=True)

    def update(self, *, at_rest: bool) -> None:
        """Draw what is new. ``at_rest``: whether there is nothing more to read."""
        data = self._data
        if data.frame is not None and data.contents is not None:
            if self.cameras is None:
                self._begin()
            self._add_frustums()
        self.layers.update(at_rest=at_rest)
        self._show_status()

    def _begin(self) -> None:
        data = self._data
        assert data.contents is not None
        crowd = max(1.0, data.contents.expected_views / 30)  # many cameras stand close
        self.controls.camera_size.value = max(2.0, self.controls.camera_size.value / crowd**0.5)
        self.cameras = Cameras(self.client, self.controls, data, self._clicked)
        self._add_frustums()
        asyncio.run_coroutine_threadsafe(self.cameras.greet(), self._loop)

    def _add_frustums(self) -> None:
        data, cameras = self._data, self.cameras
        assert data.contents is not None and cameras is not None
        results = data.contents.results
        if any(name not in cameras.views for name in results.names):
            for view in results.views:
                if view.name not in cameras.views:
                    cameras.add(view)
            self.controls.view.options = tuple(cameras.views)  # pyright: ignore[reportAttributeAccessIssue]
            self._draw_scale_bar()
            asyncio.run_coroutine_threadsafe(cameras.fit_again(), self._loop)
        for name, picture in data.pictures.items():
            cameras.set_image(name, picture)
        if cameras.chosen is None:
            self._choose(results.names[0])

    def _show_status(self) -> None:
        self.controls.status.content = status_html(self._data, self.layers.points_shown)
        ranking = self._data.quality()
        if ranking == self._ranking and ranking:
            return
        chosen = self.cameras.chosen if self.cameras else None
        before, self._ranking = self._quality_of(chosen), ranking
        self.controls.quality.content = quality_html(ranking)
        if self.cameras:
            self.cameras.mark({view.name for view in ranking if view.fault})
        if self._quality_of(chosen) != before:
            self._show_view()

    def _quality_of(self, name: str | None) -> ViewQuality | None:
        return next((view for view in self._ranking if view.name == name), None)

    # What the widgets do -------------------------------------------------------------------------------------------

    def _connect_controls(self) -> None:
        controls, layers = self.controls, self.layers
        for handle, act in (
            (controls.mesh, self._set_visibility),
            (controls.cloud, self._set_visibility),
            (controls.cameras, self._set_visibility),
            (controls.camera_size, self._set_visibility),
            (controls.scale_bar, self._draw_scale_bar),
            (controls.point_size, layers.set_point_size),
            (controls.surface, layers.draw_mesh),
            (controls.coloring, layers.draw_points),
            (controls.points, layers.draw_points),
            (controls.threshold, self._set_threshold),
            (controls.photo, self._set_overlay),
            (controls.depth, self._set_overlay),
            (controls.measure, self._set_measuring),
            (controls.clip, self._set_clipping),
            (controls.dark, lambda: set_theme(self.client, dark=controls.dark.value)),
        ):
            handle.on_update(self._locked(act))

        @controls.view.on_update
        def _(event: Any) -> None:
            if event.client is not None:  # else the page itself has set it
                self._go_to(controls.view.value)

        @controls.go_to.on_update
        def _(_: Any) -> None:
            self._go_to_named(controls.go_to.value)

        @controls.steps.on_click
        def _(event: Any) -> None:
            self._step(1 if event.target.value == controls.NEXT else -1)

        controls.overview.on_click(self._stand_back)
        connect_keys(self.client, controls, self._step, self._stand_back)

    def _locked(self, act: Callable[[], None]) -> Callable[[Any], None]:
        def run(_: Any) -> None:
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

    def _draw_scale_bar(self) -> None:
        data = self._data
        self.client.scene.remove_by_name("/scale_bar")
        if self.controls.scale_bar.value and data.frame is not None and data.home is not None:
            draw_scale_bar(self.client, data.frame, self._content(), data.home[0], data.unit)

    def _set_measuring(self) -> None:
        if not self.controls.measure.value:
            self.measuring.switch_off()
        elif self._data.frame is not None:
            self.measuring.switch_on(self._data.frame, self._data.unit)

    def _report_distance(self, text: str) -> None:
        self.controls.distance.content = f"<div style='padding:0 12px 6px;font-size:13px'>{text}</div>" if text else ""

    def _pick(self, origin: np.ndarray, direction: np.ndarray) -> np.ndarray | None:
        """Return the place of the scene that a ray meets: on the mesh where that is shown, else a point."""
        mesh = self.layers.mesh_shown
        if mesh is not None and self.controls.mesh.value:
            return first_hit(origin, direction, *mesh)
        return first_point(origin, direction, self.layers.points_drawn())

    def _set_clipping(self) -> None:
        if not self.controls.clip.value:
            self.box.switch_off()
        elif self._data.frame is not None:
            self.box.switch_on(self._content())

    def _clipped(self) -> None:
        with self._lock:
            self.layers.draw()
            self._show_status()

    def _content(self) -> np.ndarray:
        """Return points (N, 3) in the page of what is shown."""
        data = self._data
        assert data.frame is not None and data.survey is not None and self.cameras is not None
        if data.mesh is not None and len(data.mesh.vertices):
            return data.frame.points(data.mesh.vertices)
        if len(data.survey.points_in_world):
            return data.frame.points(data.survey.points_in_world)
        return data.frame.points(np.stack([view.center_in_world for view in self.cameras.views.values()]))

    # Views ---------------------------------------------------------------------------------------------------------

    def _step(self, by: int) -> None:
        if self.cameras:
            self._go_to(self.cameras.neighbor(by))

    async def _stand_back(self, _: Any) -> None:
        if self.cameras:
            self.cameras.show_images(True)
            self.overlay.hide()
            await self.cameras.stand_back()

    def _clicked(self, name: str) -> None:
        if not self.measuring.is_on:  # the click is an end of a distance
            self._go_to(name)

    def _go_to_named(self, text: str) -> None:
        """Go to the view of a name, or of its end where only one name has it."""
        names = list(self.cameras.views) if self.cameras else []
        matching = [name for name in names if name == text] or [name for name in names if text and name.endswith(text)]
        if len(matching) == 1:
            self._go_to(matching[0])
            self.controls.go_to.value = ""  # so that the same name is a change again

    def _go_to(self, name: str) -> None:
        """Choose a view, and put the visitor in its place."""
        with self._lock:
            if self.cameras is None or name not in self.cameras.views:
                return
            if name != self.cameras.chosen:
                self._choose(name)
            self.cameras.show_images(False)
            self._set_overlay()
            self.cameras.stand_in(name)

    def _choose(self, name: str) -> None:
        assert self.cameras is not None and self._data.frame is not None
        self.cameras.choose(name)
        self.layers.choose(self._data.frame.page_from_cam(self.cameras.views[name])[:3, :3])
        self._show_view()

    def _show_view(self) -> None:
        data, name = self._data, self.cameras.chosen if self.cameras else None
        if name is None or data.contents is None or data.frame is None or data.survey is None:
            return
        if name not in data.contents.results.names:
            return
        try:
            estimate = data.estimate(name)
            sources = {source: data.picture(source) for source in estimate.sources}
        except InputError as error:
            data.problems[name] = str(error)
            return
        self.overlay.choose(estimate, data.frame, data.survey.near, data.survey.far)
        self.controls.pictures.content = view_html(
            estimate,
            sources,
            data.survey,
            data.unit,
            self._quality_of(name),
            min_confidence=self.controls.threshold.value,
        )
