"""``nasrecon weights``: list, verify, import and average weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nasrecon.cli.options import JsonFlag
from nasrecon.errors import InputError
from nasrecon.progress import under_way

if TYPE_CHECKING:
    from nasrecon.nas.manifest import WeightsEntry

app = typer.Typer(no_args_is_help=True, help="The networks' weights: list, verify, import, average.")


Variant = Literal["auto", "pool1", "pool3"]
"""How many depth poolings a published network used; "auto" reads it from the checkpoint."""


@app.command("list")
def list_weights(as_json: JsonFlag = False) -> None:
    """The weights that are known by name, the shipped ones first.

    Example: nasrecon weights list
    """
    from nasrecon.cli.console import weights_table
    from nasrecon.nas.manifest import list_weights as entries

    manifest = entries()
    print(json.dumps([_entry_facts(entry) for entry in manifest]) if as_json else weights_table(manifest))


@app.command("verify")
def verify_weights(as_json: JsonFlag = False) -> None:
    """Check every known weights file: its sha256, and that its tensors fit the network. Exit code 1 if one is wrong.

    Example: nasrecon weights verify
    """
    from nasrecon.cli.console import Bar, table

    with Bar() as bar, under_way(bar, "verify"):
        from nasrecon.nas.weights import verify_weights as checked

        results = checked()
    if as_json:
        print(json.dumps([_entry_facts(entry) | {"problem": problem} for entry, problem in results]))
    else:
        print(table([(entry.name, "wrong" if problem else "ok", problem) for entry, problem in results]))
    if any(problem for _, problem in results):
        raise typer.Exit(1)


@app.command("import")
def import_weights(
    mvdnet: Annotated[Path, typer.Argument(metavar="MVDNET", help="The published mvdnet_*.pth.tar.")],
    consistency: Annotated[Path, typer.Argument(metavar="CONS", help="The published cons_*.pth.tar.")],
    name: Annotated[str, typer.Option("--name", help="Name under which --network will find it.")],
    variant: Annotated[Variant, typer.Option("--variant", help="Depth poolings that were used.")] = "auto",
    trained_min_depth: Annotated[
        float, typer.Option("--trained-min-depth", help="Nearest plane in training: DeMoN, SUN3D 0.5; ScanNet 0.25.")
    ] = 0.5,
    as_json: JsonFlag = False,
) -> None:
    """Published checkpoints of the paper to checked safetensors among your own weights.

    Example: nasrecon weights import mvdnet_best.pth.tar cons_best.pth.tar --name nas-paper
    """
    from nasrecon.nas.published import import_published

    _show(import_published(mvdnet, consistency, name, variant=variant, trained_min_depth=trained_min_depth), as_json)


@app.command("average")
def average(
    first: Annotated[str, typer.Argument(metavar="FIRST", help="A name (`weights list`) or a .safetensors file.")],
    second: Annotated[str, typer.Argument(metavar="SECOND", help="Other weights of the same network.")],
    name: Annotated[str, typer.Option("--name", help="Name under which --network will find the average.")],
    share: Annotated[float, typer.Option("--share", help="Share of SECOND, from 0 to 1.")] = 0.5,
    part: Annotated[
        list[str] | None,
        typer.Option("--part", metavar="PART=SHARE", help="Another share in a part of the network; repeatable."),
    ] = None,
    statistics: Annotated[
        list[str] | None,
        typer.Option(
            "--statistics",
            metavar="PART=SHARE",
            help="Another share in the statistics of batch normalisation of a part; repeatable.",
        ),
    ] = None,
    spread_factor: Annotated[
        float | None, typer.Option("--spread-factor", min=0.001, help="New factor of the network's sigma.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """The average of two weights files, written among your own weights: two trainings from the same weights err apart.

    Example: nasrecon weights average lite mine --name both --share 0.3
    """
    from nasrecon.nas.average import average_weights

    shares = {"share": share, "parts": _shares("--part", part), "statistics": _shares("--statistics", statistics)}
    _show(average_weights(first, second, name, **shares, spread_factor=spread_factor), as_json)


def _shares(option: str, pairs: list[str] | None) -> dict[str, float]:
    """Read PART=SHARE."""
    shares = {}
    for pair in pairs or []:
        part, _, share = pair.partition("=")
        try:
            shares[part] = float(share)
        except ValueError:
            raise InputError(f"{option} {pair}: expected PART=SHARE, as consistency=0.5") from None
    return shares


def _show(entry: WeightsEntry, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_entry_facts(entry)))
    else:
        print(f"{entry.path}: {entry.bytes / 1e6:.1f} MB, {dict(entry.options)}; use it with --network {entry.name}")


def _entry_facts(entry: WeightsEntry) -> dict[str, Any]:
    return entry.as_json() | {"path": str(entry.path)}
