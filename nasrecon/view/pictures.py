"""The four pictures of a view: image, depth, normals, confidence; small and encoded for pages."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from io import BytesIO

import numpy as np

from nasrecon.results.preview import INVALID_RGB, color_depth, color_normal, color_scalar, color_table
from nasrecon.types import Estimate

PICTURES = ("image", "depth", "normals", "confidence")


def view_pictures(
    estimate: Estimate,
    near: float,
    far: float,
    *,
    names: Sequence[str] = PICTURES,
    width: int | None = None,
    min_confidence: float = 0.0,
) -> dict[str, np.ndarray]:
    """Return the pictures of a view by name, each (h, w, 3) uint8; pixels without a value are grey.

    Args:
        estimate: the view.
        near, far: depths at the ends of the colours [scene units].
        names: of the pictures to make.
        width: of the pictures [px]; None: that of the maps. They are never enlarged.
        min_confidence: pixels below this confidence lose their depth and normal.
    """
    depth = np.where(estimate.confidence >= min_confidence, estimate.depth, 0)
    valid = depth > 0
    makers: dict[str, Callable[[], np.ndarray]] = {
        "image": lambda: estimate.rgb,
        "depth": lambda: color_depth(depth, near, far),
        "normals": lambda: np.where(valid[..., None], color_normal(estimate.normal), np.array(INVALID_RGB, np.uint8)),
        "confidence": lambda: color_scalar(estimate.confidence, 0, 1, estimate.depth > 0),
    }
    pictures = {name: makers[name]() for name in names}
    return {name: downscale(picture, width) if width else picture for name, picture in pictures.items()}


def downscale(rgb: np.ndarray, width: int) -> np.ndarray:
    """Return a picture (H, W, 3) at a smaller width [px], every pixel the mean of those that it covers."""
    from PIL import Image

    height = max(1, round(rgb.shape[0] * width / rgb.shape[1]))
    if width >= rgb.shape[1]:
        return rgb
    return np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX))


def jpeg_bytes(rgb: np.ndarray, quality: int = 85) -> bytes:
    """Encode (H, W, 3) uint8 as JPEG."""
    from PIL import Image

    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(out, format="JPEG", quality=quality)
    return out.getvalue()


def data_uri(content: bytes, kind: str = "image/jpeg") -> str:
    """Write bytes as an address that carries them, so that a page needs no other file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def css_gradient(direction: str = "to right", stops: int = 17) -> str:
    """Return the colour scale, low to high, as a CSS gradient."""
    table = color_table(stops)
    return f"linear-gradient({direction},{','.join('#{:02x}{:02x}{:02x}'.format(*tuple(rgb)) for rgb in table)})"
