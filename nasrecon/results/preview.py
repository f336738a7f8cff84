"""Pictures of maps for people: depth with a scale bar, normals in the usual colours, confidence.

The colours of scalars are computed, not listed: lightness rises evenly along the scale while the hue turns from violet
over blue and green to yellow, in OKLab, whose distances follow the eye's. Equal steps of the value look equally large,
and a print in grey keeps the order.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np

from nasrecon.types import Unit

INVALID_RGB = (96, 96, 96)
"""Neutral grey: no colour of the scale is grey, so that "no value" is told apart from "far"."""

BAR_WIDTH_PX = 96

_RUN_LENGTHS = 3  # zlib's Z_RLE: a quarter smaller than its fastest search, and as fast


_LMS_ROOT_FROM_LAB = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_LINEAR_RGB_FROM_LMS = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def color_table(steps: int = 256) -> np.ndarray:
    """Return the colours (steps, 3) uint8 of a scale from low (dark violet) to high (light yellow)."""
    t = np.linspace(0, 1, steps)
    lightness = 0.30 + 0.62 * t
    hue = np.radians(300 - 195 * t)
    # About as much chroma as sRGB holds at these hues: least in the blue-green middle.
    chroma = 0.095 + 0.06 * (2 * t - 1) ** 2
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    table = np.rint(255 * _srgb_from_oklab(lab)).astype(np.uint8)
    table.setflags(write=False)
    return table


def _srgb_from_oklab(lab: np.ndarray) -> np.ndarray:
    """Convert OKLab (..., 3) (B. Ottosson, 2020) to sRGB (..., 3) in [0, 1]; what lies outside sRGB is clipped."""
    lms_root = lab @ _LMS_ROOT_FROM_LAB.T
    linear = (lms_root**3 @ _LINEAR_RGB_FROM_LMS.T).clip(0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def color_scalar(values: np.ndarray, low: float, high: float, valid: np.ndarray | None = None) -> np.ndarray:
    """Colour values (H, W) on the scale from low to high (either may be the larger); returns (H, W, 3) uint8.

    Values beyond the ends get the colour of the end; not finite ones, and those where ``valid`` (H, W) is False, grey.
    """
    valid = np.isfinite(values) if valid is None else valid & np.isfinite(values)
    span = high - low if high != low else 1.0
    table = color_table()
    index = (np.where(valid, values, low) - low) * ((len(table) - 1) / span)
    rgb = np.take(table, np.rint(index).clip(0, len(table) - 1).astype(np.uint8), axis=0)
    rgb[~valid] = INVALID_RGB
    return rgb


def depth_limits(depth: np.ndarray) -> tuple[float, float]:
    """Return the depths (near, far) between which a map is coloured: its 2 % and 98 % quantiles; (1, 1) if empty."""
    values = depth[depth > 0]
    if not values.size:
        return 1.0, 1.0
    near, far = np.quantile(values, [0.02, 0.98])
    return float(near), float(far)


def color_depth(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """Colour a depth map (H, W), 0 = invalid: near light, far dark, even in inverse depth; returns (H, W, 3) uint8.

    Inverse depth, because the precision of stereo is even there: equal colour differences are equal errors.
    """
    valid = depth > 0
    return color_scalar(1 / np.where(valid, depth, 1), 1 / far, 1 / near, valid)


def color_normal(normal: np.ndarray) -> np.ndarray:
    """Colour normals (H, W, 3), camera frame: right red, up green, to the camera blue; (0, 0, 0) becomes black."""
    shown = np.asarray(normal, dtype=np.float32) * np.array([127.5, -127.5, -127.5], np.float32)
    shown += 127.5
    rgb = np.rint(shown, out=shown).clip(0, 255, out=shown).astype(np.uint8)
    x, y, z = np.moveaxis(normal, -1, 0)
    rgb[(x == 0) & (y == 0) & (z == 0)] = 0  # faster than any() over three values
    return rgb


def depth_preview(depth: np.ndarray, unit: Unit = "unknown") -> np.ndarray:
    """Return the picture (H, W + BAR_WIDTH_PX, 3) uint8 of a depth map with a scale bar in scene units to its right."""
    near, far = depth_limits(depth)
    return np.concatenate([color_depth(depth, near, far), depth_bar(depth.shape[0], near, far, unit)], axis=1)


def length_label(length: float, unit: Unit) -> str:
    """Write a length in scene units with its unit, to three digits; without one where the unit is unknown."""
    return f"{length:.3g}" if unit == "unknown" else f"{length:.3g} {unit}"


def bar_depths(near: float, far: float, count: int) -> np.ndarray:
    """Return ``count`` depths (count,) from far to near that stand at even distances along the bar of
    ``color_depth``."""
    return 1 / np.linspace(1 / far, 1 / near, count)


def normal_legend(side: int) -> np.ndarray:
    """Draw a ball (side, side, 3) uint8 as a camera sees it, in the colours of its normals, on white."""
    x, y = np.meshgrid(*[(np.arange(side) + 0.5) / side * 2 - 1] * 2)
    inside = x * x + y * y < 1
    z = -np.sqrt(np.where(inside, 1 - x * x - y * y, 1))
    return np.where(inside[..., None], color_normal(np.stack([x, y, z], axis=-1)), np.uint8(255))


def depth_bar(height: int, near: float, far: float, unit: Unit) -> np.ndarray:
    """Draw the bar (height, BAR_WIDTH_PX, 3) of ``color_depth``, a label about every 60 px; near is at the bottom."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (BAR_WIDTH_PX, height), "white")
    margin = min(12, height // 4)
    rows = np.linspace(1 / far, 1 / near, max(height - 2 * margin, 1))
    bar = np.repeat(color_scalar(rows[:, None], 1 / far, 1 / near), 16, axis=1)
    picture.paste(Image.fromarray(bar), (6, margin))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    ticks = np.linspace(0, len(rows) - 1, max(2, min(8, height // 60 + 1))).round().astype(int)
    for row in ticks:
        y = margin + int(row)
        draw.line([(22, y), (26, y)], fill="black")
        draw.text((29, y), length_label(float(1 / rows[row]), unit), fill="black", font=font, anchor="lm")
    return np.asarray(picture)


def png_bytes(rgb: np.ndarray) -> bytes:
    """Encode (H, W, 3) uint8 as PNG."""
    from PIL import Image

    out = BytesIO()
    Image.fromarray(rgb).save(out, format="PNG", compress_level=1, compress_type=_RUN_LENGTHS)
    return out.getvalue()
