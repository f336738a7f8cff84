"""Rules on the shape of the code: lengths, circles, printing, lint."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from test_imports import PACKAGE, imports, modules, own

TOP = PACKAGE.parent
MAX_LINES, MAX_FUNCTION_LINES = 350, 60


def files() -> list[tuple[str, str]]:
    out = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(TOP).as_posix()
        out.append((name, path.read_text(encoding="utf-8")))
    return out


def test_files_and_functions_are_short() -> None:
    long = []
    for name, text in files():
        if text.count("\n") > MAX_LINES:
            long.append(f"{name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.append(f"{name}: {node.name} has {lines} lines")
    assert not long, long


def test_files_of_the_tests_are_short() -> None:
    """Their functions may be long: tables of cases and whole runs stand in one."""
    lines = {
        path.relative_to(TOP).as_posix(): path.read_text(encoding="utf-8").count("\n")
        for path in sorted((TOP / "tests").rglob("*.py"))
    }
    long = [f"{name}: {count} lines" for name, count in lines.items() if count > MAX_LINES]
    assert not long, long


def test_only_the_command_line_prints() -> None:
    prints = [
        f"{name}:{node.lineno}"
        for name, text in files()
        if not name.startswith("nasrecon/cli/")
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert not prints, prints


def test_no_test_reads_the_sentence_of_a_scenes_origin() -> None:
    """Its fields are what programs read; the sentence may change."""
    sentence, stored = ".".join(("origin", "in_words")), '["' + 'read_as"]'
    for path in (TOP / "tests").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert sentence not in text and stored not in text, path


def test_no_import_runs_in_a_circle() -> None:
    """Imports inside functions count."""
    known = {name.removesuffix(".__init__") for name, _ in modules()}
    graph = {
        name.removesuffix(".__init__"): (own(imports(tree, everywhere=True)) & known) - {name.removesuffix(".__init__")}
        for name, tree in modules()
    }
    circles, done = [], set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circles.append(" -> ".join([*path[path.index(name) :], name]))
        elif name not in done:
            for imported in sorted(graph[name]):
                visit(imported, (*path, name))
            done.add(name)

    for name in sorted(graph):
        visit(name, ())
    assert not circles, circles


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(command: list[str]) -> None:
    done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
