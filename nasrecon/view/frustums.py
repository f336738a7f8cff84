"""The cameras of the live page: frustums with their images, the one that is chosen, and where a visitor stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nasrecon.types import Camera, View
from nasrecon.view.page_data import PageData
from nasrecon.view.page_frame import OVERVIEW_FOV_DEG, overview
from nasrecon.view.server import SHEET_PX

if TYPE_CHECKING:
    import viser

    from nasrecon.view.controls import Controls

_RGB, _CHOSEN_RGB, _MARKED_RGB = (70, 84, 104), (42, 96, 153), (224, 108, 0)
_LINE_PX, _CHOSEN_LINE_PX = 1.5, 3.0

NARROW_PX = 600
"""Of a scene's part of the window; below it the panel of the controls is folded, then that of the views."""


class Cameras:
    """The frustums of a page.

    Args:
        client: the visitor.
        controls: the page's widgets.
        data: what there is to show; its frame is chosen.
        clicked: called with the name of a view whose frustum was clicked.

    Attributes:
        views: those that have a frustum, by name.
        frustums: by the name of the view.
        chosen: the name of the chosen view, or None.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        controls: Controls,
        data: PageData,
        clicked: Callable[[str], None],
    ) -> None:
        assert data.frame is not None
        self._client, self._controls, self._clicked = client, controls, clicked
        self._data, self._frame = data, data.frame
        self._place: np.ndarray | None = None
        self._fitted = 1.0
        self._marked: set[str] = set()
        self._images: dict[str, np.ndarray] = {}
        self.views: dict[str, View] = {}
        self.frustums: dict[str, viser.CameraFrustumHandle] = {}
        self.chosen: str | None = None
        self._through = False

    def add(self, view: View) -> None:
        """Add the frustum of a view, without an image yet."""
        page_from_cam, camera = self._frame.page_from_cam(view), view.camera
        handle = self._client.scene.add_camera_frustum(
            f"/cameras/{len(self.frustums)}",
            # Where the principal point is off centre, the frustum is that of the image's size.
            fov=2 * float(np.arctan(0.5 * camera.height / camera.K[1, 1])),
            aspect=camera.width / camera.height,
            scale=self._scale(),
            color=self._color(view.name),
            thickness=_LINE_PX,
            thickness_units="screen",
            format="jpeg",
            jpeg_quality=80,
            wxyz=_quaternion(page_from_cam[:3, :3]),
            position=page_from_cam[:3, 3],
            visible=self._controls.cameras.value,
            cast_shadow=False,
            receive_shadow=False,
        )
        self.views[view.name], self.frustums[view.name] = view, handle

        @handle.on_click
        def _(_: Any) -> None:
            self._clicked(view.name)

    def set_image(self, name: str, rgb: np.ndarray) -> None:
        """Give a view's frustum its image (h, w, 3) uint8; the chosen one shows it when another is chosen."""
        if name in self._images or name not in self.frustums:
            return
        self._images[name] = rgb
        if name != self.chosen and not self._through:
            self.frustums[name].image = rgb

    def show_images(self, shown: bool) -> None:
        """Show the images of all frustums but the chosen one, or of none in its viewpoint."""
        if self._through == (not shown):
            return
        self._through = not shown
        for name, frustum in self.frustums.items():
            frustum.image = self._images.get(name) if shown and name != self.chosen else None

    def choose(self, name: str) -> None:
        """Mark a view's frustum, which then carries no image, as one would look through it."""
        if self.chosen is not None and self.chosen != name:
            before = self.frustums[self.chosen]
            before.color, before.thickness = self._color(self.chosen), _LINE_PX
            before.image = None if self._through else self._images.get(self.chosen)
        self.chosen = name
        frustum = self.frustums[name]
        frustum.color, frustum.thickness, frustum.image = _CHOSEN_RGB, _CHOSEN_LINE_PX, None
        self._controls.view.value = name  # pyright: ignore[reportAttributeAccessIssue]

    def mark(self, names: set[str]) -> None:
        """Draw the frustums of views that need attention in orange."""
        changed, self._marked = self._marked ^ names, names
        for name in changed & self.frustums.keys() - {self.chosen}:
            self.frustums[name].color = self._color(name)

    def _color(self, name: str) -> tuple[int, int, int]:
        return _MARKED_RGB if name in self._marked else _RGB

    def neighbor(self, step: int) -> str:
        """Return the name of the view so many places after the chosen one, around the end."""
        names = list(self.views)
        return names[(names.index(self.chosen or names[0]) + step) % len(names)]

    def restyle(self) -> None:
        """Show or hide the frustums, and set their size, as the controls say."""
        for frustum in self.frustums.values():
            frustum.visible, frustum.scale = self._controls.cameras.value, self._scale()

    def _scale(self) -> float:
        return 0.01 * self._controls.camera_size.value

    # Where a visitor stands ------------------------------------------------------------------------------------------

    def stand_in(self, name: str) -> None:
        """Put the visitor in the place of a view's camera, the whole image in its window."""
        view = self.views[name]
        page_from_cam = self._frame.page_from_cam(view)
        survey = self._data.survey
        assert survey is not None
        depth = 2 / (1 / survey.near + 1 / survey.far) * self._frame.scale
        camera = self._client.camera
        with self._client.atomic():
            camera.wxyz = _quaternion(page_from_cam[:3, :3])
            camera.position = page_from_cam[:3, 3]
            camera.look_at = page_from_cam[:3, 3] + depth * page_from_cam[:3, 2]
            camera.fov = _fitting_fov(view.camera, camera.aspect)

    def overview(self, aspect: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        """Return where to stand and where to look to see all, in a window of that aspect (width over height)."""
        assert self._data.survey is not None
        return overview(self._frame, list(self.views.values()), self._data.survey.points_in_world, aspect)

    async def stand_back(self) -> None:
        """Put the visitor where it sees all.

        To be run by viser's event loop: a report of the camera that came in between two assignments would be compared
        with, and the second of them taken for done.
        """
        camera = self._client.camera
        aspect = camera.aspect
        position, look_at = self.overview(aspect)
        if camera.image_width < SHEET_PX:
            position, look_at = _above_sheet(*self.overview(2 * aspect))
        with self._client.atomic():
            camera.up_direction = (0.0, 0.0, 1.0)
            camera.position, camera.look_at = position, look_at
            camera.fov = np.radians(OVERVIEW_FOV_DEG)
        self._fitted, self._place = aspect, position

    async def greet(self) -> None:
        """Show a new visitor everything, again whenever its window changes, until it moves by itself.

        viser may apply `initial_camera` after `on_client_connect`; fit the view again then, at times after it
        was greeted; so does one whose visitor resets the view. From there, too, it is shown everything.
        """
        await self.stand_back()
        unfolded: list[Any] = [self._controls.panel, self._client.gui.main_panel]
        folded_at = 0

        async def fit_view(camera: viser.CameraHandle) -> None:
            nonlocal folded_at
            if unfolded and camera.image_width < NARROW_PX and camera.image_width != folded_at:
                folded_at = camera.image_width  # until it is wider, the panel is still on its way
                unfolded.pop().minimize()  # the room is the scene's
            home = self._data.home
            if self._has_not_moved():
                is_to_move = abs(camera.aspect / self._fitted - 1) > 1e-3
            else:
                is_to_move = home is not None and np.allclose(camera.position, home[0], atol=1e-3)
            if is_to_move:
                await self.stand_back()

        self._client.camera.on_update(fit_view)
        await fit_view(self._client.camera)  # the window may have changed in the meantime

    async def fit_again(self) -> None:
        """Show everything to a visitor that has not moved by itself, as there is more than before."""
        if self._has_not_moved():
            await self.stand_back()

    def _has_not_moved(self) -> bool:
        return self._place is not None and np.allclose(self._client.camera.position, self._place, atol=1e-3)


def _above_sheet(position: np.ndarray, look_at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where to stand and look so that what fills a window of half the height fills the upper half of it."""
    back = 2 * (position - look_at)
    right = np.cross((0.0, 0.0, 1.0), back)
    up = np.cross(back, right)
    height = 2 * np.linalg.norm(back) * np.tan(np.radians(OVERVIEW_FOV_DEG / 2))
    moved = look_at - 0.25 * height * up / max(np.linalg.norm(up), 1e-9)
    return moved + back, moved


def _fitting_fov(camera: Camera, aspect: float) -> float:
    """Return the vertical field of view [radians] of a window (width / height: aspect) in which the image fits."""
    across = 0.5 * camera.width / camera.K[0, 0] / aspect
    return 2 * float(np.arctan(1.04 * max(across, 0.5 * camera.height / camera.K[1, 1])))


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """Return the quaternion (4,), scalar first, of a rotation (3, 3)."""
    from viser.transforms import SO3

    return SO3.from_matrix(rotation).wxyz
