"""``nasrecon infer``: images to depth, normals and confidence of every view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from nasrecon.cli.options import (
    DEFAULT_FOLDER,
    AsJson,
    Device,
    Every,
    Fixes,
    IgnoreHints,
    Images,
    Intrinsics,
    Masks,
    Network,
    Poses,
    WhichFormat,
    WhichWay,
    parse_size,
)
from nasrecon.errors import InputError, NoPosesError
from nasrecon.prepare.prepare import look_at_cameras, open_asked, reconstruct, with_refined_poses, with_sparse_points


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
        typer.Option("--size", parser=parse_size, metavar="WxH", help="Size of all maps in px, instead of --max-side."),
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

    from nasrecon.cli.console import Bar, say
    from nasrecon.inference.options import InferOptions
    from nasrecon.inference.run import estimate_to_folder
    from nasrecon.nas.precision import device_of
    from nasrecon.nas.weights import load_network
    from nasrecon.results.reader import count_finished

    given = {} if max_side is None else {"max_side": max_side}
    options = InferOptions(sources=sources, min_depth=min_depth, size=size, batch=batch, **given)
    loaded = load_network(network, device=device)
    say(f"network {loaded.name} on {device_of(loaded)}")
    with Bar() as bar:
        try:
            run = estimate_to_folder(scene, loaded, out, options, overwrite=overwrite, progress=bar)
        except KeyboardInterrupt:
            bar.note(f"interrupted: {count_finished(out)} finished views are in {out}; the same command goes on")
            raise typer.Exit(130) from None
    if as_json:
        skipped = [{"name": name, "reason": reason} for name, reason in run.skipped]
        counts = {"estimated": run.estimated, "kept": run.kept, "dropped": skipped, "seconds": round(run.seconds, 3)}
        print(json.dumps({"results": str(out), **counts}))
    else:
        print(
            f"{out}: {run.estimated} views estimated, {run.kept} kept, {len(run.skipped)} left out, {run.seconds:.1f} s"
        )
        print(f"next: nasrecon fuse {out}")
