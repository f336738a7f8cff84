"""Pictures of maps: an even scale, directions that mean what they should, and no value that looks like another."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest

from nasrecon.results.preview import (
    BAR_WIDTH_PX,
    INVALID_RGB,
    color_depth,
    color_normal,
    color_scalar,
    color_table,
    depth_limits,
    depth_preview,
    png_bytes,
)


def lightness(rgb):
    """CIE L* (0 to 100) of sRGB colours (..., 3) uint8."""
    c = np.asarray(rgb) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def test_the_scale_is_even_to_the_eye():
    """L*, which the table was not made from (OKLab has its own), rises by nearly equal steps from dark to light."""
    table = color_table()
    L = lightness(table)
    assert table.shape == (256, 3) and L[0] < 20 and L[-1] > 85
    steps = np.diff(L[::8])
    # The two scales of lightness differ a little, most in the dark: steps stay within 30 % of their mean.
    assert (np.abs(steps / steps.mean() - 1) < 0.3).all(), steps
    assert len(np.unique(table, axis=0)) > 250


def test_grey_is_no_colour_of_the_scale():
    distance = np.linalg.norm(color_table().astype(float) - INVALID_RGB, axis=-1)
    assert distance.min() > 45


def test_scalars_hit_the_ends_and_clip():
    values = np.array([[-5.0, 0.0, 1.0, 9.0, np.nan, np.inf]])
    table = color_table()
    expected = [table[0], table[0], table[-1], table[-1], INVALID_RGB, INVALID_RGB]
    np.testing.assert_array_equal(color_scalar(values, 0, 1)[0], expected)
    np.testing.assert_array_equal(color_scalar(values, 1, 0)[0, 1:3], [table[-1], table[0]])
    np.testing.assert_array_equal(color_scalar(np.ones((1, 1)), 1, 1, np.array([[False]]))[0, 0], INVALID_RGB)


def test_depth_colours_are_even_in_inverse_depth_and_invalid_is_not_far():
    depth = np.array([[1.0, 4.0, 1 / 0.625, 0.0, 100.0]], np.float32)
    colors = color_depth(depth, 1, 4)[0]
    table = color_table()
    # 0.625 is the middle of the inverse depths 1 and 0.25.
    np.testing.assert_array_equal(colors, [table[-1], table[0], table[128], INVALID_RGB, table[0]])


@pytest.mark.parametrize(
    ("normal", "rgb"),
    [
        ((0, 0, -1), (128, 128, 255)),
        ((1, 0, 0), (255, 128, 128)),
        ((0, -1, 0), (128, 255, 128)),
        ((0, 0, 0), (0, 0, 0)),
    ],
)
def test_normals_in_the_usual_colours(normal, rgb):
    """To the camera is blue, right is red, up (y is down) is green, none is black."""
    shown = color_normal(np.full((1, 1, 3), normal, np.float32))[0, 0]
    assert np.abs(shown.astype(int) - rgb).max() <= 1


def test_limits_ignore_invalid_pixels_and_outliers():
    depth = np.linspace(2, 3, 1000, dtype=np.float32).reshape(20, 50)
    depth[0, :5], depth[1, :5] = 0, 1e6
    near, far = depth_limits(depth)
    assert 2 < near < 2.05 and 2.95 < far < 3.01
    assert depth_limits(np.zeros((4, 4))) == (1.0, 1.0)


@pytest.mark.parametrize("shape", [(240, 320), (20, 30), (1, 1)])
@pytest.mark.parametrize("filled", [True, False])
def test_preview_has_a_labelled_bar(shape, filled):
    depth = np.full(shape, 2.5, np.float32) if filled else np.zeros(shape, np.float32)
    picture = depth_preview(depth, "m")
    assert picture.shape == (shape[0], shape[1] + BAR_WIDTH_PX, 3)
    if shape[0] > 100:
        text = picture[:, shape[1] + 30 :]
        dark_rows = np.flatnonzero((lightness(text) < 40).any(axis=1))
        labels = 1 + (np.diff(dark_rows) > 5).sum()
        assert labels == 5  # every 60 px, both ends included


def test_png_is_lossless():
    from PIL import Image

    rgb = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(png_bytes(rgb)))), rgb)
