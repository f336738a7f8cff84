"""Options that several commands share, each declared once; grouped into help panels."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

DEFAULT_FOLDER = "nasrecon_out"

Convention = Literal["cam-from-world", "world-from-cam"]
Format = Literal[
    "colmap",
    "transforms",
    "mvsnet",
    "middlebury",
    "strecha",
    "redwood",
    "tum",
    "7scenes",
    "scannet",
    "demon",
    "kitti",
    "matrices",
]
"""Keys of the formats that ``ingest.open_scene`` reads."""

CAMERAS, CHECKS, ESTIMATION, OUTPUT = "Cameras", "Checks", "Estimation", "Output"
AGREEMENT, SURFACE = "Agreement of views", "Cloud and mesh"


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) [px] of a text like 640x480."""
    width, x, height = text.lower().partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and text.isascii()):
        raise typer.BadParameter(f"expected WIDTHxHEIGHT in pixels, as in 640x480, found {text!r}")
    return int(width), int(height)


def parse_bytes(text: str) -> int:
    """Return the bytes of a text like 4GB, 512MB or 3.5 GiB; without a unit they are bytes."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)([kmgt]?)(i?)b?", text.lower().replace(" ", ""))
    if not match:
        raise typer.BadParameter(f"expected a size of memory, as in 4GB or 512MB, found {text!r}")
    number, power, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** " kmgt".index(power or " "))


Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder of images, or of a whole set with its cameras, or a video.")
]
Poses = Annotated[
    Path | None,
    typer.Option(
        "--poses",
        help="COLMAP model, or folder or file of camera poses; default: within IMAGES.",
        rich_help_panel=CAMERAS,
    ),
]
Intrinsics = Annotated[
    Path | None,
    typer.Option(
        "--intrinsics",
        help="File with K, or folder with one for each image, where the cameras have none.",
        rich_help_panel=CAMERAS,
    ),
]
FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        help="The format to read, where several fit.",
        show_default="the one that fits",
        rich_help_panel=CAMERAS,
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(
        "--masks",
        help="Folder with a mask for each image, by name: no depth where it is zero.",
        rich_help_panel=CAMERAS,
    ),
]
IgnoreHints = Annotated[
    bool,
    typer.Option(
        "--ignore-hints",
        help="Choose sources and depth ranges also where the set lists them (pair.txt).",
        rich_help_panel=CAMERAS,
    ),
]
ConventionOption = Annotated[
    Convention | None,
    typer.Option(
        "--convention",
        help="Direction of plain matrices, where the format leaves it open.",
        rich_help_panel=CAMERAS,
    ),
]
Fixes = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        help="A repair that `check` named, as in world-from-cam; may be repeated.",
        metavar="NAME",
        rich_help_panel=CAMERAS,
    ),
]
Every = Annotated[
    int,
    typer.Option(
        "--every", min=1, help="Take every Nth view only, as in a video.", metavar="N", rich_help_panel=CAMERAS
    ),
]
KeepPoses = Annotated[
    bool,
    typer.Option("--keep-poses", help="Keep the given poses; do not refine them by matches.", rich_help_panel=CHECKS),
]
ResultsFolder = Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder, as `infer` writes it.")]
Network = Annotated[
    str,
    typer.Option(
        "--network",
        help="Name of a network (`weights list`), a .safetensors file, or zncc: nothing learned.",
        rich_help_panel=ESTIMATION,
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda (cuda:1 ...).", rich_help_panel=ESTIMATION)]
MapSize = Annotated[
    Any | None,
    typer.Option(
        "--size",
        parser=parse_size,
        metavar="WxH",
        help="Size of all maps in px, instead of --max-side.",
        rich_help_panel=ESTIMATION,
    ),
]
MaxMemory = Annotated[
    Any | None,
    typer.Option(
        "--max-memory",
        parser=parse_bytes,
        metavar="SIZE",
        help="Memory to take, as in 4GB, on a GPU of it; larger images are estimated in tiles.",
        show_default="70 % of what is free",
        rich_help_panel=ESTIMATION,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Threads of the CPU.",
        metavar="N",
        show_default="as many as there are cores",
        rich_help_panel=ESTIMATION,
    ),
]
JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON, for scripts.", rich_help_panel=OUTPUT)
]
