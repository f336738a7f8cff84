"""The layers of a visitor's page: the mesh and the points, as this visitor wants them drawn."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from nasrecon.results.preview import color_normal
from nasrecon.view.clipping import ClippingBox
from nasrecon.view.controls import Controls
from nasrecon.view.glb import mesh_glb
from nasrecon.view.page_data import PageData
from nasrecon.view.panels import cloud_legend
from nasrecon.view.points import Points, support_limit

if TYPE_CHECKING:
    import viser

_REFRESH_S = 2.0


class Layers:
    """Mesh and points of a visitor's page.

    Args:
        client: the visitor.
        controls: what is shown, and how.
        data: the mesh and the points.
        box: what lies outside it is left out.

    Attributes:
        points_shown: points on the page now.
        mesh_shown: vertices (N, 3) in the page and faces (M, 3) of the mesh on the page; None without one.
        page_from_cam: (3, 3) rotation of the chosen view: normals have the colours that they have in its maps.
    """

    def __init__(self, client: viser.ClientHandle, controls: Controls, data: PageData, box: ClippingBox) -> None:
        self._scene, self._controls, self._data, self._box = client.scene, controls, data, box
        self.points_shown = 0
        self.mesh_shown: tuple[np.ndarray, np.ndarray] | None = None
        self.page_from_cam = np.eye(3, dtype=np.float32)
        self._parts: list[str] = []
        self._versions = (0, 0, 0)
        self._drawn_at = 0.0

    def update(self, *, at_rest: bool) -> bool:
        """Draw what is new, points at most every _REFRESH_S until there is nothing more to read; return whether it did.

        Args:
            at_rest: whether there is nothing more to read.
        """
        data, (mesh, points, observed) = self._data, self._versions
        if data.frame is None:
            return False
        is_new = data.mesh_version != mesh
        if is_new:
            self._versions = (data.mesh_version, points, observed)
            self.draw_mesh()
        stale = data.points_version != points or (data.observed_version != observed and self._shows_observed())
        if stale and (at_rest or time.monotonic() - self._drawn_at > _REFRESH_S):
            self._versions = (data.mesh_version, data.points_version, data.observed_version)
            self.draw_points()
            is_new = True
        return is_new

    def _shows_observed(self) -> bool:
        return self._controls.coloring.value in ("depth", "confidence") or self._controls.threshold.value > 0

    def choose(self, page_from_cam: np.ndarray) -> None:
        """Take another chosen view, by its rotation (3, 3)."""
        self.page_from_cam = page_from_cam.astype(np.float32)
        if self._controls.surface.value == "normals":
            self.draw_mesh()
        if self._controls.coloring.value == "normal":
            self.draw_points()

    def draw(self) -> None:
        """Draw everything again."""
        self.draw_mesh()
        self.draw_points()

    def draw_mesh(self) -> None:
        mesh, frame = self._data.mesh, self._data.frame
        if mesh is None or frame is None:
            return
        points, normal = frame.points(mesh.vertices), frame.directions(mesh.normal)
        inside = self._box.contains(points)
        faces = mesh.faces[inside[mesh.faces].all(axis=-1)]
        self.mesh_shown = points, faces
        if not len(faces):
            self._scene.remove_by_name("/mesh")
            return
        surface = self._controls.surface.value
        rgb = color_normal(normal @ self.page_from_cam) if surface == "normals" else mesh.rgb
        data = mesh_glb(points, normal, rgb, faces, surface)
        self._scene.add_glb("/mesh", data, cast_shadow=False, receive_shadow=False, visible=self._controls.mesh.value)

    def draw_points(self) -> None:
        frame, survey, controls, parts = self._data.frame, self._data.survey, self._controls, self._data.parts
        if frame is None or survey is None:
            return
        for name in set(self._parts) - set(parts):
            self._scene.remove_by_name(_node(name))
        total = max(1, sum(len(part) for part in parts.values()))
        part_shown = min(1.0, 1000 * controls.points.value / total)
        shown, support = 0, 0
        for name, part in parts.items():
            count = round(part_shown * len(part))
            points = frame.points(part.points_in_world[:count])
            chosen = np.flatnonzero(part.confident(controls.threshold.value)[:count] & self._box.contains(points))
            some = Points(
                points_in_world=part.points_in_world[chosen],
                normal=frame.directions(part.normal[chosen]) @ self.page_from_cam,
                **{k: getattr(part, k)[chosen] for k in ("rgb", "depth", "confidence", "support")},
            )
            shown += len(chosen)
            support = max(support, support_limit(some.support))
            self._scene.add_point_cloud(
                _node(name),
                points[chosen],
                some.colors(controls.coloring.value, survey.near, survey.far),
                point_size=_point_size(controls),
                point_shape="rounded",
                point_shading="flat",
                precision="float32",
                visible=controls.cloud.value,
            )
        self._parts = list(parts)
        unit = self._data.unit
        controls.legend.content = cloud_legend(controls.coloring.value, survey.near, survey.far, unit, support)
        self.points_shown, self._drawn_at = shown, time.monotonic()

    def points_drawn(self) -> np.ndarray:
        """Return the points (N, 3) in the page that are shown."""
        nodes: list[Any] = [self._scene.get_handle_by_name(_node(name)) for name in self._parts]
        return np.concatenate([node.points for node in nodes if node is not None] or [np.zeros((0, 3), np.float32)])

    def set_visibility(self) -> None:
        controls = self._controls
        names = [("/mesh", controls.mesh.value), *((_node(name), controls.cloud.value) for name in self._parts)]
        for name, visible in names:
            handle = self._scene.get_handle_by_name(name)
            if handle is not None:
                handle.visible = visible

    def set_point_size(self) -> None:
        for name in self._parts:
            handle: Any = self._scene.get_handle_by_name(_node(name))
            if handle is not None:
                handle.point_size = _point_size(self._controls)


def _node(part: str) -> str:
    """Return the scene's name of a part of the points: names of views hold slashes."""
    return "/cloud/" + part.encode().hex()


def _point_size(controls: Controls) -> float:
    return 0.0012 * controls.point_size.value
