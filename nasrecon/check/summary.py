"""What was read and matched, as rows of facts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from nasrecon.check.findings import Diagnosis
from nasrecon.errors import plural
from nasrecon.geometry import inverse
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras
from nasrecon.scene.depth_range import depth_range_source, with_depth_ranges
from nasrecon.scene.source_views import source_scores
from nasrecon.types import Scene

# Views whose neighbours by the cameras are counted.
NEIGHBOR_VIEWS = 12


def facts(scene: Scene, matches: Matches) -> tuple[tuple[str, str], ...]:
    """Return what was read, (name, value) rows: views, sizes, lenses, baselines, depths, neighbours, unit."""
    cameras = [view.camera for view in scene.views]
    sizes = Counter(f"{camera.width}x{camera.height}" for camera in cameras)
    fx, fy = (np.array([camera.K[i, i] for camera in cameras]) for i in (0, 1))
    width, height = (np.array([getattr(camera, name) for camera in cameras]) for name in ("width", "height"))
    centers = np.array([camera.K[:2, 2] for camera in cameras]) / np.stack([width, height], axis=1)
    across, down = (np.degrees(2 * np.arctan(side / (2 * f))) for side, f in ((width, fx), (height, fy)))
    looked = f", {len(matches.views)} compared" if len(matches.views) < len(cameras) else ""
    rows = [
        ("views", f"{len(cameras)}{looked} ({plural(len(scene.dropped), 'input')} left out)"),
        ("read as", scene.origin.in_words()),
        ("image sizes", ", ".join(f"{size} ({count})" for size, count in sizes.most_common(4))),
        ("focal lengths", f"fx {_span(fx)} px, fy {_span(fy)} px"),
        ("field of view", f"{_span(across)} x {_span(down)} degrees"),
        ("principal point", f"at {_span(centers[:, 0])} of the width, {_span(centers[:, 1])} of the height"),
        *_lengths(scene, matches),
    ]
    return tuple(rows)


def _span(values: Iterable[float]) -> str:
    """Write a number, or the least and the greatest where they differ."""
    low, high = (f"{value:.4g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def _lengths(scene: Scene, matches: Matches) -> list[tuple[str, str]]:
    """Return the rows that depend on the transforms."""
    unit = f" {scene.unit}" if scene.unit != "unknown" else ""
    centers = inverse(Cameras.of(scene).cam_from_world)[:, :3, 3]
    steps = np.linalg.norm(np.diff(centers, axis=0), axis=1)
    extent = float(np.linalg.norm(np.ptp(centers, axis=0)))
    rows = [
        ("baselines", f"{np.median(steps):.4g}{unit} from a view to the next (median), {extent:.4g}{unit} across all")
    ]
    ranged = with_depth_ranges(scene)
    ranges = [view.depth_range for view in ranged.views if view.depth_range is not None]
    if ranges:
        near, far = np.median(ranges, axis=0)
        rows.append(
            (
                "depth range",
                f"{near:.4g} to {far:.4g}{unit} (median of {plural(len(ranges), 'view')}); "
                f"from {depth_range_source(ranged)}",
            )
        )
    else:
        rows.append(("depth range", "unknown: no sparse points, and the sweep of the images finds no depth"))
    rows.append(("neighbours", _neighbors(ranged, matches)))
    rows.append(("unit", _unit_guess(scene, ranges)))
    return rows


def _neighbors(ranged: Scene, matches: Matches) -> str:
    """Count neighbours by the images (verified matches) and by the cameras (useful overlap)."""
    counts = Counter(i for pair in matches.pairs for i in (pair.first, pair.second))
    by_images = [counts[i] for i in matches.views]
    some = [i for i in matches.views if ranged.views[i].depth_range is not None]
    some = [some[k] for k in np.linspace(0, len(some) - 1, min(len(some), NEIGHBOR_VIEWS)).round().astype(int)]
    words = f"{np.median(by_images):.0f} a view by matches ({min(by_images)} at least)"
    if some:
        by_cameras = [int((source_scores(ranged, i) > 0).sum()) for i in some]
        words += f", {np.median(by_cameras):.0f} by where the cameras are ({min(by_cameras)} at least)"
    return words


def _unit_guess(scene: Scene, ranges: list[tuple[float, float]]) -> str:
    if scene.unit != "unknown":
        return f"{scene.unit} (the layout says so)"
    if not ranges:
        return "unknown"
    middle = float(np.median([np.sqrt(near * far) for near, far in ranges]))
    guess = "metres" if 0.3 <= middle <= 100 else "millimetres" if 300 <= middle <= 1e5 else "arbitrary"
    return f"not stated; surfaces are about {middle:.3g} away, so it could be {guess} (a guess)"


def warning(diagnosis: Diagnosis, arguments: str) -> list[str]:
    """Return the lines that ``infer`` says of faults; ``arguments``: what to pass to ``nasrecon check``."""
    lines = []
    for finding in diagnosis.faults:
        fixes = " ".join(f"--fix {fix}" for fix in finding.fixes)
        lines.append(f"WARNING {finding.name}: {finding.what}{f'; repair: {fixes}' if fixes else ''}")
    if lines:
        lines.append(f"  more: nasrecon check {arguments} (--no-check leaves this out)")
    return lines
