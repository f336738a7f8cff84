"""The command line from files to a mesh, and its other commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from plane_world import PLANE_NORMAL_IN_WORLD, PLANE_POINT_IN_WORLD

from cli.setups import scene_arguments, unbroken
from nasrecon import __version__
from nasrecon.cli.console import rate, table
from nasrecon.cli.export import next_command


def off_plane(points_in_world):
    return (points_in_world - PLANE_POINT_IN_WORLD) @ PLANE_NORMAL_IN_WORLD


def test_from_files_to_cloud_and_mesh(run, files, tmp_path):
    """The cloud and the mesh lie on the plane that was photographed, in its place in the world."""
    import trimesh

    from nasrecon.fuse.save import load_cloud
    from nasrecon.results.reader import Results

    out = tmp_path / "out"
    code, stdout, stderr = run(
        "infer", *scene_arguments(files), "--out", out, "--min-depth", "1.5", "--network", "my", "--device", "cpu"
    )
    assert code == 0, stderr
    assert stdout.startswith(f"{out}: 5 views estimated in ") and f"next: nasrecon fuse {out}" in unbroken(stdout)
    assert (
        "plain" in stderr
        and "network sweep on cpu" in stderr
        and "min_depth as given (1.5)" in stderr
        and "5 of 5" in stderr
    )
    assert run.state["asked"] == [("my", "cpu")]
    assert len(Results.open(out)) == 5 and Results.open(out).manifest["settings"]["weights_sha256"] == "ab" * 32
    assert Results.open(out).manifest["weights"] == "my"

    code, stdout, stderr = run(
        "fuse", out, "--out", tmp_path / "made" / "m.ply", "--cloud", tmp_path / "c.ply", "--min-component-faces", 0
    )
    assert code == 0, stderr
    names = [line.split("  ")[0] for line in stdout.splitlines()]
    assert names[:4] == ["views", "pixels", "with depth", "confident"] and "views agree" in names[4]
    assert names[5:13] == [
        "merged points",
        "least confirmed",
        "least agreeing",
        "epipolar error",
        "voxel",
        "vertices",
        "faces",
        "time",
    ]
    assert names[13:15] == [f"cloud: {tmp_path / 'c.ply'}", f"mesh: {tmp_path / 'made' / 'm.ply'}"]
    assert f"{5 * 96 * 64:,}" in stdout
    assert max(len(line) for line in stdout.splitlines()[:13]) <= 100
    cloud = load_cloud(tmp_path / "c.ply")
    # The sweep is right to 0.4 % of depths of about 3.
    assert len(cloud) > 1500 and np.median(np.abs(off_plane(cloud.xyz))) < 0.02
    mesh = trimesh.load(tmp_path / "made" / "m.ply")
    assert len(mesh.faces) > 1000 and np.median(np.abs(off_plane(mesh.vertices))) < 0.02
    facing = mesh.face_normals @ PLANE_NORMAL_IN_WORLD
    assert np.median(facing) > 0.9


def test_format_masks_and_hints_reach_the_scene(run, files, tmp_path, monkeypatch):
    """The options' way into ``open_scene``, and its answer into the manifest."""
    from PIL import Image

    import nasrecon.ingest.open_scene

    asked = []
    real = nasrecon.ingest.open_scene.open_scene

    def open_scene(*args, **kwargs):
        asked.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr("nasrecon.prepare.read.open_scene", open_scene)
    (tmp_path / "masks").mkdir()
    Image.new("L", (96, 64), 1).save(tmp_path / "masks" / "0002.png")
    arguments = ["--masks", tmp_path / "masks", "--format", "matrices", "--ignore-hints", "--min-depth", 1.5]
    code, _, stderr = run("infer", *scene_arguments(files), "--out", tmp_path / "o", *arguments)
    assert code == 0 and "masks of 1 of 5 views" in stderr
    assert [asked[0][key] for key in ("format", "use_hints", "masks")] == ["matrices", False, tmp_path / "masks"]
    assert json.loads((tmp_path / "o" / "manifest.json").read_text())["scene"]["sources_from"] == "overlap and angle"
    code, _, stderr = run("infer", *scene_arguments(files), "--out", tmp_path / "p", "--format", "kitti")
    assert code == 2 and "--format kitti reads KITTI sequence" in stderr


def test_images_without_cameras_get_them_by_structure_from_motion(run, tmp_path):
    """And the model is kept: a rerun reads it, and so does --poses."""
    import shutil

    photos, out = tmp_path / "photos", tmp_path / "photos" / "out"
    photos.mkdir()
    for path in sorted((Path(__file__).parents[2] / "examples/room/images").iterdir())[:4]:
        shutil.copy(path, photos)
    asked = ["infer", photos, "--out", out, "--size", "96x64"]
    code, stdout, stderr = run(*asked)
    assert code == 0, stderr
    assert "finding those of 4 images (structure from motion)" in stderr and "4 of 4 images have cameras" in stderr
    assert "depth ranges: sparse points (4 of 4 views)" in stderr and "4 views estimated" in stdout
    manifest = json.loads((out / "manifest.json").read_text())
    origin = manifest["scene"]["origin"]
    assert origin["found_cameras"] and (origin["format"], origin["images"]) == ("COLMAP model", "4 of 4 images")
    assert {line["depth_range_from"] for line in manifest["views"]} == {"sparse points"}
    code, stdout, stderr = run(*asked)
    assert (
        code == 0 and "in an earlier run" in stderr and "0 views estimated" in stdout and "4 finished before" in stdout
    )
    code, stdout, stderr = run("infer", photos, "--poses", out / "sfm", "--out", tmp_path / "o", "--size", "96x64")
    assert code == 0 and "4 views estimated" in stdout
    code, _, stderr = run(*asked, "--convention", "cam-from-world")
    assert code == 2 and "there are no cameras" in stderr


def test_triangulate_gives_points_to_known_cameras(run, tmp_path):
    from nasrecon.ingest.open_scene import open_scene

    room, cameras = Path(__file__).parents[2] / "examples/room", tmp_path / "cameras"
    cameras.mkdir()
    scene = open_scene(room)
    (tmp_path / "images").mkdir()
    for view in scene.views[:3]:
        (tmp_path / "images" / view.name).write_bytes(view.image.path.read_bytes())
        np.savetxt(cameras / f"{view.image.path.stem}.txt", view.cam_from_world)
    np.savetxt(tmp_path / "K.txt", scene.views[0].camera.K)
    given = [tmp_path / "images", "--poses", cameras, "--intrinsics", tmp_path / "K.txt", "--size", "96x64"]
    asked = ["infer", *given, "--convention", "cam-from-world", "--out", tmp_path / "o", "--triangulate"]
    code, stdout, stderr = run(*asked)
    assert code == 0, stderr
    assert "triangulating sparse points from 3 views" in stderr and "sparse points (3 of 3 views)" in stderr
    code, stdout, stderr = run(*asked)
    assert (
        code == 0
        and "triangulated in an earlier run" in stderr
        and "0 views estimated" in stdout
        and "3 finished before" in stdout
    )
    code, _, stderr = run("infer", room, "--out", tmp_path / "r", "--triangulate", "--every", "3", "--size", "96x64")
    assert code == 0 and "sparse points already" in stderr and not (tmp_path / "r" / "triangulated").exists()


def test_export(run, files, tmp_path):
    run("infer", *scene_arguments(files), "--out", tmp_path / "r", "--min-depth", 1.5)
    code, stdout, stderr = run("export", tmp_path / "r", "--format", "png16", "--out", tmp_path / "e", "--scale", 0.001)
    assert code == 0, stderr
    said = stdout.splitlines()
    assert said[0] == f"{tmp_path / 'e'}: 5 depth maps, 16-bit PNG, 0.001 scene units a step, as given"
    assert "depths lie beyond 65.535 and have no value here" in said[1]
    assert len(list((tmp_path / "e" / "depth").iterdir())) == 5
    typed = unbroken("\n".join(next_command("colmap", tmp_path / "in COLMAP")))
    assert typed.startswith("next: colmap stereo_fusion ") and f"--workspace_path '{tmp_path / 'in COLMAP'}'" in typed
    assert next_command("exr", tmp_path) == []
    code, stdout, _ = run("export", tmp_path / "r", "--format", "exr", "--out", tmp_path / "x", "--json")
    assert code == 0 and json.loads(stdout)["views"] == 5
    code, _, stderr = run("export", tmp_path / "r", "--format", "exr", "--out", tmp_path / "x")
    assert code == 2 and "not empty" in stderr


def test_json_is_all_there_is_on_stdout(run, files, tmp_path):
    arguments = [*scene_arguments(files), "--out", tmp_path, "--min-depth", 1.5, "--sources", 2, "--json"]
    code, stdout, _ = run("infer", *arguments, "--every", 2)
    told = json.loads(stdout)
    assert (code, told["estimated"], told["kept"], told["dropped"]) == (0, 3, 0, []) and told["results"] == str(
        tmp_path
    )
    code, stdout, _ = run("fuse", tmp_path, "--cloud", tmp_path / "c.ply", "--json", "--min-views", 1)
    told = json.loads(stdout)
    assert code == 0 and told["views"] == 3 and told["cloud"] == str(tmp_path / "c.ply")
    assert "mesh" not in told and told["voxel"] is told["faces"] is None
    assert told["stages"]["pixels"] == 3 * 96 * 64 and told["stages"]["merged points"] > 0
    assert len(told["quality"]) == 3 and all(0 <= view["confirmed"] <= 1 for view in told["quality"].values())


def test_without_out_and_cloud_both_go_into_the_folder(run, files, tmp_path, monkeypatch):
    """`nasrecon infer IMAGES` and then `nasrecon fuse`, with nothing else said about places."""
    monkeypatch.chdir(tmp_path)
    assert run("infer", *scene_arguments(files), "--min-depth", 1.5)[0] == 0
    manifest = tmp_path / "nasrecon_out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"unit": "unknown"', '"unit": "mm"'))
    code, stdout, _ = run("fuse")
    (voxel,) = [line for line in stdout.splitlines() if line.startswith("voxel")]
    assert code == 0
    assert voxel.split()[2] == "mm"
    assert {"manifest.json", "views", "depth", "normal", "mesh.ply", "cloud.ply", "fusion.json"} == {
        p.name for p in (tmp_path / "nasrecon_out").iterdir()
    }


def test_views_that_nothing_confirms_are_named(run, files, tmp_path, monkeypatch):
    import nasrecon.fuse.fusion

    real = nasrecon.fuse.fusion.fuse_estimates

    def with_a_lonely_view(*args, **kwargs):
        fusion = real(*args, **kwargs)
        fusion.stats.isolated_views.append("0003.png")
        return fusion

    monkeypatch.setattr("nasrecon.fuse.fuse_results.fuse_estimates", with_a_lonely_view)
    run("infer", *scene_arguments(files), "--out", tmp_path, "--min-depth", 1.5, "--sources", 1)
    code, stdout, stderr = run("fuse", tmp_path, "--cloud", tmp_path / "c.ply")
    assert code == 0
    assert "0003.png: overlaps with no other" in stderr
    assert "(1 overlap with no other)" in stdout.splitlines()[0]


def test_a_rerun_keeps_and_overwrite_redoes(run, files, tmp_path):
    arguments = ["infer", *scene_arguments(files), "--out", tmp_path / "o", "--min-depth", 1.5]
    run(*arguments)
    code, stdout, stderr = run(*arguments)
    assert (
        code == 0
        and "0 views estimated" in stdout
        and "5 finished before" in stdout
        and "5 views finished in an earlier run" in stderr
    )
    code, _, stderr = run(*arguments, "--sources", 1)
    assert code == 2 and "sources: 4 there, 1 now" in stderr and "--overwrite" in stderr
    run.state["sha256"] = "cd" * 32
    assert run(*arguments)[0] == 2
    code, stdout, _ = run(*arguments, "--overwrite")
    assert code == 0 and "5 views estimated in " in stdout and "before" not in stdout


def test_weights_commands(run, monkeypatch, tmp_path):
    from nasrecon.nas.manifest import WeightsEntry

    entries = [
        WeightsEntry(
            name=name,
            network="lite",
            licence="Apache-2.0",
            file=f"{name}.safetensors",
            bytes=2_500_000,
            folder=tmp_path,
        )
        for name in ("good", "bad")
    ]
    monkeypatch.setattr("nasrecon.nas.manifest.list_weights", lambda: tuple(entries))
    code, stdout, _ = run("weights", "list")
    header, good, *_ = stdout.splitlines()
    assert code == 0 and header.split() == ["NAME", "KIND", "SIZE", "LICENCE", "FILE"]
    assert good.split() == ["good", "lite", "2.5", "MB", "Apache-2.0", "good.safetensors"]
    told = json.loads(run("weights", "list", "--json")[1])
    assert [entry["path"] for entry in told] == [str(tmp_path / "good.safetensors"), str(tmp_path / "bad.safetensors")]
    monkeypatch.setattr(
        "nasrecon.nas.weights.verify_weights", lambda: [(entries[0], ""), (entries[1], "sha256 is not it")]
    )
    code, stdout, _ = run("weights", "verify")
    assert code == 1 and stdout.splitlines() == ["good     ok", "bad   wrong  sha256 is not it"]
    assert [entry["problem"] for entry in json.loads(run("weights", "verify", "--json")[1])] == ["", "sha256 is not it"]

    asked = []

    def import_published(*args, **kwargs):
        asked.append((args, kwargs))
        return entries[0]

    monkeypatch.setattr("nasrecon.nas.published.import_published", import_published)
    code, stdout, _ = run("weights", "import", "m.pth.tar", "c.pth.tar", "--name", "good", "--variant", "pool1")
    assert code == 0 and "--network good" in stdout
    ((args, kwargs),) = asked
    assert [str(arg) for arg in args] == ["m.pth.tar", "c.pth.tar", "good"]
    assert kwargs == {"variant": "pool1", "trained_min_depth": 0.5}


def test_version_and_module_entry_point():
    done = subprocess.run([sys.executable, "-m", "nasrecon", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, f"nasrecon {__version__}")


def test_rate_and_table():
    assert [rate(None), rate(0), rate(12.34), rate(0.05)] == ["", "", "12.3 views/s", "20.0 s/view"]
    assert table([("a", "1"), ("long", "1000", "of x")]) == "a        1\nlong  1000  of x"
    assert table([]) == "none"
