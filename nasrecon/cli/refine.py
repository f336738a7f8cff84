"""``nasrecon refine``: depth maps of another program through a network's consistency module."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasrecon.cli.infer import (
    BatchOption,
    MaxSideOption,
    MinDepthOption,
    OutOption,
    OverwriteOption,
    SourcesOption,
    print_summary,
    start,
)
from nasrecon.cli.options import (
    CAMERAS,
    DEFAULT_FOLDER,
    ConventionOption,
    Device,
    Every,
    Fixes,
    FormatOption,
    Images,
    Intrinsics,
    JsonFlag,
    KeepPoses,
    Masks,
    MaxMemory,
    Network,
    Poses,
    Threads,
)
from nasrecon.cli.threads import prepare_for_networks
from nasrecon.inference.options import EstimateOptions
from nasrecon.prepare.options import PrepareOptions

if TYPE_CHECKING:
    from nasrecon.inference.run import RunSummary
    from nasrecon.nas.network import Network as NetworkType
    from nasrecon.progress import Progress

PREPARE, ESTIMATE = PrepareOptions(), EstimateOptions()

Depths = Annotated[
    Path,
    typer.Option(
        "--depths",
        help="Folder with a depth map for each image, by name: .npz (depth, normal), .npy, .pfm, 16-bit .png; or "
        "COLMAP's dense workspace.",
        rich_help_panel=CAMERAS,
    ),
]
DepthScale = Annotated[
    float | None,
    typer.Option(
        "--depth-scale",
        help="Scene units in one step of a .png.",
        metavar="X",
        show_default="as cameras.json states, else 0.001",
        rich_help_panel=CAMERAS,
    ),
]


def refine(
    images: Images,
    depths: Depths,
    depth_scale: DepthScale = None,
    poses: Poses = None,
    intrinsics: Intrinsics = None,
    convention: ConventionOption = None,
    format: FormatOption = None,
    masks: Masks = None,
    every: Every = PREPARE.every,
    fix: Fixes = None,
    keep_poses: KeepPoses = not PREPARE.refine,
    out: OutOption = Path(DEFAULT_FOLDER),
    network: Network = "lite",
    device: Device = "auto",
    sources: SourcesOption = PREPARE.sources,
    min_depth: MinDepthOption = PREPARE.min_depth,
    max_side: MaxSideOption = None,
    max_memory: MaxMemory = ESTIMATE.max_memory,
    batch: BatchOption = ESTIMATE.batch,
    overwrite: OverwriteOption = False,
    threads: Threads = None,
    as_json: JsonFlag = False,
) -> None:
    """Refine depth maps of another program with the images; the results folder is one as of `infer`.

    Example: nasrecon refine dense/images --poses dense/sparse --depths dense --out results
    """
    prepare_for_networks(threads)

    from nasrecon.cli.console import Bar

    prepare = PrepareOptions(
        every=every,
        fixes=tuple(fix or ()),
        check=False,
        refine=not keep_poses,
        sources=sources,
        min_depth=min_depth,
    )
    side = ESTIMATE.max_side if max_side is None else max_side
    options = EstimateOptions(batch=batch, max_side=side, max_memory=max_memory)
    reading = {"intrinsics": intrinsics, "convention": convention, "format": format, "masks": masks}
    with Bar() as bar:
        loaded = start(images, out, network, device, bar)
        maps = depths, depth_scale
        run = _refined(loaded, images, poses, maps, prepare, options, out, overwrite, bar, **reading)
    print_summary(run, out, as_json)


def _refined(
    network: NetworkType,
    images: Path,
    poses: Path | None,
    maps: tuple[Path, float | None],
    prepare: PrepareOptions,
    options: EstimateOptions,
    out: Path,
    overwrite: bool,
    progress: Progress,
    **reading: Any,
) -> RunSummary:
    """Prepare the scene and refine its depth maps; ``maps``: their folder and its scale."""
    from nasrecon.inference.depth_maps import DepthMaps
    from nasrecon.inference.refine import DepthRefiner, refine_to_folder
    from nasrecon.inference.run import claimed
    from nasrecon.prepare.prepare import prepare_scene

    opened = DepthMaps(*maps)
    DepthRefiner(network)  # refuses a network without a consistency module before any work
    with claimed(out):
        scene = prepare_scene(images, poses, prepare, work_dir=out, overwrite=overwrite, progress=progress, **reading)
        return refine_to_folder(scene, opened, network, out, options, overwrite=overwrite, progress=progress)
