"""Results to look at: made once for all tests of the pages."""

from __future__ import annotations

import pytest

from .browser import Browser
from .synthetic import HillWorld, write_results


@pytest.fixture(scope="session")
def hills(tmp_path_factory):
    """(folder, views): six views of the hills with a mesh of 3042 faces and a cloud of 9000 points."""
    folder = tmp_path_factory.mktemp("view") / "hills"
    return folder, write_results(folder, HillWorld(), views=6, size=(128, 96), grid=40, points=9000)


@pytest.fixture(scope="session")
def unfused(tmp_path_factory):
    """A folder with three views of a run that expects five, and nothing fused."""
    folder = tmp_path_factory.mktemp("view") / "unfused <b>&"
    write_results(folder, HillWorld(), views=5, size=(96, 64), finished=3)
    return folder


@pytest.fixture(scope="module")
def browser():
    with Browser(1300, 640) as opened:
        yield opened
