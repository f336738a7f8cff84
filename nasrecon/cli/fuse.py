"""``nasrecon fuse``: a results folder to a point cloud and a mesh."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nasrecon.cli.options import (
    AGREEMENT,
    DEFAULT_FOLDER,
    OUTPUT,
    SURFACE,
    JsonFlag,
    ResultsFolder,
)
from nasrecon.errors import InputError
from nasrecon.fuse.options import FuseOptions, Method

if TYPE_CHECKING:
    from nasrecon.fuse.fusion import Fusion
    from nasrecon.results.reader import Results

FUSE_DEFAULTS = FuseOptions()


def parse_blocks(text: str) -> int | Literal["auto"]:
    """Return "auto" or the number of blocks."""
    if text != "auto" and not (text.isascii() and text.isdecimal()):
        raise typer.BadParameter(f"expected auto or a number of blocks, as in 8, found {text!r}")
    return "auto" if text == "auto" else int(text)


OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="The mesh: .ply, .obj, .glb or .stl; with --texture .glb or .obj.",
        show_default="RESULTS/mesh.ply, mesh.glb",
        rich_help_panel=OUTPUT,
    ),
]
CloudOption = Annotated[
    Path | None,
    typer.Option(
        "--cloud",
        help="The point cloud: .ply, .xyz, .las or .laz.",
        show_default="RESULTS/cloud.ply",
        rich_help_panel=OUTPUT,
    ),
]
MinConfidenceOption = Annotated[
    float, typer.Option(help="Drop pixels below this confidence.", rich_help_panel=AGREEMENT)
]
MaxRelativeDepthErrorOption = Annotated[
    float,
    typer.Option(
        help="Views agree where their depths differ by no more than this part, and as sigma lets ...",
        rich_help_panel=AGREEMENT,
    ),
]
MaxNormalAngleDegOption = Annotated[
    float, typer.Option(help="... and their normals by no more than this.", rich_help_panel=AGREEMENT)
]
MinViewsOption = Annotated[
    int | None,
    typer.Option(
        help="Views that must agree on a pixel, its own included; 1: no check.",
        show_default="3",
        rich_help_panel=AGREEMENT,
    ),
]
MaxNeighborsOption = Annotated[
    int, typer.Option(help="Compare each view with at most so many others.", rich_help_panel=AGREEMENT)
]
CellOption = Annotated[
    float | None,
    typer.Option(
        help="One point of the cloud in each cell of this edge, in scene units.",
        show_default="2 pixels",
        rich_help_panel=SURFACE,
    ),
]
VoxelOption = Annotated[
    float | None,
    typer.Option(
        help="Edge of the mesh's voxels in scene units.", show_default="from the depths", rich_help_panel=SURFACE
    ),
]
MethodOption = Annotated[
    Method,
    typer.Option(
        help="The mesh: tsdf from the depth maps, or poisson from the cloud's points and normals.",
        rich_help_panel=SURFACE,
    ),
]
TargetFacesOption = Annotated[
    int | None, typer.Option(help="Decimate the mesh to about so many faces.", rich_help_panel=SURFACE)
]
TextureOption = Annotated[
    int | None,
    typer.Option(
        help="Give the mesh a texture atlas of this edge in pixels, cut from the images.", rich_help_panel=SURFACE
    ),
]
BlocksOption = Annotated[
    Any,
    typer.Option(
        "--blocks",
        parser=parse_blocks,
        metavar="auto|N",
        help="Fuse in N spatial blocks, or a few more, one in memory at a time; auto: as memory asks for.",
        rich_help_panel=SURFACE,
    ),
]
MinComponentFacesOption = Annotated[
    int, typer.Option(help="Remove loose mesh parts with fewer faces; 0 keeps all.", rich_help_panel=SURFACE)
]


def fuse(
    results: ResultsFolder = Path(DEFAULT_FOLDER),
    out: OutOption = None,
    cloud: CloudOption = None,
    min_confidence: MinConfidenceOption = FUSE_DEFAULTS.min_confidence,
    max_relative_depth_error: MaxRelativeDepthErrorOption = FUSE_DEFAULTS.max_relative_depth_error,
    max_normal_angle_deg: MaxNormalAngleDegOption = FUSE_DEFAULTS.max_normal_angle_deg,
    min_views: MinViewsOption = None,
    max_neighbors: MaxNeighborsOption = FUSE_DEFAULTS.max_neighbors,
    cell: CellOption = FUSE_DEFAULTS.cell,
    voxel: VoxelOption = None,
    method: MethodOption = FUSE_DEFAULTS.method,
    target_faces: TargetFacesOption = None,
    texture: TextureOption = None,
    blocks: BlocksOption = FUSE_DEFAULTS.blocks,
    min_component_faces: MinComponentFacesOption = FUSE_DEFAULTS.min_component_faces,
    as_json: JsonFlag = False,
) -> None:
    """The views of a results folder to a point cloud and a mesh. Without --out and --cloud both go into the folder.

    On several machines: torchrun --nproc-per-node N -m -- nasrecon fuse ...; the processes share the blocks.

    Example: nasrecon fuse nasrecon_out
    """
    from nasrecon.cli.console import Bar
    from nasrecon.cli.interrupt import on_interrupt
    from nasrecon.fuse.fuse_results import fuse_results
    from nasrecon.progress import Quiet
    from nasrecon.ranks import as_ranks
    from nasrecon.results.reader import open_results

    out, cloud = _checked_files(results, out, cloud, texture)
    on_interrupt(interrupted(results, [path for path in (cloud, out) if path is not None]))
    options = FuseOptions(
        min_confidence=min_confidence,
        max_relative_depth_error=max_relative_depth_error,
        max_normal_angle_deg=max_normal_angle_deg,
        min_views=min_views,
        max_neighbors=max_neighbors,
        cell=cell,
        voxel=voxel,
        method=method,
        target_faces=target_faces,
        texture=texture,
        blocks=blocks,
        min_component_faces=min_component_faces,
    )
    with as_ranks() as ranks, Bar() if ranks.is_first else nullcontext(Quiet()) as bar:
        fusion = fuse_results(opened := open_results(results), options, mesh=out, cloud=cloud, progress=bar)
        for note in fusion.stats.notes():
            bar.note(note)
    if ranks.is_first:
        print(_summary(fusion, {"cloud": cloud, "mesh": out}, opened, as_json))


def interrupted(results: Path, files: Sequence[Path]) -> Callable[[], str]:
    """Return the function that says which of the files are written since now."""

    def stamp(path: Path) -> tuple[int, int] | None:
        return (stat.st_mtime_ns, stat.st_ino) if path.is_file() and (stat := path.stat()) else None

    before = [stamp(path) for path in files]

    def words() -> str:
        written = [str(path) for path, was in zip(files, before, strict=True) if stamp(path) != was]
        missing = [str(path) for path, was in zip(files, before, strict=True) if stamp(path) == was]
        state = "nothing of this fusion is written"
        if written:
            state = f"{' and '.join(written)} {'are' if len(written) > 1 else 'is'} written"
            state += f", {missing[0]} is not" if missing else ""
        return f"interrupted: {state}; the views in {results} are as they were"

    return words


def _checked_files(
    results: Path, out: Path | None, cloud: Path | None, texture: int | None
) -> tuple[Path | None, Path | None]:
    """Return the files of the mesh and of the cloud.

    Raises:
        InputError: if one cannot be written as it is named.
        NasReconError: if a library for it is missing.
    """
    from nasrecon.fuse.las import load_laspy
    from nasrecon.fuse.save import CLOUD_ENDINGS, MESH_ENDINGS, TEXTURE_ENDINGS, check_ending

    if out is None and cloud is None:
        out, cloud = results / ("mesh.glb" if texture else "mesh.ply"), results / "cloud.ply"
    if out is not None and texture:
        check_ending(out, TEXTURE_ENDINGS, "textured mesh")
    elif out is not None:
        check_ending(out, MESH_ENDINGS, "mesh")
    if cloud is not None:
        check_ending(cloud, CLOUD_ENDINGS, "cloud")
    if out is not None and cloud is not None and out.resolve() == cloud.resolve():
        raise InputError(f"{out}: --out and --cloud name one file; the mesh and the cloud are two: give two names")
    if cloud is not None and cloud.suffix.lower() in (".las", ".laz"):
        load_laspy()
    for path in (out, cloud):
        if path is not None and path.is_dir():
            raise InputError(f"{path}: it is a folder; give the name of a file")
    return out, cloud


def _summary(fusion: Fusion, paths: dict[str, Path | None], opened: Results, as_json: bool) -> str:
    from nasrecon.cli.console import fusion_table, next_lines
    from nasrecon.results.reader import read_fusion

    results = opened.folder
    files = {what: str(path) for what, path in paths.items() if path is not None}
    if as_json:
        return json.dumps({**(read_fusion(results) or {}), **files})
    report = results / "report.html"
    follow = next_lines(
        ("viz", [results], "a page in the browser"), ("viz", [results, "--html", report], "one file that opens offline")
    )
    return "\n".join([fusion_table(fusion, files, opened.epipolar_px), *follow])
