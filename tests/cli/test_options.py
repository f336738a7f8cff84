"""The options of all commands: a frozen list, their defaults, help, panels and examples; short bodies of commands."""

from __future__ import annotations

import ast
import inspect
from dataclasses import fields
from pathlib import Path
from typing import get_args

import typer

from nasrecon import cli
from nasrecon.cli import options

# A new option is a promise for years: it is added here on purpose, with the issue that asks for it.
OPTIONS = {
    "": ["--version"],
    "infer": [
        "--poses",
        "--intrinsics",
        "--convention",
        "--format",
        "--masks",
        "--ignore-hints",
        "--every",
        "--fix",
        "--no-check",
        "--keep-poses",
        "--out",
        "--network",
        "--device",
        "--sources",
        "--min-depth",
        "--size",
        "--max-side",
        "--max-memory",
        "--batch",
        "--triangulate",
        "--overwrite",
        "--threads",
        "--json",
    ],
    "refine": [
        "--depths",
        "--depth-scale",
        "--poses",
        "--intrinsics",
        "--convention",
        "--format",
        "--masks",
        "--every",
        "--fix",
        "--keep-poses",
        "--out",
        "--network",
        "--device",
        "--sources",
        "--min-depth",
        "--max-side",
        "--max-memory",
        "--batch",
        "--overwrite",
        "--threads",
        "--json",
    ],
    "reconstruct": [
        "--poses",
        "--intrinsics",
        "--convention",
        "--format",
        "--masks",
        "--every",
        "--fix",
        "--out",
        "--network",
        "--device",
        "--overwrite",
        "--threads",
        "--json",
    ],
    "export": ["--format", "--out", "--scale", "--json"],
    "check": ["--poses", "--intrinsics", "--convention", "--format", "--every", "--fix", "--json"],
    "bench": ["--network", "--size", "--sources", "--seconds", "--device", "--threads", "--json"],
    "bench check": ["--generated", "--views", "--seed", "--json"],
    "fuse": [
        "--out",
        "--cloud",
        "--min-confidence",
        "--max-relative-depth-error",
        "--max-normal-angle-deg",
        "--min-views",
        "--max-neighbors",
        "--cell",
        "--voxel",
        "--method",
        "--target-faces",
        "--texture",
        "--blocks",
        "--min-component-faces",
        "--json",
    ],
    "viz": ["--html", "--png", "--max-mb", "--port", "--open"],
    "weights list": ["--json"],
    "weights verify": ["--json"],
    "weights import": ["--name", "--variant", "--trained-min-depth", "--json"],
    "weights average": ["--name", "--share", "--part", "--statistics", "--spread-factor", "--json"],
    "train render": [
        "--worlds",
        "--files",
        "--first",
        "--kind",
        "--models",
        "--width",
        "--height",
        "--textures",
        "--floating",
        "--seed",
        "--device",
    ],
    "train preview": ["--out", "--count", "--kind", "--models", "--textures", "--floating", "--seed"],
    "train credits": ["--models"],
    "train": [
        "--worlds",
        "--data",
        "--validation",
        "--run",
        "--steps",
        "--batch",
        "--network",
        "--stage",
        "--init",
        "--learning-rate",
        "--batches-per-step",
        "--augment",
        "--keep-statistics",
        "--resume",
        "--seed",
        "--device",
    ],
    "train export": ["--run", "--name", "--out", "--licence", "--textures-used", "--notes"],
    "eval protocol": ["--protocol", "--network", "--keep-poses", "--device", "--json"],
    "eval frames": [
        "--network",
        "--rule",
        "--every",
        "--offset",
        "--sources",
        "--min-depth",
        "--max-depth",
        "--keep-poses",
        "--device",
        "--json",
    ],
    "eval mesh": ["--reference", "--every", "--distance", "--sampling", "--align", "--error-map", "--json"],
}


def all_options(command, path=()):
    """Options of every command below, by its name; groups without options of their own are left out."""
    own = [
        option
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--") and option != "--help"
    ]
    below = getattr(command, "commands", {})
    found = {" ".join(path): own} if own or not below else {}
    for name, child in below.items():
        found |= all_options(child, (*path, name))
    return found


def test_the_list_of_options_is_frozen():
    assert all_options(typer.main.get_command(cli.app)) == OPTIONS


def test_defaults_are_those_of_the_options_classes():
    """Those of infer stand in two places, because the command line cannot read them without importing torch."""
    from nasrecon.fuse.options import FuseOptions
    from nasrecon.inference.options import EstimateOptions
    from nasrecon.prepare.options import PrepareOptions
    from nasrecon.results.reader import DEFAULT_FOLDER

    fuse = inspect.signature(cli.fuse.fuse).parameters
    for field in fields(FuseOptions):
        assert fuse[field.name].default == getattr(FuseOptions(), field.name), field.name
    infer = inspect.signature(cli.infer.infer, eval_str=True).parameters
    for name in ("size", "batch", "max_memory"):
        assert infer[name].default == getattr(EstimateOptions(), name), name
    for name in ("every", "sources", "min_depth", "triangulate"):
        assert infer[name].default == getattr(PrepareOptions(), name), name
    assert infer["max_side"].annotation.__metadata__[0].show_default == str(EstimateOptions().max_side)
    assert options.DEFAULT_FOLDER == DEFAULT_FOLDER


def test_formats_are_the_layouts_that_are_read():
    from nasrecon.ingest.open_scene import FORMATS

    assert list(get_args(options.Format)) == [each.key for each in FORMATS]


def all_commands():
    waiting = [typer.main.get_command(cli.app)]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        yield command


def test_every_option_says_what_it_is():
    """No option and no argument without a help text."""
    for command in all_commands():
        assert command.help, command.name
        assert all(parameter.help for parameter in command.params if parameter.name != "help"), command.name


def test_every_command_shows_one_example_and_groups_many_options():
    for command in all_commands():
        if not getattr(command, "commands", {}):
            assert command.help.count("Example: nasrecon ") == 1, command.name
        options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
        if len(options) > 8 and command.name not in ("train", "render"):
            assert all(each.rich_help_panel for each in options), command.name


def test_bodies_of_commands_are_short():
    """A command turns options into one call; the rest is functions."""
    for path in sorted((Path(cli.__file__).parent).glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            is_command = isinstance(node, ast.FunctionDef) and (
                node.name == path.stem or any("command" in ast.unparse(each) for each in node.decorator_list)
            )
            if is_command:
                lines = [each for each in node.body if not isinstance(each, (ast.Import, ast.ImportFrom))][1:]
                assert sum(each.end_lineno - each.lineno + 1 for each in lines) <= 22, (path.name, node.name)
