"""FuseOptions: values out of range are refused by name."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest

from nasrecon.errors import InputError
from nasrecon.fuse.options import FuseOptions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_confidence", -0.1),
        ("min_confidence", 1.1),
        ("max_relative_depth_error", 0.0),
        ("max_relative_depth_error", math.inf),
        ("cell", 0.0),
        ("max_relative_depth_error", math.nan),
        ("max_normal_angle_deg", 181.0),
        ("min_views", 0),
        ("max_neighbors", 0),
        ("voxel", 0.0),
        ("voxel", -1.0),
        ("min_component_faces", -1),
        ("method", "marching"),
        ("target_faces", 3),
        ("texture", 100),
        ("texture", 100_000),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: float | str) -> None:
    with pytest.raises(InputError, match=f"^{name} must be"):
        FuseOptions(**{name: value})


def test_the_ends_of_the_ranges_are_allowed() -> None:
    FuseOptions(
        min_confidence=0, max_relative_depth_error=1, max_normal_angle_deg=180, min_views=1, min_component_faces=0
    )
    FuseOptions(min_confidence=1, min_views=11)


def test_support_that_can_never_be_reached_is_refused() -> None:
    with pytest.raises(InputError, match="max_neighbors 4"):
        FuseOptions(min_views=6, max_neighbors=4)


def test_there_are_few_options() -> None:
    assert len(fields(FuseOptions)) <= 12
