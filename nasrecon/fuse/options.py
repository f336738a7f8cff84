"""Options of a fusion, and what it counts. Without numpy: the command line reads the defaults at no cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from nasrecon.errors import InputError

_LARGE_SCALE = 0.04
_LARGE_SIGMA_SCALE = 2.0
_MANY_REPLACED = 0.2
_NORMALS_AGREE = 0.3
_MAX_TEXTURE = 16384
_MAX_BLOCKS = 10_000

Method = Literal["tsdf", "poisson"]


@dataclass(frozen=True, kw_only=True)
class FuseOptions:
    """Options of the fusion; lengths are in scene units, None means "chosen from the data".

    Attributes:
        min_confidence: pixels below this confidence are dropped, in [0, 1].
        max_relative_depth_error: two views agree where their depths on a pixel's ray differ by no more than this part,
            and by no more than two standard deviations; a third of it is always allowed. The averages of the views
            must agree three times as well.
        max_normal_angle_deg: ... and the two normals differ by no more than this.
        min_views: the number of views that must agree on a pixel, its own included. None: 3, less for views with
            fewer than two neighbours, and for pixels that no view contradicts and whose own relative sigma is no larger
            than ``max_relative_depth_error``; 1 switches the check between views off.
        max_neighbors: each view is compared with at most so many others.
        cell: edge of the cells of which each holds one point of the cloud. None: twice the size of a pixel at the
            median depth.
        voxel: edge of the mesh's voxels. None: twice the size of a pixel at the median depth, larger if the grid
            would not fit memory.
        method: "tsdf": the mesh is the zero level of a signed distance field of the depth maps; "poisson": the screened
            Poisson surface of the cloud, where the cloud has points.
        target_faces: the mesh is decimated to about so many faces; None: not.
        texture: edge of the mesh's texture atlas [px]; None: colours of vertices only.
        blocks: the scene is cut into so many spatial blocks, or a few more, of which one is in memory at a time
            (``fuse.blocks``); "auto": one, more where the grid of voxels would take over a quarter of the free memory.
            The processes of a job share them and have one each at least.
        min_component_faces: mesh parts with fewer faces that hang on nothing are removed; 0 keeps all.

    Raises:
        InputError: if a value is out of its range.
    """

    min_confidence: float = 0.2
    max_relative_depth_error: float = 0.03
    max_normal_angle_deg: float = 60.0
    min_views: int | None = None
    max_neighbors: int = 10
    cell: float | None = None
    voxel: float | None = None
    method: Method = "tsdf"
    target_faces: int | None = None
    texture: int | None = None
    blocks: int | Literal["auto"] = "auto"
    min_component_faces: int = 200

    def __post_init__(self) -> None:
        _check("min_confidence", self.min_confidence, 0, 1)
        _check("max_relative_depth_error", self.max_relative_depth_error, 0, 1, open_low=True)
        _check("max_normal_angle_deg", self.max_normal_angle_deg, 0, 180, open_low=True)
        _check("max_neighbors", self.max_neighbors, 1, math.inf)
        _check("min_component_faces", self.min_component_faces, 0, math.inf)
        if self.min_views is not None:
            _check("min_views", self.min_views, 1, math.inf)
            if self.min_views > self.max_neighbors + 1:
                raise InputError(
                    f"min_views {self.min_views} can never be reached with max_neighbors {self.max_neighbors}: "
                    f"a view and its neighbours are {self.max_neighbors + 1}"
                )
        if self.method not in ("tsdf", "poisson"):
            raise InputError(f"method must be tsdf or poisson, found {self.method!r}")
        if self.blocks != "auto":
            _check("blocks", self.blocks, 1, _MAX_BLOCKS)
            if self.blocks > 1 and self.method == "poisson":
                raise InputError(f"the Poisson surface is one for the whole scene; found blocks {self.blocks}: give 1")
        for name, least in (("target_faces", 4), ("texture", 256)):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), least, _MAX_TEXTURE if name == "texture" else math.inf)
        for name in ("cell", "voxel"):
            if getattr(self, name) is not None:
                _check(name, getattr(self, name), 0, math.inf, open_low=True)


def _check(name: str, value: float, low: float, high: float, open_low: bool = False) -> None:
    """Raise InputError unless value lies in [low, high], or in (low, high] for open_low; NaN and infinity never do."""
    inside = math.isfinite(value) and low <= value <= high and not (open_low and value == low)
    if not inside:
        above = "above" if open_low else "at least"
        upper = "" if math.isinf(high) else f" and at most {high:g}"
        raise InputError(f"{name} must be {above} {low:g}{upper}, found {value}")


def below_half(shares: dict[str, float], least: float = 0.0) -> list[str]:
    """Return the names whose share is under half of the middle one of three or more, or under ``least``."""
    ordered = sorted(shares.values())
    middle = ordered[len(ordered) // 2] if len(ordered) >= 3 else 0.0
    return [name for name, share in shares.items() if share < max(0.5 * middle, least)]


@dataclass(kw_only=True)
class FilterStats:
    """What each stage of a fusion let through; filled while the views are filtered.

    Attributes:
        views: number of views.
        pixels, with_depth, confident, supported: pixels of all views that passed each stage, in this order.
        lone: pixels of ``supported`` that fewer views agree on: they are sure and no view contradicts them.
        merged: points of the cloud once those of one cell are merged; None if no cloud was asked for.
        comparisons: pairs of a confident pixel and another view that has a depth there and that it is not hidden from.
        near: ``comparisons`` that agree in position (reprojection and depth).
        consistent: those of ``near`` that agree in their normals as well.
        contradicted: pixels on which enough views agree, dropped because as many views or more contradict them.
        scales: factor by which the depths of a view were multiplied, by its name, where the other views ask for it.
        sigma_scales: factor by which the sigma of a view was multiplied, where its differences to others exceed it.
        agreement: for each view that others look at, the part of the comparisons with them in which depths agree.
        normal_agreement: for each such view, the part of the comparisons that agree in depth in which normals do too.
        confirmed: for each view, the part of its pixels that passed every stage.
        replaced_normals: for each view, the part of its depths whose normals were taken from the depth.
        views_without_depth: names of the views without a confident depth.
        isolated_views: names of the views that overlap with no other.
        min_views: the number of agreeing views asked of a view that has enough neighbours.
    """

    views: int = 0
    pixels: int = 0
    with_depth: int = 0
    confident: int = 0
    supported: int = 0
    lone: int = 0
    merged: int | None = None
    comparisons: int = 0
    near: int = 0
    consistent: int = 0
    contradicted: int = 0
    scales: dict[str, float] = field(default_factory=dict)
    sigma_scales: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    normal_agreement: dict[str, float] = field(default_factory=dict)
    confirmed: dict[str, float] = field(default_factory=dict)
    replaced_normals: dict[str, float] = field(default_factory=dict)
    views_without_depth: list[str] = field(default_factory=list)
    isolated_views: list[str] = field(default_factory=list)
    min_views: int = 1

    def add(self, part: FilterStats, names: Sequence[str]) -> None:
        """Add what the filter counted on some of the views; ``names`` are all views, in order."""
        for name in ("supported", "lone", "comparisons", "near", "consistent", "contradicted"):
            setattr(self, name, getattr(self, name) + getattr(part, name))
        for name in ("agreement", "normal_agreement", "confirmed"):
            shares: dict[str, float] = {**getattr(self, name), **getattr(part, name)}
            setattr(self, name, {view: shares[view] for view in names if view in shares})

    def contradicting(self) -> list[str]:
        """Return the names of the views that agree with others less than half as often as the middle one does."""
        return below_half(self.agreement)

    def notes(self) -> list[str]:
        """Return what is wrong with single views, one line for people each: what was found, and what to do."""
        lines = ["there is one view: no depth of it could be confirmed by another view"] if self.views == 1 else []
        lines += [
            f"{name}: none of its pixels has a depth with a confidence of min_confidence or more; it adds nothing: "
            f"lower min_confidence, or leave it out"
            for name in self.views_without_depth
        ]
        lines += [
            f"{name}: overlaps with no other view, so nothing of it could be confirmed" for name in self.isolated_views
        ]
        lines += [
            f"{name}: the other views ask for its depths times {factor:.3f}; they were multiplied. If its depths are "
            f"right, check its camera with `nasrecon check`"
            for name, factor in self.scales.items()
            if abs(math.log(factor)) > _LARGE_SCALE
        ]
        lines += [
            f"{name}: its depths agree with other views in {100 * self.agreement[name]:.0f} % of the comparisons only, "
            f"far below the other views; its pose or its depths are wrong: see `nasrecon check`, or leave it out"
            for name in self.contradicting()
        ]
        lines += self._normal_notes()
        lines += [
            f"{name}: its depths differ from other views' by {factor:.1f} times what its sigma lets expect; sigma was "
            f"multiplied"
            for name, factor in self.sigma_scales.items()
            if factor > _LARGE_SIGMA_SCALE
        ]
        return lines

    def _normal_notes(self) -> list[str]:
        """Return what is wrong with the normals of single views."""
        replaced = {name: share for name, share in self.replaced_normals.items() if share > _MANY_REPLACED}
        lines = [
            f"{name}: the normals of {100 * share:.0f} % of its depths are missing or point away from the camera; they "
            f"were taken from the depths. Normals are unit vectors in the camera frame that face the camera"
            for name, share in replaced.items()
        ]
        return lines + [
            f"{name}: where its depths agree with other views, its normals do so in "
            f"{100 * self.normal_agreement[name]:.0f} % only; are they in the camera frame (x right, y down)?"
            for name in below_half(self.normal_agreement, least=_NORMALS_AGREE)
            if name not in replaced
        ]

    def stages(self) -> list[tuple[str, int]]:
        """Return (stage, what was left after it) in order, for a table."""
        rows = [
            ("pixels", self.pixels),
            ("with depth", self.with_depth),
            ("confident", self.confident),
            (f"{self.min_views} views agree" if self.min_views > 1 else "no check between views", self.supported),
        ]
        if self.merged is not None:
            rows.append(("merged points", self.merged))
        return rows
