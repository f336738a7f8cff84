"""A box with handles at two of its corners; what lies outside it is not drawn."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import viser

_RGB = (42, 96, 153)
_HANDLE_SCALE = 0.22
_MARGIN = 0.05
_NODES = ("/clipping/edges", "/clipping/lower", "/clipping/upper")
_EDGES = [(a, b) for a, b in product(range(8), repeat=2) if a < b and (a ^ b).bit_count() == 1]


class ClippingBox:
    """The clipping box of a visitor's page; it is off at first.

    Args:
        client: the visitor.
        changed: called when the box is switched, or a corner has been moved.

    Attributes:
        changed: as given.
        corners: (2, 3) the lower and the upper corner in the page; None while the box is off.
    """

    def __init__(self, client: viser.ClientHandle, changed: Callable[[], None]) -> None:
        self._scene, self.changed = client.scene, changed
        self.corners: np.ndarray | None = None
        self._edges: viser.LineSegmentsHandle | None = None

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Return which points (N, 3) in the page lie in the box (N,); all while it is off."""
        if self.corners is None:
            return np.ones(len(points), bool)
        lower, upper = self.corners.min(axis=0), self.corners.max(axis=0)
        return ((points >= lower) & (points <= upper)).all(axis=-1)

    def switch_on(self, content: np.ndarray) -> None:
        """Draw the box around points (N, 3) in the page, with handles at its lower and its upper corner."""
        ends = np.stack([content.min(axis=0), content.max(axis=0)]).astype(np.float64)
        self.corners = ends + _MARGIN * np.array([[-1.0], [1.0]])
        self._edges = self._scene.add_line_segments(
            _NODES[0], self._segments(), _RGB, thickness=2.0, thickness_units="screen"
        )
        for k, name in enumerate(_NODES[1:]):
            handle = self._scene.add_transform_controls(
                name, scale=_HANDLE_SCALE, disable_rotations=True, depth_test=False, position=self.corners[k]
            )

            @handle.on_update
            def _(event: Any, k: int = k) -> None:
                self.move(k, event.target.position)

            @handle.on_drag_end
            def _(_: Any) -> None:
                self.changed()

        self.changed()

    def move(self, corner: int, place: np.ndarray) -> None:
        """Move the lower (0) or the upper (1) corner to a place (3,) in the page; ``changed`` draws the result."""
        if self.corners is not None and self._edges is not None:
            self.corners[corner] = place
            self._edges.points = self._segments()

    def switch_off(self) -> None:
        """Remove the box."""
        self.corners = None
        for name in _NODES:
            self._scene.remove_by_name(name)
        self.changed()

    def _segments(self) -> np.ndarray:
        """Return the edges (12, 2, 3) of the box."""
        assert self.corners is not None
        corners = np.array([[self.corners[(k >> axis) & 1, axis] for axis in range(3)] for k in range(8)])
        return corners[np.array(_EDGES)].astype(np.float32)
