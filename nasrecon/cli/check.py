"""``nasrecon check``: whether the cameras are right, as a report."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
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
from nasrecon.errors import LINE_WIDTH, broken
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
    given = {"--poses": poses, "--intrinsics": intrinsics, "--convention": convention, "--format": format}
    arguments = [images, *(word for name, value in given.items() if value is not None for word in (name, value))]
    arguments += ["--every", every] if every > 1 else []
    arguments += [word for each in fix or () for word in ("--fix", each)]
    print(json.dumps(diagnosis.as_json()) if as_json else report(diagnosis, arguments))
    if diagnosis.faults:
        raise typer.Exit(1)


def report(diagnosis: Diagnosis, arguments: Sequence[object] = ()) -> str:
    """Lay out a diagnosis for people; ``arguments``: of the command that made it, for the one to type next."""
    from nasrecon.cli.console import table
    from nasrecon.errors import plural

    lines = [table(_broken_rows(diagnosis.facts), right=())] if diagnosis.facts else []
    if diagnosis.given is not None:
        residuals = diagnosis.given
        rows = [
            ("matches", f"{len(residuals.error_px):,} in {plural(len(residuals.pair_px), 'pair')} of images"),
            (
                "epipolar error",
                f"{diagnosis.error(residuals)} (median distance of a match from where the cameras put it)",
            ),
            (
                "points in front",
                f"{residuals.cheirality_share:.1%} of {residuals.tested} matches that can be triangulated lie in front "
                "of both cameras",
            ),
        ]
        if math.isfinite(residuals.depth_agreement):
            rows.append(
                ("depths agree", f"{residuals.depth_agreement:.1%} of the points that two pairs of images triangulate")
            )
        lines += ["", table(rows, right=())]
    for finding in diagnosis.findings:
        lines += ["", *_finding_lines(finding)]
    return "\n".join([*lines, "", *_verdict(diagnosis, arguments)]).strip("\n")


def _broken_rows(facts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Break values that make a line longer than a terminal into rows without a name."""
    room = LINE_WIDTH - 2 - max(len(name) for name, _ in facts)
    return [(name if i == 0 else "", line) for name, value in facts for i, line in enumerate(broken(value, room))]


def _verdict(diagnosis: Diagnosis, arguments: Sequence[object]) -> list[str]:
    """Say whether the cameras fit, and what to type next."""
    from nasrecon.cli.console import next_lines
    from nasrecon.errors import plural
    from nasrecon.prepare.prepare import REFINE

    left = [fix for fix in diagnosis.fixes if fix != REFINE or REFINE not in arguments]  # poses are refined once
    fixes = [word for fix in left for word in ("--fix", fix)]
    if diagnosis.faults:
        repaired = (
            f"; with the repairs: {diagnosis.error(diagnosis.repaired)}" if diagnosis.repaired is not None else ""
        )
        lines = [f"the cameras do not fit the images: {plural(len(diagnosis.faults), 'fault')}{repaired}"]
        return [*lines, *next_lines(("infer", [*arguments, *fixes], "with the repairs"))] if fixes else lines
    if diagnosis.given is None:
        return ["the images could not be compared, so nothing is known about the cameras"]
    lines = [f"cameras fit the images: {diagnosis.error(diagnosis.given)} (median epipolar error)"]
    return [*lines, *next_lines(("infer", [*arguments, *fixes], "depth maps"))]


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"{finding.kind.upper()} {finding.name}: {finding.what}"]
    shown = finding.evidence[:NAMES_SHOWN]
    lines += [f"  {line}" for line in shown]
    if len(finding.evidence) > len(shown):
        lines.append(f"  ... and {len(finding.evidence) - len(shown)} more (all with --json)")
    if finding.fixes:
        lines.append("  repair: " + " ".join(f"--fix {fix}" for fix in finding.fixes))
    return lines
