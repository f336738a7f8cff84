"""Which views are compared, and the size of a pixel."""

from __future__ import annotations

import numpy as np
import pytest

from nasrecon.fuse import overlap
from nasrecon.fuse.overlap import CoarseDepth, median_footprint, neighbors

from .worlds import (
    BALL,
    ROOM,
    Plane,
    Sphere,
    World,
    look_at,
    render,
    ring,
    scaled,
    small_camera,
)

WALL = (Plane((0, 0, -1), -4.0),)


def sketch(world: World, view) -> CoarseDepth:
    return CoarseDepth.of(view, render(world, view).depth)


def test_the_sketch_lies_on_the_surface() -> None:
    for size in ((160, 120), (61, 47), (333, 250)):
        made = sketch((BALL, *ROOM), ring(5, small_camera(*size))[1])
        off = np.min([np.abs(s.distance(made.points_in_world)) for s in (BALL, *ROOM)], axis=0)
        assert len(made.points_in_world) == 60 * 80
        assert off.max() < 1e-5


def test_the_footprint_is_the_size_of_a_pixel() -> None:
    view = look_at("a", (0, 0, 0), (0, 0, 1), small_camera(focal=200))
    assert median_footprint([sketch(WALL, view)]) == pytest.approx(4.0 / (200 * np.sqrt(1.02)), rel=1e-6)


def test_neighbors_on_a_ring_are_the_views_beside() -> None:
    sketches = [sketch((BALL, *ROOM), view) for view in ring(24)]
    for i, chosen in enumerate(neighbors(sketches, 6)):
        steps = [min((i - j) % 24, (j - i) % 24) for j in chosen]
        assert len(chosen) == 6
        assert i not in chosen
        # 15 degrees a step around the ball, and further for what lies behind it: nothing from the other half of the
        # ring.
        assert max(steps) <= 6


def test_views_that_look_elsewhere_or_are_walled_off_are_no_neighbors() -> None:
    camera = small_camera()
    front = look_at("front", (0, 0, 0), (0, 0, 4), camera)
    beside = look_at("beside", (0.5, 0, 0), (0, 0, 4), camera)
    away = look_at("away", (0.1, 0, 0), (0, 0, -4), camera)
    behind = look_at("behind", (0.2, 0, 8), (0, 0, 4), camera)
    wall, back = WALL[0], Plane((0, 0, 1), 4.2)
    sketches = [sketch((wall,), v) for v in (front, beside)] + [
        sketch((*WALL, Plane((0, 0, 1), -4.0)), away),
        sketch((back,), behind),
    ]
    chosen = neighbors(sketches, 5)
    assert chosen[0] == [1]
    assert chosen[1] == [0]
    # Both sides of a wall 0.2 thick pass for the same surface here; the check of the pixels tells them apart by their
    # normals.
    assert chosen[2] == []


def test_a_view_from_the_same_place_ranks_last() -> None:
    camera = small_camera()
    views = [look_at(str(x), (x, 0, 0), (0, 0, 4), camera) for x in (0, 0.001, 0.4, -0.5)]
    chosen = neighbors([sketch(WALL, v) for v in views], 3)
    assert chosen[0][-1] == 1
    assert set(chosen[0]) == {1, 2, 3}


def test_a_view_of_nothing_has_no_neighbors_and_is_none() -> None:
    views = ring(4)
    sketches = [sketch((BALL, *ROOM), v) for v in views[:3]] + [
        CoarseDepth.of(views[3], np.zeros((120, 160), np.float32))
    ]
    chosen = neighbors(sketches, 3)
    assert chosen[3] == []
    assert all(3 not in c for c in chosen)


def test_hidden_surface_does_not_count_as_overlap() -> None:
    """Cameras on opposite sides of a ball see no common point, though what one sees projects into the other."""
    camera = small_camera()
    ball = (Sphere((0, 0, 0), 0.9),)
    views = [look_at("a", (0, 0, -2.5), (0, 0, 0), camera), look_at("b", (0, 0, 2.5), (0, 0, 0), camera)]
    assert neighbors([sketch(ball, v) for v in views], 3) == [[], []]


def test_views_left_out_by_their_distance_share_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rooms far apart, and one view of nothing: the same neighbours as when every pair is compared."""
    near = [sketch((BALL, *ROOM), view) for view in ring(4)]
    moved = [scaled(render((BALL, *ROOM), view), 1.0, (40, 0, 0)) for view in ring(4)]
    nothing = CoarseDepth.of(near[0].view, np.zeros((120, 160), np.float32))
    sketches = [*near, nothing, *(CoarseDepth.of(e.view, e.depth) for e in moved)]
    chosen = neighbors(sketches, 8)
    assert chosen[4] == [] and all(set(each) <= {0, 1, 2, 3} for each in chosen[:4]) and chosen[0]
    monkeypatch.setattr(overlap, "_SPHERE_MARGIN", 1e6)
    assert neighbors(sketches, 8) == chosen
