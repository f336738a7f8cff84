"""Photographs that state which way up they are: read as stored, or turned, as their cameras need it; HEIC and AVIF."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps

from nasrecon.errors import InputError
from nasrecon.ingest.exif import read_orientation, turn_array
from nasrecon.ingest.images import image_size, read_image, read_view, unread_endings, view_size
from nasrecon.ingest.open_scene import open_scene
from nasrecon.ingest.orientation import is_of_turned_images, with_orientations
from nasrecon.results.digest import scene_digest
from nasrecon.types import Camera, ImageSource, Scene, View

QUADRANTS = np.zeros((40, 60, 3), np.uint8)
QUADRANTS[:20, :30], QUADRANTS[:20, 30:], QUADRANTS[20:, :30] = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def write(path, orientation: int, pixels=QUADRANTS) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(path, exif=exif.tobytes(), quality=95)


def view_of(path, width: int, height: int) -> View:
    K = np.array([[50.0, 0, width / 2], [0, 50, height / 2], [0, 0, 1]])
    camera = Camera(width=width, height=height, K=K)
    return View(name=path.name, image=ImageSource(path=path), camera=camera, cam_from_world=np.eye(4))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_turned_as_pillow_turns_it(orientation, tmp_path) -> None:
    write(tmp_path / "x.jpg", orientation)
    assert read_orientation(tmp_path / "x.jpg") == orientation
    with Image.open(tmp_path / "x.jpg") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(tmp_path / "x.jpg", orientation=orientation), expected)
    np.testing.assert_array_equal(turn_array(read_image(tmp_path / "x.jpg"), orientation), expected)
    assert read_image(tmp_path / "x.jpg").shape == QUADRANTS.shape  # as stored, where nobody asks


@pytest.mark.parametrize(
    ("size", "turn_all", "is_turned"),
    [((60, 40), False, False), ((40, 60), False, True), ((60, 40), True, True), ((30, 20), False, False)],
    ids=["camera of the stored pixels", "camera of the turned image", "turned for all", "another size"],
)
def test_the_size_of_the_camera_decides(size, turn_all, is_turned, tmp_path) -> None:
    write(tmp_path / "x.jpg", 6)
    scene = Scene(root=tmp_path, views=(view_of(tmp_path / "x.jpg", *size),))
    found = with_orientations(scene, turn_all=turn_all)
    assert (found.views[0].image.orientation, found.views[0].image.is_turned) == (6, is_turned)
    assert any("1 image is turned upright" in note for note in found.origin.notes) is is_turned
    assert any("as stored" in note for note in found.origin.notes) is not is_turned
    assert (scene_digest(found) == scene_digest(scene)) is not is_turned
    assert view_size(found.views[0]) == ((40, 60) if is_turned else (60, 40))
    if size == (40, 60):
        rgb, _ = read_view(found.views[0])
        assert rgb.shape == (60, 40, 3)
        assert rgb[10, 35].argmax() == 0 and rgb[10, 5].argmax() == 2  # stored red top left is top right when upright


def test_a_model_of_turned_images_is_recognised(tmp_path) -> None:
    model = tmp_path / "sfm" / "sparse" / "0"
    model.mkdir(parents=True)
    assert not is_of_turned_images(model)
    for content, expected in (("{", False), ("{}", False), (json.dumps({"turned_by_exif": True}), True)):
        (tmp_path / "sfm" / "made_from.json").write_text(content)
        assert is_of_turned_images(model) is expected


def test_given_cameras_of_stored_pixels_stay(tmp_path) -> None:
    for i in range(2):
        write(tmp_path / f"{i}.jpg", 8)
        (tmp_path / f"{i}.txt").write_text("\n".join(" ".join(map(str, row)) for row in np.eye(4)))
    (tmp_path / "K.txt").write_text("50 50 30 20")
    scene = open_scene(tmp_path, convention="cam-from-world")
    assert [(view.image.orientation, view.image.is_turned) for view in scene.views] == [(8, False)] * 2
    assert sum("EXIF orientation of 2 images not followed" in note for note in scene.origin.notes) == 1
    assert read_view(scene.views[0])[0].shape == (40, 60, 3)


@pytest.mark.parametrize("ending", ["heic", "heif", "avif"])
def test_photographs_of_phones_are_read(ending, tmp_path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    pillow_heif.register_heif_opener()
    path = tmp_path / f"Küche 1.{ending.upper()}"
    write(tmp_path / f"x.{ending}", 6)
    (tmp_path / f"x.{ending}").rename(path)
    orientation = read_orientation(path)
    rgb = read_image(path, orientation=orientation)
    assert rgb.shape == (60, 40, 3) and rgb[10, 35].argmax() == 0 and rgb[10, 5].argmax() == 2
    assert image_size(path) == ((60, 40) if orientation == 6 else (40, 60))


def test_heic_without_its_reader_is_named_with_what_to_do(tmp_path, monkeypatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(InputError, match=r"a.heic: reading .heic needs pillow-heif.*pip install pillow-heif"):
        image_size(tmp_path / "a.heic")
    with pytest.raises(InputError, match="pip install pillow-heif"):
        read_view(view_of(tmp_path / "a.heic", 60, 40))


def test_files_that_no_reader_takes_are_counted(tmp_path) -> None:
    for name in ("a.DNG", "sub/b.dng", "clip.mp4", "poses.txt", "x.jpg", "y.heic", ".hidden.raw", "README"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert unread_endings(tmp_path) == {".dng": 2, ".mp4": 1, "without an ending": 1}
    assert unread_endings(tmp_path, tmp_path / "sub") == {".dng": 1, ".mp4": 1, "without an ending": 1}  # as results
