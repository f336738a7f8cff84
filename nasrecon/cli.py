"""The command line: one command, one call of a public function.

Everything heavy is imported inside the commands, so that ``nasrecon --help`` answers at once. Progress goes to stderr,
results to stdout. Exit codes: 0 done, 1 failed, 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasrecon import __version__
from nasrecon.bench_command import app as bench_app
from nasrecon.errors import InputError, NasReconError, NoPosesError
from nasrecon.eval_command import app as eval_app
from nasrecon.fuse.options import FuseOptions
from nasrecon.opening import (
    Every,
    Fixes,
    IgnoreHints,
    Images,
    Intrinsics,
    Masks,
    Poses,
    WhichFormat,
    WhichWay,
    look_at_cameras,
    open_asked,
    reconstruct,
    with_refined_poses,
    with_sparse_points,
)
from nasrecon.train.command import app as train_app

if TYPE_CHECKING:
    from nasrecon.nas.manifest import WeightsEntry

DEFAULT_FOLDER = "nasrecon_out"
FUSE_DEFAULTS = FuseOptions()

app = typer.Typer(
    name="nasrecon",
    help="Posed images in; depth maps, normal maps, a point cloud and a mesh out: normal-assisted stereo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not (x and width.isdigit() and height.isdigit()):
        raise typer.BadParameter(f"expected WIDTHxHEIGHT in pixels, as in 640x480, found {text!r}")
    return int(width), int(height)


# Options that several commands share are declared once, here.
ResultsFolder = Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder, as `infer` writes it.")]
Network = Annotated[str, typer.Option("--network", help="Name of a network (`weights list`) or a .safetensors file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda (cuda:1 ...).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit. ``argv``: the arguments, default those of the process."""
    try:
        app(args=None if argv is None else list(argv), prog_name="nasrecon")
    except NasReconError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nasrecon {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def infer(
    images: Images,
    poses: Poses = None,
    intrinsics: Intrinsics = None,
    convention: WhichWay = None,
    format: WhichFormat = None,
    masks: Masks = None,
    ignore_hints: IgnoreHints = False,
    every: Every = 1,
    fix: Fixes = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Leave out the quick look at whether the cameras fit the images.")
    ] = False,
    keep_poses: Annotated[
        bool, typer.Option("--keep-poses", help="Poses as given, also where the matches of the images ask for others.")
    ] = False,
    out: Annotated[Path, typer.Option("--out", help="The results folder.")] = Path(DEFAULT_FOLDER),
    network: Network = "lite",
    device: Device = "auto",
    sources: Annotated[int, typer.Option("--sources", help="Source views for each view, at most.", metavar="N")] = 4,
    min_depth: Annotated[
        float | None,
        typer.Option(
            "--min-depth",
            help="Depth of the nearest surface in scene units; default: found for each view.",
            metavar="X",
        ),
    ] = None,
    size: Annotated[
        Any | None,
        typer.Option("--size", parser=_size, metavar="WxH", help="Size of all maps in px, instead of --max-side."),
    ] = None,
    max_side: Annotated[
        int | None,
        typer.Option(
            "--max-side",
            help="Longer side of the maps in px; sides become multiples of 32.",
            metavar="N",
            show_default="640",
        ),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option("--batch", help="Views at once.", metavar="N", show_default="1 on a CPU, 4 on a GPU"),
    ] = None,
    triangulate: Annotated[
        bool,
        typer.Option("--triangulate", help="Sparse points for cameras that come without, from feature matches."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo finished views.")] = False,
    as_json: AsJson = False,
) -> None:
    """Posed images to depth, normals and confidence of every view. A rerun goes on where the last one stopped.

    Images without cameras get them by structure from motion first.
    """
    if size is not None and max_side is not None:
        raise InputError("--size and --max-side say two different sizes; give one")
    try:
        scene = open_asked(
            images, poses, intrinsics, convention, every, fix, layout=format, masks=masks, hints=not ignore_hints
        )
    except NoPosesError:
        if fix:
            raise InputError(
                f"--fix {fix[0]}: there are no cameras to repair; they are found from the images"
            ) from None
        scene = reconstruct(images, intrinsics, convention, every, masks, out, overwrite)
    else:
        seen = None if no_check else look_at_cameras(scene, images, poses)
        if not keep_poses:
            scene = with_refined_poses(scene, seen, out, overwrite)
    if triangulate:
        scene = with_sparse_points(scene, out, overwrite)

    from nasrecon import estimate
    from nasrecon.nas.weights import load_network, weights_digest
    from nasrecon.terminal import InferBar, say

    given = {} if max_side is None else {"max_side": max_side}
    options = estimate.InferOptions(sources=sources, min_depth=min_depth, size=size, batch=batch, **given)
    loaded = load_network(network, device=device)
    say(f"network {loaded.name} on {estimate.device_of(loaded)}")
    since = time.perf_counter()
    with InferBar() as bar:
        try:
            digest = {"weights": network, "weights_sha256": weights_digest(network)}
            estimate.infer(scene, loaded, out, options, **digest, overwrite=overwrite, progress=bar)
        except KeyboardInterrupt:
            bar.say(f"interrupted: {bar.done + bar.kept} finished views are in {out}; the same command goes on")
            raise typer.Exit(130) from None
    seconds = time.perf_counter() - since
    if as_json:
        dropped = [{"name": name, "reason": reason} for name, reason in bar.left_out.items()]
        counts = {"estimated": bar.done, "kept": bar.kept, "dropped": dropped, "seconds": round(seconds, 3)}
        print(json.dumps({"results": str(out), **counts}))
    else:
        print(f"{out}: {bar.done} views estimated, {bar.kept} kept, {len(bar.left_out)} left out, {seconds:.1f} s")


@app.command()
def check(
    images: Images,
    poses: Poses = None,
    intrinsics: Intrinsics = None,
    convention: WhichWay = None,
    format: WhichFormat = None,
    every: Every = 1,
    fix: Fixes = None,
    as_json: AsJson = False,
) -> None:
    """Are the cameras right? Says what was read, what is wrong, and the --fix that repairs it. Exit code 1: faults found."""
    scene = open_asked(images, poses, intrinsics, convention, every, fix, layout=format)

    from nasrecon.doctor import check_scene
    from nasrecon.doctor.report import report
    from nasrecon.terminal import Bar

    with Bar() as bar:
        diagnosis = check_scene(scene, progress=bar.set)
    print(json.dumps(diagnosis.as_json()) if as_json else report(diagnosis))
    if diagnosis.faults:
        raise typer.Exit(1)


@app.command()
def fuse(
    results: ResultsFolder = Path(DEFAULT_FOLDER),
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The mesh: .ply, .obj, .glb or .stl.", show_default="RESULTS/mesh.ply"),
    ] = None,
    cloud: Annotated[
        Path | None, typer.Option("--cloud", help="The point cloud: .ply.", show_default="RESULTS/cloud.ply")
    ] = None,
    min_confidence: Annotated[
        float, typer.Option(help="Drop pixels below this confidence.")
    ] = FUSE_DEFAULTS.min_confidence,
    max_reprojection_px: Annotated[
        float, typer.Option(help="Views agree where a pixel returns to within this distance.")
    ] = FUSE_DEFAULTS.max_reprojection_px,
    max_relative_depth_error: Annotated[
        float, typer.Option(help="... its depth to within this part of itself ...")
    ] = FUSE_DEFAULTS.max_relative_depth_error,
    max_normal_angle_deg: Annotated[
        float, typer.Option(help="... and the normals differ by no more than this.")
    ] = FUSE_DEFAULTS.max_normal_angle_deg,
    min_support: Annotated[
        int | None,
        typer.Option(help="Views that must agree on a pixel, its own included; 1: no check.", show_default="3"),
    ] = None,
    max_neighbors: Annotated[
        int, typer.Option(help="Compare each view with at most so many others.")
    ] = FUSE_DEFAULTS.max_neighbors,
    voxel: Annotated[
        float | None, typer.Option(help="Edge of the mesh's voxels in scene units.", show_default="from the depths")
    ] = None,
    min_component_faces: Annotated[
        int, typer.Option(help="Remove loose mesh parts with fewer faces; 0 keeps all.")
    ] = FUSE_DEFAULTS.min_component_faces,
    as_json: AsJson = False,
) -> None:
    """The views of a results folder to a point cloud and a mesh. Without --out and --cloud both go into the folder."""
    from nasrecon.fuse import fuse as fuse_estimates
    from nasrecon.fuse.files import CLOUD_ENDINGS, MESH_ENDINGS, check_ending
    from nasrecon.results import Results, write_fusion
    from nasrecon.terminal import Bar, fusion_facts, fusion_table, say

    if out is None and cloud is None:
        out, cloud = results / "mesh.ply", results / "cloud.ply"
    if out is not None:
        check_ending(out, MESH_ENDINGS, "mesh")
    if cloud is not None:
        check_ending(cloud, CLOUD_ENDINGS, "cloud")
    options = FuseOptions(
        min_confidence=min_confidence,
        max_reprojection_px=max_reprojection_px,
        max_relative_depth_error=max_relative_depth_error,
        max_normal_angle_deg=max_normal_angle_deg,
        min_support=min_support,
        max_neighbors=max_neighbors,
        voxel=voxel,
        min_component_faces=min_component_faces,
    )
    estimates = Results.open(results)
    with Bar() as bar:
        fusion = fuse_estimates(
            estimates, options, mesh=out is not None, cloud=cloud is not None, unit=estimates.unit, progress=bar.set
        )
    files = {}
    if fusion.cloud is not None:
        files["cloud"] = str(fusion.cloud.save(cloud))
    if fusion.mesh is not None:
        files["mesh"] = str(fusion.mesh.save(out))
    for name in fusion.stats.alone:
        say(f"{name}: overlaps with no other view, so nothing of it could be confirmed")
    write_fusion(results, fusion_facts(fusion, files) | {"options": asdict(options)})
    print(json.dumps(fusion_facts(fusion, files)) if as_json else fusion_table(fusion, files))


class ExportFormat(StrEnum):
    """What other tools read."""

    colmap = "colmap"
    png16 = "png16"
    pfm = "pfm"
    exr = "exr"
    transforms = "transforms"


@app.command()
def export(
    results: ResultsFolder = Path(DEFAULT_FOLDER),
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="colmap: dense workspace; png16: depth; pfm: MVSNet's layout; exr: depth, normals; transforms: nerfstudio.",
        ),
    ] = ...,
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")] = ...,
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            help="Scene units a step of 16-bit depth (png16, transforms).",
            metavar="X",
            show_default="1 mm; in an unknown unit what the depths need",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The views of a results folder in other tools' formats."""
    from nasrecon.export import export as export_estimates
    from nasrecon.results import Results
    from nasrecon.terminal import Bar

    estimates = Results.open(results)
    with Bar() as bar:
        lines = export_estimates(estimates, format.value, out, unit=estimates.unit, scale=scale, progress=bar.set)
    if as_json:
        print(json.dumps({"out": str(out), "format": format.value, "views": len(estimates), "said": lines}))
    else:
        print("\n".join([f"{out}: {lines[0]}", *lines[1:]]))


@app.command()
def viz(
    results: ResultsFolder = Path(DEFAULT_FOLDER),
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a report that opens offline: one file, and no live page.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Write a contact sheet and a view of the mesh, and no live page.")
    ] = None,
    max_mb: Annotated[
        float, typer.Option("--max-mb", min=4.0, help="Size of the report at most; the scene is thinned to it.")
    ] = 25.0,
    port: Annotated[
        int, typer.Option("--port", min=1, max=64000, help="Port of the live page, or the next one that is free.")
    ] = 8080,
) -> None:
    """A live page of the results in the browser, also while `infer` is running; or a report or a picture of them."""
    from nasrecon.terminal import Bar

    if html is None and png is None:
        from nasrecon.view.live import serve

        serve(results, port=port, tell=lambda line: print(line, flush=True))
        return
    with Bar() as bar:
        if html is not None:
            from nasrecon.view.report import write_report

            print(write_report(results, html, max_mb=max_mb, progress=bar.set))
        if png is not None:
            from nasrecon.view.sheet import write_sheet

            print(write_sheet(results, png, progress=bar.set))


weights = typer.Typer(no_args_is_help=True, help="The networks' weights: list, verify, import.")
app.add_typer(weights, name="weights")
app.add_typer(train_app, name="train")
app.add_typer(eval_app, name="eval")
app.add_typer(bench_app, name="bench")


class Variant(StrEnum):
    """How many depth poolings a published network used; "auto" reads it from the checkpoint, and never guesses."""

    auto = "auto"
    pool1 = "pool1"
    pool3 = "pool3"


@weights.command("list")
def list_weights(as_json: AsJson = False) -> None:
    """The weights that are known by name, the shipped ones first."""
    from nasrecon.nas.manifest import list_weights as entries
    from nasrecon.terminal import weights_table

    found = entries()
    print(json.dumps([_entry_facts(entry) for entry in found]) if as_json else weights_table(found))


@weights.command("verify")
def verify_weights(as_json: AsJson = False) -> None:
    """Check every known weights file: its sha256, and that its tensors fit the network. Exit code 1 if one is wrong."""
    from nasrecon.nas.weights import verify_weights as checked
    from nasrecon.terminal import table

    found = checked()
    if as_json:
        print(json.dumps([_entry_facts(entry) | {"problem": problem} for entry, problem in found]))
    else:
        print(table([(entry.name, "wrong" if problem else "ok", problem) for entry, problem in found]))
    if any(problem for _, problem in found):
        raise typer.Exit(1)


@weights.command("import")
def import_weights(
    mvdnet: Annotated[Path, typer.Argument(metavar="MVDNET", help="The published mvdnet_*.pth.tar.")],
    consistency: Annotated[Path, typer.Argument(metavar="CONS", help="The published cons_*.pth.tar.")],
    name: Annotated[str, typer.Option("--name", help="Name under which --network will find it.")],
    variant: Annotated[Variant, typer.Option("--variant", help="Depth poolings that were used.")] = Variant.auto,
    trained_min_depth: Annotated[
        float, typer.Option("--trained-min-depth", help="Nearest plane in training: DeMoN, SUN3D 0.5; ScanNet 0.25.")
    ] = 0.5,
    as_json: AsJson = False,
) -> None:
    """Published checkpoints of the paper to checked safetensors among your own weights."""
    from nasrecon.nas.weights import import_published

    entry = import_published(mvdnet, consistency, name, variant=variant.value, trained_min_depth=trained_min_depth)
    if as_json:
        print(json.dumps(_entry_facts(entry)))
    else:
        print(f"{entry.path}: {entry.bytes / 1e6:.1f} MB, {dict(entry.options)}; use it with --network {entry.name}")


def _entry_facts(entry: WeightsEntry) -> dict[str, Any]:
    return entry.as_json() | {"path": str(entry.path)}
