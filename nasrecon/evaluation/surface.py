"""Scores of a cloud or a mesh against a true surface: accuracy, completeness, F, normals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.evaluation.surface_reference import (
    SurfaceReference,
    SurfaceSamples,
    extent,
    load_samples,
    one_per_cell,
)
from nasrecon.fuse import o3d
from nasrecon.geometry import angle_between_deg, rotation_angle_deg, transform


@dataclass(frozen=True, kw_only=True)
class DistanceScore:
    """Shares [%] within ``distance`` [scene units]: precision of the estimate, recall of the reference, their F."""

    distance: float
    precision: float
    recall: float

    @property
    def f(self) -> float:
        """Harmonic mean of precision and recall [%]."""
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceScore:
    """The score of one cloud or mesh; lengths in scene units, angles in degrees.

    Attributes:
        name: the file.
        points: number of samples of it in the reference's visible part.
        hidden: number of samples outside of it, which do not count.
        accuracy_mean, accuracy_median: distance from the estimate's samples to the reference.
        completeness_mean, completeness_median: distance from the reference's samples to the estimate.
        normal_mean_deg, normal_median_deg: angle between the normal of a sample of the estimate and that of the nearest
            one of the reference, over the samples within the largest distance; NaN without normals.
        distances: the scores at given distances.
        moved: angle [degrees] and shift of the rigid alignment; None without.
        samples, errors: the estimate's samples and their distances (N,), NaN where hidden.
        gaps: (M,) distances of the reference's samples to the estimate.
    """

    name: str
    points: int
    hidden: int
    accuracy_mean: float
    accuracy_median: float
    completeness_mean: float
    completeness_median: float
    normal_mean_deg: float
    normal_median_deg: float
    distances: tuple[DistanceScore, ...]
    moved: tuple[float, float] | None
    samples: SurfaceSamples
    errors: np.ndarray
    gaps: np.ndarray

    @property
    def chamfer(self) -> float:
        """Mean of the mean accuracy and the mean completeness."""
        return (self.accuracy_mean + self.completeness_mean) / 2

    def as_json(self) -> dict[str, Any]:
        """Return the scores as JSON values, without the samples."""
        names = ("points", "hidden", "accuracy_mean", "accuracy_median", "completeness_mean", "completeness_median")
        values: dict[str, Any] = {"name": self.name} | {name: getattr(self, name) for name in names}
        values |= {"chamfer": self.chamfer}
        for name in ("normal_mean_deg", "normal_median_deg"):
            value = getattr(self, name)
            values[name] = None if np.isnan(value) else value
        values["distances"] = [
            {"distance": d.distance, "precision_pct": d.precision, "recall_pct": d.recall, "f_pct": d.f}
            for d in self.distances
        ]
        values["moved"] = None if self.moved is None else {"deg": self.moved[0], "shift": self.moved[1]}
        return values


def default_distances(reference: SurfaceReference) -> tuple[float, ...]:
    """Return 2 cm and 5 cm, or 0.5 % and 1.25 % of the extent where the unit is unknown."""
    if reference.samples.unit == "unknown":
        size = extent(reference.samples.xyz)
        return (0.005 * size, 0.0125 * size)
    return (0.02, 0.05) if reference.samples.unit == "m" else (20.0, 50.0)


def evaluate_surface(
    path: Path, reference: SurfaceReference, distances: Sequence[float] = (), *, align: bool = False
) -> SurfaceScore:
    """Score a mesh or a cloud.

    Args:
        path: the file: .ply, .obj, .glb, .stl, or a cloud in any format that Open3D reads.
        reference: from ``read_reference``.
        distances: at which precision, recall and F are taken [scene units]; default: ``default_distances``.
        align: move the estimate rigidly onto the reference first (point-to-plane ICP from where it is).

    Raises:
        InputError: if the file cannot be read or a distance is not positive.
        EmptyResultError: if nothing of it lies in the reference's visible part.
    """
    chosen = tuple(sorted(distances)) or default_distances(reference)
    if chosen[0] <= 0:
        raise InputError(f"distances must be above 0, found {chosen[0]:g}")
    samples = load_samples(path, reference.cell)
    kept = one_per_cell(samples.xyz, reference.cell)
    samples = replace(samples, xyz=samples.xyz[kept], normal=samples.normal[kept])
    moved = None
    if align:
        samples, moved = _aligned(samples, reference, chosen[-1])
    counted = reference.sees(samples.xyz, chosen[-1])
    if not counted.any():
        raise EmptyResultError(
            f"{path}: none of its {len(counted):,} samples lies where the reference was seen; are the two in one frame "
            f"and one unit?"
        )
    truth = reference.samples
    accuracy, nearest = o3d.nearest(samples.xyz[counted], truth.xyz)
    completeness, _ = o3d.nearest(truth.xyz, samples.xyz)
    angle = _angles(samples.normal[counted], truth.normal[nearest], accuracy <= chosen[-1])
    errors = np.full(len(counted), np.nan)
    errors[counted] = accuracy
    return SurfaceScore(
        name=str(path),
        points=int(counted.sum()),
        hidden=int((~counted).sum()),
        accuracy_mean=float(accuracy.mean()),
        accuracy_median=float(np.median(accuracy)),
        completeness_mean=float(completeness.mean()),
        completeness_median=float(np.median(completeness)),
        normal_mean_deg=float(angle.mean()) if len(angle) else float("nan"),
        normal_median_deg=float(np.median(angle)) if len(angle) else float("nan"),
        distances=tuple(
            DistanceScore(
                distance=d,
                precision=100 * float((accuracy <= d).mean()),
                recall=100 * float((completeness <= d).mean()),
            )
            for d in chosen
        ),
        moved=moved,
        samples=samples,
        errors=errors,
        gaps=completeness,
    )


def _angles(a: np.ndarray, b: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Return the angles [degrees] between normals (N, 3) where ``near`` (N,) and both are known."""
    known = near & a.any(axis=-1) & b.any(axis=-1)
    return angle_between_deg(a[known], b[known])


def _aligned(
    samples: SurfaceSamples, reference: SurfaceReference, distance: float
) -> tuple[SurfaceSamples, tuple[float, float]]:
    """Move samples rigidly onto the reference; returns them, and the angle [degrees] and the shift of their middle."""
    moved = o3d.align_rigidly(samples.xyz, reference.samples.xyz, reference.samples.normal, 5 * distance)
    xyz = transform(moved, samples.xyz)
    shift = float(np.linalg.norm(xyz.mean(axis=0) - samples.xyz.mean(axis=0)))
    turned = (samples.normal @ moved[:3, :3].T).astype(np.float32)
    return replace(samples, xyz=xyz, normal=turned), (float(rotation_angle_deg(moved[:3, :3])), shift)
