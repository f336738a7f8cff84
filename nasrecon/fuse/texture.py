"""A texture atlas of a mesh, cut from the photographs: each face takes its pixels from one view.

Each face gets the view with the best score (angle, distance, focus) of those that show all of it. Faces whose
neighbours have another view take that one where it is nearly as good, so that charts are large. A chart is a connected
set of faces of one view, and its texture the part of the photograph that shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nasrecon.errors import InputError
from nasrecon.fuse.color import Photo, Photos
from nasrecon.fuse.mesh import component_roots
from nasrecon.types import Mesh, TexturedMesh

_ROUNDS = 12
_NEARLY = 0.6
_PAD = 2
_LEVELS = 16
_SWATCH = 4
_FILL = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class _Charts:
    """Faces by view and chart.

    Attributes:
        view: (F,) int32, the view of each face; -1: none shows it.
        chart: (F,) the chart's number, 0 to C - 1; of faces without view -1.
        corner: (F, 3, 2) float32, the corners' places in the view's image [px].
    """

    view: np.ndarray
    chart: np.ndarray
    corner: np.ndarray


def texture_mesh(mesh: Mesh, photos: Photos, size: int) -> TexturedMesh:
    """Make a texture atlas of ``size`` x ``size`` pixels for a mesh.

    Vertices where charts meet are doubled. Faces that no photograph shows have the colour of their vertices.
    """
    view, adjacent = _best_views(mesh, photos)
    for _ in range(_ROUNDS):
        if not _join_neighbors(mesh, photos, view, adjacent):
            break
    charts = _cut(mesh, photos, view, adjacent)
    shown = charts.chart >= 0
    count = int(charts.chart.max()) + 1
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    of_chart = np.repeat(charts.chart[shown], 3)
    np.minimum.at(low, of_chart, charts.corner[shown].reshape(-1, 2))
    np.maximum.at(high, of_chart, charts.corner[shown].reshape(-1, 2))
    swatches = 0 if shown.all() else _LEVELS**3
    scale, place = _packed(np.floor(low), np.ceil(high), size, swatches)
    atlas = _painted(charts, photos, np.floor(low), np.ceil(high), place, scale, size)
    uv = (charts.corner - np.floor(low)[charts.chart][:, None]) * scale + (place[charts.chart] + _PAD)[:, None]
    if not shown.all():
        uv[~shown] = _swatch_places(mesh.rgb[mesh.faces[~shown]].mean(axis=1), size)[:, None]
        _paint_swatches(atlas, size)
    return _assembled(mesh, charts.chart, uv / size, atlas)


def _scores(mesh: Mesh, photo: Photo, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a photograph's score (n,) of faces (n, 3), 0 where it does not show all of one, and corners (n, 3, 2)."""
    used, corner = np.unique(faces, return_inverse=True)
    index, place, score = photo.project(mesh.vertices[used], mesh.normal[used])
    of_vertex, at = np.zeros(len(used), np.float32), np.zeros((len(used), 2), np.float32)
    of_vertex[index], at[index] = score, place
    corner = corner.reshape(faces.shape)
    return of_vertex[corner].min(axis=1), at[corner]


def _best_views(mesh: Mesh, photos: Photos) -> tuple[np.ndarray, np.ndarray]:
    """Return the best view (F,) of each face, -1 for none, and the pairs (E, 2) of faces that share an edge."""
    best, view = np.zeros(len(mesh.faces), np.float32), np.full(len(mesh.faces), -1, np.int32)
    of_vertex = np.zeros(len(mesh.vertices), np.float32)
    for number, photo in enumerate(photos):
        index, _, score = photo.project(mesh.vertices, mesh.normal)
        of_vertex[:] = 0
        of_vertex[index] = score
        of_face = of_vertex[mesh.faces].min(axis=1)
        better = of_face > best
        best[better], view[better] = of_face[better], number
    return view, _adjacent_faces(mesh.faces)


def _adjacent_faces(faces: np.ndarray) -> np.ndarray:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    face = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, face = edges[order], face[order]
    same = (edges[1:] == edges[:-1]).all(axis=1)
    return np.stack([face[:-1][same], face[1:][same]], axis=1)


def _join_neighbors(mesh: Mesh, photos: Photos, view: np.ndarray, adjacent: np.ndarray) -> bool:
    """Give faces the view that two of their neighbours have, where it is nearly as good; return whether any changed."""
    pairs = np.concatenate([adjacent, adjacent[:, ::-1]])
    pairs = pairs[(view[pairs[:, 1]] >= 0)]
    key = pairs[:, 0] * np.int64(len(photos)) + view[pairs[:, 1]]
    keys, count = np.unique(key, return_counts=True)
    face, candidate = keys // len(photos), (keys % len(photos)).astype(np.int32)
    wanted = (count >= 2) & (candidate != view[face])
    face, candidate = face[wanted], candidate[wanted]
    changed = False
    current = np.zeros(len(view), np.float32)
    for number, photo in enumerate(photos):
        mine = face[view[face] == number]
        if len(mine):
            current[mine] = _scores(mesh, photo, mesh.faces[mine])[0]
    for number, photo in enumerate(photos):
        asked = face[candidate == number]
        if len(asked):
            score, _ = _scores(mesh, photo, mesh.faces[asked])
            taken = asked[score > np.maximum(_NEARLY * current[asked], 0)]
            view[taken] = number
            changed = changed or len(taken) > 0
    return changed


def _cut(mesh: Mesh, photos: Photos, view: np.ndarray, adjacent: np.ndarray) -> _Charts:
    """Number the connected sets of faces of one view, and find where their corners lie in its image."""
    same = adjacent[(view[adjacent[:, 0]] == view[adjacent[:, 1]]) & (view[adjacent[:, 0]] >= 0)]
    root = component_roots(same, len(view))
    chart = np.full(len(view), -1, np.int64)
    shown = view >= 0
    chart[shown] = np.unique(root[shown], return_inverse=True)[1]
    corner = np.zeros((len(view), 3, 2), np.float32)
    for number, photo in enumerate(photos):
        mine = np.flatnonzero(view == number)
        if len(mine):
            corner[mine] = _scores(mesh, photo, mesh.faces[mine])[1]
    return _Charts(view=view, chart=chart, corner=corner)


def _packed(low: np.ndarray, high: np.ndarray, size: int, swatches: int) -> tuple[float, np.ndarray]:
    """Place charts with bounds low, high (C, 2) [px] in rows on a square of ``size``, as large as they fit.

    Returns:
        the scale, 1 at most, and the corner (C, 2) of each chart with its margin.

    Raises:
        InputError: if they do not fit at a scale of 1/64.
    """
    reserved = int(np.ceil(swatches / (size // _SWATCH))) * _SWATCH
    scale = 1.0
    while scale > 1 / 64:
        extent = np.ceil((high - low) * scale).astype(np.int64) + 2 * _PAD
        place = _in_rows(extent, size, size - reserved)
        if place is not None:
            return scale, place
        scale *= 0.97
    raise InputError(
        f"the texture of {len(low)} charts does not fit {size} x {size} pixels: ask for a larger --texture"
    )


def _in_rows(extent: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """Lay rectangles (C, 2) out in rows, the highest first; None where they do not fit."""
    if len(extent) and extent.max() > min(width, height):
        return None
    place, x, y, row = np.zeros_like(extent), 0, 0, 0
    for i in np.argsort(-extent[:, 1], kind="stable").tolist():
        w, h = int(extent[i, 0]), int(extent[i, 1])
        if x + w > width:
            x, y, row = 0, y + row, 0
        if y + h > height:
            return None
        place[i] = x, y
        x, row = x + w, max(row, h)
    return place


def _painted(
    charts: _Charts, photos: Photos, low: np.ndarray, high: np.ndarray, place: np.ndarray, scale: float, size: int
) -> np.ndarray:
    """Return the atlas (size, size, 3) uint8: each chart's part of its photograph, with a margin."""
    from PIL import Image

    atlas = np.full((size, size, 3), _FILL, np.uint8)
    shown = charts.chart >= 0
    of_chart = np.zeros(len(low), np.int64)
    of_chart[charts.chart[shown]] = charts.view[shown]
    pad = int(np.ceil(_PAD / scale)) + 2
    for number in np.unique(of_chart):
        # Beyond the photograph its border is repeated.
        image = Image.fromarray(np.pad(photos.rgb(int(number)), ((pad, pad), (pad, pad), (0, 0)), mode="edge"))
        for i in np.flatnonzero(of_chart == number):
            w, h = (np.ceil((high[i] - low[i]) * scale).astype(int) + 2 * _PAD).tolist()
            left, top = (low[i] - _PAD / scale + pad).tolist()
            x, y = place[i]
            box = (left, top, min(left + w / scale, image.width), min(top + h / scale, image.height))
            atlas[y : y + h, x : x + w] = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR, box=box))
    return atlas


def _swatch_places(rgb: np.ndarray, size: int) -> np.ndarray:
    """Return the places (n, 2) [px] in the atlas of plain colours (n, 3)."""
    level = (rgb * _LEVELS / 256).astype(np.int64)
    number = (level[:, 0] * _LEVELS + level[:, 1]) * _LEVELS + level[:, 2]
    in_row = size // _SWATCH
    x, y = number % in_row, number // in_row
    return np.stack([(x + 0.5) * _SWATCH, size - (y + 0.5) * _SWATCH], axis=-1)


def _paint_swatches(atlas: np.ndarray, size: int) -> None:
    """Paint squares of 16 levels a channel into the atlas, from the bottom up."""
    in_row = size // _SWATCH
    for number in range(_LEVELS**3):
        color = np.array([number // _LEVELS**2, number // _LEVELS % _LEVELS, number % _LEVELS])
        x, y = number % in_row * _SWATCH, size - (number // in_row + 1) * _SWATCH
        atlas[y : y + _SWATCH, x : x + _SWATCH] = (color + 0.5) * 256 / _LEVELS


def _assembled(mesh: Mesh, chart: np.ndarray, uv: np.ndarray, atlas: np.ndarray) -> TexturedMesh:
    """Double the vertices where charts meet; uv (F, 3, 2) becomes one for each vertex, its v upwards."""
    part = chart.copy()
    lacking = np.flatnonzero(part < 0)
    part[lacking] = part.max() + 1 + np.arange(len(lacking))
    key = part[:, None] * np.int64(len(mesh.vertices)) + mesh.faces
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    vertex = mesh.faces.ravel()[first]
    place = uv.reshape(-1, 2)[first].astype(np.float32)
    place[:, 1] = 1 - place[:, 1]
    return TexturedMesh(
        mesh=Mesh(
            vertices=mesh.vertices[vertex],
            faces=index.reshape(-1, 3).astype(np.int32),
            normal=mesh.normal[vertex],
            rgb=mesh.rgb[vertex],
            unit=mesh.unit,
        ),
        uv=place,
        image=atlas,
    )
