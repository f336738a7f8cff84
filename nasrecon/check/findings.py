"""Findings of the check, each with its evidence and the fix that repairs it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nasrecon.matching.residuals import WORST_PX, Cameras, MatchArrays, Residuals
from nasrecon.types import Scene


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        name: short and stable ("world-from-cam", "wrong-poses"), for scripts.
        kind: a "fault" breaks the reconstruction; a "note" is good to know.
        what: one sentence for people.
        evidence: measurements, one line each.
        fixes: what to pass to ``--fix``, in this order; none where nothing of ours repairs it.
        views: names of the views concerned, where it is not all of them.
    """

    name: str
    kind: Literal["fault", "note"]
    what: str
    evidence: tuple[str, ...] = ()
    fixes: tuple[str, ...] = ()
    views: tuple[str, ...] = ()


def error_in_px(residuals: Residuals, image_px_per_feature_px: float) -> str:
    """Write the median epipolar error in pixels of the full-size image."""
    return (
        f"{residuals.median_px * image_px_per_feature_px:.2f} px"
        if residuals.median_px < WORST_PX
        else f"{WORST_PX * image_px_per_feature_px:.0f} px or more"
    )


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found in a set.

    Attributes:
        findings: faults first.
        facts: what was read, (name, value) rows for a table.
        given: how well the cameras fit as they were given; None where nothing could be matched.
        repaired: how well they fit with all fixes applied; the same as ``given`` without any.
        image_px_per_feature_px: pixels of the full-size image for one pixel of the searched image, the unit of the
            residuals.
        matches: what the cameras were compared with; None where nothing could be matched.
    """

    findings: tuple[Finding, ...]
    facts: tuple[tuple[str, str], ...] = ()
    given: Residuals | None = None
    repaired: Residuals | None = None
    image_px_per_feature_px: float = 1.0
    matches: MatchArrays | None = field(default=None, repr=False)

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that are faults."""
        return tuple(finding for finding in self.findings if finding.kind == "fault")

    @property
    def fixes(self) -> tuple[str, ...]:
        """All fixes, in the order in which they are to be applied."""
        return tuple(fix for finding in self.findings for fix in finding.fixes)

    def error(self, residuals: Residuals) -> str:
        """Write the median epipolar error of a fit [px of the images]."""
        return error_in_px(residuals, self.image_px_per_feature_px)

    def error_by_view(self, scene: Scene) -> dict[str, float]:
        """Return the median epipolar error [px of the images] of each view that was compared, under a scene's cameras.

        Args:
            scene: the one that was checked, its poses refined or not. Empty for cameras with a fault, whose errors mean
                nothing.
        """
        if self.matches is None or self.faults:
            return {}
        errors = self.matches.median_by_view(self.matches.evaluate(Cameras.of(scene)))
        return {scene.views[i].name: round(error, 3) for i, error in errors.items()}

    def as_json(self) -> dict[str, Any]:
        """Return JSON values only."""
        numbers = {
            name: {
                "median_epipolar_error_px": round(residuals.median_px * self.image_px_per_feature_px, 3),
                "share_in_front": round(residuals.cheirality_share, 4),
                "share_of_depths_that_agree": None
                if residuals.depth_agreement != residuals.depth_agreement
                else round(residuals.depth_agreement, 4),
            }
            for name, residuals in (("given", self.given), ("repaired", self.repaired))
            if residuals is not None
        }
        return {
            "faults": [asdict(finding) for finding in self.faults],
            "notes": [asdict(finding) for finding in self.findings if finding.kind == "note"],
            "fixes": list(self.fixes),
            "read": dict(self.facts),
            **numbers,
        }
