"""``nasrecon bench``: how well parts of this package do their work, on sets that you name."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Benchmarks: check (faults injected into sound sets).", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def check(
    sets: Annotated[
        list[Path] | None, typer.Argument(metavar="[SETS]...", help="Folders of sound sets that carry their cameras.")
    ] = None,
    generated: Annotated[
        int, typer.Option("--generated", min=0, help="Sets to render besides, each another world.")
    ] = 2,
    views: Annotated[int, typer.Option("--views", min=5, help="Take so many views of a set, evenly, at most.")] = 40,
    seed: Annotated[int, typer.Option("--seed", help="Of what is drawn at random.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the trials as JSON, for scripts.")] = False,
) -> None:
    """Break the cameras of sound sets in known ways; count the right diagnoses and the false alarms. Exit code 1:
    below 95 %.

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
    bar = Bar()
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
