"""What a run leaves on disk: it comes back as it was, is never mixed, and says clearly what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasrecon.errors import InputError, NasReconError
from nasrecon.results.digest import scene_digest
from nasrecon.results.reader import Results
from nasrecon.results.view_file import file_name, read_estimate
from nasrecon.results.writer import ResultsWriter, Run
from nasrecon.types import Camera, Estimate, ImageSource, Lens, Scene, SceneOrigin, View

NAMES = ("left/0001.png", "left_0001.png", "IMG 7.jpg", "b.jpg")


def make_view(name, seed=0):
    rng = np.random.default_rng(seed)
    cam_from_world = np.eye(4)
    cam_from_world[:3, 3] = rng.normal(size=3) * 1e3
    camera = Camera(width=48, height=32, K=np.array([[41.7, 0, 23.3], [0, 40.1, 17.9], [0, 0, 1]]))
    return View(
        name=name,
        image=ImageSource(path=Path("images") / name),
        camera=camera,
        cam_from_world=cam_from_world,
        depth_range=(0.3, 7.0),
        depth_range_from="sparse points",
    )


def make_estimate(name, seed=0, unit=1.0):
    rng = np.random.default_rng(seed)
    depth = rng.uniform(1, 5, (32, 48)) * unit
    depth[rng.random((32, 48)) < 0.2] = 0
    normal = rng.normal(size=(32, 48, 3))
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    valid = depth > 0
    return Estimate(
        view=make_view(name, seed),
        depth=depth.astype(np.float32),
        normal=(normal * valid[..., None]).astype(np.float32),
        confidence=(rng.random((32, 48)) * valid).astype(np.float32),
        sigma=(depth * rng.uniform(0.001, 0.1, (32, 48))).astype(np.float32),
        rgb=rng.integers(0, 256, (32, 48, 3), dtype=np.uint8),
        sources=("x.jpg", "y/z.jpg"),
    )


def make_scene(names=NAMES):
    return Scene(
        root=Path("here"),
        views=tuple(make_view(name, i) for i, name in enumerate(names)),
        unit="m",
        origin=SceneOrigin(format="test"),
    )


def make_run(scene=None, **options):
    return Run.describe(
        scene or make_scene(),
        digest=scene_digest(scene or make_scene()),
        network="fake",
        weights="my",
        weights_sha256="ab" * 32,
        options={"sources": 4, **options},
    )


def write(folder, names=NAMES, run=None, **kwargs):
    with ResultsWriter(folder, run or make_run(), NAMES, **kwargs) as writer:
        for name in names:
            writer.add(make_estimate(name, NAMES.index(name)), seconds=1.25)
    return folder


@pytest.mark.parametrize("unit", [1.0, 1e5, 1e-6])
def test_an_estimate_comes_back(tmp_path, unit):
    """Exact where it is stored exactly; half precision (11 bits) elsewhere, in any unit."""
    before = make_estimate(NAMES[0], 3, unit)
    before = replace(
        before, view=before.view.with_image(lens=Lens(model="FOV", width=50, height=33, params=(1.5, 2.0)))
    )
    with ResultsWriter(tmp_path, make_run(), NAMES) as writer:
        writer.add(before, seconds=0.5)
    (after,) = Results.open(tmp_path)
    for name in ("depth", "rgb"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    np.testing.assert_allclose(after.confidence, before.confidence, atol=2**-11)
    np.testing.assert_allclose(after.sigma, before.sigma, rtol=2**-10)
    np.testing.assert_allclose(after.normal, before.normal, atol=2**-10)
    length = np.linalg.norm(after.normal, axis=-1)
    np.testing.assert_allclose(length[after.depth > 0], 1, atol=1e-6)
    assert not length[after.depth == 0].any()
    assert after.sources == before.sources
    for name in ("name", "image", "depth_range"):
        assert getattr(after.view, name) == getattr(before.view, name), name
    np.testing.assert_array_equal(after.view.camera.K, before.view.camera.K)
    np.testing.assert_array_equal(after.view.cam_from_world, before.view.cam_from_world)
    np.testing.assert_array_equal(Results.open(tmp_path).views[0].cam_from_world, before.view.cam_from_world)


def test_a_view_is_readable_with_numpy_alone(tmp_path):
    write(tmp_path, NAMES[:1])
    (path,) = (tmp_path / "views").glob("*.npz")
    with np.load(path) as arrays:
        record = json.loads(str(arrays["record"]))
        assert (
            arrays["K"][0, 0] == 41.7 and arrays["depth"].dtype == np.float32 and arrays["normal"].dtype == np.float16
        )
    assert (record["name"], record["sources"]) == (NAMES[0], ["x.jpg", "y/z.jpg"])


def test_results_are_a_lazy_sequence_in_the_order_of_the_scene(tmp_path):
    results = Results.open(write(tmp_path, reversed(NAMES)))
    assert results.names == NAMES and len(results) == 4
    assert [estimate.view.name for estimate in results] == list(NAMES)
    assert results[-1].view.name == "b.jpg"
    assert results[1:3].names == NAMES[1:3] and isinstance(results[1:3], Results)
    with pytest.raises(IndexError):
        results[4]
    for name in NAMES:
        for part in ("depth", "normal"):
            assert (tmp_path / part / f"{file_name(name)}.png").read_bytes().startswith(b"\x89PNG")


def test_manifest_says_what_was_run_and_what_was_left_out(tmp_path):
    with ResultsWriter(tmp_path, make_run(max_side=64), NAMES) as writer:
        writer.add(make_estimate("b.jpg", 3), seconds=1.23456)
        writer.drop("IMG 7.jpg", "no source")
        unfinished = json.loads((tmp_path / "manifest.json").read_text())
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (unfinished["complete"], manifest["complete"]) == (False, True)
    assert manifest["dropped"] == [{"name": "IMG 7.jpg", "reason": "no source"}]
    assert manifest["settings"]["options"] == {"sources": 4, "max_side": 64}
    assert manifest["settings"]["weights_sha256"] == "ab" * 32 and manifest["scene"]["unit"] == "m"
    assert manifest["versions"].keys() == {"python", "nasrecon", "torch", "numpy"}
    (view,) = manifest["views"]
    assert view["file"] == "views/b.jpg.npz" and view["depth_range"] == [0.3, 7.0] and view["seconds"] == 1.235
    assert view["depth_range_from"] == "sparse points" and (view["width"], view["height"]) == (48, 32)
    assert view["sources"] == ["x.jpg", "y/z.jpg"] and np.array(view["K"]).shape == (3, 3)


def test_manifest_is_rebuilt_from_the_views(tmp_path):
    write(tmp_path)
    before = Results.open(tmp_path)
    (tmp_path / "manifest.json").unlink()
    rebuilt = Results.open(tmp_path)
    by_name = {line["name"]: line for line in before.manifest["views"]}
    assert {line["name"]: line for line in rebuilt.manifest["views"]} == by_name
    assert rebuilt.manifest["weights"] == before.manifest["weights"] == "my"
    assert rebuilt.manifest["settings"] == before.manifest["settings"] and rebuilt.unit == before.unit == "m"
    with ResultsWriter(tmp_path, make_run(), NAMES) as writer:
        assert writer.finished == set(NAMES)
    assert Results.open(tmp_path).manifest["views"] == before.manifest["views"]


def test_views_that_the_manifest_does_not_know_yet_are_found(tmp_path):
    write(tmp_path, NAMES[:2])
    early = (tmp_path / "manifest.json").read_bytes()
    write(tmp_path, NAMES[2:])
    (tmp_path / "manifest.json").write_bytes(early)
    assert sorted(Results.open(tmp_path).names) == sorted(NAMES)


def test_a_rerun_counts_what_is_finished_and_overwrite_does_not(tmp_path):
    write(tmp_path, NAMES[:2])
    (tmp_path / "cloud.ply").write_text("of the user")
    with ResultsWriter(tmp_path, make_run(), NAMES) as writer:
        assert writer.finished == set(NAMES[:2])
    with ResultsWriter(tmp_path, make_run(sources=2), NAMES, overwrite=True) as writer:
        assert writer.finished == set()
    assert not list((tmp_path / "views").iterdir()) and not list((tmp_path / "depth").iterdir())
    assert (tmp_path / "cloud.ply").exists()


def test_views_under_other_settings_are_not_mixed(tmp_path):
    write(tmp_path)
    moved = make_scene()
    moved = moved.replace_views([replace(moved.views[0], cam_from_world=np.eye(4)), *moved.views[1:]])
    for run, names in [
        (make_run(sources=2), "sources: 4 there, 2 now"),
        (make_run(moved), r"scene_sha256 \(other images, cameras or points\)"),
        (
            replace(make_run(), settings=make_run().settings | {"weights_sha256": "cd" * 32}),
            "abababababab there, cdcdcdcdcdcd",
        ),
    ]:
        with pytest.raises(InputError, match=names) as caught:
            ResultsWriter(tmp_path, run, NAMES)
        assert "--overwrite" in str(caught.value) and "--out" in str(caught.value)
    assert len(Results.open(tmp_path)) == 4


def test_somebody_elses_files_are_left_alone(tmp_path):
    """A data set with a folder depth/ is a likely --out by mistake, and --overwrite must not empty it."""
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "0001.png").write_bytes(b"truth")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not ours"):
            ResultsWriter(tmp_path, make_run(), NAMES, overwrite=overwrite)
    assert (tmp_path / "depth" / "0001.png").read_bytes() == b"truth"
    assert [path.name for path in tmp_path.iterdir()] == ["depth"]
    with pytest.raises(InputError, match="it is a file"):
        ResultsWriter(tmp_path / "depth" / "0001.png", make_run(), NAMES)
    (tmp_path / "manifest.json").write_text('{"name": "some web app"}')
    with pytest.raises(InputError, match="not a manifest of nasrecon"):
        ResultsWriter(tmp_path, make_run(), NAMES)


def test_a_run_killed_before_its_first_manifest_can_be_run_again(tmp_path):
    for part in ("views", "depth", "normal"):
        (tmp_path / part).mkdir()
    ResultsWriter(tmp_path, make_run(), NAMES)
    assert (tmp_path / "manifest.json").exists()


def test_missing_and_damaged_views_are_named(tmp_path):
    write(tmp_path)
    lost = tmp_path / "views" / "b.jpg.npz"
    whole = lost.read_bytes()
    lost.unlink()
    with pytest.raises(InputError, match=r"views/b\.jpg\.npz.*b\.jpg.*infer"):
        Results.open(tmp_path)
    lost.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"views/b\.jpg\.npz: damaged"):
        Results.open(tmp_path)[-1]
    with ResultsWriter(tmp_path, make_run(), NAMES) as writer:
        assert writer.finished == set(NAMES[:3])
        writer.add(make_estimate("b.jpg", 3), seconds=1)
    assert Results.open(tmp_path)[-1].view.name == "b.jpg"


def test_flipped_bytes_give_an_input_error_or_the_right_maps(tmp_path):
    """Whatever a disk does to a file, nobody sees another exception, nor wrong numbers."""
    write(tmp_path, NAMES[3:])
    path = tmp_path / "views" / "b.jpg.npz"
    whole, good = path.read_bytes(), read_estimate(path)
    rng = np.random.default_rng(0)
    # Headers of the archive are short and at both ends: half of the flips go there.
    places = [
        *rng.integers(0, len(whole), 60),
        *rng.integers(0, 200, 30),
        *rng.integers(len(whole) - 800, len(whole), 90),
    ]
    errors = 0
    for place in places:
        broken = bytearray(whole)
        broken[place] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            found = read_estimate(path)
        except InputError as error:
            assert str(path) in str(error)
            errors += 1
        else:
            np.testing.assert_array_equal(found.depth, good.depth)
            np.testing.assert_array_equal(found.normal, good.normal)
    assert errors > 60


@pytest.mark.parametrize("content", [b"", b"not a zip", b"\x93NUMPY"])
def test_a_file_that_is_no_view_is_named(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.npz"):
        read_estimate(path)
    np.savez(path, depth=np.zeros((2, 2)))
    with pytest.raises(InputError, match=r"x\.npz.*damaged"):
        read_estimate(path)
    np.save(path.with_suffix(".npy"), np.zeros(3))
    with pytest.raises(InputError, match=r"x\.npy"):
        read_estimate(path.with_suffix(".npy"))


def test_no_results_is_an_input_error_that_says_what_to_run(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="nasrecon infer"):
            Results.open(folder)
    with ResultsWriter(tmp_path, make_run(), NAMES):
        pass
    with pytest.raises(InputError, match="no finished view"):
        Results.open(tmp_path)


def test_nothing_half_written_is_left_behind(tmp_path, monkeypatch):
    writer = ResultsWriter(tmp_path, make_run(), NAMES)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(NasReconError, match="disk full"):
        writer.add(make_estimate("b.jpg"), seconds=1)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["manifest.json"]
    assert writer.finished == set()


@given(st.text(min_size=1, max_size=200), st.text(min_size=1, max_size=200))
def test_file_names_are_safe_and_differ(a, b):
    for name in (a, b):
        safe = file_name(name)
        assert safe.isascii() and "/" not in safe and "\\" not in safe and not safe.startswith(".")
        assert 1 <= len(safe) <= 120
    assert (file_name(a) == file_name(b)) == (a == b)


def test_plain_names_stay_as_they_are():
    assert file_name("IMG_0001.JPG") == "IMG_0001.JPG"
    assert file_name("left/0001.png").startswith("left_0001.png-")
    assert len({file_name(name) for name in NAMES}) == len(NAMES)


def test_scene_digest_sees_what_matters_and_nothing_else(tmp_path):
    scene = make_scene()
    digest = scene_digest(scene)
    assert (
        scene_digest(replace(scene, root=Path("elsewhere"), origin=SceneOrigin(format="another"), unit="mm")) == digest
    )
    image = tmp_path / "b.jpg"
    image.write_bytes(b"12345")
    changes = [
        replace(scene.views[3], name="c.jpg"),
        replace(scene.views[3], camera=scene.views[3].camera.resized(96, 64)),
        replace(scene.views[3], cam_from_world=np.eye(4)),
        replace(scene.views[3], image=ImageSource(path=image)),
        scene.views[3].with_image(lens=Lens(model="FOV", width=1, height=1, params=())),
    ]
    digests = [scene_digest(scene.replace_views([*scene.views[:3], changed])) for changed in changes]
    with_points = replace(scene, points_in_world=np.ones((2, 3)))
    assert len({digest, *digests, scene_digest(with_points)}) == 2 + len(changes)
