"""The drawing in ``nasrecon/README.md`` agrees with the ranks that ``test_imports.py`` holds against the imports."""

from __future__ import annotations

import re
from pathlib import Path

from test_imports import PACKAGE, RANKS

README = (PACKAGE / "README.md").read_text(encoding="utf-8")


def drawn() -> list[set[str]]:
    """Packages of each line of the drawing, the highest first."""
    drawing = README.split("```")[1]
    lines = [re.split(r" {2,}", line.strip(" │├└─"))[0] for line in drawing.strip().splitlines()]
    lowest = lines.pop().split(" < ")
    return [set(re.findall(r"\w+", line)) for line in [*lines, *lowest]]


def test_every_package_is_in_the_drawing_at_its_rank() -> None:
    position = {name: i for i, names in enumerate(drawn()) for name in names}
    ranks = [names - {"__main__"} for names in reversed(RANKS) if names - {"__main__"}]
    assert set(position) == set().union(*ranks)
    for i, higher in enumerate(ranks):
        for lower in ranks[i + 1 :]:
            assert all(position[a] < position[b] for a in higher for b in lower), (higher, lower)


def test_every_file_that_is_named_exists() -> None:
    known = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    text = README.split("## One image")[1]
    for name in re.findall(r"`([a-z_/]+\.py)`", text):
        top = PACKAGE.parent
        assert any(path == name or path.endswith(f"/{name}") for path in known) or (top / name).is_file(), name
    assert Path(PACKAGE / "py.typed").is_file()


def test_every_name_in_the_steps_of_a_change_exists() -> None:
    steps = README.split("## Where to change what")[1]
    source = "\n".join(path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    for name in re.findall(r"`(\w+)`", steps):
        assert re.search(rf"\b{name}\b", source), name
    assert all(len(re.findall(r"^\d\. ", change, re.M)) == 3 for change in re.split(r"\n\n", steps.strip()))
