"""Maps of cameras that were held upright are looked at upright; points and normals stay where they are in the world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nasrecon.geometry import transform
from nasrecon.view.turned import turned_estimate, turned_view

from .synthetic import HillWorld


def points_and_normals(estimate):
    view = estimate.view
    points = transform(view.world_from_cam, view.camera.unproject_depth(estimate.depth))
    return points, estimate.normal @ view.cam_from_world[:3, :3]


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_the_world_stays_where_it_is(orientation, turns) -> None:
    world = HillWorld()
    view = world.view(0, 6, (48, 32))
    view = replace(view, image=replace(view.image, orientation=orientation))
    estimate = world.estimate(view)
    turned = turned_estimate(estimate)
    assert turned.depth.shape == ((48, 32) if turns % 2 else (32, 48))
    before, after = points_and_normals(estimate), points_and_normals(turned)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_allclose(np.rot90(a, -turns), b, atol=1e-5)
    assert (turned.view.camera.width, turned.view.camera.height) == turned.depth.shape[::-1]


def test_an_image_that_is_turned_when_it_is_read_stays() -> None:
    view = HillWorld().view(0, 6, (48, 32))
    view = replace(view, image=replace(view.image, orientation=6, is_turned=True))
    assert turned_view(view) is view
