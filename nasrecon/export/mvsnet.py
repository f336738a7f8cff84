"""MVSNet's layout with depth and confidence as PFM.

::

    images/00000000.jpg   cams/00000000_cam.txt   pair.txt
    depth_est/00000000.pfm   confidence/00000000.pfm   names.txt (number, view)

``_cam.txt`` holds cam_from_world, K, and "depth_min depth_interval number depth_max" of planes evenly spaced in depth.
Pixel centres: K is for half-pixel centres, as MVSNet's own converter takes it over from COLMAP. PFM rows go from the
bottom to the top, float32, little endian; 0 = no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nasrecon.errors import plural
from nasrecon.export.files import write_image
from nasrecon.progress import Progress
from nasrecon.types import Estimate

PLANES = 192


def write(estimates: Sequence[Estimate], out: Path, progress: Progress) -> tuple[str, ...]:
    """Write all views; returns the remarks for the user."""
    for folder in ("images", "cams", "depth_est", "confidence"):
        (out / folder).mkdir()
    names, sources = [], []
    for i, estimate in enumerate(estimates):
        progress.update("views", i, len(estimates))
        write_image(out / "images" / f"{i:08d}.jpg", estimate.rgb)
        write_cam(out / "cams" / f"{i:08d}_cam.txt", estimate)
        write_pfm(out / "depth_est" / f"{i:08d}.pfm", estimate.depth)
        write_pfm(out / "confidence" / f"{i:08d}.pfm", estimate.confidence)
        names.append(estimate.view.name)
        sources.append(estimate.sources)
    progress.update("views", len(estimates), len(estimates))
    (out / "pair.txt").write_text(pair_text(names, sources))
    (out / "names.txt").write_text("".join(f"{i:08d} {name}\n" for i, name in enumerate(names)), encoding="utf-8")
    return (
        f"{plural(len(names), 'view')} in MVSNet's layout: images, cams, pair.txt, depth_est and confidence as PFM",
    )


def write_cam(path: Path, estimate: Estimate) -> None:
    """Write a view's camera; the planes span its depth range, or its depths where that is unknown."""
    view = estimate.view
    known = estimate.depth[estimate.depth > 0]
    near, far = view.depth_range or ((float(known.min()), float(known.max())) if len(known) else (1.0, 2.0))
    interval = (far - near) / (PLANES - 1)
    lines = ["extrinsic", *_rows(view.cam_from_world), "", "intrinsic", *_rows(view.camera.K), ""]
    path.write_text("\n".join([*lines, f"{near:.9g} {interval:.9g} {PLANES} {far:.9g}", ""]))


def _rows(matrix: np.ndarray) -> list[str]:
    return [" ".join(f"{value:.17g}" for value in row) for row in matrix]


def pair_text(names: Sequence[str], sources: Sequence[Sequence[str]]) -> str:
    """Return pair.txt: of each view the numbers of its sources, best first; scores only fall with the rank."""
    number = {name: i for i, name in enumerate(names)}
    lines = [str(len(names))]
    for i, its_sources in enumerate(sources):
        known = [number[name] for name in its_sources if name in number]
        ranked = (f"{source} {float(len(known) - rank):.1f}" for rank, source in enumerate(known))
        lines += [str(i), " ".join([str(len(known)), *ranked])]
    return "\n".join(lines) + "\n"


def write_pfm(path: Path, values: np.ndarray) -> None:
    """Write a map (H, W) as a grey PFM: float32, little endian, the bottom row first."""
    height, width = values.shape
    with path.open("wb") as file:
        file.write(f"Pf\n{width} {height}\n-1.0\n".encode())
        file.write(np.ascontiguousarray(values[::-1], dtype="<f4").tobytes())
