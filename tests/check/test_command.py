"""``nasrecon check``, ``--fix`` and the warning of ``infer``, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli.setups import unbroken
from plane_world import SweepNetwork

from nasrecon import cli
from nasrecon.check.findings import Diagnosis, Finding
from nasrecon.cli.check import report
from nasrecon.geometry import inverse
from nasrecon.ingest.open_scene import open_scene
from nasrecon.matching.residuals import Residuals

ROOM = Path(__file__).parents[2] / "examples" / "room"
NAMES = [f"room_{i:02d}.jpg" for i in (4, 5, 6, 7, 8)]


@pytest.fixture
def run(capsys):
    def call(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(argument) for argument in arguments])
        return end.value.code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> tuple[Path, Path]:
    """Five photographs with plain matrices: world_from_cam in one folder, which is easily said wrongly."""
    folder = tmp_path_factory.mktemp("room")
    for name in ("images", "poses"):
        (folder / name).mkdir()
    scene = open_scene(ROOM / "images", ROOM / "sparse" / "0")
    for name in NAMES:
        view = scene.views[scene.index(name)]
        (folder / "images" / name).symlink_to(view.image.path.resolve())
        np.savetxt(folder / "poses" / f"{view.image.path.stem}.txt", inverse(view.cam_from_world))
    np.savetxt(folder / "poses" / "K.txt", scene.views[0].camera.K)
    return folder / "images", folder / "poses"


def given(files: tuple[Path, Path], convention: str) -> list:
    return [files[0], "--poses", files[1], "--convention", convention]


def test_sound_cameras_exit_with_0_and_a_table(run, files) -> None:
    code, stdout, stderr = run("check", *given(files, "world-from-cam"))
    assert code == 0, stdout
    rows = dict(line.split("  ", 1) for line in stdout.splitlines() if "  " in line and not line.startswith(" "))
    assert rows["views"].strip().startswith("5 ") and rows["image sizes"].strip() == "640x480 (5)"
    assert rows["focal lengths"].strip() == "fx 520 px, fy 520 px" and rows["field of view"].strip().startswith(
        "63.22 x 49.55"
    )
    assert "sweep of the images" in rows["depth range"] and "4 by where the cameras are" in rows["neighbours"]
    assert "a guess" in rows["unit"] and "from a view to the next" in rows["baselines"]
    assert unbroken(stdout).splitlines()[-1].startswith("next: nasrecon infer ")
    assert "FAULT" not in stdout and "plain matrices" in stderr


def test_a_fault_exits_with_1_and_names_its_repair(run, files) -> None:
    code, stdout, _ = run("check", *given(files, "cam-from-world"))
    assert code == 1
    assert "FAULT world-from-cam" in stdout and "repair: --fix world-from-cam" in stdout
    assert "epipolar error" in stdout and "in front of the cameras" in stdout and "plane sweep" in stdout
    code, stdout, stderr = run("check", *given(files, "cam-from-world"), "--fix", "world-from-cam", "--json")
    reported = json.loads(stdout)
    assert code == 0 and reported["faults"] == [] and "repaired as asked: world-from-cam" in stderr
    assert reported["given"] == reported["repaired"] and reported["given"]["median_epipolar_error_px"] < 0.4


def test_json_tells_what_the_report_tells(run, files) -> None:
    code, stdout, _ = run("check", *given(files, "world-from-cam"), "--fix", "order=reversed", "--json")
    reported = json.loads(stdout)
    (fault,) = reported["faults"]
    assert code == 1 and fault["name"] == "order" and reported["fixes"] == ["order=reversed"]
    assert reported["given"]["median_epipolar_error_px"] > 5 > 0.5 > reported["repaired"]["median_epipolar_error_px"]
    assert reported["read"]["views"].startswith("5 ")


def test_the_next_command_refines_noisy_poses_once() -> None:
    """Poses that stay noisy after ``--fix refine-poses`` do not ask for it again; other fixes may be needed twice."""
    errors = {"median_px": 2.0, "pair_px": np.ones(3), "error_px": np.ones(9)}
    residuals = Residuals(tested=9, cheirality_share=1, depth_agreement=1, **errors)
    noisy = Finding(name="noisy", kind="note", what="the poses are noisy", fixes=("refine-poses",))
    order = Finding(name="order", kind="note", what="in another order", fixes=("order=+1",))
    diagnosis = Diagnosis(findings=(noisy, order), given=residuals)
    for asked, expected in (([], 1), (["--fix", "refine-poses", "--fix", "order=+1"], 1)):
        command = unbroken(report(diagnosis, ["photos", *asked])).splitlines()[-1]
        assert command.count("--fix refine-poses") == expected
        assert command.count("--fix order=+1") == 1 + len(asked) // 4


def test_bad_input_exits_with_2(run, files) -> None:
    for arguments, said in [
        (["check", "nowhere"], "nowhere"),
        (["check", *given(files, "world-from-cam"), "--fix", "magic"], "no such fix"),
        (["bench", "check", "--generated", "0"], "nothing to do"),
    ]:
        code, stdout, stderr = run(*arguments)
        assert (code, stdout) == (2, "") and said in stderr


def test_infer_warns_and_repairs_only_when_asked(run, files, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("nasrecon.nas.weights.load_network", lambda name, device="auto": SweepNetwork())
    ask = ["infer", *given(files, "cam-from-world"), "--min-depth", 1, "--size", "64x64"]
    code, _, stderr = run(*ask, "--out", tmp_path / "a")
    assert code == 0 and "WARNING world-from-cam" in stderr and "--fix world-from-cam" in stderr
    assert f"nasrecon check {files[0]} --poses {files[1]}" in stderr
    code, _, stderr = run(*ask, "--out", tmp_path / "b", "--fix", "world-from-cam")
    assert code == 0 and "WARNING" not in stderr
    notes = [json.loads((tmp_path / run / "manifest.json").read_text())["scene"]["origin"]["notes"] for run in "ab"]
    assert notes[1] == [*notes[0], "repaired: world-from-cam"]
    assert "WARNING" not in run(*ask, "--out", tmp_path / "c", "--no-check")[2]
