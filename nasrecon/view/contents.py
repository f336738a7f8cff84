"""What a results folder has to show at this moment, what is missing, and a survey of its depths."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import transform
from nasrecon.results.reader import Results, read_fusion
from nasrecon.types import Estimate
from nasrecon.view.turned import TurnedResults

SURVEYED_VIEWS = 12
_SURVEY_POINTS = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class Contents:
    """A results folder as it stands.

    Attributes:
        results: its views.
        fusion: what `fuse` said of its last run, or None.
        mesh, cloud: the files, or None where they are not there.
        missing: for people: what is not there yet and what makes it; one sentence each.
        warnings: for people: what needs attention; one sentence each.
    """

    results: Results
    fusion: dict[str, Any] | None
    mesh: Path | None
    cloud: Path | None
    missing: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def expected_views(self) -> int:
        """The number of views that the run will have when it is done."""
        return max(len(self.results), int(self.results.manifest["scene"].get("views", 0)))

    @property
    def is_running(self) -> bool:
        """Whether `infer` has not come to its end here."""
        return not self.results.manifest["complete"]


def look(folder: str | Path) -> Contents:
    """Look at a results folder.

    Raises:
        InputError: if it is not one, has no finished view yet, or a file of it is damaged.
    """
    folder = Path(folder)
    results, fusion = TurnedResults.open(folder), read_fusion(folder)
    files, missing, warnings = {}, [], []
    for what in ("mesh", "cloud"):
        path = Path((fusion or {}).get(what, folder / f"{what}.ply"))
        files[what] = path if path.is_file() else None
        if files[what] is None:
            missing.append(f"No {what} yet: run nasrecon fuse {shlex.quote(str(folder))}")
        elif fusion and fusion.get("views_sha256", results.digest) != results.digest:
            warnings.append(
                f"The {what} is of other views than these: run nasrecon fuse {shlex.quote(str(folder))} again"
            )
    expected = int(results.manifest["scene"].get("views", 0))
    dropped = len(results.manifest["dropped"])
    if len(results) + dropped < expected:
        missing.append(f"{len(results)} of {expected} views are finished")
    return Contents(results=results, fusion=fusion, missing=tuple(missing), warnings=tuple(warnings), **files)


@dataclass(frozen=True, kw_only=True, eq=False)
class Survey:
    """What a few views say of all.

    Attributes:
        near, far: the depths [scene units] between which depth is coloured: 2 % and 98 % of the pixels.
        points_in_world: (N, 3) a thin sample of the surfaces that are seen.
    """

    near: float
    far: float
    points_in_world: np.ndarray


def survey_depths(estimates: Sequence[Estimate], problems: dict[str, str] | None = None) -> Survey:
    """Look at some of the views, evenly spread, at most SURVEYED_VIEWS of them.

    Args:
        estimates: the views.
        problems: gets what is wrong with a view that cannot be read, by its place; without it that is an error.

    Raises:
        InputError: if a view cannot be read and ``problems`` is None.
    """
    chosen = np.unique(np.linspace(0, len(estimates) - 1, SURVEYED_VIEWS).round().astype(int))
    depths, points = [], []
    for i in chosen:
        try:
            estimate = estimates[int(i)]
        except InputError as error:
            if problems is None:
                raise
            problems[f"view {i}"] = str(error)
            continue
        pixels = np.flatnonzero(estimate.depth > 0)
        if len(pixels) > _SURVEY_POINTS:  # drawn at random: every Nth pixel would come from a few columns
            pixels = np.random.default_rng(int(i)).choice(pixels, _SURVEY_POINTS, replace=False)
        depth = estimate.depth.ravel()[pixels]
        centers = estimate.view.camera.pixel_centers().reshape(-1, 2)[pixels]
        points.append(transform(estimate.view.world_from_cam, estimate.view.camera.unproject(centers, depth)))
        depths.append(depth)
    values = np.concatenate(depths or [np.zeros(0)])
    near, far = np.quantile(values, [0.02, 0.98]) if len(values) else (1.0, 1.0)
    return Survey(near=float(near), far=float(far), points_in_world=np.concatenate(points or [np.zeros((0, 3))]))
