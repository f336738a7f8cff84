"""Two processes give what one gives; a killed one is made good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plane_world import SweepNetwork, write_scene

from nasrecon import cli
from nasrecon import ranks as ranks_module
from nasrecon.errors import InputError, NasReconError
from nasrecon.inference import memory
from nasrecon.inference.options import EstimateOptions
from nasrecon.ranks import Ranks, as_ranks, current
from nasrecon.results.reader import open_results, view_files
from nasrecon.results.view_file import read_record


@pytest.mark.parametrize(("here", "shares"), [("2", 2), (None, 8)])
def test_free_memory_is_divided_by_the_processes_of_this_machine(monkeypatch, here, shares):
    """Eight processes, two on each of four machines; without LOCAL_WORLD_SIZE all are taken to be on one."""
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    if here is None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", here)
    found = ranks_module._from_environment()
    assert found == Ranks(5, 8, 1, shares)
    monkeypatch.setattr(memory, "current", lambda: found)
    monkeypatch.setattr(memory, "free_memory", lambda: 8_000_000_000)
    room = memory.Memory.of(SweepNetwork(), EstimateOptions()).room
    assert room == int(memory.FREE_SHARE * 8_000_000_000 / shares)


WORKER = Path(__file__).with_name("torchrun_worker.py")


def hashes(folder):
    records = [read_record(path) for path in view_files(folder)]
    return {record["name"]: record["maps_sha256"] for record in records}


def test_alone_there_is_one_rank_and_nothing_of_torch_distributed():
    with as_ranks() as ranks:
        assert ranks == current() == Ranks() and ranks.share([1, 2, 3]) == [1, 2, 3]
        assert ranks.from_first(lambda: 7) == 7 and ranks.gathered(8) == [8]
    assert Ranks(1, 3).share(range(8)) == [1, 4, 7]


def test_damaged_variables_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InputError, match="WORLD_SIZE"), as_ranks():
        pass


def test_two_ranks_one_of_which_is_killed_give_the_hashes_of_one(tmp_path, monkeypatch, capsys):
    images, poses, K, _ = write_scene(tmp_path, count=5)
    (images / "0004.png").write_bytes(b"no image")
    cameras = ["--poses", poses, "--intrinsics", K, "--convention", "cam-from-world"]
    quick = ["--no-check", "--keep-poses", "--min-depth", "1.5"]
    command = [str(word) for word in ("infer", images, *cameras, *quick)]

    class Network(SweepNetwork):
        sha256, weights = "ab" * 32, "sweep"

    monkeypatch.setattr("nasrecon.nas.weights.load_network", lambda name, device="auto": Network())
    with pytest.raises(SystemExit) as end:
        cli.main([*command, "--out", str(tmp_path / "one")])
    assert not end.value.code, capsys.readouterr().err
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    marker, two = tmp_path / "killed", tmp_path / "two"
    done = subprocess.run(
        [*torchrun, "--max-restarts", "3", str(WORKER), str(marker), *command, "--out", str(two), "--json"],
        capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    assert marker.exists() and hashes(two) == hashes(tmp_path / "one") and len(hashes(two)) == 4
    one, both = (json.loads((folder / "manifest.json").read_text()) for folder in (tmp_path / "one", two))
    assert both["complete"] and both["dropped"] == one["dropped"] and both["settings"] == one["settings"]
    assert [view["name"] for view in both["views"]] == [view["name"] for view in one["views"]]
    assert len(open_results(two)) == 4 and "1 finished" not in done.stdout
    summary = json.loads(done.stdout.strip().splitlines()[-1])
    assert summary["estimated"] + summary["kept"] == 4 and summary["kept"] >= 1
    assert not [path.name for path in two.rglob("*") if ".part" in path.name or path.name == ".lock"]


def test_an_error_of_the_first_rank_is_raised_on_all():
    def fails():
        raise InputError("no images")

    class Broken(Ranks):
        def _talk(self, exchange):
            pass

    with pytest.raises(NasReconError, match="no images"):
        Broken(0, 2).from_first(fails)


def test_an_attempt_after_a_restart_takes_no_answer_of_the_one_before():
    """Two attempts over one store; in the second the first rank comes late."""
    from threading import Thread

    from torch.distributed import HashStore

    from nasrecon.ranks import _agree_on_attempt

    store, found = HashStore(), []
    store.set("1/1", "ended before it was answered")
    store.add("attempt", 1)
    for attempt in (2, 3):
        ranks = [Thread(target=lambda rank=rank: found.append(_agree_on_attempt(store, rank, 2))) for rank in (1, 0)]
        for rank in ranks:
            rank.start()
            rank.join(timeout=0.3)
        for rank in ranks:
            rank.join(timeout=30)
        assert found[-2:] == [attempt, attempt]
