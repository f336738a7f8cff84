"""From a scene and its matches to a diagnosis: what is wrong with the cameras, what says so, what repairs it.

The order matters: what makes the rest meaningless comes first (images that do not move, cameras of another image
size), then what concerns all cameras, then single views, then the unit. Every fault is looked for in the scene as
repaired so far, so that simultaneous faults are reported separately.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np

from nasrecon.check.duplicates import duplicates
from nasrecon.check.findings import Diagnosis, Finding, error_in_px
from nasrecon.check.fixes import apply_fixes
from nasrecon.check.hypotheses import best_hypothesis
from nasrecon.check.hypothesis_test import WORST_ACCEPTED_PX, Outcome
from nasrecon.check.image_size import image_size_findings
from nasrecon.check.motion import nothing_moves
from nasrecon.check.outlier_views import MIN_PAIRS as VOTES
from nasrecon.check.outlier_views import reordered, wrong_views
from nasrecon.check.photometric import photometric_share
from nasrecon.check.principal_point import fit_center_shift
from nasrecon.check.summary import facts
from nasrecon.check.units import unit_finding
from nasrecon.errors import plural
from nasrecon.matching.features import FeatureStore
from nasrecon.matching.match_scene import match_scene
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays, Residuals
from nasrecon.matching.sampling import MatchOptions
from nasrecon.progress import Progress
from nasrecon.types import Scene

# Cameras that fit fewer pairs than this badly may be right, and the matches wrong.
MIN_PAIRS = 3


# Errors so many times those of the matches themselves are worth a note on noise [times, searched px].
NOISY_TIMES, NOISY_PX = 3.0, 1.0


# Report a half-pixel offset if its standard error is <= 0.1 px and it lies within 2.5 sigma of 0.5 px and >= 4 sigma
# from 0.
CERTAIN_PX, HALF_SIGMAS, SURE_SIGMAS = 0.1, 2.5, 4.0


# Two faults of all cameras at once are looked for, not more.
MAX_HYPOTHESES = 2


QUICK = MatchOptions(views=10, pairs=24)


def check_scene(
    scene: Scene, *, quick: bool = False, progress: Progress | None = None, store: FeatureStore | None = None
) -> Diagnosis:
    """Say whether the cameras of a scene are right, from its images and geometry alone.

    Args:
        scene: as ``open_scene`` made it.
        quick: look at few images and leave out what takes long; for a warning before other work.
        progress: receives the reports.
        store: features and matches that are known already; what this check finds is added.

    Raises:
        InputError: if fewer than two images can be read.
    """
    resized, findings = image_size_findings(scene)
    matches = match_scene(resized, QUICK if quick else None, progress, store)
    diagnosis = diagnose(resized, matches, quick=quick)
    read = () if quick else facts(resized, matches)
    return replace(diagnosis, findings=_faults_first([*findings, *diagnosis.findings]), facts=read)


def diagnose(scene: Scene, matches: Matches, *, quick: bool = False) -> Diagnosis:
    """Say whether the cameras of a scene fit the matches of its images.

    Args:
        scene: its cameras have the sizes of the images.
        matches: from ``match_scene``, of this scene or of one with the same images.
        quick: leave out what takes long.
    """
    findings = _unreadable(matches)
    if not matches.pairs:
        return Diagnosis(findings=_faults_first([*findings, _nothing_matches(matches)]))
    arrays = MatchArrays(matches)
    given = arrays.evaluate(Cameras.of(scene))
    image_px_per_feature_px = float(np.median(arrays.image_px_per_feature_px))
    unchanged = partial(
        Diagnosis, given=given, repaired=given, image_px_per_feature_px=image_px_per_feature_px, matches=arrays
    )
    blind = nothing_moves(scene, matches)
    if blind is None and _no_baseline(scene):
        blind = _without_baseline(given, image_px_per_feature_px)
    if blind is not None:
        return unchanged(findings=_faults_first([*findings, blind]))
    case = _DiagnosisState(scene, matches, given, image_px_per_feature_px, quick)
    case.double_images()
    case.whole_set()
    case.single_views()
    case.unexplained()
    case.unit()
    case.noise()
    case.half_pixel()
    return unchanged(findings=_faults_first([*findings, *case.findings]), repaired=case.residuals)


def _faults_first(findings: list[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(findings, key=lambda finding: finding.kind != "fault"))


def _unreadable(matches: Matches) -> list[Finding]:
    if not matches.problems:
        return []
    what = f"{plural(len(matches.problems), 'image')} cannot be read"
    evidence = tuple(f"{name}: {reason}" for name, reason in matches.problems[:5])
    return [Finding(name="unreadable", kind="note", what=what, evidence=evidence)]


def _nothing_matches(matches: Matches) -> Finding:
    return Finding(
        name="no-matches",
        kind="note",
        what="no two images could be matched, so nothing can be said about the cameras",
        evidence=(f"{matches.tried} pairs of {len(matches.views)} images were tried: too little texture or overlap?",),
    )


def _no_baseline(scene: Scene) -> bool:
    centers = np.array([view.center_in_world for view in scene.views])
    return bool(np.ptp(centers, axis=0).max() <= 1e-6 * max(np.abs(centers).max(), 1e-12))


def _without_baseline(given: Residuals, image_px_per_feature_px: float) -> Finding:
    return Finding(
        name="no-baseline",
        kind="fault",
        what="all cameras are at one place, while the images were taken from several: the translations are lost",
        evidence=(
            f"matches are off by {error_in_px(given, image_px_per_feature_px)} (median) from where one camera "
            "at one place would see them",
        ),
    )


class _DiagnosisState:
    """A set under examination: the scene as repaired so far, and what was found."""

    def __init__(
        self, scene: Scene, matches: Matches, given: Residuals, image_px_per_feature_px: float, quick: bool
    ) -> None:
        self.scene, self.matches, self.residuals, self.quick = scene, matches, given, quick
        self.image_px_per_feature_px = image_px_per_feature_px
        self.findings: list[Finding] = []

    def _go_on_with(self, scene: Scene) -> None:
        self.matches = self.matches.reindexed(self.scene, scene)
        self.scene = scene
        self.residuals = MatchArrays(self.matches).evaluate(Cameras.of(scene))

    def double_images(self) -> None:
        """Find images that are there twice, and go on without the second ones."""
        findings = duplicates(self.scene, self.matches, self.residuals)
        self.findings += findings
        repeated = {name for finding in findings if finding.fixes for name in finding.views}
        if repeated:
            rest = self.scene.subset([i for i, view in enumerate(self.scene.views) if view.name not in repeated])
            if self.matches.reindexed(self.scene, rest).pairs:
                self._go_on_with(rest)

    def whole_set(self) -> None:
        """Find what is wrong with all cameras alike."""
        for _ in range(MAX_HYPOTHESES):
            outcome = best_hypothesis(self.scene, self.matches, self.residuals, quick=self.quick)
            if outcome is None:
                return
            self.findings.append(self._finding(outcome))
            self.scene, self.matches, self.residuals = outcome.scene, outcome.matches, outcome.residuals

    def _finding(self, outcome: Outcome) -> Finding:
        hypothesis = outcome.hypothesis
        return Finding(
            name=hypothesis.name,
            kind="fault",
            what=hypothesis.what,
            evidence=(*self._evidence(outcome.residuals), *self._photometric(outcome)),
            fixes=hypothesis.fixes,
        )

    def _in_px(self, residuals: Residuals) -> str:
        return error_in_px(residuals, self.image_px_per_feature_px)

    def _evidence(self, after: Residuals) -> tuple[str, ...]:
        before = self.residuals
        lines = [
            f"median epipolar error {self._in_px(before)} as given, {self._in_px(after)} with "
            "the fix "
            f"({len(after.pair_px)} pairs, {len(after.error_px)} matches)",
            f"points in front of the cameras {before.cheirality_share:.0%} as given, "
            f"{after.cheirality_share:.0%} with the fix",
        ]
        if np.isfinite(after.depth_agreement):
            given = f"{before.depth_agreement:.0%}" if np.isfinite(before.depth_agreement) else "none"
            lines.append(
                f"depths of a point agree between pairs: {given} as given, {after.depth_agreement:.0%} with the fix"
            )
        return tuple(lines)

    def _photometric(self, outcome: Outcome) -> tuple[str, ...]:
        """Ask the images too, by a coarse plane sweep before and after the fix."""
        if self.quick:
            return ()
        shares = photometric_share(self.scene, self.matches), photometric_share(outcome.scene, outcome.matches)
        if None in shares:
            return ()
        before, after = shares
        return (f"a plane sweep finds a depth for {before:.0%} of the pixels as given, {after:.0%} with the fix",)

    def single_views(self) -> None:
        """Find views that do not fit while the others do."""
        self._lonely_views()
        wrong = wrong_views(self.matches, self.residuals)
        if not wrong:
            return
        names = tuple(self.scene.views[i].name for i in wrong)
        off = [
            f"{name}: its pairs are off by {self._error_of(i):.1f} px (median)"
            for name, i in zip(names, wrong, strict=True)
        ]
        exchanged = reordered(self.scene, self.matches, wrong)
        if exchanged is not None:
            name, what, fixes = "order", f"{len(names)} images have each other's poses", ("order=matched",)
            rest = exchanged
        else:
            name, what = "wrong-poses", f"wrong poses, or images that are not theirs: {plural(len(names), 'view')}"
            fixes = tuple(f"drop={view}" for view in names)
            rest = apply_fixes(self.scene, fixes)
        if not self.matches.reindexed(self.scene, rest).pairs:
            return
        self._go_on_with(rest)
        evidence = (
            *off,
            f"all pairs with the fix: {self._in_px(self.residuals)} (median)",
        )
        self.findings.append(Finding(name=name, kind="fault", what=what, evidence=evidence, fixes=fixes, views=names))

    def _lonely_views(self) -> None:
        """Name the views that too few others see the same as: their poses cannot be judged one by one."""
        counts = Counter(i for pair in self.matches.pairs for i in (pair.first, pair.second))
        lonely = tuple(self.scene.views[i].name for i in self.matches.views if counts[i] < VOTES)
        if lonely and not self.quick:
            what = (
                f"fewer than {VOTES} others match {plural(len(lonely), 'view')}: whether their own poses are right "
                "cannot be decided"
            )
            self.findings.append(Finding(name="lonely-views", kind="note", what=what, evidence=lonely, views=lonely))

    def _error_of(self, view: int) -> float:
        pairs = [p for p, pair in enumerate(self.matches.pairs) if view in (pair.first, pair.second)]
        return float(np.median(self.residuals.pair_px[pairs])) * self.image_px_per_feature_px

    def unexplained(self) -> None:
        """Say so if the cameras are wrong and no hypothesis explains it."""
        residuals = self.residuals
        if residuals.median_px <= WORST_ACCEPTED_PX:
            return
        measured = (
            f"median epipolar error {self._in_px(residuals)}, {residuals.cheirality_share:.0%} of the points in front "
            f"of the cameras ({len(residuals.pair_px)} pairs)"
        )
        certain = len(residuals.pair_px) >= MIN_PAIRS
        self.findings.append(
            Finding(
                name="unexplained",
                kind="fault" if certain else "note",
                what="the cameras do not fit the images, and no known fault explains it"
                + ("" if certain else "; but so few pairs may be wrong themselves"),
                evidence=(measured,),
            )
        )

    def unit(self) -> None:
        """Compare the unit of the translations with that of the depths, where the cameras are right otherwise."""
        if any(finding.name == "unexplained" for finding in self.findings):
            return
        finding = unit_finding(self.scene, self.matches)
        if finding is not None:
            self.findings.append(finding)

    def noise(self) -> None:
        """Report how noisy the cameras are, and what cannot be decided of the principal point."""
        residuals, noise_px = self.residuals, MatchArrays(self.matches).noise_px
        if residuals.median_px > max(NOISY_PX, NOISY_TIMES * noise_px) and residuals.median_px <= WORST_ACCEPTED_PX:
            self.findings.append(
                Finding(
                    name="noisy",
                    kind="note",
                    what="the poses are noisy: no depth can be better than they are (`infer` refines them by "
                    "the matches)",
                    fixes=("refine-poses",),
                    evidence=(
                        f"median epipolar error {self._in_px(residuals)}; the matches themselves are good to "
                        f"{noise_px * self.image_px_per_feature_px:.2f} px",
                    ),
                )
            )

    def half_pixel(self) -> None:
        """Find principal points that are off by half a pixel, where the images are sharp and many enough to tell."""
        if self.quick or any(view.image.lens is not None for view in self.scene.views):
            return
        if any(finding.name in ("unexplained", "principal-point") for finding in self.findings):
            return
        fitted = fit_center_shift(self.scene, self.matches)
        if fitted is None or fitted.sigma.max() > CERTAIN_PX:
            sure = (
                "too few views to measure it; this is no fault"
                if fitted is None
                else f"the fit is certain to {fitted.sigma.max():.2f} px only"
            )
            what = "whether principal points are off by half a pixel cannot be decided here"
            self.findings.append(Finding(name="half-pixel-unknown", kind="note", what=what, evidence=(sure,)))
            return
        side = np.sign(fitted.shift)
        is_half = np.abs(fitted.shift - 0.5 * side) <= HALF_SIGMAS * fitted.sigma
        if is_half.all() and side[0] == side[1] and (np.abs(fitted.shift) >= SURE_SIGMAS * fitted.sigma).all():
            x, y = 0.5 * side
            (sx, sy), (dx, dy) = fitted.sigma, fitted.shift
            self.findings.append(
                Finding(
                    name="half-pixel",
                    kind="fault",
                    what="the principal points are off by half a pixel (integer and half-pixel centres mixed up)",
                    evidence=(
                        f"fitted shift ({dx:.2f} +- {sx:.2f}, {dy:.2f} +- {sy:.2f}) px over "
                        f"{len(self.residuals.pair_px)} pairs",
                    ),
                    fixes=(f"principal-point={x:g},{y:g}",),
                )
            )
