"""Masks: which file is whose, and that they follow their images through every undistortion and resize."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nasrecon.errors import InputError
from nasrecon.ingest.images import read_view
from nasrecon.ingest.masks import read_mask, with_masks
from nasrecon.ingest.open_scene import open_scene
from nasrecon.ingest.undistort import pinhole_camera
from nasrecon.types import Camera, ImageSource, Lens, SceneOrigin, View

from . import worlds

NAMES = ("left/0.png", "left/1.png", "right/0.png", "right/2.png")


def named_scene():
    base = worlds.small_scene(4)
    return replace(
        base,
        views=[replace(v, name=n) for v, n in zip(base.views, NAMES, strict=True)],
        origin=SceneOrigin(notes=("a set",)),
    )


def put(folder: Path, *files: str, size=(24, 18)) -> Path:
    for file in files:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size, 255).save(path)
    return folder


def found(scene, folder) -> list[str | None]:
    paths = [view.image.mask_path for view in with_masks(scene, folder).views]
    return [None if path is None else path.relative_to(folder).as_posix() for path in paths]


def test_masks_are_found_by_every_usual_name(tmp_path) -> None:
    files = ["left/0.png", "left/1.png.png", "right/0.tif", "2.bmp"]
    assert found(named_scene(), put(tmp_path, *files)) == files


def test_a_file_name_that_two_views_share_needs_its_subfolder(tmp_path) -> None:
    assert found(named_scene(), put(tmp_path, "0.png", "1.png.png")) == [None, "1.png.png", None, None]


def test_views_without_a_mask_and_masks_without_a_view_are_said(tmp_path) -> None:
    scene = with_masks(named_scene(), put(tmp_path / "masks", "left/0.png", "right/2.png", "up/7.png"))
    assert scene.origin.notes == (
        "a set",
        "masks of 2 of 4 views (masks), none for left/1.png, right/0.png: these are used whole; no view for up/7.png",
    )
    with pytest.raises(InputError, match=r"left/0.png has several masks, left/0.png, left/0.png.png; keep one"):
        with_masks(named_scene(), put(tmp_path / "masks", "left/0.png.png"))
    with pytest.raises(
        InputError, match=r"no mask for any of the 4 views: its images are 9.png; the views are left/0.png"
    ):
        with_masks(named_scene(), put(tmp_path / "other", "9.png"))


def test_a_mask_of_another_size_is_refused_when_the_set_is_opened(tmp_path) -> None:
    worlds.write_colmap(worlds.small_scene(), tmp_path)
    masks = put(tmp_path / "masks", "0000.png", "0003.png.png")
    scene = open_scene(tmp_path / "images", tmp_path / "sparse", masks=masks)
    assert [view.image.mask_path is not None for view in scene.views] == [True, False, False, True, False]
    put(masks, "0001.png", size=(12, 9))
    with pytest.raises(InputError, match=r"0001.png: the mask is 12x9, its image 0001.png is 24x18"):
        open_scene(tmp_path / "images", tmp_path / "sparse", masks=masks)
    with pytest.raises(InputError, match=r"no such file or folder .masks"):
        open_scene(tmp_path / "images", tmp_path / "sparse", masks=tmp_path / "nowhere")


PATTERN = np.random.default_rng(1).random((18, 24)) > 0.4


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("1 bit.png", Image.fromarray(PATTERN)),
        ("grey.png", Image.fromarray(PATTERN.astype(np.uint8) * 3)),
        ("16 bit.png", Image.fromarray(PATTERN.astype(np.uint16) * 300)),
        ("rgb.png", Image.fromarray(np.stack([np.zeros((18, 24)), PATTERN, PATTERN * 0.0], -1).astype(np.uint8))),
        ("palette.png", Image.fromarray(PATTERN.astype(np.uint8) * 255).convert("RGB").quantize(4)),
        ("alpha.png", Image.merge("LA", [Image.fromarray(PATTERN.astype(np.uint8)), Image.new("L", (24, 18), 255)])),
        ("float.tif", Image.fromarray(PATTERN.astype(np.float32) * 0.25)),
        ("grey.webp", Image.fromarray(PATTERN.astype(np.uint8) * 255)),
        ("big blocks.jpg", Image.fromarray(PATTERN[::3, ::4].repeat(3, 0).repeat(4, 1).astype(np.uint8) * 255)),
    ],
)
def test_nonzero_is_kept_in_every_kind_of_image(name, image, tmp_path) -> None:
    image.save(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    expected = PATTERN[::3, ::4].repeat(3, 0).repeat(4, 1) if name.endswith("jpg") else PATTERN
    view = worlds.small_scene(1).views[0].with_image(mask_path=tmp_path / name)
    np.testing.assert_array_equal(read_mask(view), expected)


@pytest.mark.parametrize("size", [(80, 60), (67, 41), (320, 240)])
@pytest.mark.parametrize(
    "lens", [None, Lens(model="OPENCV", width=160, height=120, params=(130.0, 131, 81, 59, -0.2, 0.04, 0, 0))]
)
def test_a_mask_covers_what_it_covered_in_the_file(size, lens, tmp_path) -> None:
    """Image and mask are made from one pattern; after undistortion and any resize they still show the same."""
    rows, columns = np.mgrid[:120, :160]
    keep = np.hypot(columns - 70, rows - 66) > 40
    Image.fromarray(np.repeat((keep * np.uint8(255))[..., None], 3, axis=-1)).save(tmp_path / "x.png")
    Image.fromarray(keep.astype(np.uint8)).save(tmp_path / "m.png")
    camera = pinhole_camera(lens) if lens else Camera(width=160, height=120, K=np.diag([130.0, 130, 1]))
    files = {"path": tmp_path / "x.png", "mask_path": tmp_path / "m.png"}
    view = View(name="x", camera=camera, cam_from_world=np.eye(4), image=ImageSource(lens=lens, **files))
    rgb, resized = read_view(view, *size)
    mask = read_mask(resized)
    assert mask.shape == size[::-1]
    sure = (rgb[..., 0] < 40) | (rgb[..., 0] > 215)  # the edge of the disc is grey in the image
    assert sure.mean() > 0.9 and 0.5 < mask.mean() < 0.9
    np.testing.assert_array_equal(mask[sure], rgb[..., 0][sure] > 127)


def test_a_view_without_a_mask_has_none_and_a_broken_one_is_named(tmp_path) -> None:
    view = worlds.small_scene(1).views[0]
    assert read_mask(view) is None
    (tmp_path / "m.png").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"m.png: cannot be read as a mask"):
        read_mask(view.with_image(mask_path=tmp_path / "m.png"))
