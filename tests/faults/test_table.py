"""Bad input of every kind: the exit code, the words of the message, and that nothing on disk is lost."""

from __future__ import annotations

import re
import shutil
import warnings

import pytest
from plane_world import SweepNetwork

from faults import rows_cameras, rows_images, rows_options, rows_results, rows_sets
from faults.harness import FORBIDDEN, RERUN, Row, arguments, plain, snapshot, write_inputs
from nasrecon import cli

ROWS = [row for table in (rows_images, rows_cameras, rows_sets, rows_results, rows_options) for row in table.ROWS]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with sound input, and with the results of it."""
    folder = tmp_path_factory.mktemp("sound")
    write_inputs(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("nasrecon.nas.weights.load_network", _small_network)
        for command in (RERUN, "fuse results --min-views 1 --min-component-faces 0"):
            with pytest.raises(SystemExit) as end:
                cli.main(arguments(command))
            assert end.value.code == 0
    return folder


def _small_network(name, device="auto"):
    network = SweepNetwork()
    network.weights, network.sha256 = str(name), "ab" * 32
    return network


def test_the_table_is_long_and_its_names_are_unique():
    assert len(ROWS) >= 200 and len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_bad_input(row: Row, sound, tmp_path, monkeypatch, capsys):
    world = tmp_path / "w"
    shutil.copytree(sound, world, symlinks=True)
    for edit in row.edits:
        edit(world)
    monkeypatch.chdir(world)
    monkeypatch.setenv("NASRECON_WEIGHTS", str(world / "weights"))
    if "--network" not in row.command:
        monkeypatch.setattr("nasrecon.nas.weights.load_network", _small_network)
    before = snapshot(world)
    capsys.readouterr()
    with warnings.catch_warnings(record=True) as noise, pytest.raises(SystemExit) as end:
        warnings.simplefilter("always")
        cli.main(arguments(row.command))
    output = "".join(capsys.readouterr())
    text = plain(output)
    assert (end.value.code or 0) == row.code, output
    assert [word for word in row.says if word not in text] == [], output
    assert not re.search(FORBIDDEN, output), output
    assert [str(w.message) for w in noise if issubclass(w.category, RuntimeWarning)] == []
    after = snapshot(world)
    allowed = (*row.makes, *row.changes)
    changed = [name for name, content in before.items() if after.get(name) != content]
    assert [name for name in changed if not name.startswith(allowed or ("/",))] == [], output
    new = [name for name in after if name not in before]
    assert [name for name in new if not name.startswith(row.makes or ("/",))] == [], output
    assert [name for name in after if name.endswith((".part", ".lock"))] == []
