"""Options that several commands share, each declared once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Convention(StrEnum):
    """Which way the transforms in a file of plain matrices go."""

    cam_from_world = "cam-from-world"
    world_from_cam = "world-from-cam"


class Format(StrEnum):
    """The layouts that are read, by their keys (``ingest.LAYOUTS``)."""

    colmap = "colmap"
    transforms = "transforms"
    mvsnet = "mvsnet"
    middlebury = "middlebury"
    strecha = "strecha"
    redwood = "redwood"
    tum = "tum"
    seven_scenes = "7scenes"
    scannet = "scannet"
    demon = "demon"
    kitti = "kitti"
    matrices = "matrices"


Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder of images, or of a whole set with its cameras, or a video.")
]


Poses = Annotated[
    Path | None,
    typer.Option("--poses", help="COLMAP model, or folder or file of transforms; default: within IMAGES."),
]


Intrinsics = Annotated[
    Path | None,
    typer.Option("--intrinsics", help="File with K, or folder with one for each image, where the cameras have none."),
]


WhichFormat = Annotated[
    Format | None,
    typer.Option("--format", help="The layout to read, where several fit.", show_default="the one that fits"),
]


Masks = Annotated[
    Path | None,
    typer.Option("--masks", help="Folder with a mask for each image, by name: no depth where it is zero."),
]


IgnoreHints = Annotated[
    bool,
    typer.Option("--ignore-hints", help="Choose sources and depth ranges also where the set lists them (pair.txt)."),
]


WhichWay = Annotated[
    Convention | None,
    typer.Option("--convention", help="Which way plain matrices go, where the layout leaves it open."),
]


Fixes = Annotated[
    list[str] | None,
    typer.Option("--fix", help="A repair that `check` named, as in world-from-cam; may be repeated.", metavar="NAME"),
]


Every = Annotated[int, typer.Option("--every", min=1, help="Take every Nth view only, as in a video.", metavar="N")]

DEFAULT_FOLDER = "nasrecon_out"

# Options that several commands share are declared once, here.
ResultsFolder = Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder, as `infer` writes it.")]
Network = Annotated[str, typer.Option("--network", help="Name of a network (`weights list`) or a .safetensors file.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda (cuda:1 ...).")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON, for scripts.")]


def parse_size(text: str) -> tuple[int, int]:
    width, x, height = text.lower().partition("x")
    if not (x and width.isdigit() and height.isdigit()):
        raise typer.BadParameter(f"expected WIDTHxHEIGHT in pixels, as in 640x480, found {text!r}")
    return int(width), int(height)
