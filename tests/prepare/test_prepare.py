"""One way to a prepared scene: command line, Python and evaluation get equal depths; poses are refined once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from check.seen import POINTS, bent_path, seen_by
from recorder import Recorder
from refine.test_poses import relative_errors, shaken

from nasrecon import cli
from nasrecon.check.findings import Diagnosis, Finding
from nasrecon.evaluation.scoring import Scorer
from nasrecon.inference.estimate import estimate_views
from nasrecon.inference.options import EstimateOptions
from nasrecon.ingest.open_scene import open_scene
from nasrecon.matching.residuals import MatchArrays, Residuals
from nasrecon.nas.weights import load_network
from nasrecon.prepare.cache import REFINED_POSES
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import is_off, prepare_scene
from nasrecon.refine.poses import refine_poses
from nasrecon.results.reader import Results

TOP = Path(__file__).parents[2]
ROOM = TOP / "examples" / "room"
KITCHEN = TOP / "../shared/data/redkitchen_sample"
OPTIONS = PrepareOptions(min_depth=0.4)


def diagnosis(median_px, *findings):
    fit = Residuals(
        error_px=np.array([median_px]),
        pair_px=np.array([median_px]),
        median_px=median_px,
        cheirality_share=1.0,
        tested=1,
        depth_agreement=1.0,
    )
    matches = MatchArrays(seen_by(bent_path(), POINTS, noise_px=0.3))
    return Diagnosis(findings=findings, given=fit, matches=matches)


def test_poses_are_refined_where_matches_are_off_and_no_fault_is_found():
    fault = Finding(name="world-from-cam", kind="fault", what="turned round")
    assert is_off(diagnosis(3.0), 9) and is_off(diagnosis(0.4), 9)  # the matches are good to 0.3 px
    assert is_off(diagnosis(3.0), 601) and not is_off(diagnosis(0.4), 601)
    assert not any(is_off(each, 9) for each in (None, diagnosis(0.3), diagnosis(3.0, fault), Diagnosis(findings=())))


@pytest.fixture
def noisy(monkeypatch):
    """Poses that are off, and a refinement that counts its calls: (true scene, given scene, calls)."""
    true = bent_path()
    matches, calls = seen_by(true, POINTS, noise_px=0.3), []

    def refine(scene, progress=None, store=None):
        calls.append(scene)
        return refine_poses(scene, matches)

    monkeypatch.setattr("nasrecon.prepare.prepare.refine_scene", refine)
    monkeypatch.setattr("nasrecon.prepare.prepare.check_scene", lambda *_, **__: diagnosis(3.0))
    return true, shaken(true, 0.008, 0.04), calls


def test_refined_once_and_read_again(noisy, tmp_path):
    true, given, calls = noisy
    recorder = Recorder()
    first, again = (prepare_scene(given, options=OPTIONS, work_dir=tmp_path, progress=recorder) for _ in range(2))
    assert len(calls) == 1 and first.digest == again.digest
    assert relative_errors(first.scene, true)[0] < 0.3 * relative_errors(given, true)[0]
    assert "poses refined by the matches of 36 pairs" in first.scene.origin.notes[-1]
    assert sum("--keep-poses leaves them as they are" in note for note in recorder.notes) == 2
    for ready in (first, again):
        assert not ready.poses_exact
        np.testing.assert_array_equal(ready.given_poses, [view.cam_from_world for view in given.views])
    # Another scene, and overwrite: made anew. A damaged file too.
    prepare_scene(shaken(true, 0.008, 0.04, seed=1), options=OPTIONS, work_dir=tmp_path)
    prepare_scene(given, options=OPTIONS, work_dir=tmp_path, overwrite=True)
    (tmp_path / REFINED_POSES).write_text("{")
    prepare_scene(given, options=OPTIONS, work_dir=tmp_path)
    assert len(calls) == 4


def test_the_answer_unchanged_is_kept_too(noisy, tmp_path, monkeypatch):
    true, _, calls = noisy
    for _ in range(2):
        ready = prepare_scene(true, options=OPTIONS, work_dir=tmp_path)
        assert ready.poses_exact and "the matches ask for no others" in ready.refinement
    assert len(calls) == 1


def test_no_check_still_refines_and_keep_poses_does_not(noisy):
    _, given, calls = noisy
    assert not prepare_scene(given, options=replace(OPTIONS, check=False)).poses_exact
    assert prepare_scene(given, options=replace(OPTIONS, refine=False)).poses_exact
    assert len(calls) == 1


def test_the_fix_refines_once_after_the_other_fixes(noisy):
    """Given poses are those that the other fixes leave, so a change of unit reaches both."""
    _, given, calls = noisy
    ready = prepare_scene(given, options=replace(OPTIONS, fixes=("refine-poses", "translation-scale=2")))
    assert len(calls) == 1 and not ready.poses_exact
    np.testing.assert_allclose(ready.given_poses[:, :3, 3], [2 * v.cam_from_world[:3, 3] for v in given.views])


def depths_of_command(tmp_path, arguments, monkeypatch):
    with pytest.raises(SystemExit) as end:
        cli.main([*map(str, arguments), "--network", "zncc", "--out", str(tmp_path / "out")])
    assert not end.value.code
    return {estimate.view.name: estimate.depth for estimate in Results.open(tmp_path / "out")}


@pytest.mark.parametrize(
    ("folder", "poses", "every"),
    [
        (ROOM / "images", ROOM / "sparse" / "0", 4),
        pytest.param(
            KITCHEN,
            None,
            8,
            marks=pytest.mark.skipif(not KITCHEN.is_dir(), reason="needs ../shared/data/redkitchen_sample"),
        ),
    ],
)
def test_command_line_python_and_evaluation_give_equal_depths(folder, poses, every, tmp_path, monkeypatch, capsys):
    arguments = ["infer", folder, *(["--poses", poses] if poses else []), "--every", every, "--max-side", 128]
    written = depths_of_command(tmp_path, arguments, monkeypatch)
    scene = open_scene(folder, poses)
    scene = scene.subset(range(0, len(scene.views), every))
    network, options = load_network("zncc", "cpu"), EstimateOptions(max_side=128)
    estimates = list(estimate_views(scene, network, options))
    assert [e.view.name for e in estimates] == list(written)
    for estimate in estimates:
        np.testing.assert_array_equal(estimate.depth, written[estimate.view.name])
    # The evaluation reads, refines and predicts by the same functions.
    ready = prepare_scene(scene)
    scorer = Scorer(network, None, counted=(0.1, 100), clamp=(0.1, 100))
    ref = ready.scene.index(estimates[0].view.name)
    camera = estimates[0].view.camera
    photo = scorer._photo(ready, ref, (camera.width, camera.height))
    np.testing.assert_array_equal(photo.rgb, estimates[0].rgb)
    np.testing.assert_array_equal(photo.view.cam_from_world, estimates[0].view.cam_from_world)
    assert (photo.given_pose is None) == ready.poses_exact
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["settings"]["scene_sha256"] == ready.digest
