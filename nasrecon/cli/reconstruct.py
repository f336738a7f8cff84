"""``nasrecon reconstruct``: photographs to a cloud, a mesh and a report, in one command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from nasrecon.cli.infer import OutOption, OverwriteOption, start, summary_lines
from nasrecon.cli.options import (
    DEFAULT_FOLDER,
    ConventionOption,
    Device,
    Every,
    Fixes,
    FormatOption,
    Images,
    Intrinsics,
    JsonFlag,
    Masks,
    Network,
    Poses,
    Threads,
)
from nasrecon.cli.threads import prepare_for_networks
from nasrecon.prepare.options import PrepareOptions

if TYPE_CHECKING:
    from nasrecon.pipeline import Reconstruction


def reconstruct(
    images: Images,
    poses: Poses = None,
    intrinsics: Intrinsics = None,
    convention: ConventionOption = None,
    format: FormatOption = None,
    masks: Masks = None,
    every: Every = 1,
    fix: Fixes = None,
    out: OutOption = Path(DEFAULT_FOLDER),
    network: Network = "lite",
    device: Device = "auto",
    overwrite: OverwriteOption = False,
    threads: Threads = None,
    as_json: JsonFlag = False,
) -> None:
    """Photographs or a video to a point cloud, a mesh and a report. A rerun continues where the last one stopped.

    It is infer, fuse and viz --html with their defaults; cameras are found where none are given, and checked where they
    are.

    Example: nasrecon reconstruct photos --out results
    """
    prepare_for_networks(threads)
    prepare = PrepareOptions(every=every, fixes=tuple(fix or ()))
    reading = {"intrinsics": intrinsics, "convention": convention, "format": format, "masks": masks}
    from nasrecon.cli.console import Bar

    with Bar() as bar:
        loaded = start(images, out, network, device, bar)
        from nasrecon.pipeline import reconstruct_to_folder

        made = reconstruct_to_folder(
            images, poses, out, loaded, prepare=prepare, overwrite=overwrite, progress=bar, **reading
        )
    print(json.dumps(_facts(made, out)) if as_json else _summary(made, out))


def _facts(made: Reconstruction, out: Path) -> dict[str, object]:
    run = made.run
    return {
        "results": str(out),
        "estimated": run.estimated,
        "kept": run.kept,
        "dropped": [{"name": name, "reason": reason} for name, reason in run.skipped],
        **{what: str(getattr(made, what)) for what in ("mesh", "cloud", "report")},
    }


def _summary(made: Reconstruction, out: Path) -> str:
    from nasrecon.cli.console import next_lines, table
    from nasrecon.errors import plural

    mesh, cloud = made.fusion.mesh, made.fusion.cloud
    size = made.report.stat().st_size / 1e6
    files = [
        (str(made.report), "", f"everything on one page, {size:.1f} MB: open it in a browser"),
        (str(made.mesh), "", f"mesh, {plural(0 if mesh is None else len(mesh.faces), 'triangle')}"),
        (str(made.cloud), "", f"point cloud, {plural(0 if cloud is None else len(cloud), 'point')}"),
    ]
    follow = next_lines(("viz", [out], "look around in the browser"))
    return "\n".join([*summary_lines(made.run, out), table(files), *follow])
