"""Image files and frames of videos: list, read, undistort, and resize together with the camera."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError, in_words
from nasrecon.ingest import video
from nasrecon.ingest.exif import turn_array, turn_size
from nasrecon.types import ImageSource, View

ENDINGS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".heic", ".heif", ".avif")
HEIC = (".heic", ".heif", ".avif")
"""Endings that may need a plugin of Pillow (``nasrecon[heic]``); it is imported where such a file is opened."""

BESIDE_IMAGES = (
    *(".txt", ".json", ".bin", ".camera", ".log", ".xml", ".csv", ".yaml", ".yml", ".md", ".db", ".html"),
    *(".npy", ".npz", ".pfm", ".exr", ".ply", ".obj", ".mtl", ".glb"),
)
"""Endings of files that stand beside images: cameras, points, depths, notes."""

# What Pillow calls pixels of more than 8 bits; turning these to RGB through Pillow clips them.
DEEP_MODES = ("I;16", "I;16B", "I;16L", "I", "F")


def image_files(folder: Path | str) -> tuple[str, ...]:
    """List the image files under a folder, subfolders too: sorted names relative to it, with forward slashes.

    Hidden files and folders (names that begin with a dot) are left out.
    """
    folder = Path(folder)
    names = (
        path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()
    )
    return tuple(sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts)))


def direct_images(folder: Path) -> tuple[str, ...]:
    """List the image files of a folder, without its subfolders: sorted names."""
    paths = (path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    return tuple(sorted(path.name for path in paths if not path.name.startswith(".")))


def unread_endings(folder: Path, results: Path | None = None) -> dict[str, int]:
    """Count the files under a folder, by ending, that no reader takes: raw photographs, videos among images ...

    Files that may belong to cameras, points or depths are not counted, nor are hidden ones, nor those of the folder
    ``results``.
    """
    counts: Counter[str] = Counter()
    output = None if results is None else results.resolve()
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if output is not None and output in path.resolve().parents:
            continue
        if not hidden and path.suffix.lower() not in (*ENDINGS, *BESIDE_IMAGES) and path.is_file():
            counts[path.suffix.lower() or "without an ending"] += 1
    return dict(sorted(counts.items()))


class UnreadableImageError(InputError):
    """Report an image file that is missing or cannot be read; the rest of its set goes on without it."""


def pictures(source: Path) -> dict[str, ImageSource]:
    """List the images under a folder, by their names, or the frames of a video ("000012"), by their numbers.

    Raises:
        InputError: if a video cannot be read.
    """
    if source.is_dir():
        return {name: ImageSource(path=source / name) for name in image_files(source)}
    count = video.frame_count(source)
    return {f"{i:06d}": ImageSource(path=source, video_frame=i) for i in range(count)}


def image_mode(path: Path) -> str:
    """Return Pillow's name of the pixels of an image file ("RGB", "L", "I;16" ...), from its header.

    Raises:
        InputError: if the file cannot be read as an image.
    """
    from PIL import Image

    _register_heic(path)
    try:
        with Image.open(path) as image:
            return image.mode
    except Exception as error:
        raise _unreadable(path, error) from error


def image_size(path: Path) -> tuple[int, int]:
    """Return (width, height) [px] of an image file as stored (EXIF orientation ignored), or of a video, from its
    header.

    Raises:
        InputError: if the file cannot be read as an image or a video.
    """
    from PIL import Image

    if video.is_video(path):
        return video.frame_size(path)
    _register_heic(path)
    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:
        raise _unreadable(path, error) from error


def view_size(view: View) -> tuple[int, int]:
    """Return (width, height) [px] of a view's image as it is read: turned by EXIF where the view is, not undistorted.

    Raises:
        InputError: as ``image_size``.
    """
    size = image_size(view.image.path)
    return turn_size(size, view.image.orientation) if view.image.is_turned else size


def _register_heic(path: Path) -> None:
    """Let Pillow open HEIC and AVIF files.

    Raises:
        UnreadableImageError: if what it needs is not installed.
    """
    from PIL import features

    ending = path.suffix.lower()
    if ending not in HEIC or (ending == ".avif" and features.check("avif")) or not path.is_file():
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise UnreadableImageError(
            f"{path}: reading {ending} needs pillow-heif, which is not installed: pip install pillow-heif"
        ) from error
    pillow_heif.register_heif_opener()
    register_avif = getattr(pillow_heif, "register_avif_opener", None)  # older and newer versions have none
    if register_avif is not None:
        register_avif()


def image_exif(path: Path) -> Any:
    """Return the EXIF data of an image file, as Pillow's ``Exif``; empty where there is none.

    Raises:
        InputError: if the file cannot be read as an image.
    """
    from PIL import Image

    _register_heic(path)
    try:
        with Image.open(path) as image:
            return image.getexif()
    except Exception as error:
        raise _unreadable(path, error) from error


def read_image(path: Path, video_frame: int | None = None, *, orientation: int = 1) -> np.ndarray:
    """Read an image file, or a frame (from 0) of a video, as rgb (H, W, 3) uint8.

    Grey is repeated, alpha dropped, 16 bits become 8. The pixels are those stored, as for COLMAP, turned by the EXIF
    ``orientation`` that is given.

    Raises:
        InputError: if the file is missing or cannot be read as an image.
    """
    import imageio.v3 as iio

    if video_frame is not None:
        return video.read_frame(path, video_frame)

    deep = image_mode(path) in DEEP_MODES
    try:
        stored = iio.imread(path, plugin="pillow", index=0, **({} if deep else {"mode": "RGB"}))
    except Exception as error:
        raise _unreadable(path, error) from error
    return turn_array(_eight_bit(stored, path) if deep else np.ascontiguousarray(stored), orientation)


def _eight_bit(stored: np.ndarray, path: Path) -> np.ndarray:
    """Turn the grey values (H, W) that Pillow hands out for deeper images into rgb (H, W, 3) uint8."""
    if np.issubdtype(stored.dtype, np.integer) and stored.min() >= 0 and stored.max() <= 65535:
        stored = np.round(stored / 257.0).astype(np.uint8)  # 16-bit grey comes as uint16 or int32
    else:
        raise InputError(
            f"{path}: pixels are {stored.dtype}; expected 8 or 16 bits. Convert the images to one of these."
        )
    return np.repeat(stored[..., None], 3, axis=-1)


def _unreadable(path: Path, error: Exception) -> UnreadableImageError:
    """Return the error for whatever a decoder raised; over damaged bytes Pillow raises almost anything."""
    from PIL import Image

    if isinstance(error, Image.DecompressionBombError):
        pixels = re.search(r"\d+", str(error))
        return UnreadableImageError(
            f"{path}: cannot be read as an image: its {pixels[0] if pixels else 'many'} pixels are above the decoder's "
            f"limit of {2 * (Image.MAX_IMAGE_PIXELS or 0)}; shrink the image (and its camera)"
        )
    what = "cannot be read as an image" if path.is_file() else "no such file"
    return UnreadableImageError(f"{path}: {what} ({in_words(error)})")


def read_view(view: View, width: int | None = None, height: int | None = None) -> tuple[np.ndarray, View]:
    """Read a view's image, undistort it if its lens asks for that, and resize image and camera together.

    Args:
        view: as ``open_scene`` made it (its camera at the full size of the undistorted image).
        width, height: the size wanted [px]; one alone keeps the aspect ratio, none keeps the size. Shrinking is
            antialiased.

    Returns:
        rgb (H, W, 3) uint8, and the view with its camera at that size.

    Raises:
        InputError: if the file is missing, or its size is not the one that its camera is made for.
    """
    source = view.image
    rgb = read_image(source.path, source.video_frame, orientation=source.orientation if source.is_turned else 1)
    expected = source.lens or view.camera
    size = rgb.shape[1], rgb.shape[0]
    if size != (expected.width, expected.height):
        raise InputError(
            f"{view.image.path}: the image is {size[0]}x{size[1]}, its camera is made for "
            f"{expected.width}x{expected.height} (width x height). Does K belong to another image size? "
            "Use the images that the cameras were calibrated on, or scale K to these."
        )
    if view.image.lens is not None:
        from nasrecon.ingest.undistort import undistort

        rgb = undistort(rgb, view.image.lens)
        if rgb.shape[:2] != (view.camera.height, view.camera.width):
            raise InputError(
                f"{view.name}: undistorted it is {rgb.shape[1]}x{rgb.shape[0]}, its camera is "
                f"{view.camera.width}x{view.camera.height}; pass the view as open_scene made it, not a resized one"
            )
    return resize_view(rgb, view, width, height)


def resize_view(rgb: np.ndarray, view: View, width: int | None, height: int | None) -> tuple[np.ndarray, View]:
    """Resize rgb (H, W, 3) and the view's camera; Pillow samples by pixel areas, which is the half-pixel convention."""
    camera = view.camera
    if width is None and height is None:
        return rgb, view
    if width is None:
        width = max(1, round((height or camera.height) * camera.width / camera.height))
    height = height or max(1, round(width * camera.height / camera.width))
    if (width, height) == (camera.width, camera.height):
        return rgb, view
    from PIL import Image

    small = np.asarray(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
    return small, replace(view, camera=camera.resized(width, height))
