"""Fusion in spatial blocks gives the points and the surface of the fusion as a whole, and blocks meet without seams."""

from __future__ import annotations

import numpy as np
import pytest
from recorder import Recorder

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.fuse import blocks as blocks_module
from nasrecon.fuse.blocks import Split, choose_blocks, join
from nasrecon.fuse.fusion import Fusion, fuse_estimates
from nasrecon.fuse.mesh import Voxel
from nasrecon.fuse.o3d import BLOCK_BYTES, nearest_distance
from nasrecon.fuse.options import FuseOptions
from nasrecon.types import Estimate

from .worlds import BALL, ROOM, render, ring, small_camera

WORLD = (BALL, *ROOM)


@pytest.fixture(scope="module")
def estimates() -> list[Estimate]:
    return [render(WORLD, view) for view in ring(7, small_camera(96, 72, 78))]


@pytest.fixture(scope="module")
def whole(estimates: list[Estimate]) -> Fusion:
    return fuse_estimates(estimates, FuseOptions(blocks=1))


@pytest.fixture(scope="module", params=[9])
def in_blocks(request: pytest.FixtureRequest, estimates: list[Estimate]) -> Fusion:
    recorder = Recorder()
    fusion = fuse_estimates(estimates, FuseOptions(blocks=request.param), progress=recorder)
    assert any("blocks" in note for note in recorder.notes)
    return fusion


def f_score(a: np.ndarray, b: np.ndarray, distance: float) -> float:
    precision, recall = (nearest_distance(x, y) < distance for x, y in ((a, b), (b, a)))
    return 2 / (1 / precision.mean() + 1 / recall.mean())


def test_blocks_give_the_points_of_the_whole(whole: Fusion, in_blocks: Fusion) -> None:
    ours, theirs = in_blocks.cloud, whole.cloud
    assert len(ours) == len(theirs) == in_blocks.stats.merged
    np.testing.assert_allclose(np.sort(ours.xyz[:, 0]), np.sort(theirs.xyz[:, 0]), atol=1e-3 * whole.cell)
    assert f_score(ours.xyz, theirs.xyz, 1e-3 * whole.cell) > 0.999
    assert np.bincount(ours.support).tolist() == np.bincount(theirs.support).tolist()


def test_blocks_give_the_surface_of_the_whole(whole: Fusion, in_blocks: Fusion) -> None:
    """The same faces: the grid of voxels is one, and every voxel is filled by the same views."""
    assert in_blocks.voxel == whole.voxel
    assert len(in_blocks.mesh.faces) == len(whole.mesh.faces)
    assert len(in_blocks.mesh.vertices) == len(whole.mesh.vertices)
    assert f_score(in_blocks.mesh.vertices, whole.mesh.vertices, 1e-6 * whole.voxel.size) > 0.9999
    assert abs(f_score(in_blocks.mesh.vertices, whole.mesh.vertices, whole.voxel.size) - 1) < 0.005


def test_no_edge_of_the_mesh_lies_open_on_a_plane_between_blocks(whole: Fusion, in_blocks: Fusion) -> None:
    def open_edges(fusion: Fusion) -> int:
        faces = fusion.mesh.faces
        edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
        return int((np.unique(edges, axis=0, return_counts=True)[1] == 1).sum())

    assert open_edges(in_blocks) == open_edges(whole)


def test_a_split_has_the_blocks_asked_for_and_cuts_the_longest_axis() -> None:
    points = np.random.default_rng(0).uniform((0, 0, 0), (100, 10, 1), (5000, 3))
    split = Split.of(points, 8)
    assert split.count == 8 and [len(planes) for planes in split.planes] == [7, 0, 0]
    assert 12 <= Split.of(points * (1, 10, 100), 12).count <= 18
    grid = split.on_grid(0.5, np.array([50.0, 5, 0.5]))
    steps = np.floor((points - (50.0, 5, 0.5)) / 0.5).astype(np.int64)
    number = grid.of_steps(steps)
    boxes = list(grid.boxes())
    assert len(boxes) == 8
    for i, (low, high) in enumerate(boxes):
        assert ((steps[number == i] >= low) & (steps[number == i] < high)).all()
        assert 400 < (number == i).sum() < 900


def test_vertices_on_planes_between_blocks_become_one() -> None:
    left = np.array([[7.5, 0, 0.5], [8, 0.5, 0.5], [8, 0.25, 1]], np.float32), np.array([[0, 1, 2]], np.int32)
    right = np.array([[8, 0.25, 1], [8, 0.5, 0.5], [8.5, 0, 0.5]], np.float32), np.array([[0, 1, 2]], np.int32)
    vertices, faces = join([left, right])
    assert len(vertices) == 4 and len(faces) == 2 and len(set(faces.ravel().tolist())) == 4
    np.testing.assert_array_equal(vertices[faces[0]], left[0])
    np.testing.assert_array_equal(vertices[faces[1]], right[0])


def test_auto_takes_more_than_one_block_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    voxel = Voxel(size=0.1, reason="", blocks=1000)
    for free, expected in [(None, 1), (100 * 1000 * BLOCK_BYTES, 1), (1000 * BLOCK_BYTES, 4)]:
        monkeypatch.setattr(blocks_module, "free_memory", lambda free=free: free)
        assert choose_blocks(voxel, FuseOptions()) == expected
    assert choose_blocks(voxel, FuseOptions(blocks=7)) == 7 and choose_blocks(None, FuseOptions()) == 1


def test_blocks_out_of_range_and_the_poisson_surface_in_blocks_are_refused() -> None:
    for wrong in ({"blocks": 0}, {"blocks": 4, "method": "poisson"}):
        with pytest.raises(InputError, match="blocks"):
            FuseOptions(**wrong)


def test_a_field_without_a_surface_is_an_error_in_blocks_too(estimates: list[Estimate]) -> None:
    with pytest.raises(EmptyResultError, match="no surface"):
        fuse_estimates(estimates[:2], FuseOptions(blocks=3, voxel=50.0, min_views=1), cloud=False)
