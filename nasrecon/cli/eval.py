"""``nasrecon eval``: scores by named protocol, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from nasrecon.atomic import write_atomically
from nasrecon.cli.options import OUTPUT, Device, KeepPoses, Network
from nasrecon.errors import InputError
from nasrecon.evaluation.options import FrameOptions, ProtocolName, Rule
from nasrecon.progress import under_way

if TYPE_CHECKING:
    from nasrecon.evaluation.scoring import Evaluation


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

Json = Annotated[
    Path | None,
    typer.Option("--json", help="Write all scores, of each view too, to a file.", rich_help_panel=OUTPUT),
]
FRAMES = FrameOptions()
PROTOCOL = "Frames that are scored"


@app.command("protocol")
def by_protocol(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What the protocol scores: pairs, or sequences.")],
    protocol: Annotated[ProtocolName, typer.Option("--protocol", help="The protocol.")],
    network: Network = "lite",
    keep_poses: KeepPoses = False,
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Scores by a protocol with a name; its paragraph is printed.

    Example: nasrecon eval --protocol demon-32m demon_test --json scores.json
    """
    _check_writable(json_file)

    from nasrecon.cli.console import Bar

    with Bar() as bar:
        with under_way(bar, "load"):
            from nasrecon.evaluation.protocols import evaluate_protocol
            from nasrecon.nas.weights import load_network

            loaded = load_network(network, device=device)
        evaluation = evaluate_protocol(protocol, folder, loaded, keep_poses=keep_poses, progress=bar)
    _report(evaluation, network, json_file)


FolderOption = Annotated[Path, typer.Argument(metavar="DIR", help="An RGB-D sequence in a layout that `infer` reads.")]
RuleOption = Annotated[
    Rule,
    typer.Option(
        "--rule", help="every: by number; baseline: keyframes by baseline and angle.", rich_help_panel=PROTOCOL
    ),
]
EveryOption = Annotated[
    int, typer.Option("--every", min=1, help="References are every N frames.", metavar="N", rich_help_panel=PROTOCOL)
]
OffsetOption = Annotated[
    int,
    typer.Option(
        "--offset", min=1, help="Sources are N (2N ...) frames before and after.", metavar="N", rich_help_panel=PROTOCOL
    ),
]
SourcesOption = Annotated[
    int,
    typer.Option("--sources", help="2 or 4: half before, half after; 1: after.", metavar="N", rich_help_panel=PROTOCOL),
]
MinDepthOption = Annotated[
    float, typer.Option("--min-depth", help="Nearest plane, and least depth that counts.", rich_help_panel=PROTOCOL)
]
MaxDepthOption = Annotated[
    float, typer.Option("--max-depth", help="Largest depth that counts.", rich_help_panel=PROTOCOL)
]


@app.command()
def frames(
    folder: FolderOption,
    network: Network = "lite",
    rule: RuleOption = FRAMES.rule,
    every: EveryOption = FRAMES.every,
    offset: OffsetOption = FRAMES.offset,
    sources: SourcesOption = FRAMES.sources,
    min_depth: MinDepthOption = FRAMES.min_depth,
    max_depth: MaxDepthOption = FRAMES.max_depth,
    keep_poses: KeepPoses = False,
    device: Device = "auto",
    json_file: Json = None,
) -> None:
    """Frames of an RGB-D sequence, with sources from before and after.

    Example: nasrecon eval frames livingroom1 --every 20 --offset 10
    """
    _check_writable(json_file)

    from nasrecon.cli.console import Bar

    options = FrameOptions(
        rule=rule, every=every, offset=offset, sources=sources, min_depth=min_depth, max_depth=max_depth
    )
    with Bar() as bar:
        with under_way(bar, "load"):
            from nasrecon.evaluation.frames import evaluate_frames
            from nasrecon.nas.weights import load_network

            loaded = load_network(network, device=device)
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
    """A mesh or a cloud against a true surface: accuracy, completeness, F, normals.

    Example: nasrecon eval mesh nasrecon_out/mesh.ply --reference livingroom1 --every 20
    """
    _check_writable(json_file)

    from nasrecon.cli.console import Bar, print_note

    with Bar() as bar:
        with under_way(bar, "start"):
            from nasrecon.cli.score_tables import surface_table
            from nasrecon.evaluation.error_map import write_error_map
            from nasrecon.evaluation.surface import evaluate_surface
            from nasrecon.evaluation.surface_reference import read_reference
        truth = read_reference(reference, cell=sampling, every=every, progress=bar)
        with under_way(bar, "compare"):
            score = evaluate_surface(surface, truth, distance or (), align=align)
    print(f"reference: {truth.source}, one in each {truth.cell:.3g}\n{surface_table(score)}")
    if error_map is not None:
        for path in write_error_map(score, truth, error_map):
            print_note(f"error map: {path}")
    _write_scores(json_file, {"reference": truth.source, "sampling": truth.cell, **score.as_json()})


def _check_writable(json_file: Path | None) -> None:
    """Find out before the work is done, and not after it."""
    if json_file is not None and (json_file.is_dir() or not json_file.absolute().parent.is_dir()):
        raise InputError(f"--json {json_file}: expected a file in a folder that exists")


def _report(evaluation: Evaluation, weights: str, json_file: Path | None) -> None:
    """Print the protocol and the scores; write the file."""
    from nasrecon.cli.console import print_note
    from nasrecon.cli.score_tables import score_tables
    from nasrecon.nas.weights import weights_digest

    for name, reason in evaluation.left_out:
        print_note(f"left out: {name}: {reason}")
    print(score_tables(evaluation))
    _write_scores(json_file, {"weights": weights, "weights_sha256": weights_digest(weights), **evaluation.as_json()})


def _write_scores(json_file: Path | None, scores: dict[str, Any]) -> None:
    from nasrecon.cli.console import print_note

    if json_file is not None:
        write_atomically(json_file, f"{json.dumps(scores, indent=1)}\n".encode())
        print_note(f"scores: {json_file}")
