"""How good each view is: what other views confirm of it, how much of it has a depth, how sure the depths are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nasrecon.fuse.options import below_half
from nasrecon.types import Estimate


@dataclass(frozen=True, kw_only=True)
class ViewFacts:
    """The figures of a view's maps.

    Attributes:
        near, far: its depths, 2 % and 98 % of the pixels [scene units]; 0 without any.
        median_confidence: over the pixels with a depth.
        median_sigma: standard deviation of the depth as a part of it, over the pixels with a depth.
        valid: part of the pixels with a depth.
    """

    near: float
    far: float
    median_confidence: float
    median_sigma: float
    valid: float

    @classmethod
    def of(cls, estimate: Estimate) -> ViewFacts:
        valid = estimate.depth > 0
        if not valid.any():
            return cls(near=0.0, far=0.0, median_confidence=0.0, median_sigma=0.0, valid=0.0)
        depth = estimate.depth[valid]
        near, far = np.quantile(depth, [0.02, 0.98])
        return cls(
            near=float(near),
            far=float(far),
            median_confidence=float(np.median(estimate.confidence[valid])),
            median_sigma=float(np.median(estimate.sigma[valid] / depth)),
            valid=float(valid.mean()),
        )


@dataclass(frozen=True, kw_only=True)
class ViewQuality:
    """The quality of a view.

    Attributes:
        name: of the view.
        facts: of its maps.
        confirmed: part of its pixels that other views confirm; None before the views are fused.
        agreement: part of the comparisons with other views in which depths agree; None where there are too few.
        epipolar_px: median epipolar error of the camera check [px]; None where it did not compare the view.
        fault: why it needs attention; "" where it does not.
    """

    name: str
    facts: ViewFacts
    confirmed: float | None
    agreement: float | None
    epipolar_px: float | None
    fault: str

    def cells(self) -> list[str]:
        """Return the figures as text, in the order of ``COLUMNS``."""
        facts, unknown = self.facts, "-"
        shares = [unknown if x is None else f"{100 * x:.0f} %" for x in (self.confirmed, self.agreement)]
        shares.append(unknown if self.epipolar_px is None else f"{self.epipolar_px:.2f} px")
        if not facts.valid:
            return [*shares, "0 %", unknown, unknown]
        sigma = f"{100 * facts.median_sigma:.2g} %"
        return [*shares, f"{100 * facts.valid:.0f} %", sigma, f"{facts.median_confidence:.2f}"]

    def in_words(self) -> str:
        """Return what other views confirm of the view, and its fault, as a phrase; "" where neither is known."""
        parts = [] if self.confirmed is None else [f"{100 * self.confirmed:.0f} % of the pixels confirmed"]
        parts += [] if self.epipolar_px is None else [f"epipolar error {self.epipolar_px:.2f} px"]
        return "; ".join([*parts, *([self.fault] if self.fault else [])])


COLUMNS = (
    ("confirmed", "part of the pixels that other views confirm"),
    ("agree", "part of the comparisons with other views in which depths agree"),
    (
        "epipolar",
        "distance of matches to their epipolar lines in the camera check, median; - where it was not compared",
    ),
    ("coverage", "part of the pixels with a depth"),
    ("sigma", "standard deviation of the depth as a part of it, median"),
    ("confidence", "median"),
)
"""The figures of a view: name and meaning."""


def rank_views(
    facts: dict[str, ViewFacts], fusion: dict[str, Any] | None, epipolar_px: dict[str, float] | None = None
) -> list[ViewQuality]:
    """Return the quality of the views, worst first: those with a fault, then by what other views confirm.

    Views that are not confirmed or denied by a fusion are ordered by the part of the pixels with a depth.

    Args:
        facts: of the views, by name.
        fusion: what ``read_fusion`` returns.
        epipolar_px: as ``Results.epipolar_px``.
    """
    fusion, epipolar_px = fusion or {}, epipolar_px or {}
    known: dict[str, dict[str, float | None]] = fusion.get("quality", {})
    shares = {name: share for name in facts if (share := known.get(name, {}).get("confirmed")) is not None}
    few = below_half(shares)
    views = []
    for name, view in facts.items():
        confirmed = shares.get(name)
        quality = ViewQuality(
            name=name,
            facts=view,
            confirmed=confirmed,
            agreement=known.get(name, {}).get("agreement"),
            epipolar_px=epipolar_px.get(name),
            fault=_fault(name, view, confirmed, few, fusion),
        )
        views.append(quality)
    return sorted(views, key=_order)


def _fault(name: str, facts: ViewFacts, confirmed: float | None, few: Sequence[str], fusion: dict[str, Any]) -> str:
    if not facts.valid:
        return "no pixel has a depth"
    if name in fusion.get("isolated_views", ()):
        return "overlaps with no other view"
    if confirmed == 0:
        return "nothing confirmed by other views"
    if name in fusion.get("contradicting", ()):
        return "its depths contradict the other views'"
    return "far less confirmed than the other views" if name in few else ""


def _order(view: ViewQuality) -> tuple[bool, float, float]:
    share = view.facts.valid if view.confirmed is None else view.confirmed
    return not view.fault, share, view.facts.median_confidence
