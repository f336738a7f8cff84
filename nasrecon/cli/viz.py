"""``nasrecon viz``: a live page, a report or a picture of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasrecon.cli.options import (
    DEFAULT_FOLDER,
    ResultsFolder,
)
from nasrecon.errors import InputError
from nasrecon.view.options import MAX_REPORT_MB, PORT


def viz(
    results: ResultsFolder = Path(DEFAULT_FOLDER),
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a report that opens offline: one file, and no live page.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Write a contact sheet and a view of the mesh, and no live page.")
    ] = None,
    max_mb: Annotated[
        float, typer.Option("--max-mb", min=4.0, help="Size of the report at most; the scene is thinned to it.")
    ] = MAX_REPORT_MB,
    port: Annotated[
        int, typer.Option("--port", min=1, max=64000, help="Port of the live page, or the next one that is free.")
    ] = PORT,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the live page in this machine's browser.")] = False,
) -> None:
    """A live page of the results in the browser, or a report or a picture of them.

    The live page can be started before `infer` or `reconstruct`, also before their folder exists: it fills as views are
    finished.

    Example: nasrecon viz nasrecon_out --html report.html
    """
    from nasrecon.cli.console import Bar, Printer, next_lines

    for path, endings, what in ((html, (".html", ".htm"), "a report"), (png, (".png",), "a contact sheet")):
        if path is not None and path.suffix.lower() not in endings:
            raise InputError(f"{path}: {what} is written as {endings[0]}; give a name with this ending")

    if html is None and png is None:
        from nasrecon.view.live import serve

        serve(results, port=port, open_browser=open_browser, progress=Printer())
        return
    lines: list[str] = []
    with Bar() as bar:
        if html is not None:
            from nasrecon.view.report import write_report

            made = write_report(results, html, max_mb=max_mb, progress=bar)
            lines.append(f"{made}: the report, {made.stat().st_size / 1e6:.1f} MB: open it in a browser")
        if png is not None:
            from nasrecon.view.sheet import write_sheet

            lines.append(f"{write_sheet(results, png, progress=bar)}: the mesh and every view in one picture")
    print("\n".join([*lines, *next_lines(("viz", [results], "the live page, with every view in full"))]))
