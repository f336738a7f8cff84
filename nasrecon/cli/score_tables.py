"""Tables of scores: of estimates by protocol, and of a surface."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from nasrecon.cli.console import table
from nasrecon.evaluation.scoring import STAGES, Evaluation
from nasrecon.evaluation.surface import SurfaceScore

DEPTHS = {
    "abs_rel": ("abs rel", ".4f"),
    "sq_rel": ("sq rel", ".4f"),
    "rmse": ("rmse", ".4f"),
    "rmse_log": ("rmse log", ".4f"),
    "delta_1": ("<1.25", ".4f"),
    "delta_2": ("<1.25^2", ".4f"),
    "delta_3": ("<1.25^3", ".4f"),
}
NORMALS = {
    "normal_mean_deg": ("normal mean", ".2f"),
    "normal_median_deg": ("median", ".2f"),
    "normal_below_11.25_pct": ("<11.25", ".1f"),
    "normal_below_22.5_pct": ("<22.5", ".1f"),
    "normal_below_30_pct": ("<30 deg", ".1f"),
}
ZONES = {
    key: form
    for zone in ("outside", "edge", "flat", "rest")
    for key, form in ((zone, (zone, ".4f")), (f"{zone}_share", ("%", ".1%")))
} | {"thin_found_pct": ("thin %", ".1f")}
CALIBRATION = {
    "ause": ("AUSE", ".4f"),
    "aurg": ("AURG", ".4f"),
    "within_50_pct": ("in 50 %", ".1f"),
    "within_90_pct": ("in 90 %", ".1f"),
}

STAGES_IN_WORDS = (
    "Z1: depth before context aggregation; Z2: after it; refined: after the consistency module, what infer writes"
)


def surface_table(score: SurfaceScore) -> str:
    """Lay out the scores of a surface."""
    unit = "" if score.samples.unit == "unknown" else f" {score.samples.unit}"
    rows = [
        ("samples", f"{score.points:,}", f"in the visible part, {score.hidden:,} outside do not count"),
        ("accuracy", f"{score.accuracy_median:.4g}{unit}", f"median, mean {score.accuracy_mean:.4g}"),
        ("completeness", f"{score.completeness_median:.4g}{unit}", f"median, mean {score.completeness_mean:.4g}"),
        ("chamfer", f"{score.chamfer:.4g}{unit}", "mean of the two means"),
    ]
    if score.normal_mean_deg == score.normal_mean_deg:
        rows.append(("normals", f"{score.normal_mean_deg:.1f} deg", f"mean, median {score.normal_median_deg:.1f}"))
    if score.moved is not None:
        rows.append(("aligned", f"{score.moved[0]:.3f} deg", f"and moved by {score.moved[1]:.4g}{unit}"))
    for at in score.distances:
        shares = f"precision {at.precision:.1f}, recall {at.recall:.1f}"
        rows.append((f"F at {at.distance:.4g}{unit}", f"{at.f:.1f} %", shares))
    return table(rows)


def score_tables(evaluation: Evaluation) -> str:
    """Lay out what was scored and how, then tables of depths, normals, zones and calibration, a row for each part."""
    missing = sum(view.missing for view in evaluation.views)
    share = missing / sum(view.pixels for view in evaluation.views)
    lines = [
        f"protocol: {evaluation.protocol}",
        *textwrap.wrap(f"data: {evaluation.data}", 98, **_UNBROKEN),
        *(wrapped for rule in evaluation.rules for wrapped in textwrap.wrap(rule, 98, **_INDENTED)),
        f"network: {evaluation.network}",
        *textwrap.wrap(f"stages: {STAGES_IN_WORDS}", 98, subsequent_indent="  "),
        "passes, s: forward passes and seconds a view",
    ]
    if missing:
        lines.append(f"{share:.2%} of the pixels that count have no refined depth; they count as farthest")
    with_normals = [stage for stage, (_, normal) in STAGES.items() if normal is not None]
    of_refined = {subset: evaluation.zones(subset) for subset in evaluation.subsets}
    for subset, values in of_refined.items():
        thin_pct = evaluation.thin_found_pct(subset)
        values |= evaluation.calibration(subset) | ({} if thin_pct is None else {"thin_found_pct": thin_pct})
    for columns, stages in ((DEPTHS, list(STAGES)), (NORMALS, with_normals), (ZONES, []), (CALIBRATION, [])):
        lines += ["", _score_table(evaluation, columns, stages, of_refined)]
    return "\n".join(lines)


_UNBROKEN: dict[str, Any] = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
_INDENTED = {"initial_indent": "  ", "subsequent_indent": "    ", "break_long_words": False}


def _score_table(
    evaluation: Evaluation,
    columns: Mapping[str, tuple[str, str]],
    stages: Sequence[str],
    of_refined: Mapping[str, Mapping[str, float]],
) -> str:
    """Lay out a row for each part of the set and stage; without stages, of ``of_refined``: part -> metric -> value."""
    subsets = evaluation.subsets if len(evaluation.subsets) > 2 else ("all",)
    with_cost = columns is CALIBRATION  # the narrowest table
    rows = [["set", "views", "stage", *(title for title, _ in columns.values()), *(["passes", "s"] * with_cost)]]
    for subset in subsets:
        cost = [f"{evaluation.passes_per_view(subset):.3g}", f"{evaluation.seconds_per_view(subset):.2f}"] * with_cost
        for stage in stages or ["refined"]:
            values = evaluation.stage(stage, subset) if stages else of_refined[subset]
            cells = [f"{values[key]:{form}}" if key in values else "-" for key, (_, form) in columns.items()]
            rows.append([subset, str(len(evaluation.of(subset))), stage, *(cell.rstrip("%") for cell in cells), *cost])
    return table(rows, right=[i for i in range(len(rows[0])) if i not in (0, 2)])
