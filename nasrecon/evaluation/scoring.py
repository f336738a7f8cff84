"""Scores of a network by named protocol: two-view pairs (``demon``) and RGB-D sequences (``frames``).

A protocol says which images, which planes, which pixels count and how they are averaged; ``Evaluation.rules`` repeats
it in words. Every stage has scores of its own: Z1 (from the cost volume), Z2 and its normals (after context-aware
aggregation), refined (after the consistency module). Metrics: ``metrics.py``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from nasrecon.errors import EmptyResultError
from nasrecon.evaluation.metrics import (
    PATCH,
    ROUGHNESS,
    coverage,
    depth_metrics,
    normal_metrics,
    sparsification,
    true_normals,
)
from nasrecon.evaluation.zones import (
    EDGE_JUMP,
    EDGE_PX,
    FLAT_STD,
    FLAT_WINDOW,
    THIN_FOUND,
    THIN_PX,
    found_thin,
    thin_structures,
    zone_errors,
    zone_masks,
)
from nasrecon.inference.adapter import Photo
from nasrecon.inference.loader import read_photo
from nasrecon.inference.passes import predict_stages
from nasrecon.inference.wrapper import NetworkWrapper
from nasrecon.ingest.true_depth import read_true_depth
from nasrecon.nas.network import Network, Prediction, StereoBatch
from nasrecon.prepare.prepare import PreparedScene
from nasrecon.types import View

STAGES = {
    "Z1": ("depth_initial", None),
    "Z2": ("depth", "normal"),
    "refined": ("refined_depth", "refined_normal"),
}
"""Stage -> the depth and the normals in ``Prediction`` that belong to it."""


@dataclass(frozen=True, kw_only=True)
class ViewScores:
    """The scores of one reference.

    Attributes:
        name, subset, sources: the reference, the part of the set that it belongs to, the names of its sources.
        stages: "Z1", "Z2", "refined" -> metric -> value; normals begin with ``normal_``, and are missing where the
            true depth is rough everywhere.
        calibration: metric -> value, of the refined depth.
        zones: mean abs rel of the refined depth in each zone (``zones.ZONES``), and its share of the pixels.
        thin_pixels, thin_found: how many pixels are of thin structures, and at how many of them the refined depth is
            theirs.
        pixels: how many counted.
        missing: how many of them had no depth (not finite or not positive) in the refined map; they count as farthest.
        passes: how often the network ran.
        seconds: that the network took, the way into it and out of it included.
    """

    name: str
    subset: str
    sources: tuple[str, ...]
    stages: Mapping[str, Mapping[str, float]]
    calibration: Mapping[str, float]
    zones: Mapping[str, float]
    thin_pixels: int
    thin_found: int
    pixels: int
    missing: int
    passes: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a network on a set.

    Attributes:
        protocol: its name.
        rules: the protocol in words, a line each.
        data: what was recognised.
        network: name of the network.
        views: the scores of each reference.
        left_out: (name, reason) of the references that could not be scored.
    """

    protocol: str
    rules: tuple[str, ...]
    data: str
    network: str
    views: tuple[ViewScores, ...]
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def subsets(self) -> tuple[str, ...]:
        """The parts of the set in the order of their names, then "all"."""
        return (*sorted({view.subset for view in self.views} - {"all"}), "all")

    def seconds_per_view(self, subset: str = "all") -> float:
        """Return the median: the first view pays for warming up."""
        return float(np.median([view.seconds for view in self.of(subset)]))

    def passes_per_view(self, subset: str = "all") -> float:
        """Return how often the network runs for a reference, on average."""
        return float(np.mean([view.passes for view in self.of(subset)]))

    def of(self, subset: str = "all") -> tuple[ViewScores, ...]:
        """Return the references of a part of the set."""
        return tuple(view for view in self.views if subset in ("all", view.subset))

    def stage(self, stage: str, subset: str = "all") -> dict[str, float]:
        """Return the metrics of a stage, each the mean over the references of a part that have it."""
        return _means(view.stages[stage] for view in self.of(subset))

    def calibration(self, subset: str = "all") -> dict[str, float]:
        """Return the calibration of confidence and sigma on the refined depth, means likewise."""
        return _means(view.calibration for view in self.of(subset))

    def zones(self, subset: str = "all") -> dict[str, float]:
        """Return the mean errors and the shares of the zones, means over the references likewise."""
        return _means(view.zones for view in self.of(subset))

    def thin_found_pct(self, subset: str = "all") -> float | None:
        """Return the per cent of all pixels of thin structures that have their depth; None where there are none."""
        pixels = sum(view.thin_pixels for view in self.of(subset))
        return 100 * sum(view.thin_found for view in self.of(subset)) / pixels if pixels else None

    def as_json(self) -> dict[str, Any]:
        """Return everything, JSON values only."""
        scores = {
            subset: {
                "views": len(self.of(subset)),
                "stages": {stage: self.stage(stage, subset) for stage in STAGES},
                "calibration": self.calibration(subset),
                "zones": self.zones(subset),
                "thin_found_pct": self.thin_found_pct(subset),
                "passes_per_view": self.passes_per_view(subset),
                "seconds_per_view": self.seconds_per_view(subset),
            }
            for subset in self.subsets
        }
        return {
            "protocol": self.protocol,
            "rules": list(self.rules),
            "data": self.data,
            "network": self.network,
            "scores": scores,
            "views": [{**vars(view), "sources": list(view.sources)} for view in self.views],
            "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out],
        }


def _means(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {name: float(np.mean(numbers)) for name, numbers in values.items()}


class _Counted(NetworkWrapper):
    """A network that counts how often it runs."""

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.passes = 0

    def __call__(self, batch: StereoBatch) -> Prediction:
        """Run the network."""
        self.passes += 1
        return self.network(batch)


class Scorer:
    """Runs the network on references and collects their scores.

    ``counted``: the range of true depths that counts; ``clamp``: the range that found depths are brought into.
    """

    def __init__(
        self, network: Network, device: Any, *, counted: tuple[float, float], clamp: tuple[float, float]
    ) -> None:
        self.network, self.device, self.counted, self.clamp = network, device, counted, clamp
        self.views: list[ViewScores] = []
        self.left_out: list[tuple[str, str]] = []

    def rules(self, unit: str) -> tuple[str, ...]:
        """Say in words how pixels count, and how they are averaged; ``unit``: "pair" or "frame"."""
        (near, far), (least, most) = self.counted, self.clamp
        return (
            f"pixels count where {near:g} <= true depth <= {far:g}; found depths are clamped to {least:g}-{most:g}",
            f"true normals: planes fitted to {PATCH}x{PATCH} px of true depth; left out where one of these pixels has "
            f"no depth or is more than {ROUGHNESS:.0%} off the plane",
            f"each {unit} is scored by itself, then the mean over {unit}s is taken",
            "confidence: area under the sparsification error curve of abs rel (AUSE), gain over random (AURG); sigma: "
            "per cent of errors within its 50 and 90 % intervals, of a Laplace distribution of scale sigma / sqrt(2)",
            "zones, abs rel of the refined depth and % of the pixels, each pixel in the first that fits: outside (no "
            f"source sees the true point), edge (within {EDGE_PX} px of a jump of depth by {EDGE_JUMP:.0%}), flat "
            f"(standard deviation of grey in {FLAT_WINDOW}x{FLAT_WINDOW} px below {FLAT_STD:.0%} of its range), rest",
            f"thin %: foreground that holds no square of {THIN_PX} px; found where the depth is within "
            f"{THIN_FOUND:.0%} and "
            "nearer to the truth than to what is behind; % of all such pixels of a set",
        )

    def score(
        self, prepared: PreparedScene, ref: int, sources: Sequence[int], size: tuple[int, int], name: str, subset: str
    ) -> None:
        """Score one reference of a prepared scene (positions in it), or note why it cannot be scored."""
        photo = self._photo(prepared, ref, size)
        view = photo.view
        truth = read_true_depth(view)
        if truth is None:
            self.left_out.append((name, "there is no true depth with it"))
            return
        mask = (truth >= self.counted[0]) & (truth <= self.counted[1])
        if not mask.any():
            self.left_out.append((name, f"no true depth within {self.counted[0]:g}-{self.counted[1]:g}"))
            return
        photos = [self._photo(prepared, source, size) for source in sources]
        counted = _Counted(self.network)
        since = time.perf_counter()
        prediction = predict_stages(counted, photo, photos, self.device)
        seconds = time.perf_counter() - since
        normals = true_normals(truth, view.camera)
        refined = self._clamped(prediction.refined_depth)
        others = [(_as_read(source), read_true_depth(source.view)) for source in photos]
        zones = zone_masks(photo.rgb, _as_read(photo), truth, others)
        thin, surroundings = thin_structures(truth)
        thin = thin & mask
        self.views.append(
            ViewScores(
                name=name,
                subset=subset,
                sources=tuple(source.view.name for source in photos),
                stages={stage: self._stage(prediction, stage, truth, mask, normals) for stage in STAGES},
                calibration=self._calibration(prediction, truth, mask),
                zones=zone_errors(np.abs(refined - truth) / np.where(mask, truth, 1), mask, zones),
                thin_pixels=int(thin.sum()),
                thin_found=int((thin & found_thin(refined, truth, surroundings)).sum()),
                pixels=int(mask.sum()),
                missing=int((mask & ~_has_depth(prediction.refined_depth[0].numpy())).sum()),
                passes=counted.passes,
                seconds=seconds,
            )
        )

    def _photo(self, prepared: PreparedScene, index: int, size: tuple[int, int]) -> Photo:
        """Read a view at a size [px], with the protocol's planes."""
        photo = read_photo(prepared, index, *size)
        return replace(photo, view=replace(photo.view, depth_range=self.clamp))

    def _clamped(self, depth: torch.Tensor) -> np.ndarray:
        """Return a depth map (H, W) within the range; what is no depth becomes the farthest."""
        clamped = depth[0].numpy()
        return np.where(_has_depth(clamped), clamped, self.clamp[1]).clip(*self.clamp)

    def _stage(
        self,
        prediction: Prediction,
        stage: str,
        truth: np.ndarray,
        mask: np.ndarray,
        normals: tuple[np.ndarray, np.ndarray],
    ) -> dict[str, float]:
        of_depth, of_normal = STAGES[stage]
        scores = depth_metrics(self._clamped(getattr(prediction, of_depth)), truth, mask)
        true_normal, smooth = normals
        if of_normal is not None and (mask & smooth).any():
            normal = getattr(prediction, of_normal)[0].permute(1, 2, 0).numpy()
            values = normal_metrics(normal, true_normal, mask & smooth)
            scores |= {f"normal_{metric}": value for metric, value in values.items()}
        return scores

    def _calibration(self, prediction: Prediction, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
        error = np.abs(self._clamped(prediction.refined_depth) - truth)[mask]
        sorting = sparsification(error / truth[mask], np.nan_to_num(prediction.confidence[0].numpy()[mask]))
        return {**sorting, **coverage(error, np.nan_to_num(prediction.sigma[0].numpy()[mask]))}

    def evaluation(self, *, protocol: str, rules: tuple[str, ...], data: str) -> Evaluation:
        """Return what was collected.

        Raises:
            EmptyResultError: if that is nothing.
        """
        if not self.views:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.left_out[:3])
            raise EmptyResultError(f"{data}: nothing could be scored ({reasons})")
        return Evaluation(
            protocol=protocol,
            rules=rules,
            data=data,
            network=self.network.name,
            views=tuple(self.views),
            left_out=tuple(self.left_out),
        )


def _as_read(photo: Photo) -> View:
    """Return the view with the pose that its true depth belongs to."""
    return photo.view if photo.given_pose is None else replace(photo.view, cam_from_world=photo.given_pose)


def _has_depth(depth: np.ndarray) -> np.ndarray:
    return np.isfinite(depth) & (depth > 0)
