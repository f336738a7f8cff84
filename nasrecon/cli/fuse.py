"""``nasrecon fuse``: a results folder to a point cloud and a mesh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nasrecon.cli.options import (
    DEFAULT_FOLDER,
    JsonFlag,
    ResultsFolder,
)
from nasrecon.errors import InputError
from nasrecon.fuse.options import FuseOptions

FUSE_DEFAULTS = FuseOptions()


OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="The mesh: .ply, .obj, .glb or .stl.", show_default="RESULTS/mesh.ply"),
]
CloudOption = Annotated[
    Path | None,
    typer.Option("--cloud", help="The point cloud: .ply, .xyz, .las or .laz.", show_default="RESULTS/cloud.ply"),
]
MinConfidenceOption = Annotated[float, typer.Option(help="Drop pixels below this confidence.")]
MaxRelativeDepthErrorOption = Annotated[
    float, typer.Option(help="Views agree where their depths differ by no more than this part, and as sigma lets ...")
]
MaxNormalAngleDegOption = Annotated[float, typer.Option(help="... and their normals by no more than this.")]
MinSupportOption = Annotated[
    int | None,
    typer.Option(help="Views that must agree on a pixel, its own included; 1: no check.", show_default="3"),
]
MaxNeighborsOption = Annotated[int, typer.Option(help="Compare each view with at most so many others.")]
CellOption = Annotated[
    float | None,
    typer.Option(help="One point of the cloud in each cell of this edge, in scene units.", show_default="2 pixels"),
]
VoxelOption = Annotated[
    float | None, typer.Option(help="Edge of the mesh's voxels in scene units.", show_default="from the depths")
]
MinComponentFacesOption = Annotated[int, typer.Option(help="Remove loose mesh parts with fewer faces; 0 keeps all.")]


def fuse(
    results: ResultsFolder = Path(DEFAULT_FOLDER),
    out: OutOption = None,
    cloud: CloudOption = None,
    min_confidence: MinConfidenceOption = FUSE_DEFAULTS.min_confidence,
    max_relative_depth_error: MaxRelativeDepthErrorOption = FUSE_DEFAULTS.max_relative_depth_error,
    max_normal_angle_deg: MaxNormalAngleDegOption = FUSE_DEFAULTS.max_normal_angle_deg,
    min_support: MinSupportOption = None,
    max_neighbors: MaxNeighborsOption = FUSE_DEFAULTS.max_neighbors,
    cell: CellOption = FUSE_DEFAULTS.cell,
    voxel: VoxelOption = None,
    min_component_faces: MinComponentFacesOption = FUSE_DEFAULTS.min_component_faces,
    as_json: JsonFlag = False,
) -> None:
    """The views of a results folder to a point cloud and a mesh. Without --out and --cloud both go into the folder.

    Example: nasrecon fuse nasrecon_out
    """
    from nasrecon.cli.console import Bar, fusion_table
    from nasrecon.cli.interrupt import on_interrupt
    from nasrecon.fuse.las import load_laspy
    from nasrecon.fuse.save import CLOUD_ENDINGS, MESH_ENDINGS, check_ending
    from nasrecon.pipeline import fuse_results
    from nasrecon.results.reader import open_results, read_fusion

    if out is None and cloud is None:
        out, cloud = results / "mesh.ply", results / "cloud.ply"
    for path, endings, what in ((out, MESH_ENDINGS, "mesh"), (cloud, CLOUD_ENDINGS, "cloud")):
        if path is not None:
            check_ending(path, endings, what)
    if out is not None and cloud is not None and out.resolve() == cloud.resolve():
        raise InputError(f"{out}: --out and --cloud name one file; the mesh and the cloud are two: give two names")
    if cloud is not None and cloud.suffix.lower() in (".las", ".laz"):
        load_laspy()
    for path in (out, cloud):
        if path is not None and path.is_dir():
            raise InputError(f"{path}: it is a folder; give the name of a file")
    on_interrupt(lambda: f"interrupted: nothing of this fusion is written, the views in {results} are as they were")
    options = FuseOptions(
        min_confidence=min_confidence,
        max_relative_depth_error=max_relative_depth_error,
        max_normal_angle_deg=max_normal_angle_deg,
        min_support=min_support,
        max_neighbors=max_neighbors,
        cell=cell,
        voxel=voxel,
        min_component_faces=min_component_faces,
    )
    with Bar() as bar:
        fusion = fuse_results(open_results(results), options, mesh=out, cloud=cloud, progress=bar)
        for note in fusion.stats.notes():
            bar.note(note)
    files = {what: str(path) for what, path in (("cloud", cloud), ("mesh", out)) if path is not None}
    print(json.dumps({**(read_fusion(results) or {}), **files}) if as_json else fusion_table(fusion, files))
