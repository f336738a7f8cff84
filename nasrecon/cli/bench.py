"""``nasrecon bench``: how fast the networks are here, and how well the check finds faults."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from nasrecon.cli.options import Device, Threads, parse_size
from nasrecon.cli.threads import prepare_for_networks
from nasrecon.progress import under_way

app = typer.Typer(help="Speed of the networks on this machine; or check: faults injected into right cameras.")


@app.callback(invoke_without_command=True)
def speed(
    context: typer.Context,
    network: Annotated[
        list[str] | None,
        typer.Option("--network", help="Name or kind; may be repeated.", show_default="lite, zncc; on a GPU paper"),
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", help="Of the maps; may be repeated.", metavar="WxH", show_default="320x256, 640x480"),
    ] = None,
    sources: Annotated[
        list[int] | None,
        typer.Option("--sources", help="Source views; may be repeated.", metavar="N", show_default="2, 4"),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="Leave cases out that would end later than this.")
    ] = 120.0,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for scripts.")] = False,
) -> None:
    """Seconds a view by network, size and number of sources; share of what the machine can do; peak memory.

    Example: nasrecon bench --network lite --size 640x480
    """
    if context.invoked_subcommand is not None:
        return
    prepare_for_networks(threads)
    from dataclasses import asdict

    from nasrecon.cli.console import Bar, table

    chosen = {"networks": network, "sizes": [parse_size(text) for text in size or ()], "sources": sources}
    with Bar() as bar:
        with under_way(bar, "start"):
            from nasrecon.bench.speed import SpeedOptions, measure, speed_rows
            from nasrecon.nas.weights import resolve_device
        options = SpeedOptions(seconds=seconds, **{name: tuple(value) for name, value in chosen.items() if value})
        ceilings, rows = measure(options, resolve_device(device), bar)
    if as_json:
        print(json.dumps({"gflop_per_second": ceilings, "cases": [asdict(row) for row in rows]}))
        return
    for precision, values in ceilings.items():
        print(f"{precision}: " + ", ".join(f"{name} {value:.3g} GFLOP/s" for name, value in values.items()))
    print(table(speed_rows(rows), right=range(4, 9)))


@app.command()
def check(
    sets: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[SETS]...", help="Folders of sets that carry their cameras, which are right."),
    ] = None,
    generated: Annotated[
        int, typer.Option("--generated", min=0, help="Sets to render besides, each another world.")
    ] = 2,
    views: Annotated[int, typer.Option("--views", min=5, help="Take so many views of a set, evenly, at most.")] = 40,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn at random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trials as JSON, for scripts.")] = False,
) -> None:
    """Break cameras that are right in known ways; count the right diagnoses and the false alarms.

    Exit code 1: below 95 %.

    Example: nasrecon bench check livingroom1 --generated 2
    """
    from dataclasses import asdict

    from nasrecon.bench.run import Trial, passed, run_trials, summary
    from nasrecon.bench.worlds import generate_scene
    from nasrecon.cli.console import Bar
    from nasrecon.errors import InputError
    from nasrecon.ingest.open_scene import open_scene

    if not sets and not generated:
        raise InputError("nothing to do: name sets, or let some be rendered with --generated N")
    trials: list[Trial] = []
    with Bar() as bar, under_way(bar, "measure"):
        for folder in sets or []:
            scene = open_scene(folder)
            step = -(-len(scene.views) // views)
            trials += run_trials(folder.name, scene.subset(range(0, len(scene.views), step)), seed=seed, progress=bar)
        for number in range(generated):
            with tempfile.TemporaryDirectory(prefix="nasrecon_check_") as folder:
                scene = generate_scene(Path(folder), seed + number)
                trials += run_trials(f"generated {number}", scene, seed=seed, progress=bar)
    print(json.dumps([asdict(trial) for trial in trials]) if as_json else summary(trials))
    if not passed(trials):
        raise typer.Exit(1)
