"""The frame of a page: the scene centred, of a known size and the right way up, whatever its unit and axes.

``x_in_page = page_from_world @ x_in_world`` is a similarity: z is up, and most of the scene lies within 1 of the
origin. So clipping planes, point sizes and single precision serve a room in millimetres as well as a town.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nasrecon.geometry import transform
from nasrecon.types import View

OVERVIEW_FOV_DEG = 45.0
_ELEVATION_DEG = 28.0
_MARGIN, _TIGHT_MARGIN = 1.2, 1.03
_OUTLIER = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class PageFrame:
    """Where the page's origin and axes are.

    Attributes:
        page_from_world: (4, 4), rotation times ``scale``, and translation.
        scale: page units in a scene unit.
    """

    page_from_world: np.ndarray
    scale: float

    def points(self, points_in_world: np.ndarray) -> np.ndarray:
        """Return points (N, 3) in the page, float32."""
        return transform(self.page_from_world, points_in_world).astype(np.float32)

    def directions(self, directions_in_world: np.ndarray) -> np.ndarray:
        """Return directions (N, 3) in the page, float32, of the same length."""
        return (directions_in_world @ (self.page_from_world[:3, :3].T / self.scale)).astype(np.float32)

    def page_from_cam(self, view: View) -> np.ndarray:
        """Return (4, 4) the rotation and place of a view's camera in the page; its unit is the page's."""
        out = np.eye(4)
        out[:3, :3] = self.directions(view.world_from_cam[:3, :3].T).T
        out[:3, 3] = transform(self.page_from_world, view.center_in_world)
        return out


def choose_frame(views: Sequence[View], points_in_world: np.ndarray) -> PageFrame:
    """Choose the frame of a page for cameras and what they see, points (N, 3), which may be empty."""
    centers = np.stack([view.center_in_world for view in views])
    forward = np.mean([view.cam_from_world[2, :3] for view in views], axis=0)
    up = _up(views)
    ahead = forward - up * (up @ forward)
    if np.linalg.norm(ahead) < 1e-3:  # they stand all around: as the first one looks
        ahead = views[0].cam_from_world[2, :3] - up * (up @ views[0].cam_from_world[2, :3])
    if np.linalg.norm(ahead) < 1e-3:  # it looks straight up or down: any direction will do
        ahead = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    ahead /= np.linalg.norm(ahead)
    rotation = np.stack([np.cross(ahead, up), ahead, up])

    content = points_in_world if len(points_in_world) else centers
    center = np.median(content @ rotation.T, axis=0) @ rotation  # along the page's axes, whatever the world's
    radius = np.quantile(np.linalg.norm(content - center, axis=-1), 0.9)
    radius = max(radius, 0.5 * np.linalg.norm(centers - center, axis=-1).max(), 1e-12)
    page_from_world = np.eye(4)
    page_from_world[:3, :3] = rotation / radius
    page_from_world[:3, 3] = -rotation @ center / radius
    return PageFrame(page_from_world=page_from_world, scale=1 / radius)


def _up(views: Sequence[View]) -> np.ndarray:
    """Return the world's upward direction (3,): people hold cameras level, so it is square to the images' rows."""
    right, down = (np.stack([view.cam_from_world[k, :3] for view in views]) for k in (0, 1))
    mean_up = -down.mean(axis=0)
    # The small second term decides where the rows leave it open, as with cameras that all look one way.
    _, axes = np.linalg.eigh(right.T @ right / len(views) - 0.05 * np.outer(mean_up, mean_up))
    up = axes[:, 0]
    return up if up @ mean_up >= 0 else -up


def overview(
    frame: PageFrame,
    views: Sequence[View],
    points_in_world: np.ndarray,
    aspect: float = 1.0,
    *,
    with_cameras: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Return where to stand and where to look, (3,) each in the page, to see all: behind the cameras, a little raised.

    Args:
        frame: the page's.
        views: the cameras.
        points_in_world: (N, 3) what they see.
        aspect: of the window, width over height, whose vertical field of view is OVERVIEW_FOV_DEG.
        with_cameras: whether the cameras are to be in the window, too, or the points are to fill it.
    """
    centers = frame.points(np.stack([view.center_in_world for view in views])).astype(np.float64)
    side = centers.mean(axis=0)[:2]
    if np.linalg.norm(side) < 0.25:  # cameras all around: beside the first one
        side = centers[0, :2]
    if np.linalg.norm(side) < 1e-6:
        side = np.array([0.0, -1.0])
    side = side / np.linalg.norm(side)
    elevation = np.radians(_ELEVATION_DEG)
    back = np.array([*(np.cos(elevation) * side), np.sin(elevation)])
    right = np.array([-side[1], side[0], 0.0])
    axes = np.stack([right, np.cross(back, right)])

    # All of the cameras, and the surfaces but for a few strays.
    content = frame.points(points_in_world).astype(np.float64)
    content = content[np.linalg.norm(content, axis=-1) < _OUTLIER]
    ends = [np.quantile(content @ axes.T, [0.01, 0.99], axis=0)] if len(content) else []
    if with_cameras or not len(content):
        ends.append(centers @ axes.T)
    ends = np.concatenate(ends)
    look_at = (ends.min(axis=0) + ends.max(axis=0)) / 2 @ axes
    tangents = np.tan(np.radians(OVERVIEW_FOV_DEG / 2)) * np.array([aspect, 1.0])

    def needed(points: np.ndarray) -> np.ndarray:
        off = points - look_at
        return off @ back + (np.abs(off @ axes.T) / tangents).max(axis=-1)

    distances = [float(np.quantile(needed(content), 0.99))] if len(content) else []
    if with_cameras or not len(content):
        distances.append(float(needed(centers).max()))
    margin = _MARGIN if with_cameras else _TIGHT_MARGIN
    return look_at + margin * max(*distances, 0.1) * back, look_at
