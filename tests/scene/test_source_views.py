"""Sources: a useful angle wins, what shows nothing of the reference is never returned, units do not matter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ingest import worlds

from nasrecon.scene.source_views import (
    BEST_ANGLE_DEG,
    angle_weight,
    guess_depth_range,
    lifted_pixels,
    sees,
    select_source_views,
    source_scores,
)
from nasrecon.types import Camera, ImageSource, Scene, View

CAMERA = Camera(width=160, height=120, K=np.array([[140.0, 0, 80], [0, 140, 60], [0, 0, 1]]))
POINTS = np.random.default_rng(1).normal(0, 0.3, (400, 3))


def ring_view(angle_deg: float, radius: float = 4.0, outwards: bool = False, height: float = 0.0) -> View:
    """A camera on a ring about the origin, looking at it or away from it."""
    a = np.radians(angle_deg)
    center = np.array([radius * np.sin(a), height, -radius * np.cos(a)])
    matrix = worlds.look_at(center, 2 * center if outwards else np.zeros(3))
    name = f"{angle_deg}{radius}{outwards}{height}"
    return View(name=name, image=ImageSource(path=Path()), camera=CAMERA, cam_from_world=matrix)


def scene_of(views: list[View], kind: str) -> Scene:
    """The scene with sparse points on a ball at the origin; with depth ranges only; or with cameras only."""
    scene = Scene(root="", views=views)
    if kind == "sparse":
        return replace(scene, points_in_world=POINTS, visible=tuple(np.flatnonzero(sees(v, POINTS)) for v in views))
    if kind == "range":
        return scene.replace_views([replace(view, depth_range=(3.3, 4.7)) for view in views])
    return scene


KINDS = ("sparse", "range", "cameras")


def test_the_weight_of_an_angle() -> None:
    angles = np.array([0.0, 0.05, 0.5, 3, BEST_ANGLE_DEG, 12, 60])
    weights = angle_weight(angles)
    assert weights[0] == weights[1] == 0
    assert weights.argmax() == 4 and weights[4] == 1
    assert (np.diff(weights[1:5]) > 0).all() and (np.diff(weights[4:]) < 0).all()
    np.testing.assert_allclose(weights[3], weights[5])


@pytest.mark.parametrize("kind", KINDS)
def test_the_best_source_has_a_useful_angle(kind) -> None:
    angles = (0, 1.0, 2, 6, 25, 50)
    scene = scene_of([ring_view(angle) for angle in angles], kind)
    ranked = select_source_views(scene, 0, 5)
    assert ranked[0] == 3
    assert set(ranked) >= {2, 3, 4}
    assert ranked.index(1) > ranked.index(2)


@pytest.mark.parametrize("kind", KINDS)
def test_views_that_show_nothing_of_the_reference_are_not_returned(kind) -> None:
    views = [
        ring_view(0),
        ring_view(6),
        ring_view(5, outwards=True),  # close by, but it looks away
        replace(ring_view(0), name="twin"),  # the same place: no depth in it
    ]
    scene = scene_of(views, kind)
    assert select_source_views(scene, 0, 9) == (1,)
    assert select_source_views(scene_of([views[0], views[2], views[3]], kind), 0, 9) == ()
    assert select_source_views(scene_of(views[:1], kind), 0, 3) == ()
    assert source_scores(scene, 0)[0] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_source_is_no_neighbour_of_the_first(kind) -> None:
    # 6 and 6.1 degrees to one side are as good as one; 7.5 degrees to the other side is a little worse alone
    scene = scene_of([ring_view(angle) for angle in (0, 6, 6.1, -7.5)], kind)
    assert select_source_views(scene, 0, 2)[1] == 3
    assert set(select_source_views(scene, 0, 3)) == {1, 2, 3}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_does_not_matter(kind, unit) -> None:
    rng = np.random.default_rng(2)
    views = [ring_view(a, rng.uniform(3, 5), height=rng.uniform(-1, 1)) for a in rng.uniform(-40, 40, 9)]
    scene = scene_of(views, kind)
    other = worlds.in_unit(scene, unit)
    if kind == "range":
        other = other.replace_views([replace(view, depth_range=(3.3 * unit, 4.7 * unit)) for view in other.views])
    for ref in range(9):
        assert select_source_views(other, ref, 4) == select_source_views(scene, ref, 4)
        assert len(select_source_views(scene, ref, 4)) == 4


def test_a_sliver_of_overlap_is_none() -> None:
    ref, src = ring_view(0), ring_view(6)
    turns = [worlds.look_at(src.center_in_world, np.array([x, 0, 0])) for x in (1.5, 5.0)]
    views = [ref, *(replace(src, name=str(i), cam_from_world=matrix) for i, matrix in enumerate(turns))]
    scene = scene_of(views, "range")
    overlaps = [sees(view, lifted_pixels(ref, np.geomspace(3.3, 4.7, 5))).mean() for view in views[1:]]
    assert overlaps[0] > 0.5 and 0 < overlaps[1] < 0.15
    assert select_source_views(scene, 0, 5) == (1,)


def test_few_shared_points_are_no_overlap() -> None:
    views = [ring_view(angle) for angle in (0, 6, 8)]
    scene = scene_of(views, "sparse")
    few = replace(scene, visible=(scene.visible[0], scene.visible[1][:5], scene.visible[2]))
    assert select_source_views(few, 0, 5) == (2,)


def test_a_view_without_sparse_points_falls_back_on_the_cameras() -> None:
    scene = scene_of([ring_view(angle) for angle in (0, 6, 12)], "sparse")
    bare = replace(scene, visible=(np.empty(0, dtype=int), *scene.visible[1:]))
    assert select_source_views(bare, 0, 2) == (1, 2)


def test_the_guess_of_an_orbit_is_about_its_radius() -> None:
    views = [ring_view(angle, radius=4.0) for angle in range(0, 360, 20)]
    near, far = guess_depth_range(scene_of(views, "cameras"), 0)
    assert 4.0 / 4 < near < 4.0 < far  # good to a factor of a few
    small = worlds.in_unit(scene_of(views, "cameras"), 0.01)
    np.testing.assert_allclose(guess_depth_range(small, 0), (near * 0.01, far * 0.01))
