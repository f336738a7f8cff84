"""What the pages are made of: frame, points, thinned meshes, GLB, pictures, sheet; on a world of exact hills."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace

import numpy as np
import pytest

from nasrecon.errors import InputError
from nasrecon.fuse.save import load_mesh, save_mesh
from nasrecon.geometry import inverse, transform
from nasrecon.results.fusion_record import write_fusion
from nasrecon.results.preview import INVALID_RGB, bar_depths, color_depth, color_table, normal_legend
from nasrecon.results.reader import FUSION_FILE, Results, read_fusion
from nasrecon.types import Estimate
from nasrecon.view.contents import look, survey_depths
from nasrecon.view.glb import SURFACES, mesh_glb
from nasrecon.view.page_frame import OVERVIEW_FOV_DEG, choose_frame, overview
from nasrecon.view.pictures import PICTURES, view_pictures
from nasrecon.view.points import COLORINGS, points_of_cloud, points_of_view
from nasrecon.view.quality import ViewFacts, rank_views
from nasrecon.view.sheet import write_sheet
from nasrecon.view.simplify import simplify_mesh
from nasrecon.view.tables import report_tables
from nasrecon.view.values import values_picture

from .synthetic import HillWorld, write_results

WORLD = HillWorld()


def moved(view, world_from_old, unit=1.0):
    """The same camera in a world that was turned and scaled."""
    cam_from_world = view.cam_from_world @ inverse(world_from_old)
    cam_from_world[:3, 3] *= unit
    return replace(view, cam_from_world=cam_from_world)


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_the_page_is_upright_and_of_one_size_whatever_the_world(unit):
    """A world that is turned, shifted and in other units gives the same page."""
    views = [WORLD.view(i, 8, (64, 48)) for i in range(8)]
    points = WORLD.mesh(20).vertices
    turn = np.eye(4)
    turn[:3, :3] = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0], [0.48, 0.64, 0.6]])
    turn[:3, 3] = (50, -20, 7)
    frame = choose_frame(views, points)
    other = choose_frame([moved(view, turn, unit) for view in views], transform(turn, points) * unit)
    np.testing.assert_allclose(frame.points(points), other.points(transform(turn, points) * unit), atol=1e-3)
    np.testing.assert_allclose(frame.directions(np.array([[0, 0, 1.0]]))[0], (0, 0, 1), atol=1e-6)
    distances = np.linalg.norm(frame.points(points), axis=-1)
    assert 0.3 < np.quantile(distances, 0.9) <= 1.0001
    page_from_cam = frame.page_from_cam(views[0])
    ahead = transform(page_from_cam, np.array([0, 0, frame.scale]))
    np.testing.assert_allclose(
        ahead, frame.points(transform(views[0].world_from_cam, np.array([[0, 0, 1.0]])))[0], atol=1e-5
    )


@pytest.mark.parametrize("aspect", [0.6, 1.0, 1.8])
def test_the_overview_shows_all_cameras_and_surfaces(aspect):
    views = [WORLD.view(i, 8, (64, 48)) for i in range(8)]
    points = WORLD.mesh(20).vertices
    frame = choose_frame(views, points)
    position, look_at = overview(frame, views, points, aspect)
    forward = (look_at - position) / np.linalg.norm(look_at - position)
    right = np.cross(forward, (0, 0, 1)) / np.linalg.norm(np.cross(forward, (0, 0, 1)))
    shown = frame.points(np.concatenate([points, [view.center_in_world for view in views]])) - position
    depth = shown @ forward
    tangent = np.tan(np.radians(OVERVIEW_FOV_DEG / 2))
    inside = (np.abs(shown @ right) < tangent * aspect * depth) & (
        np.abs(shown @ np.cross(right, forward)) < tangent * depth
    )
    assert inside.mean() > 0.98 and inside[-8:].all()
    assert position[2] > look_at[2]


def test_contents_say_what_is_missing(hills, unfused):
    folder, _views = hills
    assert look(folder).missing == () and look(folder).expected_views == 6 and not look(folder).is_running
    contents = look(unfused)
    assert contents.mesh is None and contents.cloud is None and contents.is_running and contents.expected_views == 5
    told = " | ".join(contents.missing)
    assert "No mesh yet: run nasrecon fuse" in told and "No cloud yet" in told and "3 of 5 views are finished" in told
    with pytest.raises(InputError, match="no such folder"):
        look(folder / "nowhere")


def test_a_mesh_of_other_views_is_named_and_found_where_it_was_written(tmp_path):
    """The digest of the fused views counts, not the times of the files: a copied folder is not older."""
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere.ply"
    write_results(folder, WORLD, views=2, size=(48, 32))
    save_mesh(WORLD.mesh(5), elsewhere)
    write_fusion(folder, {"mesh": str(elsewhere), "cloud": str(folder / "cloud.ply"), "faces": 32})
    assert look(folder).mesh == elsewhere and json.loads((folder / FUSION_FILE).read_text())["cloud"] == "cloud.ply"
    os.utime(elsewhere, (1, 1))
    assert not any("of other views" in line for line in look(folder).warnings)
    facts = json.loads((folder / FUSION_FILE).read_text())
    (folder / FUSION_FILE).write_text(json.dumps(facts | {"views_sha256": "0" * 64}))
    assert any("of other views" in line for line in look(folder).warnings)
    (folder / FUSION_FILE).write_text("{")
    with pytest.raises(InputError, match=r"fusion.json: damaged"):
        read_fusion(folder)


def test_points_learn_depth_and_confidence_from_the_views_that_see_them(hills):
    """The world's confidence rises over the image from left to right, and its depths are exact."""
    folder, views = hills
    results = Results.open(folder)
    points = points_of_cloud(WORLD.cloud(4000), 3000)
    assert len(points) == 3000 and np.isnan(points.confidence).all()
    points.observe(results[0])
    in_cam = transform(views[0].cam_from_world, points.points_in_world)
    x, y = views[0].camera.project(in_cam).T
    seen = points.depth > 0
    assert (
        seen.mean() > 0.5 and not np.isnan(points.confidence[seen]).any() and np.isnan(points.confidence[~seen]).all()
    )
    np.testing.assert_allclose(points.depth[seen], in_cam[seen, 2], rtol=1e-6)
    # A pixel's column over the width; half precision and the pixel's own width bound the error.
    np.testing.assert_allclose(points.confidence[seen], x[seen] / 128, atol=1.5 / 128)
    assert not (seen & ((x < 0) | (x > 128) | (y < 0) | (y > 96))).any()
    before = points.depth[seen].copy()
    points.observe(results[3])
    assert (points.depth[seen] <= before).all() and (points.depth > 0).mean() > seen.mean()
    assert points.confident(0.5).sum() == (~(points.confidence < 0.5)).sum()


def test_points_of_a_view_lie_on_the_surface(hills):
    folder, _views = hills
    part = points_of_view(Results.open(folder)[2], 700)
    error = part.points_in_world[:, 2] - WORLD.height(part.points_in_world[:, :2])
    assert len(part) == 700 and np.abs(error).max() < 2e-3
    assert (part.normal[:, 2] > 0).mean() > 0.95  # in the world, where the hills face up


def test_every_colouring_tells_unknown_from_known(hills):
    points = points_of_cloud(WORLD.cloud(50), 50)
    for coloring in COLORINGS:
        assert points.colors(coloring, 1, 4).shape == (50, 3), coloring
    for coloring in ("depth", "confidence"):
        assert (points.colors(coloring, 1, 4) == INVALID_RGB).all()
    points.depth[:] = 4
    np.testing.assert_array_equal(points.colors("depth", 1, 4)[0], color_table()[0])
    points.confidence[:] = 1
    np.testing.assert_array_equal(points.colors("confidence", 1, 4)[0], color_table()[-1])
    towards_the_camera = replace(points, normal=np.tile(np.array([0, 0, -1], np.float32), (50, 1)))
    np.testing.assert_array_equal(towards_the_camera.colors("normal", 1, 4)[0], (128, 128, 255))


@pytest.mark.parametrize("wanted", [20_000, 3000, 400])
def test_a_thinned_mesh_keeps_shape_and_colours(wanted):
    mesh = WORLD.mesh(120)
    thinned = simplify_mesh(mesh, wanted)
    assert wanted / 4 < len(thinned.faces) <= wanted
    used = np.unique(thinned.faces)
    assert used.max() < len(thinned.vertices) and (thinned.faces[:, 0] != thinned.faces[:, 1]).all()
    cell = np.sqrt(16 / wanted)  # of the 4 x 4 ground, a triangle's share; the hills bend by about 1 / unit
    assert np.abs(thinned.vertices[:, 2] - WORLD.height(thinned.vertices[:, :2])).max() < 4 * cell**2 + 1e-3
    assert (thinned.normal[:, 2] > 0.3).all()
    assert simplify_mesh(mesh, len(mesh.faces)) is mesh


@pytest.mark.parametrize("surface", SURFACES)
def test_glb_is_read_back_the_same(surface):
    """By trimesh, which had no part in writing it; vertex colours are in linear light, as glTF wants them."""
    import io

    import trimesh

    mesh = WORLD.mesh(6)
    data = mesh_glb(mesh.vertices.astype(np.float32), mesh.normal, mesh.rgb, mesh.faces, surface)
    assert struct.unpack("<4sII", data[:12]) == (b"glTF", 2, len(data))
    loaded = trimesh.load(io.BytesIO(data), file_type="glb", force="mesh", process=False)
    np.testing.assert_allclose(loaded.vertices, mesh.vertices, atol=1e-6)
    np.testing.assert_array_equal(loaded.faces, mesh.faces)
    document = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    assert ("KHR_materials_unlit" in document.get("extensionsUsed", [])) == (surface != "clay")
    assert ("COLOR_0" in document["meshes"][0]["primitives"][0]["attributes"]) == (surface != "clay")


def test_our_mesh_files_are_read_as_trimesh_reads_them(tmp_path):
    import trimesh

    mesh = WORLD.mesh(12)
    path = save_mesh(mesh, tmp_path / "mesh.ply")
    ours, theirs = load_mesh(path), trimesh.load(path, process=False)
    np.testing.assert_array_equal(ours.vertices, theirs.vertices)
    np.testing.assert_array_equal(ours.faces, theirs.faces)
    np.testing.assert_array_equal(ours.rgb, theirs.visual.vertex_colors[:, :3])
    np.testing.assert_allclose(ours.normal, mesh.normal, atol=1e-6)
    assert ours.unit == "m"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"mesh.ply: expected a mesh, found"):
        load_mesh(path)


def test_pictures_tell_invalid_from_far(hills):
    folder, _ = hills
    estimate = Results.open(folder)[0]
    pictures = view_pictures(estimate, 2.0, 4.0)
    invalid = estimate.depth == 0
    assert tuple(pictures) == PICTURES and 0.02 < invalid.mean() < 0.5
    for name in ("depth", "normals", "confidence"):
        assert (pictures[name][invalid] == INVALID_RGB).all(), name
        assert (pictures[name][~invalid] != INVALID_RGB).any(axis=-1).mean() > 0.99, name
    hidden = view_pictures(estimate, 2.0, 4.0, min_confidence=0.5)["depth"]
    assert (hidden[:, :60] == INVALID_RGB).all() and (hidden[~invalid][-50:] != INVALID_RGB).any()
    assert {picture.shape for picture in view_pictures(estimate, 2, 4, width=32).values()} == {(24, 32, 3)}
    facts = ViewFacts.of(estimate)
    assert facts.valid == pytest.approx((~invalid).mean()) and 1.5 < facts.near < facts.far < 6
    nothing = ViewFacts.of(replace(estimate, depth=0 * estimate.depth))
    assert (nothing.valid, nothing.near) == (0, 0)


def test_bar_and_legend_speak_of_the_colours_that_are_used():
    depths = bar_depths(1.0, 4.0, 5)
    assert depths[0] == pytest.approx(4) and depths[-1] == pytest.approx(1)
    place = color_depth(depths[None].astype(np.float32), 1.0, 4.0)[0]
    np.testing.assert_array_equal(place, color_table()[[0, 64, 128, 191, 255]])
    ball = normal_legend(51).astype(int)
    assert (ball[0, 0] == 255).all() and (np.abs(ball[25, 25] - (128, 128, 255)) < 4).all()
    assert ball[25, 48, 0] > 220 > 60 > ball[25, 2, 0] and ball[2, 25, 1] > 220 > 60 > ball[48, 25, 1]


def test_sheet_shows_mesh_and_views(hills, unfused, tmp_path):
    from PIL import Image

    picture = np.asarray(Image.open(write_sheet(hills[0], tmp_path / "new" / "sheet.png")))
    assert picture.shape[1] == 1920 and picture.shape[0] > 1000
    colored = np.ptp(picture[112:732, 24:958].astype(int), axis=-1) > 40  # the hills' checks; paper and clay are grey
    assert colored.mean() > 0.3
    rows, columns = (np.flatnonzero(colored.any(axis=axis)) for axis in (1, 0))
    assert max(np.ptp(rows) / colored.shape[0], np.ptp(columns) / colored.shape[1]) > 0.9, "the mesh fills its pane"
    without = np.asarray(Image.open(write_sheet(unfused, tmp_path / "unfused.png")))
    assert without.shape[0] < picture.shape[0] - 500 and without.std() > 20


def test_tables_hold_the_run(hills):
    tables = {table["title"]: table["rows"] for table in report_tables(look(hills[0]))}
    assert {"Run", "Options of infer", "Filter stages", "Fusion", "Timings", "Cameras"} <= tables.keys()
    assert ["min depth", "chosen from the data"] in tables["Options of infer"]
    assert ["3 views agree", "700", "70.0 %"] in tables["Filter stages"]
    assert ["infer, all views", "9.0"] in tables["Timings"] and ["fuse, mesh", "1.2"] in tables["Timings"]
    assert len(tables["Cameras"]) == 6 and tables["Cameras"][0][:3] == ["hills/0000.jpg", "128 x 96", "140.8"]


def test_the_survey_takes_pixels_of_all_columns_and_rows():
    """Also where the number of pixels is a multiple of the width's: so the overview cuts no side of the scene."""
    view = WORLD.view(0, 4, (640, 480))
    flat, normal = np.full((480, 640), 2.0, np.float32), np.zeros((480, 640, 3), np.float32)
    maps = {"depth": flat, "normal": normal, "sigma": flat, "confidence": flat / 2, "rgb": normal.astype(np.uint8)}
    estimate = Estimate(view=view, sources=(), **maps)
    points = survey_depths([estimate]).points_in_world
    x, y = view.camera.project(transform(view.cam_from_world, points)).T
    assert len(points) >= 300
    for at, side in ((x, 640), (y, 480)):
        counts = np.histogram(at, 8, (0, side))[0]
        assert counts.min() > 0.4 * counts.mean()


def test_survey_of_views_without_any_depth(tmp_path):
    empty = [replace(WORLD.estimate(WORLD.view(0, 4, (16, 12))), depth=np.zeros((12, 16), np.float32))]
    seen = survey_depths(empty)
    assert (seen.near, seen.far, len(seen.points_in_world)) == (1.0, 1.0, 0)
    frame = choose_frame([empty[0].view], seen.points_in_world)
    assert np.isfinite(frame.page_from_world).all()
    assert np.isfinite(overview(frame, [empty[0].view], seen.points_in_world)[0]).all()


def test_views_are_ranked_worst_first_and_faults_are_named():
    """What a fusion says of views decides; those that it says nothing of come by their own figures."""
    good = ViewFacts(near=1, far=2, median_confidence=0.9, median_sigma=0.01, valid=1.0)
    empty = replace(good, near=0, far=0, median_confidence=0, median_sigma=0, valid=0)
    facts = {name: good for name in ("a", "b", "alone", "wrong", "low")} | {"empty": empty}
    shares = {"a": 0.9, "b": 0.8, "alone": 0, "wrong": 0.5, "low": 0.2, "empty": 0}
    fusion = {
        "quality": {name: {"confirmed": share, "agreement": None} for name, share in shares.items()},
        "isolated_views": ["alone"],
        "contradicting": ["wrong"],
    }
    ranked = rank_views(facts, fusion, {"a": 0.421})
    assert [view.name for view in ranked[-2:]] == ["b", "a"] and not any(view.fault for view in ranked[-2:])
    faults = {view.name: view.fault for view in ranked[:-2]}
    assert faults == {
        "alone": "overlaps with no other view",
        "empty": "no pixel has a depth",
        "low": "far less confirmed than the other views",
        "wrong": "its depths contradict the other views'",
    }
    assert ranked[-1].cells() == ["90 %", "-", "0.42 px", "100 %", "1 %", "0.90"]
    assert ranked[-1].in_words() == "90 % of the pixels confirmed; epipolar error 0.42 px"
    before = rank_views(facts, None)
    assert before[0].name == "empty" and before[1].cells()[:2] == ["-", "-"] and before[1].in_words() == ""


def test_values_of_maps_survive_their_picture(hills):
    """Decoded as maps.js does it: depth to half a step, confidence to a hundredth, sigma to a twelfth of a doubling."""
    estimate = Results.open(hills[0])[0]
    picture, (near, far) = values_picture(estimate, 400)
    assert picture.shape == (96, 128, 3)
    known = estimate.depth > 0
    assert ((picture[..., 0] > 0) == known).all()
    depth = near * (far / near) ** ((picture[known][:, 0] - 1.0) / 254)
    np.testing.assert_allclose(depth, estimate.depth[known], rtol=np.log(far / near) / 500)
    np.testing.assert_allclose(picture[..., 1] / 100, estimate.confidence, atol=0.0051)
    sigma = 1e-4 * 2 ** ((picture[known][:, 2] - 1.0) / 6)
    np.testing.assert_allclose(sigma, 0.01, rtol=0.06)
    assert values_picture(estimate, 32)[0].shape == (24, 32, 3)
