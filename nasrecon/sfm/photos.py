"""The photographs that structure from motion takes: which files, whose camera, and how COLMAP gets to read them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nasrecon.errors import InputError
from nasrecon.ingest.exif import TAG, read_orientation, turn_size
from nasrecon.ingest.images import HEIC, direct_images, image_exif, image_files, image_size, read_image
from nasrecon.ingest.text import read_intrinsics
from nasrecon.sfm.database import CameraGroup
from nasrecon.sfm.kept_model import pinhole_params

_JPEG: dict[str, Any] = {"quality": 97, "subsampling": 0}


@dataclass(frozen=True, kw_only=True)
class SfmPhoto:
    """A photograph.

    Attributes:
        name: relative to the folder of all.
        path: the file.
        size: (width, height) [px] of the upright image.
        orientation: EXIF orientation of the file.
    """

    name: str
    path: Path
    size: tuple[int, int]
    orientation: int


def find_photos(images: Path, results: Path) -> tuple[Path, list[str]]:
    """Return the folder that names start from, and the images in it; those of the folder ``results`` are left out.

    Raises:
        InputError: if there is no such folder.
    """
    inside = images / "images"
    if not images.is_dir():
        raise InputError(f"{images}: no such folder (images)")
    root = inside if inside.is_dir() and not direct_images(images) else images
    output = results.resolve()
    names = direct_images(root) or image_files(root)
    is_output = output == root.resolve() or output in root.resolve().parents
    return root, [name for name in names if is_output or output not in (root / name).resolve().parents]


def passed_over(root: Path, names: Sequence[str], results: Path) -> dict[str, int]:
    """Count the images below a folder that are not among ``names``, by subfolder; not those of the folder ``results``.

    Photographs of a folder that has some of its own are not mixed with those of its subfolders.
    """
    output, taken = results.resolve(), set(names)
    others = [name for name in image_files(root) if name not in taken]
    counts = Counter(name.partition("/")[0] for name in others if output not in (root / name).resolve().parents)
    return dict(sorted(counts.items()))


def read_headers(root: Path, names: Sequence[str]) -> tuple[list[SfmPhoto], list[tuple[str, str]]]:
    """Return the photographs, and (name, reason) of the files that cannot be read."""
    photos, dropped = [], []
    for name in names:
        path = root / name
        try:
            stored = image_size(path)
        except InputError as error:
            dropped.append((name, str(error)))
            continue
        orientation = read_orientation(path)
        photos.append(SfmPhoto(name=name, path=path, size=turn_size(stored, orientation), orientation=orientation))
    return photos, dropped


def shared_cameras(photos: Sequence[SfmPhoto]) -> list[CameraGroup]:
    """Give the photographs of one size and one focal length in their EXIF data one camera."""
    groups: dict[Any, list[int]] = {}
    for i, photo in enumerate(photos):
        groups.setdefault((photo.size, _exif_focal(photo.path)), []).append(i)
    return [CameraGroup(members=tuple(members)) for members in groups.values()]


def known_camera(intrinsics: Path, photos: Sequence[SfmPhoto]) -> list[CameraGroup]:
    """Give all photographs the camera of a file with K.

    Raises:
        InputError: if they have several sizes, or K has skew.
    """
    sizes = {photo.size for photo in photos}
    if len(sizes) > 1:
        raise InputError(f"{intrinsics}: one K, but the images have several sizes: {sorted(sizes)}")
    camera = read_intrinsics(intrinsics).camera(photos[0].size, first_center=0.5)
    params = pinhole_params(camera.K, intrinsics)
    return [CameraGroup(members=tuple(range(len(photos))), model="PINHOLE", params=params)]


def stage(photos: Sequence[SfmPhoto], folder: Path) -> list[str]:
    """Put photographs into a folder for COLMAP; return their names there, in order.

    They are linked (or, where links are refused, copied); those that are not upright, or of a format that COLMAP does
    not read, are written as upright JPEG files.
    """
    folder.mkdir(parents=True)
    names = []
    for i, photo in enumerate(photos):
        is_written = photo.orientation != 1 or photo.path.suffix.lower() in HEIC
        ending = ".jpg" if is_written else photo.path.suffix.lower()
        names.append(f"{i:06d}{ending}")
        if is_written:
            _write_upright(photo, folder / names[-1])
            continue
        try:
            (folder / names[-1]).symlink_to(photo.path.resolve())
        except OSError:
            shutil.copyfile(photo.path, folder / names[-1])
    return names


def _write_upright(photo: SfmPhoto, path: Path) -> None:
    from PIL import Image

    exif = image_exif(photo.path)  # COLMAP starts from its focal length
    exif[TAG] = 1
    rgb = read_image(photo.path, orientation=photo.orientation)
    Image.fromarray(rgb).save(path, exif=exif, **_JPEG)


def _exif_focal(path: Path) -> float | None:
    """Return the focal length in an image's EXIF data [mm], None where it says nothing."""
    from PIL import ExifTags

    focal = image_exif(path).get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLength)
    return None if focal is None else float(focal)
