"""The photograph of the chosen camera, or its depth in colours, blended over the mesh in its viewpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nasrecon.results.preview import color_depth
from nasrecon.types import Estimate
from nasrecon.view.page_frame import PageFrame
from nasrecon.view.pictures import downscale

if TYPE_CHECKING:
    import viser

_NAME = "/overlay"
_WIDTH_PX = 640
_DISTANCE = 0.05
"""Of the picture from the camera, in page units: before everything that the camera sees."""


class Overlay:
    """A picture that fills the image of the chosen camera.

    Args:
        client: the visitor.
    """

    def __init__(self, client: viser.ClientHandle) -> None:
        self._scene = client.scene
        self._pictures: tuple[np.ndarray, np.ndarray] | None = None
        self._place: tuple[np.ndarray, np.ndarray, float, float] | None = None

    def choose(self, estimate: Estimate, frame: PageFrame, near: float, far: float) -> None:
        """Take the picture of a view; ``near`` and ``far``: depths at the ends of the colours."""
        depth = color_depth(estimate.depth, near, far)
        self._pictures = (downscale(estimate.rgb, _WIDTH_PX), downscale(depth, _WIDTH_PX))
        camera, page_from_cam = estimate.view.camera, frame.page_from_cam(estimate.view)
        width, height = (_DISTANCE * side / camera.K[i, i] for i, side in enumerate((camera.width, camera.height)))
        middle = camera.unproject(np.array([camera.width / 2, camera.height / 2]), np.array(_DISTANCE))
        center = page_from_cam[:3, :3] @ middle + page_from_cam[:3, 3]
        self._place = (page_from_cam[:3, :3], center, width, height)

    def show(self, photo: float, depth: float) -> None:
        """Draw it: ``photo``: its opacity over the mesh, 0 to 1; ``depth``: the part of depth in it, 0 to 1."""
        if self._pictures is None or self._place is None or photo <= 0:
            self.hide()
            return
        from viser.transforms import SO3

        rotation, center, width, height = self._place
        blend = (1 - depth) * self._pictures[0] + depth * self._pictures[1]
        alpha = np.full((*blend.shape[:2], 1), round(255 * photo), np.uint8)
        image = np.concatenate([np.rint(blend).astype(np.uint8), alpha], axis=-1)
        self._scene.add_image(
            _NAME,
            image,
            render_width=width,
            render_height=height,
            cast_shadow=False,
            receive_shadow=False,
            wxyz=SO3.from_matrix(rotation).wxyz,
            position=center,
        )

    def hide(self) -> None:
        """Take it off the page."""
        self._scene.remove_by_name(_NAME)
