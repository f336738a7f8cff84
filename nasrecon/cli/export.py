"""``nasrecon export``: a results folder in other tools' formats."""

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
from nasrecon.export.options import ExportFormat


def export(
    results: ResultsFolder = Path(DEFAULT_FOLDER),
    *,
    format: Annotated[
        ExportFormat,
        typer.Option(
            "--format",
            help="colmap: dense workspace; png16: depth; pfm: MVSNet's layout; exr: depth, normals; transforms: "
            "nerfstudio.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")],
    scale: Annotated[
        float | None,
        typer.Option(
            "--scale",
            help="Scene units a step of 16-bit depth (png16, transforms).",
            metavar="X",
            show_default="1 mm; in an unknown unit what the depths need",
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """The views of a results folder in other tools' formats.

    Example: nasrecon export nasrecon_out --format colmap --out dense
    """
    from nasrecon.cli.console import Bar
    from nasrecon.export.export_estimates import export_estimates
    from nasrecon.results.reader import Results

    estimates = Results.open(results)
    with Bar() as bar:
        lines = export_estimates(estimates, format, out, unit=estimates.unit, scale=scale, progress=bar)
    if as_json:
        print(json.dumps({"out": str(out), "format": format, "views": len(estimates), "notes": lines}))
    else:
        print("\n".join([f"{out}: {lines[0]}", *lines[1:], *next_command(format, out)]))


def next_command(format: str, out: Path) -> list[str]:
    """Return the line with the command that takes the files, where it is known."""
    from nasrecon.cli.console import command_lines

    if format != "colmap":
        return []
    places = ["--workspace_path", out, "--output_path", out / "fused.ply"]
    return command_lines("next: ", ["colmap", "stereo_fusion", "--input_type", "geometric", *map(str, places)])
