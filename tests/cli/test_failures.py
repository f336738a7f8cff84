"""Exit codes and messages: bad input, other failures, an interruption, views that are left out."""

from __future__ import annotations

import json

import pytest
from plane_world import SweepNetwork, write_scene

from cli.setups import scene_arguments
from nasrecon import cli
from nasrecon.errors import NasReconError, in_words


def test_ctrl_c_keeps_finished_views_and_says_how_to_go_on(run, files, tmp_path):
    class Interrupting(SweepNetwork):
        def forward(self, batch):
            if len(self.batch_sizes) == 2:
                raise KeyboardInterrupt
            return super().forward(batch)

    run.state["network"] = Interrupting()
    arguments = ["infer", *scene_arguments(files), "--out", tmp_path / "o", "--min-depth", 1.5]
    code, stdout, stderr = run(*arguments)
    assert code == 130 and stdout == "" and f"interrupted: 2 finished views are in {tmp_path / 'o'}" in stderr
    assert "Traceback" not in stderr
    run.state["network"] = SweepNetwork()
    stdout = run(*arguments)[1]
    assert "3 views estimated" in stdout and "2 finished before" in stdout


def test_what_is_left_out_is_said(run, tmp_path):
    files = write_scene(tmp_path / "scene")
    broken = files[0] / "0002.png"
    broken.write_bytes(broken.read_bytes()[:300])
    code, stdout, stderr = run("infer", *scene_arguments(files), "--out", tmp_path / "o", "--min-depth", 1.5)
    assert code == 0 and "1 left out" in stdout and "left out: 0002.png" in stderr
    assert "depth of views: 5 of 5 in " in stderr, "a view that is left out is a step, too"
    (dropped,) = json.loads((tmp_path / "o" / "manifest.json").read_text())["dropped"]
    assert dropped["name"] == "0002.png" and str(broken) in dropped["reason"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["infer", "nowhere"], "nowhere"),
        (["infer", "IMAGES", "--size", "640"], "WIDTHxHEIGHT"),
        (["infer", "IMAGES", "--size", "64x64", "--max-side", "64"], "give two sizes"),
        (["infer", "IMAGES", "--convention", "c2w"], "cam-from-world"),
        (["infer", "IMAGES", "--sources", "0"], "sources must be at least 1"),
        (["infer", "IMAGES", "--max-side", "16"], "max_side must be at least 32"),
        (["infer", "IMAGES", "--every", "0"], "--every"),
        (["infer"], "IMAGES"),
        (["infer", "IMAGES", "--triangulate", "--every", "9"], "two views or more are needed to triangulate"),
        (["export", "nowhere", "--format", "exr", "--out", "o"], "nasrecon infer"),
        (["export", "nowhere", "--out", "o"], "--format"),
        (["fuse", "nowhere"], "nasrecon infer"),
        (["fuse", "nowhere", "--out", "mesh.fbx"], ".glb"),
        (["fuse", "nowhere", "--cloud", "cloud.pcd"], ".ply"),
        (["fuse", "nowhere", "--min-confidence", "2"], "min_confidence"),
        (["fuse", "--bogus"], "--bogus"),
        (["weights", "import", "a", "b", "--name", "x"], "a"),
        (["nonsense"], "nonsense"),
    ],
)
def test_bad_input_and_usage_exit_with_2_and_one_message(run, files, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    images, *others = scene_arguments(files)
    at = arguments.index("IMAGES") if "IMAGES" in arguments else None
    arguments = arguments if at is None else [*arguments[:at], images, *others, *arguments[at + 1 :]]
    code, stdout, stderr = run(*arguments)
    assert code == 2 and stdout == "" and "Traceback" not in stderr
    # Usage errors are boxed: the message may be broken into lines there.
    assert said in " ".join(stderr.replace("│", " ").split()), stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [NasReconError("memory [of] the device"), OSError(28, "No space left on device")])
def test_other_failures_exit_with_1_and_one_message(run, files, tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("nasrecon.pipeline.estimate_to_folder", fail)
    code, stdout, stderr = run("infer", *scene_arguments(files), "--out", tmp_path)
    assert code == 1 and stdout == "" and f"error: {in_words(error)}" in stderr and "Traceback" not in stderr


def test_a_programming_error_keeps_its_traceback(run, files, tmp_path, monkeypatch):
    monkeypatch.setattr("nasrecon.pipeline.estimate_to_folder", lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["infer", *map(str, scene_arguments(files)), "--out", str(tmp_path)])
