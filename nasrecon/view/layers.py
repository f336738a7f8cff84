"""The layers of the live page: mesh and points, read from files or from estimates, and drawn."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nasrecon.fuse.save import load_cloud, load_mesh
from nasrecon.types import Estimate, Mesh, Unit
from nasrecon.view.contents import Survey
from nasrecon.view.controls import Controls, cloud_legend
from nasrecon.view.glb import mesh_glb
from nasrecon.view.page_frame import PageFrame
from nasrecon.view.points import Points, points_of_cloud, points_of_view, support_limit
from nasrecon.view.simplify import simplify_mesh

if TYPE_CHECKING:
    import viser

MAX_FACES = 500_000
"""Triangles that a browser turns without delay on a laptop; larger meshes are thinned to this."""
MAX_POINTS = 1_000_000
"""Points that are kept at hand; the page shows as many of them as its slider says."""


class Layers:
    """Mesh and points of a live page.

    Args:
        server: to draw into.
        controls: what is shown, and how.

    Attributes:
        frame, survey: of the page; None until the first view is there.
        unit: of the scene.
        mesh: the simplified mesh, or None. mesh_faces: faces of the mesh on disk.
        parts: points by name: "fused", or one part for each view. cloud_points: points of the cloud on disk.
        points_shown: points on the page now.
        stale: whether the points are to be drawn again. drawn_at: when they were drawn.
    """

    def __init__(self, server: viser.ViserServer, controls: Controls) -> None:
        self.server, self.controls = server, controls
        self.frame: PageFrame | None = None
        self.survey: Survey | None = None
        self.unit: Unit = "unknown"
        self.mesh: Mesh | None = None
        self.mesh_faces = self.cloud_points = self.points_shown = 0
        self.parts: dict[str, Points] = {}
        self.stale = False
        self.drawn_at = 0.0

    @property
    def points(self) -> int:
        """Number of points that could be shown."""
        return self.cloud_points or sum(len(part) for part in self.parts.values())

    def read_mesh(self, path: Path) -> None:
        mesh = load_mesh(path)
        self.mesh_faces = len(mesh.faces)
        self.mesh = simplify_mesh(mesh, MAX_FACES)
        self.draw_mesh()

    def read_cloud(self, path: Path) -> None:
        cloud = load_cloud(path)
        self.cloud_points = len(cloud)
        for part in self.parts:
            self.server.scene.remove_by_name(f"/cloud/{part}")
        self.parts = {"fused": points_of_cloud(cloud, MAX_POINTS)}
        self.stale = True

    def add_view(self, estimate: Estimate, share: int) -> None:
        """Add the points of a view, at most ``share``; where a fused cloud is there, its points observe the view."""
        if "fused" in self.parts:
            self.parts["fused"].observe(estimate)
            shows_it = self.controls.coloring.value in ("depth", "confidence") or self.controls.threshold.value > 0
            self.stale = self.stale or shows_it
        else:
            self.parts[str(len(self.parts))] = points_of_view(estimate, share)
            self.stale = True

    def draw_mesh(self) -> None:
        mesh, frame = self.mesh, self.frame
        if mesh is None or frame is None or not len(mesh.faces):
            return
        points, normal = frame.points(mesh.vertices), frame.directions(mesh.normal)
        data = mesh_glb(points, normal, mesh.rgb, mesh.faces, self.controls.surface.value)
        self.server.scene.add_glb(
            "/mesh", data, cast_shadow=False, receive_shadow=False, visible=self.controls.mesh.value
        )

    def draw_points(self) -> None:
        frame, survey, controls = self.frame, self.survey, self.controls
        if frame is None or survey is None:
            return
        total = max(1, sum(len(part) for part in self.parts.values()))
        part_shown = min(1.0, 1000 * controls.points.value / total)
        shown, support = 0, 0
        for name, part in self.parts.items():
            count = round(part_shown * len(part))
            keep = np.flatnonzero(part.confident(controls.threshold.value)[:count])
            normals_in_page = frame.directions(part.normal)
            some = Points(
                points_in_world=part.points_in_world[keep],
                normal=normals_in_page[keep],
                **{k: getattr(part, k)[keep] for k in ("rgb", "depth", "confidence", "support")},
            )
            shown += len(keep)
            support = max(support, support_limit(some.support))
            self.server.scene.add_point_cloud(
                f"/cloud/{name}",
                frame.points(some.points_in_world),
                some.colors(controls.coloring.value, survey.near, survey.far),
                point_size=_point_size(controls),
                point_shape="rounded",
                point_shading="flat",
                precision="float32",
                visible=controls.cloud.value,
            )
        controls.legend.content = cloud_legend(controls.coloring.value, survey.near, survey.far, self.unit, support)
        self.points_shown = shown
        self.stale, self.drawn_at = False, time.monotonic()

    def set_visibility(self) -> None:
        controls = self.controls
        for name, visible in (
            ("/mesh", controls.mesh.value),
            *((f"/cloud/{p}", controls.cloud.value) for p in self.parts),
        ):
            handle = self.server.scene.get_handle_by_name(name)
            if handle is not None:
                handle.visible = visible

    def set_point_size(self) -> None:
        for name in self.parts:
            handle: Any = self.server.scene.get_handle_by_name(f"/cloud/{name}")
            if handle is not None:
                handle.point_size = _point_size(self.controls)


def _point_size(controls: Controls) -> float:
    return 0.0012 * controls.point_size.value
