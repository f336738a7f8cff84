"""The texture atlas: every place of the mesh has the colour of the photographs, also in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from nasrecon.errors import InputError
from nasrecon.fuse.fusion import Fusion, fuse_estimates
from nasrecon.fuse.options import FuseOptions
from nasrecon.fuse.save import load_mesh, save_mesh
from nasrecon.types import Estimate, TexturedMesh

from .worlds import BALL, ROOM, colors, render, ring, small_camera

WORLD = (BALL, *ROOM)


@pytest.fixture(scope="module")
def estimates() -> list[Estimate]:
    return [render(WORLD, view) for view in ring(14, small_camera(200, 150, 160))]


@pytest.fixture(scope="module")
def fusion(estimates: list[Estimate]) -> Fusion:
    return fuse_estimates(estimates, FuseOptions(texture=1024, target_faces=6000), cloud=False, unit="m")


@pytest.fixture(scope="module")
def textured(fusion: Fusion) -> TexturedMesh:
    assert fusion.textured.image.shape == (1024, 1024, 3)
    return fusion.textured


def sampled(image: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Return the colours (n, 3) of an atlas at places (n, 2), as a renderer reads them: from the lower left corner."""
    x, y = uv[:, 0] * image.shape[1], (1 - uv[:, 1]) * image.shape[0]
    return image[y.astype(int).clip(0, image.shape[0] - 1), x.astype(int).clip(0, image.shape[1] - 1)]


def test_every_face_shows_the_colours_of_its_place(textured: TexturedMesh) -> None:
    mesh = textured.mesh
    assert textured.uv.min() >= 0 and textured.uv.max() <= 1
    for weights in ((1 / 3, 1 / 3, 1 / 3), (0.8, 0.1, 0.1), (0.1, 0.1, 0.8)):
        share = np.array(weights)[None, :, None]
        place = (textured.uv[mesh.faces] * share).sum(axis=1)
        off = np.abs(sampled(textured.image, place) - colors((mesh.vertices[mesh.faces] * share).sum(axis=1)))
        assert np.median(off) < 3
        assert np.quantile(off.max(axis=1), 0.9) < 25


def test_the_same_mesh_without_doubled_vertices(textured: TexturedMesh, fusion: Fusion) -> None:
    mesh = fusion.mesh
    np.testing.assert_array_equal(textured.mesh.vertices[textured.mesh.faces], mesh.vertices[mesh.faces])
    assert len(mesh.vertices) < len(textured.mesh.vertices) < 3 * len(mesh.faces)


@pytest.mark.parametrize("ending", ["glb", "obj"])
def test_other_programs_read_the_texture(textured: TexturedMesh, tmp_path: Path, ending: str) -> None:
    path = save_mesh(textured, tmp_path / "deep" / f"mesh.{ending}")
    read = trimesh.load(path, force="mesh", process=False)
    assert len(read.faces) == len(textured.mesh.faces)
    material = read.visual.material
    image = np.asarray(material.baseColorTexture if ending == "glb" else material.image)[..., :3]
    np.testing.assert_array_equal(image, textured.image)
    place = np.asarray(read.visual.uv)[np.asarray(read.faces)].mean(axis=1)
    off = np.abs(sampled(image, place) - colors(np.asarray(read.vertices)[np.asarray(read.faces)].mean(axis=1)))
    assert np.median(off) < 3
    ours = load_mesh(path)
    assert np.median(np.abs(ours.rgb - colors(ours.vertices))) < 6
    if ending == "obj":
        assert sorted(p.suffix for p in path.parent.iterdir()) == [".mtl", ".obj", ".png"]


def test_only_formats_with_textures_take_one(textured: TexturedMesh, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a textured mesh is written as \.glb, \.obj"):
        save_mesh(textured, tmp_path / "mesh.ply")


def test_a_small_atlas_scales_the_charts_down(estimates: list[Estimate]) -> None:
    small = fuse_estimates(estimates, FuseOptions(texture=512, target_faces=1500), cloud=False).textured
    place = small.uv[small.mesh.faces].mean(axis=1)
    off = np.abs(sampled(small.image, place) - colors(small.mesh.vertices[small.mesh.faces].mean(axis=1)))
    assert np.median(off) < 6


def test_an_atlas_too_small_for_the_charts_is_refused(estimates: list[Estimate]) -> None:
    with pytest.raises(InputError, match="ask for a larger --texture"):
        fuse_estimates(estimates, FuseOptions(texture=256, voxel=0.02), cloud=False)
