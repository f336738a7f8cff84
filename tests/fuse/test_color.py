"""Colours of surfaces: equal exposures, the best view of each place, and nothing from what hides it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nasrecon.fuse.color import Photos, focus_of, sample_bilinear, vertex_colors
from nasrecon.fuse.exposure import coarse_rgb, view_gains
from nasrecon.fuse.fusion import fuse_estimates
from nasrecon.fuse.maps import PlaneMap, Store
from nasrecon.fuse.options import FuseOptions
from nasrecon.fuse.overlap import CoarseDepth
from nasrecon.types import Estimate

from .worlds import BALL, ROOM, Plane, colors, look_at, render, ring, small_camera

WORLD = (BALL, *ROOM)
WALL = (Plane((0, 0, -1), -3.0),)


def photos_of(estimates: Sequence[Estimate]) -> Photos:
    planes, pictures = Store(), Store()
    for i, e in enumerate(estimates):
        planes.put(i, PlaneMap.of(e, FuseOptions()).plane)
        pictures.put(i, e.rgb)
    ones = np.ones((len(estimates), 3))
    return Photos([e.view for e in estimates], planes, pictures, ones, ones[:, 0], 0.02)


def painted(estimate: Estimate, rgb: tuple[int, int, int]) -> Estimate:
    return replace(estimate, rgb=np.broadcast_to(np.array(rgb, np.uint8), estimate.rgb.shape).copy())


def color_at(points: np.ndarray, normal: tuple[float, float, float], estimates: Sequence[Estimate]) -> np.ndarray:
    normals = np.broadcast_to(np.array(normal, np.float32), points.shape)
    faces = np.zeros((0, 3), np.int32)
    return vertex_colors(points, normals, faces, photos_of(estimates))


def test_gains_undo_exposures() -> None:
    estimates = [render(WORLD, view) for view in ring(14)]
    factors = np.exp(np.random.default_rng(0).normal(0, 0.25, (14, 3)))
    coarse = [CoarseDepth.of(e.view, e.depth) for e in estimates]
    pairs = [(i, (i + k) % 14) for i in range(14) for k in (1, 2, 3)]

    def gains(exposures: np.ndarray) -> np.ndarray:
        shots = [(e.rgb.astype(float) * 0.5 * f).clip(0, 255) for e, f in zip(estimates, exposures, strict=True)]
        return view_gains(coarse, [coarse_rgb(s.astype(np.uint8), coarse[0].depth.shape) for s in shots], pairs)

    np.testing.assert_allclose(gains(np.ones((14, 3))), 1, atol=0.02)
    left = gains(factors) * factors
    assert np.abs(left / left.mean(axis=0) - 1).max() < 0.04
    assert np.abs(factors / factors.mean(axis=0) - 1).max() > 0.3


def test_views_apart_have_no_gain() -> None:
    a, b = (render(WALL, look_at(str(z), (0, 0, z), (0, 0, 99), small_camera())) for z in (0, -50))
    coarse = [CoarseDepth.of(e.view, e.depth) for e in (a, b)]
    np.testing.assert_array_equal(view_gains(coarse[:1], [coarse_rgb(a.rgb, (60, 80))], []), np.ones((1, 3)))


@pytest.mark.parametrize("shape", [(120, 160), (61, 83), (7, 5)])
def test_coarse_colours_are_means(shape: tuple[int, int]) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    coarse = coarse_rgb(rgb, (60, 80))
    assert coarse.shape == (60, 80, 3)
    if shape == (120, 160):
        np.testing.assert_allclose(coarse, rgb.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3)), atol=1e-3)
    assert abs(coarse.mean() - rgb.mean()) < 8


def test_colours_of_a_fusion_are_those_of_the_places_whatever_the_exposures() -> None:
    estimates = [render(WORLD, view) for view in ring(16)]
    shots = []
    for i, e in enumerate(estimates):
        factor = 1.0 + (0.2 if i % 2 else -0.2)
        shots.append(replace(e, rgb=(e.rgb * 0.7 * factor).astype(np.uint8)))
    mesh = fuse_estimates(shots).mesh
    off = np.abs(mesh.rgb - 0.7 * colors(mesh.vertices)).max(axis=1)
    assert np.median(off) < 5
    assert np.quantile(off, 0.9) < 20


def test_the_nearer_and_the_straighter_view_counts_for_most() -> None:
    points = np.array([[0.0, 0, 3], [0.1, 0.1, 3]])
    near = painted(render(WALL, look_at("a", (0, 0, 1.5), (0, 0, 3), small_camera())), (250, 0, 0))
    far = painted(render(WALL, look_at("b", (0, 0, 0), (0, 0, 3), small_camera())), (0, 0, 250))
    slanted = painted(render(WALL, look_at("c", (2.6, 0, 1.5), (0, 0, 3), small_camera())), (0, 250, 0))
    for others in ([far], [slanted], [far, slanted]):
        assert color_at(points, (0, 0, -1), [near, *others])[:, 0].min() > 220
    # From behind nothing is seen.
    assert (color_at(points, (0, 0, 1), [near, far]) == 128).all()


def test_what_hides_a_place_does_not_colour_it() -> None:
    wall = render(WALL, look_at("a", (0, 0, 0), (0, 0, 3), small_camera()))
    hidden = painted(render((Plane((0, 0, -1), -1.0),), wall.view), (0, 0, 0))
    points = np.array([[0.0, 0, 3]])
    np.testing.assert_allclose(color_at(points, (0, 0, -1), [hidden, wall]), colors(points), atol=3)


def test_places_that_no_view_shows_take_the_colour_of_their_neighbours() -> None:
    view = painted(render(WALL, look_at("a", (0, 0, 0), (0, 0, 3), small_camera())), (10, 200, 30))
    points = np.array([[0.0, 0, 3], [0, 0.1, 3], [50, 0, 3], [60, 0, 3]])
    faces = np.array([[0, 1, 2], [1, 2, 3]])
    normals = np.broadcast_to(np.array((0, 0, -1), np.float32), points.shape)
    assert (vertex_colors(points, normals, faces, photos_of([view])) == (10, 200, 30)).all()


def test_bilinear_samples_and_focus() -> None:
    rgb = np.zeros((4, 5, 3), np.uint8)
    rgb[1, 2] = 100
    places = np.array([[2.5, 1.5], [3.0, 1.5], [3.0, 2.0], [0.5, 0.5]], np.float32)
    np.testing.assert_allclose(sample_bilinear(rgb, places)[:, 0], [100, 50, 25, 0])
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    blurred = sum(np.roll(noise.astype(float), (i, j), (0, 1)) for i in range(3) for j in range(3)) / 9
    assert focus_of(noise) > 1.5 * focus_of(blurred)
    assert focus_of(np.zeros((1, 1, 3), np.uint8)) == 1
