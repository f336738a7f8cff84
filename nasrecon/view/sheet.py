"""The contact sheet as a picture: the mesh in colour and shaded, then every view. No browser, no display."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.atomic import write_atomically
from nasrecon.errors import NasReconError, plural
from nasrecon.fuse.o3d import render_mesh_preview
from nasrecon.fuse.save import load_mesh
from nasrecon.progress import LogProgress, Progress, under_way
from nasrecon.results.preview import INVALID_RGB, color_table, depth_bar, normal_legend, png_bytes
from nasrecon.types import Camera, Mesh
from nasrecon.view.contents import Contents, Survey, look, survey_depths
from nasrecon.view.page_frame import OVERVIEW_FOV_DEG, PageFrame, choose_frame, overview
from nasrecon.view.pictures import PICTURES, downscale, view_pictures
from nasrecon.view.server import BACKGROUND_RGB

_WIDTH = 1920
_MARGIN = 24
_GAP = 4
_MESH_HEIGHT = 620
_FITTED_VERTICES = 20_000
_INK, _SOFT, _PAPER, _WARNING = (29, 39, 51), (93, 107, 122), (255, 255, 255), (224, 108, 0)


def write_sheet(folder: Path | str, path: Path | str, *, progress: Progress | None = None) -> Path:
    """Write the contact sheet of a results folder as PNG and return its path.

    Args:
        folder: the results folder; what is missing in it is said on the sheet.
        path: the file to write.
        progress: receives the reports.

    Raises:
        InputError: if it is no results folder or a file of it is damaged.
        NasReconError: if Open3D, which draws the mesh, cannot be loaded.
    """
    folder, path = Path(folder), Path(path)
    contents, progress = look(folder), progress or LogProgress()
    with under_way(progress, "draw"):
        survey = survey_depths(contents.results)
        parts = [_heading(contents), _mesh_part(contents, survey), _legend(contents, survey)]
    parts += _view_rows(contents, survey, progress)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png_bytes(np.concatenate(parts)))
    return path


class _Strip:
    """A part of the sheet, as wide as it, to draw on."""

    def __init__(self, height: int) -> None:
        from PIL import Image, ImageDraw

        self._image = Image.new("RGB", (_WIDTH, height), _PAPER)
        self._draw = ImageDraw.Draw(self._image)

    def text(
        self, x: int, y: int, text: str, size: int = 15, color: tuple[int, int, int] = _INK, room: int = 0
    ) -> None:
        """Write text, its top left corner at (x, y); cut to ``room`` px, if that is given."""
        from PIL import ImageFont

        font = ImageFont.load_default(size)
        while room and len(text) > 1 and font.getlength(text) > room:
            text = text[:-4] + "..." if len(text) > 5 else text[:-1]
        self._draw.text((x, y), text, fill=color, font=font)

    def paste(self, x: int, y: int, rgb: np.ndarray) -> None:
        from PIL import Image

        self._image.paste(Image.fromarray(np.ascontiguousarray(rgb)), (x, y))

    def pixels(self) -> np.ndarray:
        return np.asarray(self._image)


def _heading(contents: Contents) -> np.ndarray:
    results = contents.results
    strip = _Strip(84 + 22 * len(contents.missing + contents.warnings))
    strip.text(_MARGIN, 20, results.folder.resolve().name, 28)
    scene = results.manifest["scene"]
    unit = "the scene's own unit" if results.unit == "unknown" else results.unit
    network = results.manifest["settings"]["network"]
    facts = f"{plural(len(results), 'view')}, network {network}, lengths in {unit}. {scene['read_as']}"
    strip.text(_MARGIN, 58, facts, color=_SOFT, room=_WIDTH - 2 * _MARGIN)
    for i, note in enumerate(contents.missing + contents.warnings):
        color = _SOFT if i < len(contents.missing) else _WARNING
        strip.text(_MARGIN, 84 + 22 * i, note, color=color, room=_WIDTH - 2 * _MARGIN)
    return strip.pixels()


def _mesh_part(contents: Contents, survey: Survey) -> np.ndarray:
    """Draw the mesh in its colours and as clay, side by side."""
    if contents.mesh is None:
        strip = _Strip(60)
        strip.text(_MARGIN, 20, "No mesh to draw yet", color=_SOFT)
        return strip.pixels()
    mesh, frame = load_mesh(contents.mesh), choose_frame(contents.results.views, survey.points_in_world)
    strip = _Strip(_MESH_HEIGHT + 36)
    width = (_WIDTH - 2 * _MARGIN - _GAP) // 2
    for i, style in enumerate(("image", "clay")):
        picture = render_overview(mesh, contents, frame, (width, _MESH_HEIGHT), style)
        strip.paste(_MARGIN + i * (width + _GAP), 28, picture)
    strip.text(
        _MARGIN, 6, f"Mesh: {len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces; its colours, and its shape"
    )
    return strip.pixels()


def render_overview(mesh: Mesh, contents: Contents, frame: PageFrame, size: tuple[int, int], style: Any) -> np.ndarray:
    """Draw a mesh (h, w, 3) uint8 from where the pages begin, so near that it fills the picture; surfaces that turn
    their back are left out."""
    width, height = size
    points = mesh.vertices[:: max(1, len(mesh.vertices) // _FITTED_VERTICES)]
    position, look_at = overview(frame, contents.results.views, points, width / height, with_cameras=False)
    forward = (look_at - position) / np.linalg.norm(look_at - position)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    cam_from_page = np.eye(4)
    cam_from_page[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    cam_from_page[:3, 3] = -cam_from_page[:3, :3] @ position
    focal = 0.5 * height / np.tan(np.radians(OVERVIEW_FOV_DEG / 2))
    camera = Camera(width=width, height=height, K=np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]))
    # In the page's frame lengths are about 1, and the back faces are found there.
    vertices = frame.points(mesh.vertices).astype(np.float64)
    corners = vertices[mesh.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    facing = np.einsum("ij,ij->i", normal, position - corners[:, 0]) > 0
    if not facing.any():
        raise NasReconError(
            f"{contents.mesh}: no face of the mesh is turned to where its cameras stood; run fuse again"
        )
    shown = Mesh(vertices=vertices, faces=mesh.faces[facing], normal=frame.directions(mesh.normal), rgb=mesh.rgb)
    return render_mesh_preview(shown, camera, cam_from_page, style, background=BACKGROUND_RGB[False]).rgb


def _legend(contents: Contents, survey: Survey) -> np.ndarray:
    """Explain the colours: the depth's bar with units, no value, the normals' ball, the confidence's bar."""
    height = 190
    strip = _Strip(height + 16)
    column = (_WIDTH - 2 * _MARGIN) // 4
    x = [_MARGIN + i * column for i in range(4)]
    for left, name in zip(x, ("Image", "Depth, one scale for all views", "Normals", "Confidence"), strict=True):
        strip.text(left, 8, name, 16)
    strip.text(x[0], 34, "at the size of the maps", color=_SOFT)
    strip.paste(x[1], 32, depth_bar(height - 40, survey.near, survey.far, contents.results.unit))
    strip.paste(x[1] + 130, 44, np.full((16, 16, 3), INVALID_RGB, np.uint8))
    strip.text(x[1] + 154, 43, "no value (not: far)", color=_SOFT)
    strip.paste(x[2], 40, normal_legend(96))
    for i, line in enumerate(("directions on a sphere:", "right is red, up is green,", "towards the camera is blue")):
        strip.text(x[2] + 110, 54 + 22 * i, line, color=_SOFT)
    bar = np.repeat(color_table()[None], 16, axis=0)
    strip.paste(x[3], 44, bar)
    for place, label in ((0, "0"), (0.5, "0.5"), (1, "1")):
        strip.text(x[3] + int(place * 246), 64, label, color=_SOFT)
    return strip.pixels()


def _view_rows(contents: Contents, survey: Survey, progress: Progress) -> list[np.ndarray]:
    """Draw the views, as many in a row as leaves them legible: two where there are few, four where there are many."""
    results = contents.results
    columns = 2 if len(results) <= 40 else 3 if len(results) <= 120 else 4
    cell = (_WIDTH - 2 * _MARGIN - (columns - 1) * 20) // columns
    width = (cell - (len(PICTURES) - 1) * _GAP) // len(PICTURES)
    rows: list[np.ndarray] = []
    for start in range(0, len(results), columns):
        drawn = []
        for i in range(start, min(start + columns, len(results))):
            estimate = results[i]
            pictures = view_pictures(estimate, survey.near, survey.far, width=width)
            drawn.append((estimate.view.name, [downscale(pictures[name], width) for name in PICTURES]))
            progress.update("sheet", i + 1, len(results))
        strip = _Strip(max(pictures[0].shape[0] for _, pictures in drawn) + 34)
        for column, (name, pictures) in enumerate(drawn):
            left = _MARGIN + column * (cell + 20)
            strip.text(left, 4, name, room=cell)
            for k, picture in enumerate(pictures):
                strip.paste(left + k * (width + _GAP), 26, picture)
        rows.append(strip.pixels())
    return rows
