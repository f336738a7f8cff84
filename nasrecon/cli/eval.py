"""``nasrecon eval``: scores by named protocol, as a table and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from nasrecon.atomic import write_atomically
from nasrecon.errors import InputError

if TYPE_CHECKING:
    from nasrecon.evaluation.scoring import Evaluation
    from nasrecon.evaluation.surface import SurfaceScore

ProtocolName = Literal["demon-32m", "demon-10m", "frames-2src", "frames-4src", "scannet-nas", "sevenscenes"]
"""Keys of ``evaluation.protocols.PROTOCOLS``."""


class _ByProtocol(TyperGroup):
    """Takes ``eval --protocol NAME DIR`` for the command ``eval protocol``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the command's name before the arguments, where ``--protocol`` is among them and no command is."""
        named = any(arg == "--protocol" or arg.startswith("--protocol=") for arg in args)
        return super().parse_args(ctx, ["protocol", *args] if named and args[0] not in self.commands else args)


app = typer.Typer(
    cls=_ByProtocol,
    help="Scores against the truth: --protocol NAME DIR a network's depth by a protocol, frames by a choice of frames "
    "of your own, mesh a cloud or a mesh.",
    no_args_is_help=True,
)

Network = Annotated[
    str,
    typer.Option(
        "--network", help="Name of a network (`weights list`), a .safetensors file, or zncc: nothing learned."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda (cuda:1 ...).")]
KeepPoses = Annotated[
    bool, typer.Option("--keep-poses", help="Poses as given, also where the matches of the images ask for others.")
]
Json = Annotated[Path | None, typer.Option("--json", help="Write all scores, of each view too, to a file.")]

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


class RuleName(StrEnum):
    """Which frames are references and sources."""

    every = "every"
    baseline = "baseline"


@app.command(
    "protocol", help="A protocol by name, as in `nasrecon eval --protocol demon-32m DIR`; its paragraph is printed."
)
def by_protocol(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What the protocol scores: pairs, or sequences.")],
    protocol: Annotated[ProtocolName, typer.Option("--protocol", help="The protocol.")],
    network: Network = "lite",
    keep_poses: KeepPoses = False,
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Score by a named protocol."""
    _check_writable(json_file)

    from nasrecon.cli.console import Bar
    from nasrecon.evaluation.protocols import evaluate_protocol
    from nasrecon.nas.weights import load_network

    loaded = load_network(network, device=device)
    with Bar() as bar:
        evaluation = evaluate_protocol(protocol, folder, loaded, keep_poses=keep_poses, progress=bar)
    _report(evaluation, network, json_file)


FolderOption = Annotated[Path, typer.Argument(metavar="DIR", help="An RGB-D sequence in a layout that `infer` reads.")]
RuleOption = Annotated[
    RuleName, typer.Option("--rule", help="every: by number; baseline: keyframes by baseline and angle.")
]
EveryOption = Annotated[int, typer.Option("--every", min=1, help="References are every N frames.", metavar="N")]
OffsetOption = Annotated[
    int, typer.Option("--offset", min=1, help="Sources are N (2N ...) frames before and after.", metavar="N")
]
SourcesOption = Annotated[
    int, typer.Option("--sources", help="2 or 4: half before, half after; 1: after.", metavar="N")
]
MinDepthOption = Annotated[float, typer.Option("--min-depth", help="Nearest plane, and least depth that counts.")]
MaxDepthOption = Annotated[float, typer.Option("--max-depth", help="Largest depth that counts.")]


@app.command()
def frames(
    folder: FolderOption,
    network: Network = "lite",
    rule: RuleOption = RuleName.every,
    every: EveryOption = 20,
    offset: OffsetOption = 10,
    sources: SourcesOption = 2,
    min_depth: MinDepthOption = 0.5,
    max_depth: MaxDepthOption = 6.0,
    keep_poses: KeepPoses = False,
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Frames of an RGB-D sequence, with sources from before and after."""
    _check_writable(json_file)

    from nasrecon.cli.console import Bar
    from nasrecon.evaluation.frames import evaluate_frames
    from nasrecon.evaluation.keyframes import FrameOptions
    from nasrecon.nas.weights import load_network

    options = FrameOptions(
        rule=rule.value, every=every, offset=offset, sources=sources, min_depth=min_depth, max_depth=max_depth
    )
    loaded = load_network(network, device=device)
    with Bar() as bar:
        evaluation = evaluate_frames(folder, loaded, options, keep_poses=keep_poses, progress=bar)
    _report(evaluation, network, json_file)


@app.command()
def mesh(
    surface: Annotated[Path, typer.Argument(metavar="MESH_OR_CLOUD", help="A mesh or a point cloud, as `fuse` makes.")],
    reference: Annotated[
        Path, typer.Option("--reference", help="The truth: a mesh or cloud file, or a folder of views with true depth.")
    ],
    every: Annotated[
        int, typer.Option("--every", min=1, help="Take every Nth view of the reference's folder.", metavar="N")
    ] = 1,
    distance: Annotated[
        list[float] | None,
        typer.Option(
            help="Precision, recall and F at this distance in scene units; may be repeated.",
            show_default="2 cm and 5 cm; without a unit 0.5 % and 1.25 % of the extent",
        ),
    ] = None,
    sampling: Annotated[
        float | None, typer.Option(help="Distance between samples.", show_default="extent / 1000")
    ] = None,
    align: Annotated[bool, typer.Option("--align", help="Move it rigidly onto the reference first.")] = False,
    error_map: Annotated[
        Path | None, typer.Option("--error-map", help="Write the distances in colours as PATH.ply and PATH.png.")
    ] = None,
    json_file: Json = None,
) -> None:
    """A mesh or a cloud against a true surface: accuracy, completeness, F, normals."""
    _check_writable(json_file)

    from nasrecon.cli.console import Bar, print_note
    from nasrecon.evaluation.error_map import write_error_map
    from nasrecon.evaluation.surface import evaluate_surface
    from nasrecon.evaluation.surface_reference import read_reference

    with Bar() as bar:
        truth = read_reference(reference, cell=sampling, every=every, progress=bar)
    score = evaluate_surface(surface, truth, distance or (), align=align)
    print(f"reference: {truth.source}, one in each {truth.cell:.3g}\n{surface_table(score)}")
    if error_map is not None:
        for path in write_error_map(score, truth, error_map):
            print_note(f"error map: {path}")
    if json_file is not None:
        facts = {"reference": truth.source, "sampling": truth.cell, **score.as_json()}
        write_atomically(json_file, f"{json.dumps(facts, indent=1)}\n".encode())
        print_note(f"scores: {json_file}")


def surface_table(score: SurfaceScore) -> str:
    """Lay out the scores of a surface."""
    from nasrecon.cli.console import table

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


def _check_writable(json_file: Path | None) -> None:
    """Find out before the work is done, and not after it."""
    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise InputError(f"--json {json_file}: expected a file in a folder that exists")


def _report(evaluation: Evaluation, weights: str, json_file: Path | None) -> None:
    """Print the protocol and the scores; write the file."""
    from nasrecon.cli.console import print_note
    from nasrecon.nas.weights import weights_digest

    for name, reason in evaluation.left_out:
        print_note(f"left out: {name}: {reason}")
    print(score_tables(evaluation))
    if json_file is not None:
        facts = {"weights": weights, "weights_sha256": weights_digest(weights), **evaluation.as_json()}
        write_atomically(json_file, f"{json.dumps(facts, indent=1)}\n".encode())
        print_note(f"scores: {json_file}")


def score_tables(evaluation: Evaluation) -> str:
    """Lay out what was scored and how, then tables of depths, normals, zones and calibration, a row for each part."""
    from nasrecon.evaluation.scoring import STAGES

    missing = sum(view.missing for view in evaluation.views)
    share = missing / sum(view.pixels for view in evaluation.views)
    lines = [
        f"protocol: {evaluation.protocol}",
        f"data: {evaluation.data}",
        *(wrapped for rule in evaluation.rules for wrapped in textwrap.wrap(rule, 98, **_INDENTED)),
        f"network: {evaluation.network}",
    ]
    if missing:
        lines.append(f"{share:.2%} of the pixels that count have no refined depth; they count as farthest")
    with_normals = [stage for stage, (_, normal) in STAGES.items() if normal is not None]
    of_refined = {subset: evaluation.zones(subset) for subset in evaluation.subsets}
    for subset, values in of_refined.items():
        thin_pct = evaluation.thin_found_pct(subset)
        values |= evaluation.calibration(subset) | ({} if thin_pct is None else {"thin_found_pct": thin_pct})
    for columns, stages in ((DEPTHS, list(STAGES)), (NORMALS, with_normals), (ZONES, []), (CALIBRATION, [])):
        lines += ["", *_score_table(evaluation, columns, stages, of_refined)]
    return "\n".join(lines)


_INDENTED = {"initial_indent": "  ", "subsequent_indent": "    ", "break_long_words": False}


def _score_table(
    evaluation: Evaluation,
    columns: Mapping[str, tuple[str, str]],
    stages: Sequence[str],
    of_refined: Mapping[str, Mapping[str, float]],
) -> list[str]:
    """Lay out a row for each part of the set and stage; without stages, of ``of_refined``: part -> metric -> value."""
    subsets = evaluation.subsets if len(evaluation.subsets) > 2 else ("all",)
    rows = [["set", "views", "stage", *(title for title, _ in columns.values()), "passes", "s"]]
    for subset in subsets:
        cost = [f"{evaluation.passes_per_view(subset):.3g}", f"{evaluation.seconds_per_view(subset):.2f}"]
        for stage in stages or ["refined"]:
            values = evaluation.stage(stage, subset) if stages else of_refined[subset]
            cells = [f"{values[key]:{form}}" if key in values else "-" for key, (_, form) in columns.items()]
            rows.append([subset, str(len(evaluation.of(subset))), stage, *(cell.rstrip("%") for cell in cells), *cost])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows of equal length: the first and the third column left-aligned, numbers right-aligned."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i in (0, 2) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
