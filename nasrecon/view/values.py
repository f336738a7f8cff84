"""The values of a view's maps as one small picture: ``maps.js`` colours depth and confidence from it and reads values.

Red is the depth, 0 where there is none, else 1 to 255 for its logarithm between the ends of ``range``. Green is the
confidence in hundredths. Blue is the standard deviation as a part of the depth: 1 + 6 log2(part / 1e-4), 0 for none.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from nasrecon.types import Estimate
from nasrecon.view.pictures import data_uri
from nasrecon.view.quality import ViewFacts

_MIN_SIGMA = 1e-4
_SIGMA_STEPS = 6


def values_picture(estimate: Estimate, width: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the values of every n-th pixel as a picture (h, w, 3) uint8, and the depths at its ends [scene units].

    Args:
        estimate: the view.
        width: of the picture [px] at most.
    """
    rows, columns = estimate.depth.shape
    width = min(width, columns)
    height = max(1, round(rows * width / columns))
    pick = np.ix_(*(((np.arange(n) + 0.5) * of / n).astype(int) for n, of in ((height, rows), (width, columns))))
    depth, confidence, sigma = (getattr(estimate, name)[pick] for name in ("depth", "confidence", "sigma"))
    known = depth > 0
    near, far = (float(depth[known].min()), float(depth[known].max())) if known.any() else (1.0, 1.0)
    span = max(np.log(far / near), 1e-9)
    safe = np.where(known, depth, near)
    out = np.zeros((height, width, 3), np.uint8)
    out[..., 0] = np.where(known, 1 + np.rint(254 * np.log(safe / near) / span), 0)
    out[..., 1] = np.rint(100 * np.nan_to_num(confidence).clip(0, 1))
    part = np.maximum(np.nan_to_num(sigma, posinf=0) / safe, _MIN_SIGMA)
    steps = 1 + np.rint(_SIGMA_STEPS * np.log2(part / _MIN_SIGMA))
    out[..., 2] = np.where(known & (sigma > 0), steps.clip(1, 255), 0)
    return out, (near, far)


def values_uri(picture: np.ndarray) -> str:
    """Encode the values without loss, as an address that carries them."""
    from PIL import Image

    out = BytesIO()
    Image.fromarray(picture).save(out, format="WEBP", lossless=True, exact=True, quality=80, method=4)
    return data_uri(out.getvalue(), "image/webp")


def maps_of(estimate: Estimate, facts: ViewFacts, pictures: dict[str, str], width: int) -> dict[str, Any]:
    """Return what ``maps.js`` shows of a view, JSON values.

    Args:
        estimate: the view.
        facts: its depths at the ends of its own colours.
        pictures: addresses of "image" and "normals".
        width: of the values [px] at most.
    """
    values, ends = values_picture(estimate, width)
    rows, columns = estimate.depth.shape
    return {
        "name": estimate.view.name,
        "pictures": pictures,
        "values": values_uri(values),
        "range": [float(f"{end:.6g}") for end in ends],
        "size": [columns, rows],
        "near": facts.near or 1.0,
        "far": facts.far or 1.0,
        "valid": facts.valid,
    }
