"""``nasrecon infer``: images to depth, normals and confidence of every view."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nasrecon.cli.options import (
    CHECKS,
    DEFAULT_FOLDER,
    ESTIMATION,
    OUTPUT,
    ConventionOption,
    Device,
    Every,
    Fixes,
    FormatOption,
    IgnoreHints,
    Images,
    Intrinsics,
    JsonFlag,
    KeepPoses,
    MapSize,
    Masks,
    MaxMemory,
    Network,
    Poses,
    Threads,
)
from nasrecon.cli.threads import prepare_for_networks
from nasrecon.errors import InputError
from nasrecon.inference.options import EstimateOptions
from nasrecon.prepare.options import PrepareOptions
from nasrecon.progress import under_way
from nasrecon.ranks import Ranks, as_ranks

if TYPE_CHECKING:
    from nasrecon.inference.run import RunSummary
    from nasrecon.nas.network import Network as NetworkType
    from nasrecon.progress import Progress

REMARKS_SHOWN = 12

PREPARE, ESTIMATE = PrepareOptions(), EstimateOptions()


NoCheckOption = Annotated[
    bool, typer.Option("--no-check", help="Do not report faults of the cameras.", rich_help_panel=CHECKS)
]


def _named(out: Path) -> Path:
    if str(out) in ("", "."):
        raise InputError("--out is empty: name a folder for the results")
    return out


OutOption = Annotated[Path, typer.Option("--out", help="The results folder.", callback=_named, rich_help_panel=OUTPUT)]
SourcesOption = Annotated[
    int,
    typer.Option("--sources", help="Source views per view, at most.", metavar="N", rich_help_panel=ESTIMATION),
]
MinDepthOption = Annotated[
    float | None,
    typer.Option(
        "--min-depth",
        help="Depth of the nearest surface in scene units; default: found for each view.",
        metavar="X",
        rich_help_panel=ESTIMATION,
    ),
]
MaxSideOption = Annotated[
    int | None,
    typer.Option(
        "--max-side",
        help="Longer side of the maps in px, 0: of the images; sides become multiples of 32.",
        metavar="N",
        show_default=str(ESTIMATE.max_side),
        rich_help_panel=ESTIMATION,
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch",
        help="Views at once.",
        metavar="N",
        show_default="1 on a CPU, 4 on a GPU",
        rich_help_panel=ESTIMATION,
    ),
]
TriangulateOption = Annotated[
    bool,
    typer.Option(
        "--triangulate", help="Triangulate sparse points for cameras that come without.", rich_help_panel=CHECKS
    ),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Redo finished views.", rich_help_panel=OUTPUT)]


def infer(
    images: Images,
    poses: Poses = None,
    intrinsics: Intrinsics = None,
    convention: ConventionOption = None,
    format: FormatOption = None,
    masks: Masks = None,
    ignore_hints: IgnoreHints = False,
    every: Every = PREPARE.every,
    fix: Fixes = None,
    no_check: NoCheckOption = not PREPARE.check,
    keep_poses: KeepPoses = not PREPARE.refine,
    out: OutOption = Path(DEFAULT_FOLDER),
    network: Network = "lite",
    device: Device = "auto",
    sources: SourcesOption = PREPARE.sources,
    min_depth: MinDepthOption = PREPARE.min_depth,
    size: MapSize = ESTIMATE.size,
    max_side: MaxSideOption = None,
    max_memory: MaxMemory = ESTIMATE.max_memory,
    batch: BatchOption = ESTIMATE.batch,
    triangulate: TriangulateOption = PREPARE.triangulate,
    overwrite: OverwriteOption = False,
    threads: Threads = None,
    as_json: JsonFlag = False,
) -> None:
    """Images to depth, normals and confidence of every view. A rerun continues where the last one stopped.

    Images without cameras get them by structure from motion first. With several GPUs or machines:
    torchrun --nproc-per-node N -m -- nasrecon infer ...; the processes share the views.

    Example: nasrecon infer photos --out results
    """
    prepare_for_networks(threads)
    prepare = PrepareOptions(
        every=every,
        fixes=tuple(fix or ()),
        check=not no_check,
        refine=not keep_poses,
        triangulate=triangulate,
        sources=sources,
        min_depth=min_depth,
    )
    options = _estimate_options(size, max_side, batch, max_memory)
    reading: dict[str, Any] = {"intrinsics": intrinsics, "convention": convention, "format": format, "masks": masks}
    reading["use_hints"] = not ignore_hints
    with as_ranks() as ranks:
        run = _run(images, poses, prepare, options, out, network, device, overwrite, ranks, **reading)
    if ranks.is_first:
        print_summary(run, out, as_json)


def _estimate_options(
    size: tuple[int, int] | None, max_side: int | None, batch: int | None, max_memory: int | None
) -> EstimateOptions:
    if size is not None and max_side is not None:
        raise InputError("--size and --max-side give two sizes; give one")
    side = ESTIMATE.max_side if max_side is None else max_side
    return EstimateOptions(size=size, batch=batch, max_side=side, max_memory=max_memory)


def _run(
    images: Path,
    poses: Path | None,
    prepare: PrepareOptions,
    options: EstimateOptions,
    out: Path,
    network: str,
    device: str,
    overwrite: bool,
    ranks: Ranks,
    **reading: Any,
) -> RunSummary:
    """Prepare the scene and estimate its views, with progress of the first rank on stderr."""
    from nasrecon.cli.console import Bar
    from nasrecon.progress import Quiet

    with Bar() if ranks.is_first else nullcontext(Quiet()) as bar:
        loaded = start(images, out, network, ranks.device(device), bar)
        from nasrecon.pipeline import estimate_images

        return estimate_images(
            images, poses, out, loaded, prepare, options, overwrite=overwrite, progress=bar, **reading
        )


def start(images: Path, out: Path, network: str, device: str, progress: Progress) -> NetworkType:
    """Report at once that work begins, set what an interrupted run reports, and load the network.

    Raises:
        InputError: if there are no images there, before the network is loaded.
    """
    if not images.exists():
        raise InputError(f"{images}: no such file or folder (images)")
    progress.note(f"reading {images}")
    with under_way(progress, "load"):
        from nasrecon.cli.interrupt import on_interrupt
        from nasrecon.nas.precision import device_of
        from nasrecon.nas.weights import load_network
        from nasrecon.results.reader import count_finished

        words = "interrupted: {} finished views are in {}; the same command goes on"
        on_interrupt(lambda: words.format(count_finished(out), out))
        loaded = load_network(network, device=device)
    progress.note(f"network {loaded.name} on {device_of(loaded)}")
    return loaded


def print_summary(run: RunSummary, out: Path, as_json: bool) -> None:
    """Print what a run did, for people or as JSON."""
    from nasrecon.cli.console import next_lines

    if as_json:
        skipped = [{"name": name, "reason": reason} for name, reason in run.skipped]
        counts = {"estimated": run.estimated, "kept": run.kept, "dropped": skipped, "seconds": round(run.seconds, 3)}
        counts["remarks"] = [{"name": name, "remark": remark} for name, remark in run.remarks]
        print(json.dumps({"results": str(out), **counts}))
        return
    follow = next_lines(("fuse", [out], "a point cloud and a mesh"), ("viz", [out], "the views in the browser"))
    print("\n".join([*summary_lines(run, out), *follow]))


def summary_lines(run: RunSummary, out: Path) -> list[str]:
    """Lay out what was estimated, and what is odd about single views."""
    from nasrecon.cli.console import duration
    from nasrecon.errors import plural

    counts = [f"{plural(run.estimated, 'view')} estimated in {duration(run.seconds)}"]
    if run.kept:
        counts.append(f"{run.kept} finished before")
    if run.skipped:
        counts.append(f"{len(run.skipped)} left out")
    lines = [f"{out}: {', '.join(counts)}", *(f"  {name}: {remark}" for name, remark in run.remarks[:REMARKS_SHOWN])]
    if len(run.remarks) > REMARKS_SHOWN:
        lines.append(f"  ... and {len(run.remarks) - REMARKS_SHOWN} more remarks (all with --json)")
    return lines
