"""The command line: one command, one call of a public function.

Everything heavy is imported inside the commands, so that ``nasrecon --help`` answers at once. Progress goes to stderr,
results to stdout. Exit codes: 0 done, 1 failed, 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from nasrecon import __version__
from nasrecon.cli import bench, check, eval, export, fuse, infer, reconstruct, refine, train, viz, weights
from nasrecon.cli.interrupt import EXIT_CODE, interruptible, message, was_interrupted
from nasrecon.cli.threads import set_waiting
from nasrecon.errors import NasReconError, in_words, is_place_at_fault

app = typer.Typer(
    name="nasrecon",
    help="Posed images in; depth maps, normal maps, a point cloud and a mesh out: normal-assisted stereo.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; always ends in SystemExit. ``argv``: the arguments, default those of the process."""
    set_waiting()
    try:
        with interruptible():
            try:
                app(args=None if argv is None else list(argv), prog_name="nasrecon")
            except SystemExit as end:
                if end.code == EXIT_CODE:
                    print(message(), file=sys.stderr)
                raise
    except KeyboardInterrupt:
        print(message(), file=sys.stderr)
        raise SystemExit(EXIT_CODE) from None
    except Exception as error:
        if was_interrupted():
            print(message(), file=sys.stderr)
            raise SystemExit(EXIT_CODE) from error
        _end_with(error)


def _end_with(error: Exception) -> None:
    """Print an error and end with its exit code; one that is not foreseen is raised as it is."""
    if isinstance(error, NasReconError):
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{in_words(error)}", file=sys.stderr)
        raise SystemExit(2 if is_place_at_fault(error) else 1) from error
    raise error


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"nasrecon {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_all(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _command in (
    reconstruct.reconstruct,
    infer.infer,
    refine.refine,
    check.check,
    fuse.fuse,
    export.export,
    viz.viz,
):
    app.command()(_command)
for _group in (weights, train, eval, bench):
    app.add_typer(_group.app, name=_group.__name__.rpartition(".")[2])
