"""The command line: one command, one call of a public function.

Everything heavy is imported inside the commands, so that ``nasrecon --help`` answers at once. Progress goes to stderr,
results to stdout. Exit codes: 0 done, 1 failed, 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from nasrecon import __version__
from nasrecon.errors import InputError, NasReconError

if TYPE_CHECKING:
    from nasrecon.fuse import Fusion
    from nasrecon.types import Scene

DEFAULT_FOLDER = "nasrecon_out"

app = typer.Typer(
    name="nasrecon",
    help="Posed images in; depth maps, normal maps, a point cloud and a mesh out: normal-assisted stereo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Convention(str, Enum):
    """Which way the transforms in a file of plain matrices go."""

    cam_from_world = "cam-from-world"
    world_from_cam = "world-from-cam"


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
Images = Annotated[Path, typer.Argument(metavar="IMAGES", help="Folder of images, or of a whole set with its cameras.")]
Poses = Annotated[
    Optional[Path], typer.Option("--poses", help="COLMAP model, or folder or file of transforms; default: within IMAGES.")
]
Intrinsics = Annotated[Optional[Path], typer.Option("--intrinsics", help="File with K, where the cameras have none.")]
WhichWay = Annotated[
    Optional[Convention], typer.Option("--convention", help="Which way plain matrices go, where the layout leaves it open.")
]
Every = Annotated[int, typer.Option("--every", min=1, help="Take every Nth view only, as in a video.", metavar="N")]


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
    every: Every = 1,
    out: Annotated[Path, typer.Option("--out", help="The results folder.")] = Path(DEFAULT_FOLDER),
    network: Network = "lite",
    device: Device = "auto",
    sources: Annotated[int, typer.Option("--sources", help="Source views for each view, at most.", metavar="N")] = 4,
    min_depth: Annotated[
        Optional[float],
        typer.Option("--min-depth", help="Depth of the nearest surface in scene units; default: found for each view.", metavar="X"),
    ] = None,
    size: Annotated[
        Optional[Any], typer.Option("--size", parser=_size, metavar="WxH", help="Size of all maps in px, instead of --max-side.")
    ] = None,
    max_side: Annotated[
        Optional[int],
        typer.Option(
            "--max-side", help="Longer side of the maps in px; sides become multiples of 32.", metavar="N", show_default="640"
        ),
    ] = None,
    batch: Annotated[
        Optional[int], typer.Option("--batch", help="Views at once.", metavar="N", show_default="1 on a CPU, 4 on a GPU")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Redo finished views.")] = False,
    as_json: AsJson = False,
) -> None:
    """Posed images to depth, normals and confidence of every view, in a results folder. A rerun goes on where it stopped."""
    if size is not None and max_side is not None:
        raise InputError("--size and --max-side say two different sizes; give one")
    scene = _open(images, poses, intrinsics, convention, every)

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
            estimate.infer(
                scene, loaded, out, options, weights_sha256=weights_digest(network), overwrite=overwrite, progress=bar
            )
        except KeyboardInterrupt:
            bar.say(f"interrupted: {bar.done + bar.kept} finished views are in {out}; the same command goes on with the rest")
            raise typer.Exit(130) from None
    seconds = time.perf_counter() - since
    if as_json:
        dropped = [{"name": name, "reason": reason} for name, reason in bar.left_out.items()]
        counts = {"estimated": bar.done, "kept": bar.kept, "dropped": dropped, "seconds": round(seconds, 3)}
        print(json.dumps({"results": str(out), **counts}))
    else:
        print(f"{out}: {bar.done} views estimated, {bar.kept} kept, {len(bar.left_out)} left out, {seconds:.1f} s")


def _open(images: Path, poses: Path | None, intrinsics: Path | None, convention: Convention | None, every: int) -> Scene:
    """Open the scene of the shared options and say on stderr what was recognised."""
    from nasrecon.ingest import open_scene
    from nasrecon.terminal import say

    scene = open_scene(images, poses, intrinsics=intrinsics, convention=convention.value if convention else None)
    say(f"{scene.root}: {scene.source}")
    if every > 1:
        scene = scene.subset(range(0, len(scene.views), every))
        say(f"every {every} views: {len(scene.views)} are taken")
    return scene


@app.command()
def fuse(
    results: ResultsFolder = Path(DEFAULT_FOLDER),
    out: Annotated[
        Optional[Path], typer.Option("--out", help="The mesh: .ply, .obj, .glb or .stl.", show_default="RESULTS/mesh.ply")
    ] = None,
    cloud: Annotated[
        Optional[Path], typer.Option("--cloud", help="The point cloud: .ply.", show_default="RESULTS/cloud.ply")
    ] = None,
    min_confidence: Annotated[float, typer.Option(help="Drop pixels below this confidence.")] = 0.3,
    max_reprojection_px: Annotated[float, typer.Option(help="Views agree where a pixel returns to within this distance.")] = 2.0,
    max_relative_depth_error: Annotated[float, typer.Option(help="... its depth to within this part of itself ...")] = 0.02,
    max_normal_angle_deg: Annotated[float, typer.Option(help="... and the normals differ by no more than this.")] = 45.0,
    min_support: Annotated[
        Optional[int], typer.Option(help="Views that must agree on a pixel, its own included; 1: no check.", show_default="3")
    ] = None,
    max_neighbors: Annotated[int, typer.Option(help="Compare each view with at most so many others.")] = 10,
    voxel: Annotated[
        Optional[float], typer.Option(help="Edge of the mesh's voxels in scene units.", show_default="from the depths")
    ] = None,
    min_component_faces: Annotated[int, typer.Option(help="Remove loose mesh parts with fewer faces; 0 keeps all.")] = 200,
    as_json: AsJson = False,
) -> None:
    """The views of a results folder to a point cloud and a mesh. Without --out and --cloud both go into the folder."""
    from nasrecon.fuse import FuseOptions
    from nasrecon.fuse import fuse as fuse_estimates
    from nasrecon.fuse.files import CLOUD_ENDINGS, MESH_ENDINGS, check_ending
    from nasrecon.results import Results
    from nasrecon.terminal import Bar, say

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
    print(json.dumps(_fusion_facts(fusion, files)) if as_json else _fusion_table(fusion, files))


def _fusion_facts(fusion: Fusion, files: dict[str, str]) -> dict[str, Any]:
    stats, mesh = fusion.stats, fusion.mesh
    return {
        **files,
        "views": stats.views,
        "stages": dict(stats.stages()),
        "alone": stats.alone,
        "cell": fusion.cell,
        "voxel": fusion.voxel.size if fusion.voxel else None,
        "vertices": len(mesh.vertices) if mesh else None,
        "faces": len(mesh.faces) if mesh else None,
        "seconds": {name: round(value, 3) for name, value in fusion.seconds.items()},
    }


def _fusion_table(fusion: Fusion, files: dict[str, str]) -> str:
    """The closing table: what each stage kept, the sizes chosen, what was made and the time it took."""
    from nasrecon.terminal import table

    stats = fusion.stats
    unit = next((f" {made.unit}" for made in (fusion.cloud, fusion.mesh) if made and made.unit != "unknown"), "")
    rows = [("views", f"{stats.views:,}", f"({len(stats.alone)} overlap with no other)" if stats.alone else "")]
    rows += [(stage, f"{left:,}", f"{100 * left / max(stats.pixels, 1):.1f} %") for stage, left in stats.stages()]
    if fusion.voxel is not None:
        rows.append(("voxel", f"{fusion.voxel.size:.4g}{unit}", fusion.voxel.reason))
    if fusion.mesh is not None:
        rows += [("vertices", f"{len(fusion.mesh.vertices):,}", ""), ("faces", f"{len(fusion.mesh.faces):,}", "")]
    parts = ", ".join(f"{name} {value:.1f}" for name, value in fusion.seconds.items())
    rows.append(("seconds", f"{sum(fusion.seconds.values()):.1f}", parts))
    return "\n".join([table(rows), *(f"{what}: {path}" for what, path in files.items())])
