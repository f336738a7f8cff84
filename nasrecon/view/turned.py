"""Results as they are looked at: upright by the EXIF orientation of their photographs.

Cameras that come with a set are those of the pixels as stored, so maps of a camera that was held upright lie on their
side. For looking, image, maps and camera are turned together; the scene stays where it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import overload

import numpy as np

from nasrecon.results.reader import Results
from nasrecon.types import Camera, Estimate, View

_QUARTERS = {3: 2, 6: 1, 8: 3}
"""Clockwise quarter turns by EXIF orientation; mirrored images stay as they are."""

_TURN = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""turned_from_cam of a clockwise quarter turn: x right becomes y down."""


def quarters_of(view: View) -> int:
    """Return by how many clockwise quarter turns a view's maps are upright."""
    return 0 if view.image.is_turned else _QUARTERS.get(view.image.orientation, 0)


def turned_view(view: View) -> View:
    """Return the view with the camera of its upright maps."""
    for _ in range(quarters_of(view)):
        camera = view.camera
        (fx, _, cx), (_, fy, cy), _ = camera.K
        K = np.array([[fy, 0, camera.height - cy], [0, fx, cx], [0, 0, 1]])
        turned = Camera(width=camera.height, height=camera.width, K=K)
        view = replace(view, camera=turned, cam_from_world=_TURN @ view.cam_from_world)
    return view


def turned_estimate(estimate: Estimate) -> Estimate:
    """Return the estimate with upright image, maps and camera; normals stay in the camera's frame, which turns too."""
    count = quarters_of(estimate.view)
    if not count:
        return estimate
    maps = {
        name: np.ascontiguousarray(np.rot90(getattr(estimate, name), -count))
        for name in ("depth", "normal", "confidence", "sigma", "rgb")
    }
    rotation = np.linalg.matrix_power(_TURN[:3, :3], count).astype(np.float32)
    maps["normal"] = maps["normal"] @ rotation.T
    return replace(estimate, view=turned_view(estimate.view), **maps)


class TurnedResults(Results):
    """A results folder whose views are upright."""

    @overload
    def __getitem__(self, index: int) -> Estimate: ...
    @overload
    def __getitem__(self, index: slice) -> Results: ...
    def __getitem__(self, index: int | slice) -> Estimate | Results:
        """Return the Estimate at a position, upright, or for a slice the results with those views."""
        if isinstance(index, slice):
            return TurnedResults(self.folder, self.manifest | {"views": self._lines[index]})
        return turned_estimate(super().__getitem__(index))

    @property
    def views(self) -> tuple[View, ...]:
        """The views, cameras at the size of their upright maps."""
        return tuple(turned_view(view) for view in super().views)
