"""The public names: complete, typed, and none in the way of another."""

from __future__ import annotations

import ast
from pathlib import Path

import nasrecon

INIT = Path(nasrecon.__file__)


def test_every_public_name_is_there_and_documented() -> None:
    for name in nasrecon.__all__:
        assert getattr(nasrecon, name) is not None
        assert name.startswith("__") or getattr(nasrecon, name).__doc__, name


def test_type_checkers_see_the_names_that_run() -> None:
    tree = ast.parse(INIT.read_text())
    checked = {
        alias.name: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("nasrecon.")
        for alias in node.names
    }
    homes = {name: f"nasrecon.{module}" for module, names in nasrecon._HOMES.items() for name in names}
    assert checked == homes
    assert sorted(nasrecon.__all__) == sorted([*homes, "__version__"])


def test_no_public_name_is_a_package() -> None:
    """A function named as a package would turn into the package once that is imported."""
    taken = {path.stem for path in INIT.parent.iterdir()}
    assert not taken & set(nasrecon.__all__)


def test_the_package_says_that_it_is_typed() -> None:
    assert (INIT.parent / "py.typed").is_file()
