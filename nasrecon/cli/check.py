"""``nasrecon check``: whether the cameras are right, as a report."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import typer

from nasrecon.cli.options import (
    ConventionOption,
    Every,
    Fixes,
    FormatOption,
    Images,
    Intrinsics,
    JsonFlag,
    Poses,
)
from nasrecon.prepare.options import PrepareOptions

if TYPE_CHECKING:
    from nasrecon.check.findings import Diagnosis, Finding

NAMES_SHOWN = 8
PREPARE = PrepareOptions()


def check(
    images: Images,
    poses: Poses = None,
    intrinsics: Intrinsics = None,
    convention: ConventionOption = None,
    format: FormatOption = None,
    every: Every = PREPARE.every,
    fix: Fixes = None,
    as_json: JsonFlag = False,
) -> None:
    """Check whether the cameras are right: facts, faults, and the --fix that repairs each. Exit code 1: faults found.

    Example: nasrecon check photos --poses sparse/0
    """
    from nasrecon.check.diagnose import check_scene
    from nasrecon.cli.console import Bar
    from nasrecon.prepare.read import read_scene

    options = PrepareOptions(every=every, fixes=tuple(fix or ()))
    reading = {"intrinsics": intrinsics, "convention": convention, "format": format}
    with Bar() as bar:
        scene = read_scene(images, poses, options, bar, find_cameras=False, **reading)
        diagnosis = check_scene(scene, progress=bar)
    print(json.dumps(diagnosis.as_json()) if as_json else report(diagnosis))
    if diagnosis.faults:
        raise typer.Exit(1)


def report(diagnosis: Diagnosis) -> str:
    """Lay out a diagnosis for people."""
    from nasrecon.cli.console import table

    lines = [table(diagnosis.facts, right=())] if diagnosis.facts else []
    if diagnosis.given is not None:
        residuals = diagnosis.given
        rows = [
            ("matches", f"{len(residuals.error_px)} in {len(residuals.pair_px)} pairs of images"),
            ("epipolar error", f"{diagnosis.error(residuals)} (median, in pixels of the images)"),
            ("points in front", f"{residuals.cheirality_share:.1%} of {residuals.tested} matches with enough parallax"),
        ]
        if math.isfinite(residuals.depth_agreement):
            rows.append(("depths agree", f"{residuals.depth_agreement:.1%} of the points that two pairs triangulate"))
        lines += ["", table(rows, right=())]
    for finding in diagnosis.findings:
        lines += ["", *_finding_lines(finding)]
    if not diagnosis.faults:
        lines += [
            "",
            "the cameras fit the images: no faults found" if diagnosis.given is not None else "nothing was judged",
        ]
    return "\n".join(lines).strip("\n")


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"{finding.kind.upper()} {finding.name}: {finding.what}"]
    shown = finding.evidence[:NAMES_SHOWN]
    lines += [f"  {line}" for line in shown]
    if len(finding.evidence) > len(shown):
        lines.append(f"  ... and {len(finding.evidence) - len(shown)} more (all with --json)")
    if finding.fixes:
        lines.append("  repair: " + " ".join(f"--fix {fix}" for fix in finding.fixes))
    return lines
