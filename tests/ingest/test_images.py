"""Reading, checking and resizing of image files."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from nasrecon.errors import InputError
from nasrecon.ingest.images import image_files, image_size, read_image, read_view
from nasrecon.types import Camera, ImageSource, View


def make_view(path, width: int, height: int) -> View:
    K = np.array([[50.0, 0, width * 0.4], [0, 52, height * 0.6], [0, 0, 1]])
    camera = Camera(width=width, height=height, K=K)
    return View(name="x", image=ImageSource(path=path), camera=camera, cam_from_world=np.eye(4))


def test_files_are_listed_sorted_with_subfolders(tmp_path) -> None:
    others = (".hidden.png", ".thumbs/a.png", "notes.txt", "z.png/x.txt")
    for name in ("b.JPG", "a.png", "left/2.tif", "left/10.webp", *others):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert image_files(tmp_path) == ("a.png", "b.JPG", "left/10.webp", "left/2.tif")
    assert image_files(str(tmp_path / "left")) == ("10.webp", "2.tif")


RGB = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image.fromarray(RGB), RGB),
        (Image.fromarray(RGB[..., 0]), np.repeat(RGB[..., :1], 3, axis=-1)),
        (Image.fromarray(np.dstack([RGB, np.full((6, 8), 7, np.uint8)])), RGB),
        (Image.fromarray(RGB[..., 0].astype(np.uint16) * 257), np.repeat(RGB[..., :1], 3, axis=-1)),
        (Image.fromarray(np.tile(np.arange(8, dtype=np.uint8), (6, 1))).convert("P"), None),
        (Image.fromarray(RGB[..., 0] > 127), np.repeat((RGB[..., :1] > 127).astype(np.uint8) * 255, 3, axis=-1)),
    ],
    ids=["rgb", "grey", "alpha", "grey 16 bits", "palette", "1 bit"],
)
def test_every_kind_of_png_becomes_rgb(image, expected, tmp_path) -> None:
    image.save(tmp_path / "x.png")
    found = read_image(tmp_path / "x.png")
    assert found.shape == (6, 8, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(image.convert("RGB")) if expected is None else expected)
    assert image_size(tmp_path / "x.png") == (8, 6)


@pytest.mark.parametrize(
    ("name", "image", "options", "within"),
    [
        ("x.jpg", Image.fromarray(RGB.repeat(8, 0).repeat(8, 1)), {"quality": 95, "subsampling": 0}, 12),
        ("grey.jpg", Image.fromarray(RGB[..., 0].repeat(8, 0).repeat(8, 1)), {"quality": 95}, 6),
        ("cmyk.jpg", Image.fromarray(RGB.repeat(8, 0).repeat(8, 1)).convert("CMYK"), {"quality": 95}, 12),
        ("x.tif", Image.fromarray(RGB), {}, 0),
        ("packed.tiff", Image.fromarray(RGB), {"compression": "tiff_lzw"}, 0),
        ("deep.tif", Image.fromarray(RGB[..., 0].astype(np.uint16) * 257), {}, 0),
        ("x.webp", Image.fromarray(RGB), {"lossless": True}, 0),
        ("alpha.webp", Image.fromarray(np.dstack([RGB, np.full((6, 8), 200, np.uint8)])), {"lossless": True}, 0),
        ("x.bmp", Image.fromarray(RGB), {}, 0),
    ],
)
def test_every_kind_of_file_becomes_rgb(name, image, options, within, tmp_path) -> None:
    image.save(tmp_path / name, **options)
    found = read_image(tmp_path / name)
    height, width = found.shape[:2]
    small = found.reshape(6, height // 6, 8, width // 8, 3).mean(axis=(1, 3))
    grey = image.mode in ("L", "I;16")
    assert np.abs(small - (np.repeat(RGB[..., :1], 3, axis=-1) if grey else RGB)).max() <= within
    assert image_size(tmp_path / name) == (width, height)


def write_16_bit_png(path, values: np.ndarray) -> None:
    """Write (H, W, C) uint16, C 2 to 4 (grey and alpha, rgb, rgb and alpha), which Pillow does not write."""
    height, width, channels = values.shape

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_png_with_colours_and_alpha(channels, tmp_path) -> None:
    deep = np.dstack([RGB.astype(np.uint16) * 257, np.full((6, 8), 30000, np.uint16)])
    write_16_bit_png(tmp_path / "x.png", deep[..., [0, 3]] if channels == 2 else deep[..., :channels])
    expected = np.repeat(RGB[..., :1], 3, axis=-1) if channels == 2 else RGB
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), expected)


def test_floating_point_pixels_are_refused(tmp_path) -> None:
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(InputError, match=r"x.tif: pixels are float32; expected 8 or 16 bits"):
        read_image(tmp_path / "x.tif")


def test_exif_orientation_is_ignored(tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees to show"
    Image.fromarray(RGB).save(tmp_path / "x.jpg", exif=exif)
    assert read_image(tmp_path / "x.jpg").shape == (6, 8, 3)
    assert image_size(tmp_path / "x.jpg") == (8, 6)


def test_unreadable_files_are_named(tmp_path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"x.jpg: cannot be read as an image"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(InputError, match=r"y.jpg: no such file"):
        read_view(make_view(tmp_path / "y.jpg", 8, 6))
    Image.fromarray(RGB.repeat(20, 0).repeat(20, 1)).save(tmp_path / "z.jpg")
    data = (tmp_path / "z.jpg").read_bytes()
    (tmp_path / "z.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"z.jpg: cannot be read as an image"):
        read_image(tmp_path / "z.jpg")


def test_an_image_of_another_size_than_its_camera_is_refused(tmp_path) -> None:
    Image.fromarray(RGB).save(tmp_path / "x.png")
    with pytest.raises(InputError, match=r"x.png: the image is 8x6, .*made for 16x12.*another image size\?"):
        read_view(make_view(tmp_path / "x.png", 16, 12))


def test_reading_without_a_size_changes_nothing(tmp_path) -> None:
    Image.fromarray(RGB).save(tmp_path / "x.png")
    view = make_view(tmp_path / "x.png", 8, 6)
    rgb, read = read_view(view)
    np.testing.assert_array_equal(rgb, RGB)
    assert read.camera is view.camera


@pytest.mark.parametrize("size", [(50, 30), (33, 17), (150, 90), (100, None), (None, 20)])
def test_image_and_camera_are_resized_together(size, tmp_path) -> None:
    """The image shows its own pixel coordinates; after any resize it must still show what the camera says."""
    width, height = 100, 60
    ramp = np.zeros((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.round(2 * (np.arange(width) + 0.5))
    ramp[..., 1] = np.round(2 * (np.arange(height) + 0.5))[:, None]
    Image.fromarray(ramp).save(tmp_path / "x.png")
    view = make_view(tmp_path / "x.png", width, height)
    rgb, small = read_view(view, *size)
    wanted = {(100, None): (100, 60), (None, 20): (33, 20)}.get(size, size)
    assert (small.camera.width, small.camera.height) == wanted == (rgb.shape[1], rgb.shape[0])
    rays = small.camera.unproject(small.camera.pixel_centers(), np.ones(rgb.shape[:2]))
    at = view.camera.project(rays)
    inner = slice(3, -3), slice(3, -3)  # resampling repeats the border
    off = (rgb[..., :2] / 2 - at)[inner]
    assert np.abs(off).max() < 0.6  # grey levels are half a pixel apart
    assert np.abs(off.mean(axis=(0, 1))).max() < 0.02  # a convention off by a half would show at once


def test_shrinking_is_antialiased(tmp_path) -> None:
    checkers = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checkers).save(tmp_path / "x.png")
    rgb, _ = read_view(make_view(tmp_path / "x.png", 64, 64), 13, 13)
    assert np.abs(rgb.astype(int) - 127).max() < 40
