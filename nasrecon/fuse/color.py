"""Colours of a surface from the photographs that see it, the best view of each place first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from nasrecon.fuse.ahead import ahead
from nasrecon.fuse.maps import Store
from nasrecon.types import View

_POWER = 4
TOLERANCE = (0.01, 0.03)
_EDGE_PX = 2
_EDGE_STEP = 0.05
_BORDER = 0.04
_MIN_COSINE = 0.1
_FILL_ROUNDS = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Photo:
    """A view's photograph and the depth that it sees.

    Attributes:
        view: the view.
        inv_depth: (H, W) float32, averaged inverse depth [1 / scene unit], 0 = unknown.
        tolerance: (H, W) float32, the part by which a visible point's depth may differ.
        rgb: (H, W, 3) uint8, its exposure equalised.
        focus: a factor of the scores, larger for sharper photographs.
    """

    view: View
    inv_depth: np.ndarray
    tolerance: np.ndarray
    rgb: np.ndarray
    focus: float

    def project(self, xyz: np.ndarray, normal: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Find what of points (N, 3) with unit normals (N, 3), in the world, the photograph shows.

        Returns:
            index (n,) of the visible points, their places (n, 2) float32 in the image [px], and the score (n,) float32
            of the photograph there: pixels in a median pixel's width, less at an angle, at its border and beside edges.
        """
        from nasrecon.fuse.color_kernel import find_visible

        camera, center = self.view.camera, self.view.center_in_world
        R, K = self.view.cam_from_world[:3, :3].astype(np.float32), camera.K.astype(np.float32)
        maps = self.inv_depth, self.tolerance, self._beside_edges
        scale = np.float32(self.focus * np.sqrt(camera.K[0, 0] * camera.K[1, 1]))
        limits = np.float32(_MIN_COSINE), np.float32(_BORDER * camera.width), scale
        index = np.empty(len(xyz), np.int64)
        place, score = np.empty((len(xyz), 2), np.float32), np.empty(len(xyz), np.float32)
        points = np.ascontiguousarray(xyz, np.float64), np.ascontiguousarray(normal, np.float32)
        n = find_visible(*points, center, R, K, *maps, *limits, index, place, score)
        return index[:n], place[:n], score[:n]

    @cached_property
    def _beside_edges(self) -> np.ndarray:
        """Return (H, W) 0.1 beside depth edges, where the photograph may show what lies behind, and 1 elsewhere."""
        from nasrecon.fuse.color_kernel import edge_factors

        out = np.empty_like(self.inv_depth)
        edge_factors(self.inv_depth, _EDGE_PX, np.float32(_EDGE_STEP), np.float32(0.1), out)
        return out


class Photos(Sequence[Photo]):
    """The photographs of a fusion, each made when it is asked for.

    Args:
        views: the views.
        planes: by number, each view's averaged planes (H * W + 1, 4), see ``maps.PlaneMap``.
        colors: by number, each view's image (H, W, 3) uint8.
        gains: (V, 3), what the colours are to be multiplied by.
        focus: (V,), from ``focus_of``.
        footprint: the median size of a pixel on the surface [scene units]; scores are in units of its inverse.
    """

    def __init__(
        self,
        views: Sequence[View],
        planes: Store,
        colors: Store,
        gains: np.ndarray,
        focus: np.ndarray,
        footprint: float,
    ) -> None:
        self._views, self._planes, self._colors, self._gains = views, planes, colors, gains
        self._focus, self._footprint = focus / max(float(np.median(focus)), 1e-9), footprint

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, number):  # type: ignore[override]
        from nasrecon.fuse.color_kernel import photo_maps

        view = self._views[number]
        maps = [np.empty((view.camera.height, view.camera.width), np.float32) for _ in range(2)]
        limits = [np.float32(limit) for limit in TOLERANCE]
        photo_maps(self._planes[number], view.camera.width, *limits, *maps)
        return Photo(
            view=view,
            inv_depth=maps[0],
            tolerance=maps[1],
            rgb=self.rgb(number),
            focus=float(np.clip(self._focus[number], 0.3, 1.5)) * self._footprint,
        )

    def rgb(self, number: int) -> np.ndarray:
        """Return the equalised image (H, W, 3) uint8 of a view."""
        from nasrecon.fuse.color_kernel import look_up

        table = np.rint(np.arange(256)[:, None] * self._gains[number]).clip(0, 255).astype(np.uint8)
        rgb = self._colors[number]
        out = np.empty_like(rgb)
        look_up(rgb, table, out)
        return out


def focus_of(rgb: np.ndarray) -> float:
    """Return how sharp an image (H, W, 3) is: its gradient over one pixel against that over four, every fourth line."""
    fine = wide = 0.0
    for lines in (rgb[::4, :, 1], rgb[:, ::4, 1].T):
        values = lines.astype(np.float32)
        if values.shape[1] > 4:
            fine += float(np.abs(values[:, 1:] - values[:, :-1]).mean())
            wide += float(np.abs(values[:, 4:] - values[:, :-4]).mean())
    return fine / wide if wide > 0 else 1.0


def sample_bilinear(rgb: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return colours (n, 3) float32 of an image (H, W, 3) uint8 at places (n, 2) [px], inside by half a pixel."""
    from nasrecon.fuse.color_kernel import sample

    out = np.empty((len(place), 3), np.float32)
    sample(rgb, np.ascontiguousarray(place, np.float32), out)
    return out


def vertex_colors(vertices: np.ndarray, normal: np.ndarray, faces: np.ndarray, photos: Photos) -> np.ndarray:
    """Return colours (V, 3) uint8: means over the photographs that show a vertex, by the fourth power of their score.

    Vertices (V, 3) that none shows take the mean of their neighbours by the faces (F, 3).
    """
    return mean_colors(*color_sums(vertices, normal, photos, range(len(photos))), faces)


def color_sums(
    vertices: np.ndarray, normal: np.ndarray, photos: Photos, numbers: Iterable[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted sums (V, 3) of the colours in which some of the photographs show vertices (V, 3), and the
    weights (V,)."""
    from nasrecon.fuse.color_kernel import add_colors

    total, weight = np.zeros((len(vertices), 3), np.float32), np.zeros(len(vertices), np.float32)
    vertices, normal = np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(normal, np.float32)

    def sample(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        photo = photos[number]
        index, place, score = photo.project(vertices, normal)
        return index, score**_POWER, sample_bilinear(photo.rgb, place)

    for visible in ahead(partial(sample, number) for number in numbers):
        add_colors(*visible, total, weight)
    return total, weight


def mean_colors(total: np.ndarray, weight: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the colours (V, 3) uint8 of sums of ``color_sums``; those that no photograph shows are filled in."""
    known = weight > 0
    colors = np.divide(total, weight[:, None], out=np.zeros(total.shape, np.float32), where=known[:, None])
    return np.rint(_filled(colors, known, faces)).clip(0, 255).astype(np.uint8)


def _filled(colors: np.ndarray, known: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Fill the colours (V, 3) that are not known (V,) along the edges; those far from all known ones get the mean."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    edges = edges[~known[edges[:, 1]]]
    for _ in range(_FILL_ROUNDS):
        reached = edges[known[edges[:, 0]] & ~known[edges[:, 1]]]
        if not len(reached):
            break
        at, inverse, count = np.unique(reached[:, 1], return_inverse=True, return_counts=True)
        for k in range(3):
            colors[at, k] = np.bincount(inverse, colors[reached[:, 0], k]) / count
        known[at] = True
    colors[~known] = colors[known].mean(axis=0) if known.any() else 128
    return colors
