"""Scores of clouds and meshes against surfaces whose distance is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.evaluation.error_map import write_error_map
from nasrecon.evaluation.surface import evaluate_surface
from nasrecon.evaluation.surface_reference import DepthView, SurfaceReference, SurfaceSamples, read_reference
from nasrecon.fuse.save import save_cloud, save_mesh
from nasrecon.types import Camera, Mesh, PointCloud


def square(z: float = 0.0, edge: float = 1.0, tilt: float = 0.0) -> Mesh:
    """A square in the plane z, its normals towards -z, turned about x by ``tilt`` [rad]."""
    corners = np.array([[0, 0, 0], [edge, 0, 0], [edge, edge, 0], [0, edge, 0]], float)
    turn = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    normal = np.broadcast_to(turn @ (0, 0, -1), (4, 3)).astype(np.float32)
    faces = np.array([[0, 2, 1], [0, 3, 2]], np.int32)
    rgb = np.full((4, 3), 200, np.uint8)
    return Mesh(vertices=corners @ turn.T + (0, 0, z), faces=faces, normal=normal, rgb=rgb, unit="m")


def grid_cloud(z: float, edge: float = 1.0, step: float = 0.005) -> PointCloud:
    x, y = np.meshgrid(*[np.arange(0, edge, step) + step / 2] * 2)
    xyz = np.stack([x.ravel(), y.ravel(), np.full(x.size, z)], axis=-1)
    normal = np.broadcast_to((0, 0, -1), xyz.shape).astype(np.float32)
    ones = np.ones(len(xyz), np.int32)
    return PointCloud(xyz=xyz, normal=normal, rgb=np.zeros(xyz.shape, np.uint8), support=ones, unit="m")


@pytest.fixture
def reference(tmp_path: Path) -> SurfaceReference:
    return read_reference(save_mesh(square(), tmp_path / "truth.ply"), cell=0.005)


def test_a_plane_beside_the_truth_is_off_by_its_distance(tmp_path: Path, reference: SurfaceReference) -> None:
    score = evaluate_surface(save_mesh(square(z=0.03), tmp_path / "m.ply"), reference)
    assert [d.distance for d in score.distances] == [0.02, 0.05]
    assert score.accuracy_median == pytest.approx(0.03, abs=5e-4)
    assert score.completeness_median == pytest.approx(0.03, abs=5e-4)
    assert score.chamfer == pytest.approx(0.03, abs=5e-4)
    assert score.distances[0].f == 0
    assert score.distances[1].f == pytest.approx(100)
    assert score.normal_mean_deg < 0.1


def test_half_a_surface_has_full_precision_and_half_the_recall(tmp_path: Path, reference: SurfaceReference) -> None:
    cloud = grid_cloud(0.0)
    half = cloud.xyz[:, 0] < 0.5
    part = PointCloud(xyz=cloud.xyz[half], normal=cloud.normal[half], rgb=cloud.rgb[half], support=cloud.support[half])
    score = evaluate_surface(save_cloud(part, tmp_path / "half.ply"), reference, [0.01])
    at = score.distances[0]
    assert at.precision == pytest.approx(100)
    assert at.recall == pytest.approx(51, abs=1)
    assert at.f == pytest.approx(2 * 100 * at.recall / (100 + at.recall))


def test_normals_are_compared_with_their_direction(tmp_path: Path, reference: SurfaceReference) -> None:
    mesh = square()
    for turned, expected in ((mesh.normal, 0), (-mesh.normal, 180), (square(tilt=0.35).normal, 20.05)):
        path = save_mesh(replace(mesh, normal=turned), tmp_path / "m.ply")
        assert evaluate_surface(path, reference).normal_mean_deg == pytest.approx(expected, abs=0.5)


def test_only_the_visible_part_counts(tmp_path: Path) -> None:
    """A camera before the middle of a wall: what lies beside its image or far behind the wall was never seen."""
    camera = Camera(width=50, height=50, K=np.array([[50.0, 0, 25], [0, 50, 25], [0, 0, 1]]))
    view = DepthView(camera=camera, cam_from_world=np.eye(4), depth=np.full((50, 50), 2.0, np.float32))
    wall = grid_cloud(2.0, edge=0.5)
    seen = SurfaceReference(
        samples=SurfaceSamples(xyz=wall.xyz, normal=wall.normal, unit="m"), cell=0.005, views=(view,)
    )
    beside, behind, near = wall.xyz + (5, 0, 0), wall.xyz + (0, 0, 3), wall.xyz + (0, 0, -0.3)  # noqa: RUF005
    xyz = np.concatenate([wall.xyz, beside, behind, near])
    cloud = PointCloud(
        xyz=xyz,
        normal=np.zeros(xyz.shape, np.float32),
        rgb=np.zeros(xyz.shape, np.uint8),
        support=np.ones(len(xyz), int),
    )
    score = evaluate_surface(save_cloud(cloud, tmp_path / "c.ply"), seen)
    assert score.distances[0].precision == pytest.approx(50, abs=1)
    assert score.hidden == pytest.approx(score.points, rel=0.05)
    assert np.isnan(score.normal_mean_deg)
    with pytest.raises(EmptyResultError, match="one frame"):
        evaluate_surface(save_cloud(replace(cloud, xyz=xyz + (0, 0, 90)), tmp_path / "far.ply"), seen)  # noqa: RUF005


def test_alignment_takes_a_small_motion_back(tmp_path: Path) -> None:
    truth = [grid_cloud(0.0).xyz, grid_cloud(0.0).xyz[:, [2, 0, 1]], grid_cloud(0.0).xyz[:, [1, 2, 0]]]
    normal = [np.broadcast_to(n, truth[0].shape) for n in ((0, 0, 1), (1, 0, 0), (0, 1, 0))]
    samples = SurfaceSamples(xyz=np.concatenate(truth), normal=np.concatenate(normal).astype(np.float32), unit="m")
    corner = SurfaceReference(samples=samples, cell=0.005)
    a = np.radians(1.0)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    moved = PointCloud(
        xyz=samples.xyz @ turn.T + (0.02, -0.01, 0.03),
        normal=(samples.normal @ turn.T).astype(np.float32),
        rgb=np.zeros(samples.xyz.shape, np.uint8),
        support=np.ones(len(samples.xyz), int),
    )
    path = save_cloud(moved, tmp_path / "moved.ply")
    assert evaluate_surface(path, corner, [0.005]).distances[0].f < 30
    aligned = evaluate_surface(path, corner, [0.005, 0.02], align=True)
    assert aligned.distances[0].f > 99
    assert aligned.moved is not None
    assert aligned.moved[0] == pytest.approx(1, abs=0.05)


def test_the_error_map_shows_distances_in_colours(tmp_path: Path, reference: SurfaceReference) -> None:
    from PIL import Image

    from nasrecon.fuse.save import load_cloud

    score = evaluate_surface(save_mesh(square(z=0.05), tmp_path / "m.ply"), reference)
    ply, png = write_error_map(score, reference, tmp_path / "map")
    colors = load_cloud(ply).rgb
    assert len(np.unique(colors, axis=0)) < 8
    assert Image.open(png).size[0] == 3 * 560


def test_a_reference_without_truth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_reference(tmp_path / "missing.ply")


def test_a_folder_of_depths_is_one_reference() -> None:
    room = Path(__file__).parents[2] / "examples/room"
    reference = read_reference(room, every=6, cell=0.02)
    assert len(reference.views) == 2
    assert reference.samples.xyz.shape == reference.samples.normal.shape
    assert np.linalg.norm(reference.samples.normal, axis=-1).min() > 0.9
    assert reference.sees(reference.samples.xyz, 0.02).mean() > 0.99
