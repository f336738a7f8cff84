"""``nasrecon train``: render worlds, preview them, train on them, ship the result."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from nasrecon.errors import InputError

if TYPE_CHECKING:
    from nasrecon.train.loop import Stage, TrainOptions

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
WorldShares = Annotated[
    list[str],
    typer.Option(
        "--worlds",
        help="Folder of rendered worlds of one size; repeat it for more. FOLDER:2 gives twice as many batches.",
        show_default="runs/worlds",
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
    from nasrecon.cli.console import print_note
    from nasrecon.train.contact_sheet import write_sheet
    from nasrecon.train.world_files import WorldOptions

    print_note(f"rendering {count} worlds; about 10 s each on a CPU")
    write_sheet(out, count, seed, WorldOptions(kind=kind, textures=textures, floating=floating, models=models))
    print(out)


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
    worlds: WorldShares = ["runs/worlds"],  # noqa: B006 (Typer copies it)
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Folder of worlds to score on, rendered with another seed.")
    ] = None,
    run: RunFolder = Path("runs/lite2"),
    steps: Annotated[int, typer.Option("--steps", min=1, help="Length of the whole schedule.")] = 20_000,
    batch: Annotated[
        float, typer.Option("--batch", min=0.01, help="Megapixels of references in a batch of 8 worlds at most.")
    ] = 0.33,
    network: Annotated[str, typer.Option("--network", help="lite2 or paper.")] = "lite2",
    stage: Annotated[
        str,
        typer.Option(
            "--stage",
            help="1: depth and normals; 2: the consistency module; all: both (lite2).",
            show_default="all; paper: 1",
        ),
    ] = "",
    init: Annotated[
        str | None,
        typer.Option("--init", help="Weights to start from: a name (`weights list`) or a .safetensors file."),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Its peak.", show_default="1.5e-3; paper: 2e-4")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Train on worlds that `render` made. Ctrl-C loses the steps since the last checkpoint.

    Example: nasrecon train --worlds runs/worlds --run runs/lite2
    """
    if context.invoked_subcommand is not None:
        return
    from nasrecon.nas.weights import resolve_device
    from nasrecon.train.datasets import BatchOptions, WorldFiles
    from nasrecon.train.loop import progress_bar
    from nasrecon.train.loop import train as train_on

    options = _train_options(network, stage, steps, learning_rate, seed, init, resume)
    drawn = BatchOptions(pixels=round(batch * 1e6))
    data = WorldFiles(dict(_folder_and_share(text) for text in worlds), drawn)
    held_out = None if validation is None else WorldFiles({validation: 1.0}, drawn)
    with progress_bar(steps) as on_step:
        try:
            state = train_on(
                run, data, held_out, options, resolve_device(device), resume=resume, init=init, on_step=on_step
            )
        except KeyboardInterrupt:
            print(f"interrupted; --resume goes on from {run / 'checkpoint.pt'}", file=sys.stderr)
            raise typer.Exit(130) from None
    print(f"{run}: {state.step} steps, {state.seconds / 3600:.2f} h")


def _folder_and_share(text: str) -> tuple[Path, float]:
    """Return the folder and the share of "FOLDER" or "FOLDER:SHARE".

    Raises:
        InputError: if the share is not a positive number.
    """
    folder, colon, share = text.rpartition(":")
    if not colon or Path(text).is_dir():
        return Path(text), 1.0
    try:
        value = float(share)
    except ValueError:
        value = -1.0
    if not 0 < value < math.inf:
        raise InputError(f"--worlds {text}: expected FOLDER or FOLDER:SHARE with a positive share, found {share!r}")
    return Path(folder), value


def _train_options(
    network: str, stage: str, steps: int, learning_rate: float | None, seed: int, init: str | None, resume: bool
) -> TrainOptions:
    """Return the options of a run, with the defaults that depend on the network."""
    from nasrecon.train.loop import TrainOptions
    from nasrecon.train.recipes import PEAK_RATE

    if resume and init is not None:
        raise InputError(
            "--resume goes on from the folder's checkpoint, --init starts from other weights: pass one of them"
        )
    stage = stage or ("1" if network == "paper" else "all")
    if stage == "2" and init is None and not resume:
        raise InputError("stage 2 trains the consistency module over weights that stage 1 made: pass them with --init")
    rate = PEAK_RATE.get(network, PEAK_RATE["lite2"]) if learning_rate is None else learning_rate
    return TrainOptions(network=network, stage=cast("Stage", stage), steps=steps, learning_rate=rate, seed=seed)


@app.command()
def export(
    run: RunFolder = Path("runs/lite2"),
    name: Annotated[str, typer.Option("--name", help="Name under which --network will find the weights.")] = "lite2",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of weights.", show_default="your own")] = None,
    licence: Annotated[str, typer.Option("--licence", help="Of the weights.")] = "Apache-2.0",
    textures: Annotated[str, typer.Option("--textures-used", help="Sources of the textures that were used.")] = "drawn",
    notes: Annotated[str, typer.Option("--notes", help="Anything else.")] = "",
) -> None:
    """Write the averaged weights of a run as safetensors, and enter them in the manifest beside them.

    Example: nasrecon train export --run runs/lite2 --name mine
    """
    from nasrecon.train.weights_export import export_run

    entry = export_run(run, name, out, licence=licence, textures=textures, notes=notes)
    print(f"{entry.path}: {entry.bytes / 1e6:.1f} MB; use it with --network {entry.name}")
