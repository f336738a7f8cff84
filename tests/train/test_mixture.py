"""Training data from own posed images, alone and mixed with worlds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from plane_world import plane_depth, write_scene

from nasrecon.errors import InputError
from nasrecon.nas.volume import pixel_rays, plane_sample_grid, sample_on_planes
from nasrecon.train.datasets import BatchOptions, TrainingBatch
from nasrecon.train.mixture import read_mixture
from nasrecon.train.world_files import WorldOptions, render_worlds

EXACT = BatchOptions(pixels=2 * 64 * 48, pose_error=0.0, bad_poses=0.0, blurred=0.0, min_depth_low=1.0)
POSED = """
[[set]]
images = "scene/images"
poses = "scene/poses"
intrinsics = "scene/K.txt"
convention = "cam-from-world"
width = 64
height = 48
weight = 3
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a posed set, exact depth maps beside its images, and sets.toml."""
    images, _, _, views = write_scene(tmp_path / "scene", count=6)
    for view in views:
        np.save(images / f"{Path(view.name).stem}.npy", plane_depth(view).astype(np.float32))
    (tmp_path / "sets.toml").write_text(POSED)
    return tmp_path


def test_windows_of_frames_carry_consistent_geometry(folder: Path) -> None:
    """Depth, normals and K of an enlarged, cut and mirrored window are those of the plane; sources match at it."""
    data = read_mixture(folder / "sets.toml", EXACT)
    for seed in range(6):
        batch = data.draw(seed)
        s = batch.stereo
        assert batch.depth.shape == (2, 48, 64)
        points = pixel_rays(s.ref_K, 48, 64).view(2, 3, 48, 64) * batch.depth[:, None]
        inner = (..., slice(6, -6), slice(6, -6))
        off_plane = (points * batch.normal).sum(dim=1)[inner].flatten(1)
        assert (off_plane.std(dim=1) < 0.01 * batch.depth.flatten(1).mean(dim=1)).all()
        inv_depth = (1 / batch.depth).flatten(1)[:, None]
        grid, inside = plane_sample_grid(s.ref_K, s.src_K[:, 0], s.src_from_ref[:, 0], inv_depth, (48, 64))
        warped = sample_on_planes(s.src_images[:, 0], grid)[:, :, 0].mean(dim=1)
        for a, b, m in zip(s.ref_image.mean(dim=1), warped, inside[:, 0], strict=True):
            assert torch.corrcoef(torch.stack([a[m], b[m]]))[0, 1] > 0.8


def test_without_augmentation_a_frame_is_the_same_in_all_batches(folder: Path) -> None:
    plain = replace(EXACT, pixels=64 * 48, augment=False)
    drawn = [read_mixture(folder / "sets.toml", plain).draw(seed) for seed in range(12)]
    kinds: dict[float, list[TrainingBatch]] = {}
    for batch in drawn:
        kinds.setdefault(float(batch.stereo.ref_image.sum()), []).append(batch)
    assert 1 < len(kinds) <= 6
    assert any(len(same) > 1 for same in kinds.values())
    for first, *others in kinds.values():
        assert first.stereo.src_images.shape[1] == plain.sources
        for other in others:
            assert torch.equal(first.stereo.src_images, other.stereo.src_images)
            assert torch.equal(first.stereo.src_from_ref, other.stereo.src_from_ref)
            assert torch.equal(first.depth, other.depth)


def test_the_same_seed_gives_the_same_batch(folder: Path) -> None:
    first, again = (read_mixture(folder / "sets.toml", BatchOptions(pixels=64 * 48)).draw(3) for _ in range(2))
    assert torch.equal(first.stereo.ref_image, again.stereo.ref_image) and torch.equal(first.depth, again.depth)


def test_frames_that_cannot_be_used_are_left_out_and_counted(folder: Path) -> None:
    images = folder / "scene" / "images"
    (images / "0001.npy").unlink()
    np.save(images / "0002.npy", np.zeros((64, 96), np.float32))
    (images / "0003.npy").write_bytes(b"nothing")
    data = read_mixture(folder / "sets.toml", EXACT)
    for seed in range(25):
        assert (data.draw(seed).depth > 0).any()
    (line,) = data.summaries()
    assert "6 frames" in line
    for reason in ("without a depth map", "less than 10%", "cannot be read"):
        assert f"1 with {reason}" in line or f"1 {reason}" in line or reason in line


def test_sets_are_mixed_by_weight(folder: Path) -> None:
    render_worlds(
        folder / "worlds", 1, 3, WorldOptions(width=80, height=64, views=2, worlds_per_file=2, drawn_textures=6)
    )
    (folder / "sets.toml").write_text(POSED + '[[set]]\nworlds = "worlds"\n')
    data = read_mixture(folder / "sets.toml", EXACT)
    wide = [data.draw(seed).depth.shape[-1] for seed in range(40)]
    assert 22 <= wide.count(64) <= 38 and wide.count(80) == 40 - wide.count(64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[set]]\nimages = 3", "set 1: images must be a text"),
        ("[[set]]\nweight = 1", "expected worlds or images"),
        ('[[set]]\nworlds = "none"', "set 1: .*expected rendered worlds"),
        ('[[set]]\nworlds = "none"\nposes = "x"', "found worlds, poses"),
        (POSED + "every = 0", "every must be a whole number of at least 1"),
        (POSED + "every = 6", "expected at least two frames, found 1 of 6"),
        (POSED.replace("weight = 3", "weight = -1"), "weight must be a positive number"),
        (POSED.replace("width = 64", "width = 70"), "multiples of 16"),
        ("set = 1", "expected \\[\\[set\\]\\]"),
        ("[[set]", "cannot be read as a TOML file"),
    ],
)
def test_wrong_files_name_the_set_and_what_is_expected(folder: Path, text: str, says: str) -> None:
    (folder / "sets.toml").write_text(text)
    with pytest.raises(InputError, match=says):
        read_mixture(folder / "sets.toml", EXACT)


def test_a_scene_without_depth_maps_is_refused(folder: Path) -> None:
    for path in (folder / "scene" / "images").glob("*.npy"):
        path.unlink()
    with pytest.raises(InputError, match="expected depth maps beside the images"):
        read_mixture(folder / "sets.toml", EXACT)
