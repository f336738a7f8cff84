"""Lengths on the live page: a distance between two clicks, and a scale bar beside the scene."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from nasrecon.results.preview import length_label
from nasrecon.types import Unit
from nasrecon.view.page_frame import PageFrame

if TYPE_CHECKING:
    import viser

_RGB, _DARK_RGB, _LIGHT_RGB = (20, 90, 190), (30, 30, 30), (245, 245, 245)
_MAX_ANGLE = 0.012
"""Of a point from the ray of a click [radians], where there is no mesh."""
_BAR_PARTS = 4
START = "Click on two places of the scene."


def first_hit(origin: np.ndarray, direction: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray | None:
    """Return where a ray first meets a mesh (3,), by the method of Moeller and Trumbore; None where it does not."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    ab, ac, to_origin = b - a, c - a, origin - a
    across = np.cross(direction, ac)
    determinant = np.einsum("ij,ij->i", ab, across)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.einsum("ij,ij->i", to_origin, across) / determinant
        along = np.cross(to_origin, ab)
        v = along @ direction / determinant
        distance = np.einsum("ij,ij->i", ac, along) / determinant
    hit = (determinant != 0) & (u >= 0) & (v >= 0) & (u + v <= 1) & (distance > 1e-6)
    return origin + distance[hit].min() * direction if hit.any() else None


def first_point(origin: np.ndarray, direction: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """Return the nearest of the points (N, 3) that lie within _MAX_ANGLE of a ray (3,); None without any."""
    ray = points - origin
    along = ray @ direction
    off = np.linalg.norm(ray - along[:, None] * direction, axis=-1)
    near = np.flatnonzero((along > 1e-6) & (off < _MAX_ANGLE * along))
    return points[near[np.argmin(along[near])]].astype(np.float64) if len(near) else None


class Measuring:
    """The distance between two clicks of a visitor.

    Args:
        client: the visitor.
        pick: returns the place of the scene (3,) in the page that a ray (origin, direction) meets, or None.
        report: is called with what there is to say.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        pick: Callable[[np.ndarray, np.ndarray], np.ndarray | None],
        report: Callable[[str], None],
    ) -> None:
        self._scene, self._pick, self._report = client.scene, pick, report
        self._ends: list[np.ndarray] = []
        self._frame: PageFrame | None = None
        self._unit: Unit = "unknown"
        self.is_on = False

    def switch_on(self, frame: PageFrame, unit: Unit) -> None:
        """Take clicks from now on; lengths are in ``unit``."""
        self._frame, self._unit, self.is_on = frame, unit, True
        self._scene.on_click()(self._clicked)
        self._report(START)

    def switch_off(self) -> None:
        """Take no more clicks and remove what was drawn."""
        if self.is_on:
            self._scene.remove_click_callback(self._clicked)
        self.is_on, self._ends = False, []
        self._draw()
        self._report("")

    def _clicked(self, event: Any) -> None:
        direction = np.asarray(event.ray_direction, float)
        place = self._pick(np.asarray(event.ray_origin, float), direction / np.linalg.norm(direction))
        if not self.is_on or place is None:
            return
        self._ends = [place] if len(self._ends) == 2 else [*self._ends, place]
        self._draw()
        self._report(f"Distance {self.distance()}" if len(self._ends) == 2 else "Click on the other end.")

    def distance(self) -> str:
        """Return the distance between the two ends, with its unit."""
        assert self._frame is not None
        return length_label(float(np.linalg.norm(self._ends[1] - self._ends[0])) / self._frame.scale, self._unit)

    def _draw(self) -> None:
        self._scene.remove_by_name("/measured")
        for k, end in enumerate(self._ends):
            self._scene.add_icosphere(
                f"/measured/{k}", radius=0.008, color=_RGB, position=end, cast_shadow=False, receive_shadow=False
            )
        if len(self._ends) == 2:
            ends = np.stack(self._ends)
            self._scene.add_line_segments(
                "/measured/line", ends[None].astype(np.float32), _RGB, thickness=3.0, thickness_units="screen"
            )
            self._scene.add_label(
                "/measured/label", self.distance(), position=ends.mean(axis=0), anchor="bottom-center"
            )


def scale_bar_ends(frame: PageFrame, content: np.ndarray, eye: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the ends (2, 3) in the page of a bar of a round length, and that length in scene units.

    Args:
        frame: the page's.
        content: points (N, 3) in the page; the bar lies at the lower edge of their box that is nearest to the eye.
        eye: (3,) where a page begins.
    """
    box = np.quantile(content, [0.01, 0.99], axis=0)
    toward = eye - box.mean(axis=0)
    across = int(np.argmin(np.abs(toward[:2])))  # the axis that the bar is along
    ahead = 1 - across
    longest = 0.4 * max(box[1, across] - box[0, across], 1e-9) / frame.scale
    power = 10.0 ** np.floor(np.log10(longest))
    length = float(power * max(k for k in (1, 2, 5) if k * power <= longest))
    ends = np.repeat(box[:1].astype(np.float64), 2, axis=0)
    ends[:, ahead] = box[int(toward[ahead] > 0), ahead] + 0.03 * np.sign(toward[ahead])
    ends[1, across] += length * frame.scale
    return ends, length


def draw_scale_bar(
    client: viser.ClientHandle, frame: PageFrame, content: np.ndarray, eye: np.ndarray, unit: Unit
) -> None:
    """Draw the bar of ``scale_bar_ends`` in dark and light parts, with its length."""
    ends, length = scale_bar_ends(frame, content, eye)
    marks = ends[0] + np.linspace(0, 1, _BAR_PARTS + 1)[:, None] * (ends[1] - ends[0])
    parts = np.stack([marks[:-1], marks[1:]], axis=1).astype(np.float32)
    colors = np.array([_DARK_RGB if k % 2 == 0 else _LIGHT_RGB for k in range(_BAR_PARTS)], np.uint8)
    client.scene.add_line_segments(
        "/scale_bar/line", parts, np.repeat(colors[:, None], 2, axis=1), thickness=6.0, thickness_units="screen"
    )
    client.scene.add_label("/scale_bar/label", length_label(length, unit), position=ends[1], anchor="center-left")
