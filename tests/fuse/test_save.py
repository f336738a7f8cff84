"""Clouds and meshes on disk: round trips, other readers, unknown endings, and no half-written file."""

from __future__ import annotations

import errno
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from nasrecon.errors import InputError, NasReconError
from nasrecon.fuse.o3d import vertex_normals
from nasrecon.fuse.save import load_cloud, load_mesh, save_cloud, save_mesh
from nasrecon.types import Mesh, PointCloud


def make_cloud(count: int = 500, shift: float = 0.0) -> PointCloud:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(count, 3))
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    return PointCloud(
        xyz=rng.uniform(-2, 3, (count, 3)) + shift,
        normal=normal.astype(np.float32),
        rgb=rng.integers(0, 256, (count, 3)).astype(np.uint8),
        support=rng.integers(2, 300, count).astype(np.int32),
        sigma=rng.uniform(0.01, 0.2, count).astype(np.float32),
        unit="mm",
    )


def make_mesh(shift: float = 0.0) -> Mesh:
    """Return a tetrahedron whose corners are told apart by place and colour."""
    vertices = np.array([(0.0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3)]) + shift
    faces = np.array([(0, 2, 1), (0, 1, 3), (1, 2, 3), (0, 3, 2)], np.int32)
    rgb = np.array([(255, 0, 0), (0, 255, 1), (2, 3, 255), (200, 100, 50)], np.uint8)
    return Mesh(vertices=vertices, faces=faces, normal=vertex_normals(vertices, faces), rgb=rgb, unit="m")


@pytest.mark.parametrize("shift", [0.0, 4e6])
def test_a_cloud_comes_back(tmp_path: Path, shift: float) -> None:
    cloud = make_cloud(shift=shift)
    path = save_cloud(cloud, tmp_path / "deep" / "cloud.ply")
    back = load_cloud(path)
    # Near the origin 32 bits hold a ten-millionth; far from it 64 are written, or half a unit would be lost.
    np.testing.assert_allclose(back.xyz, cloud.xyz, atol=1e-6 if shift == 0 else 1e-9)
    for field in fields(cloud):
        if field.name != "xyz":
            np.testing.assert_array_equal(getattr(back, field.name), getattr(cloud, field.name))
    assert (b"property double x" in path.read_bytes()) == (shift != 0)


def test_an_empty_cloud_comes_back(tmp_path: Path) -> None:
    cloud = PointCloud(
        xyz=np.zeros((0, 3)), normal=np.zeros((0, 3)), rgb=np.zeros((0, 3), np.uint8), support=np.zeros(0)
    )
    assert len(load_cloud(save_cloud(cloud, tmp_path / "cloud.ply"))) == 0


@pytest.mark.parametrize("ending", ["las", "laz"])
@pytest.mark.parametrize("shift", [0.0, 4e6])
def test_las_and_laz_hold_the_cloud(tmp_path: Path, ending: str, shift: float) -> None:
    laspy = pytest.importorskip("laspy")
    cloud = make_cloud(shift=shift)
    file = laspy.read(save_cloud(cloud, tmp_path / f"cloud.{ending}"))
    np.testing.assert_allclose(np.stack([file.x, file.y, file.z], axis=-1), cloud.xyz, atol=0.5 / 16 + 1e-6)
    np.testing.assert_array_equal(np.stack([file.red, file.green, file.blue], axis=-1) // 257, cloud.rgb)
    for name, values in (("sigma", cloud.sigma), ("support", cloud.support), ("nz", cloud.normal[:, 2])):
        np.testing.assert_array_equal(file[name], values)


def test_a_huge_cloud_fits_into_las(tmp_path: Path) -> None:
    laspy = pytest.importorskip("laspy")
    cloud = replace(make_cloud(), xyz=make_cloud().xyz * 1e9)
    file = laspy.read(save_cloud(cloud, tmp_path / "cloud.las"))
    np.testing.assert_allclose(file.x, cloud.xyz[:, 0], atol=3)


def test_xyz_is_a_point_a_line(tmp_path: Path) -> None:
    cloud = make_cloud()
    read = np.loadtxt(save_cloud(cloud, tmp_path / "cloud.xyz"))
    np.testing.assert_allclose(read[:, :3], cloud.xyz, atol=1e-6)
    np.testing.assert_array_equal(read[:, 3:6], cloud.rgb)
    np.testing.assert_allclose(read[:, 6:], cloud.normal, atol=1e-4)


def test_other_programs_read_the_files(tmp_path: Path) -> None:
    import open3d
    import trimesh

    cloud, mesh = make_cloud(), make_mesh()
    read = open3d.t.io.read_point_cloud(str(save_cloud(cloud, tmp_path / "cloud.ply")))
    np.testing.assert_allclose(read.point.positions.numpy(), cloud.xyz, atol=1e-6)
    np.testing.assert_array_equal(read.point.colors.numpy(), cloud.rgb)
    np.testing.assert_array_equal(read.point.normals.numpy(), cloud.normal)
    np.testing.assert_array_equal(read.point["support"].numpy()[:, 0], cloud.support)
    legacy = open3d.io.read_triangle_mesh(str(save_mesh(mesh, tmp_path / "mesh.ply")))
    np.testing.assert_allclose(np.asarray(legacy.vertices), mesh.vertices)
    np.testing.assert_array_equal(np.asarray(legacy.triangles), mesh.faces)
    np.testing.assert_allclose(np.asarray(legacy.vertex_colors) * 255, mesh.rgb, atol=1e-6)
    np.testing.assert_allclose(np.asarray(legacy.vertex_normals), mesh.normal, atol=1e-6)
    assert trimesh.load(tmp_path / "mesh.ply", process=False).is_watertight


@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb", ".stl", ".PLY"])
def test_a_mesh_comes_back_unturned_with_colours(tmp_path: Path, ending: str) -> None:
    mesh = make_mesh()
    back = load_mesh(save_mesh(mesh, tmp_path / f"mesh{ending}"))
    # By corners of faces: STL has no shared vertices, and formats may order vertices as they like.
    np.testing.assert_allclose(back.vertices[back.faces], mesh.vertices[mesh.faces], atol=1e-6)
    if ending == ".stl":
        assert (back.rgb == back.rgb[0, 0]).all()
    else:
        assert len(back.vertices) == 4
        np.testing.assert_array_equal(back.rgb[back.faces], mesh.rgb[mesh.faces])
        np.testing.assert_allclose(back.normal[back.faces], mesh.normal[mesh.faces], atol=1e-6)
    assert back.unit == ("m" if ending.lower() == ".ply" else "unknown")


@pytest.mark.parametrize("ending", [".obj", ".glb"])
def test_normals_are_in_the_file(tmp_path: Path, ending: str) -> None:
    data = save_mesh(make_mesh(), tmp_path / f"mesh{ending}").read_bytes()
    assert (b"\nvn " if ending == ".obj" else b'"NORMAL"') in data


def test_a_mesh_far_from_the_origin_keeps_its_shape(tmp_path: Path) -> None:
    mesh = make_mesh(shift=5e6)
    for ending in (".ply", ".obj"):
        back = load_mesh(save_mesh(mesh, tmp_path / f"mesh{ending}"))
        np.testing.assert_allclose(back.vertices[back.faces], mesh.vertices[mesh.faces], atol=1e-7)


def test_unknown_endings_are_refused_with_those_that_are_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cloud.pcd: a cloud is written as \.ply, .*\.laz, found the ending '\.pcd'"):
        save_cloud(make_cloud(), tmp_path / "cloud.pcd")
    with pytest.raises(InputError, match=r"\.ply, \.obj, \.glb, \.stl, found the ending '\(none\)'"):
        save_mesh(make_mesh(), tmp_path / "mesh")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mesh.ply"
    path.write_bytes(b"old")

    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(NasReconError, match=r"mesh\.ply: cannot be written: the disk is full"):
        save_mesh(make_mesh(), path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_files_that_are_not_ours_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_cloud(tmp_path / "none.ply")
    with pytest.raises(InputError, match=r"no such file"):
        load_mesh(tmp_path / "none.ply")
    mesh = save_mesh(make_mesh(), tmp_path / "mesh.ply")
    with pytest.raises(InputError, match="lack support"):
        load_cloud(mesh)
    text = tmp_path / "text.ply"
    text.write_text("hello\n")
    for load in (load_cloud, load_mesh):
        with pytest.raises(InputError, match=r"text.ply"):
            load(text)
    short = save_cloud(make_cloud(), tmp_path / "short.ply")
    short.write_bytes(short.read_bytes()[:-100])
    with pytest.raises(InputError, match="cut off"):
        load_cloud(short)
    with pytest.raises(InputError, match="no triangle"):
        load_mesh(save_cloud(make_cloud(), tmp_path / "cloud.ply"))
