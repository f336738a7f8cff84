"""``nasrecon train``: render worlds, preview them, train on them, ship the result."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from nasrecon.errors import InputError

if TYPE_CHECKING:
    from nasrecon.train.datasets import BatchOptions
    from nasrecon.train.recipes import Stage
    from nasrecon.train.state import TrainOptions

app = typer.Typer(help="Train a network on procedural worlds; or render, preview, export.")

Textures = Annotated[
    Path | None, typer.Option("--textures", help="Folder of .jpg or .png textures to add to the drawn ones.")
]
Floating = Annotated[
    float, typer.Option("--floating", min=0, max=1, help="Share of worlds of primitives whose things are in the air.")
]
Kind = Annotated[str, typer.Option("--kind", help="primitives, furnished (with CAD models) or mixed.")]
Models = Annotated[
    Path | None, typer.Option("--models", help="Folder of furniture archives: Debian's sweethome3d-furniture, *.sh3f.")
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
Worlds = Annotated[Path, typer.Option("--worlds", help="Folder of rendered worlds.")]
Batch = Annotated[
    float, typer.Option("--batch", min=0.01, help="Megapixels of references in a batch of 8 worlds at most.")
]
Augment = Annotated[
    bool,
    typer.Option(
        "--augment/--no-augment",
        help="Change colours, sharpness, poses and windows at random; without, see whether a set can be learnt.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--learning-rate",
        help="Its peak.",
        show_default="1.5e-3; paper: 2e-4; --resume: as before",
    ),
]
KeepStatistics = Annotated[
    bool,
    typer.Option(
        "--keep-statistics",
        help="Batch normalisation keeps the statistics of --init or --resume: small batches leave poor ones.",
    ),
]
RunFolder = Annotated[Path, typer.Option("--run", help="Folder of the run: checkpoint.pt, log.csv.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda (cuda:1 ...).")]


@app.command()
def render(
    worlds: Worlds = Path("runs/worlds"),
    files: Annotated[int, typer.Option("--files", min=1, help="How many files, 8 worlds each.")] = 100,
    first: Annotated[int, typer.Option("--first", min=0, help="Number of the first file, to share the work.")] = 0,
    kind: Kind = "primitives",
    models: Models = None,
    width: Annotated[int, typer.Option("--width", min=64, help="Image width, in px.")] = 256,
    height: Annotated[int, typer.Option("--height", min=64, help="Image height, in px.")] = 192,
    textures: Textures = None,
    floating: Floating = 0.2,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Render worlds into files; those that exist are left alone, so a stopped run goes on.

    Example: nasrecon train render --worlds runs/worlds --files 400
    """
    from nasrecon.nas.weights import resolve_device
    from nasrecon.train.world_files import WorldOptions, render_worlds

    options = WorldOptions(kind=kind, width=width, height=height, textures=textures, floating=floating, models=models)
    paths = render_worlds(worlds, files, seed, options, resolve_device(device), first)
    print(f"{worlds}: {len(paths)} files, {len(paths) * options.worlds_per_file} worlds")


@app.command()
def preview(
    out: Annotated[Path, typer.Option("--out", help="The PNG to write.")] = Path("worlds.png"),
    count: Annotated[int, typer.Option("--count", min=1, help="How many worlds.")] = 8,
    kind: Kind = "primitives",
    models: Models = None,
    textures: Textures = None,
    floating: Floating = 0.2,
    seed: Seed = 0,
) -> None:
    """Write a contact sheet: of each world its views, and inverse depth and normals of the first.

    Example: nasrecon train preview --out worlds.png
    """
    from nasrecon.cli.console import Bar, next_lines
    from nasrecon.errors import plural

    with Bar() as bar:
        bar.update("worlds", 0, count)
        from nasrecon.train.contact_sheet import write_sheet
        from nasrecon.train.world_files import WorldOptions

        options = WorldOptions(kind=kind, textures=textures, floating=floating, models=models)
        write_sheet(out, count, seed, options, bar)
    print(f"contact sheet of {plural(count, 'world')}: {shlex.quote(str(out))}")
    given = {
        "--kind": (kind, "primitives"),
        "--models": (models, None),
        "--textures": (textures, None),
        "--floating": (floating, 0.2),
        "--seed": (seed, 0),
    }
    chosen = [word for name, (value, usual) in given.items() if value != usual for word in (name, value)]
    arguments = ["render", "--worlds", "runs/worlds", *chosen]
    print("\n".join(next_lines(("train", arguments, "worlds to train on"))))


@app.command("credits")
def show_credits(
    models: Annotated[Path, typer.Option("--models", help="Folder of furniture archives.")],
) -> None:
    """Print the creators and licences of CAD models, which weights trained on furnished worlds name.

    Example: nasrecon train credits --models /usr/share/sweethome3d
    """
    from nasrecon.train.furnished.credits import credits_text
    from nasrecon.train.furnished.models import ModelLibrary

    print(credits_text(ModelLibrary(models)))


@app.callback(invoke_without_command=True)
def train(
    context: typer.Context,
    worlds: Annotated[
        Path | None,
        typer.Option("--worlds", help="Folder of rendered worlds of one size.", show_default="runs/worlds"),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="TOML file of sets, mixed by weights: rendered worlds, own posed images with depth maps.",
        ),
    ] = None,
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Folder of worlds to score on, rendered with another seed.")
    ] = None,
    run: RunFolder = Path("runs/lite"),
    steps: Annotated[int, typer.Option("--steps", min=1, help="Length of the whole schedule.")] = 20_000,
    batch: Batch = 0.33,
    network: Annotated[str, typer.Option("--network", help="lite or paper.")] = "lite",
    stage: Annotated[
        str,
        typer.Option(
            "--stage",
            help="1: depth and normals; 2: the consistency module; all: both (lite).",
            show_default="all; paper: 1",
        ),
    ] = "",
    init: Annotated[
        str | None,
        typer.Option("--init", help="Weights to start from: a name (`weights list`) or a .safetensors file."),
    ] = None,
    learning_rate: Rate = None,
    batches: Annotated[
        int | None,
        typer.Option(
            "--batches-per-step",
            min=1,
            help="Batches whose gradients are averaged; the processes of torchrun share them.",
            show_default="one a process",
        ),
    ] = None,
    augment: Augment = True,
    keep_statistics: KeepStatistics = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train on worlds that `render` made, or own data. Ctrl-C loses the steps since the last checkpoint.

    Example: nasrecon train --worlds runs/worlds --run runs/lite
    """
    if context.invoked_subcommand is not None:
        return
    resume, init = _start_of(run, resume, init)
    options = _train_options(run, network, stage, steps, learning_rate, seed, init, resume, keep_statistics)
    sets, drawn = (worlds, data, validation), (round(batch * 1e6), augment)
    _train(run, sets, drawn, options, batches, device, resume=resume, init=init)


def _start_of(run: Path, resume: bool, init: str | None) -> tuple[bool, str | None]:
    """Return ``resume`` and ``init`` for a run: processes that torchrun has started anew go on from its checkpoint."""
    from nasrecon.ranks import is_restarted

    return (True, None) if is_restarted() and (run / "checkpoint.pt").exists() else (resume, init)


def _train(
    run: Path,
    sets: tuple[Path | None, Path | None, Path | None],
    drawn_as: tuple[int, bool],
    options: TrainOptions,
    batches: int | None,
    device: str,
    **start: Any,
) -> None:
    """Train on worlds or the sets of a file, validate on others; the first process shows a bar and prints.

    Args:
        sets: worlds, file of sets, worlds to validate on. drawn_as: pixels of a batch; whether it is augmented.
    """
    from nasrecon.cli.console import next_lines
    from nasrecon.nas.weights import resolve_device
    from nasrecon.ranks import as_ranks
    from nasrecon.train.datasets import BatchOptions, WorldFiles
    from nasrecon.train.loop import train as train_on

    worlds, data, validation = sets
    drawn = BatchOptions(pixels=drawn_as[0], augment=drawn_as[1])
    with as_ranks() as ranks:
        options = replace(options, batches=batches or ranks.size)
        training = _training_data(worlds, data, drawn)
        held_out = None if validation is None else WorldFiles(validation, BatchOptions(pixels=drawn.pixels))
        target = resolve_device(ranks.device(device))
        with _progress(options.steps, ranks.is_first) as on_step:
            try:
                state = train_on(run, training, held_out, options, target, on_step=on_step, ranks=ranks, **start)
            except KeyboardInterrupt:
                print(f"interrupted; --resume goes on from {run / 'checkpoint.pt'}", file=sys.stderr)
                raise typer.Exit(130) from None
        if ranks.is_first:
            for line in training.summaries() if data is not None else []:
                print(line)
            print(f"{run}: {state.step} steps, {state.seconds / 3600:.2f} h")
            print(
                "\n".join(next_lines(("train", ["export", "--run", run, "--name", run.name], "weights to infer with")))
            )


def _training_data(worlds: Path | None, data: Path | None, drawn: BatchOptions) -> Any:
    """Return what batches are drawn from: the sets of a file, or one folder of worlds."""
    from nasrecon.train.datasets import WorldFiles
    from nasrecon.train.mixture import read_mixture

    if data is None:
        return WorldFiles(worlds or Path("runs/worlds"), drawn)
    if worlds is not None:
        raise InputError("--data lists the sets, folders of worlds among them: pass it or --worlds")
    return read_mixture(data, drawn)


@contextmanager
def _progress(steps: int, shown: bool) -> Iterator[Any]:
    """Yield what ``train`` calls after each step; it shows a bar on the first process only."""
    from nasrecon.train.loop import progress_bar

    if not shown:
        yield None
        return
    with progress_bar(steps) as on_step:
        yield on_step


def _train_options(
    run: Path,
    network: str,
    stage: str,
    steps: int,
    learning_rate: float | None,
    seed: int,
    init: str | None,
    resume: bool,
    keep_statistics: bool = False,
) -> TrainOptions:
    """Return the options of a run, with the defaults that depend on the network and the run resumed."""
    from nasrecon.train.loop import rate_of_run
    from nasrecon.train.recipes import PEAK_RATE
    from nasrecon.train.state import TrainOptions

    if resume and init is not None:
        raise InputError(
            "--resume goes on from the folder's checkpoint, --init starts from other weights: pass one of them"
        )
    stage = cast("Stage", stage or ("1" if network == "paper" else "all"))
    if stage == "2" and init is None and not resume:
        raise InputError("stage 2 trains the consistency module over weights that stage 1 made: pass them with --init")
    if keep_statistics and init is None and not resume:
        raise InputError("--keep-statistics keeps those of the weights that a run starts from: name them with --init")
    known = rate_of_run(run) if resume else None
    rate = learning_rate or known or PEAK_RATE.get(network, PEAK_RATE["lite"])
    return TrainOptions(
        network=network, stage=stage, steps=steps, learning_rate=rate, seed=seed, keep_statistics=keep_statistics
    )


@app.command()
def export(
    run: RunFolder = Path("runs/lite"),
    name: Annotated[str, typer.Option("--name", help="Name under which --network will find the weights.")] = "lite",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of weights.", show_default="your own")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Of the weights.")] = "Apache-2.0",
    textures: Annotated[str, typer.Option("--textures-used", help="Sources of the textures that were used.")] = "drawn",
    notes: Annotated[str, typer.Option("--notes", help="Anything else.")] = "",
) -> None:
    """Write the averaged weights of a run as safetensors, and enter them in the manifest beside them.

    Example: nasrecon train export --run runs/lite --name mine
    """
    from nasrecon.train.weights_export import export_run

    entry = export_run(run, name, out, licence=licence, textures=textures, notes=notes)
    print(f"{entry.path}: {entry.bytes / 1e6:.1f} MB; use it with --network {entry.name}")
