"""Cameras from images alone (structure from motion), and sparse points for cameras that are known; through pycolmap.

Both leave a COLMAP model that is kept and used again::

    folder/
      sparse/0/         the model: cameras.bin, images.bin, points3D.bin; ``--poses folder`` reads it
      made_from.json    what it was made from: a rerun with the same images (and cameras) reads the model
      colmap.log        what COLMAP said

The folder is made beside its place and then renamed, so one that is there is complete.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nasrecon.errors import InputError
from nasrecon.ingest.formats.colmap import read_model
from nasrecon.ingest.images import direct_images, image_files, image_size
from nasrecon.ingest.text import read_intrinsics
from nasrecon.progress import LogProgress, Progress
from nasrecon.sfm.database import (
    CameraGroup,
    choose_pairs,
    extract,
    match,
    quiet,
    stage,
    verified_pairs,
)
from nasrecon.sfm.kept_model import (
    MODEL,
    digest,
    is_kept,
    made_beside,
    pinhole_params,
    write_made_from,
    write_model,
)

MIN_MODEL = 2


def reconstruct_cameras(
    images: Path,
    folder: Path,
    *,
    intrinsics: Path | None = None,
    every: int = 1,
    redo: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, Path, tuple[tuple[str, str], ...]]:
    """Find the cameras of a folder of images by structure from motion; the largest model is kept.

    Images of one size and one focal length in their EXIF data share a camera (SIMPLE_RADIAL; its focal length and
    distortion are found too). The world frame and unit are the model's own.

    Args:
        images: the folder; its images, else those of its subfolders.
        folder: where the model is kept; used again where it was made from the same images.
        intrinsics: a file with K of all images, which is then held fixed; half-pixel centres.
        every: take every Nth image only, in the order of names.
        redo: make a model anew where the folder holds one of other images.
        progress: receives the reports.

    Returns:
        the model, the folder that its image names start from, and (name, reason) of the images left out.

    Raises:
        InputError: if there are fewer than two images, the folder holds a model of others, or no camera can be found.
    """
    progress = progress or LogProgress()
    root, names = _images_for_sfm(images, folder)
    names = names[::every]
    if len(names) < MIN_MODEL:
        raise InputError(f"{images}: structure from motion needs two images or more, found {len(names)}")
    sizes = [image_size(root / name) for name in names]
    groups = _shared_cameras(root, names, sizes) if intrinsics is None else _known_camera(intrinsics, names, sizes)
    content = [(name, (root / name).stat().st_size) for name in names]
    made_from = {"what": "structure from motion", "digest": digest(content, [(g.model, g.params) for g in groups])}
    if is_kept(folder, made_from, redo):
        progress.note(f"cameras: {folder / MODEL}, found by structure from motion in an earlier run")
    else:
        progress.note(f"no cameras given: finding those of {len(names)} images by structure from motion")
        with made_beside(folder) as part:
            about = _run_sfm(root, names, groups, intrinsics is not None, part, progress)
            write_made_from(part, made_from | about)
    registered = {image.name for image in read_model(folder / MODEL).images.values()}
    reason = "structure from motion could not register it (too few matches with the others)"
    return folder / MODEL, root, tuple((name, reason) for name in names if name not in registered)


def _images_for_sfm(images: Path, folder: Path) -> tuple[Path, list[str]]:
    """Return the folder that names start from, and the images in it; those of the results are none of them."""
    inside = images / "images"
    if not images.is_dir():
        raise InputError(f"{images}: no such folder (images)")
    root = inside if inside.is_dir() and not direct_images(images) else images
    output = folder.parent.resolve()
    names = direct_images(root) or image_files(root)
    return root, [name for name in names if output == root.resolve() or output not in (root / name).resolve().parents]


def _shared_cameras(root: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[CameraGroup]:
    groups: dict[Any, list[int]] = {}
    for i, (name, size) in enumerate(zip(names, sizes, strict=True)):
        groups.setdefault((size, _exif_focal(root / name)), []).append(i)
    return [CameraGroup(members=tuple(members)) for members in groups.values()]


def _exif_focal(path: Path) -> float | None:
    """Return the focal length in an image's EXIF data [mm], None where it says nothing."""
    from PIL import ExifTags, Image

    with Image.open(path) as image:
        focal = image.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLength)
    return None if focal is None else float(focal)


def _known_camera(intrinsics: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[CameraGroup]:
    if len(set(sizes)) > 1:
        raise InputError(f"{intrinsics}: one K, but the images have several sizes: {sorted(set(sizes))}")
    camera = read_intrinsics(intrinsics).camera(sizes[0], first_center=0.5)
    return [CameraGroup(members=tuple(range(len(names))), model="PINHOLE", params=pinhole_params(camera.K, intrinsics))]


def _run_sfm(
    root: Path,
    names: Sequence[str],
    groups: Sequence[CameraGroup],
    keep_intrinsics: bool,
    part: Path,
    progress: Progress,
) -> dict[str, Any]:
    import pycolmap

    database, staged = part / "database.db", part / "images"
    inside = stage([root / name for name in names], staged)
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = 0
    options.min_model_size = MIN_MODEL
    options.ba_refine_focal_length = options.ba_refine_extra_params = not keep_intrinsics
    with quiet(part / "colmap.log"):
        extract(database, staged, inside, groups)
        pairs = choose_pairs(database, inside)
    everything = len(pairs) == len(names) * (len(names) - 1) // 2
    how = "all" if everything else "neighbours by name, and those whose largest features match"
    progress.note(f"features found; matching {len(pairs)} pairs ({how})")
    with quiet(part / "colmap.log"):
        match(database, pairs)
    verified = verified_pairs(database)
    progress.note(f"{verified} pairs match; mapping")
    (part / "models").mkdir()
    with quiet(part / "colmap.log"):
        models = pycolmap.incremental_mapping(database, staged, part / "models", options) if verified else {}
    if not models:
        raise InputError(_nothing_reconstructed(root, len(names), verified))
    best = max(models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()))
    progress.note(
        f"{best.num_reg_images()} of {len(names)} images registered, {best.num_points3D()} points, "
        f"{best.compute_mean_reprojection_error():.2f} px reprojection error"
        + (f"; {len(models) - 1} smaller models are left out" if len(models) > 1 else "")
    )
    original = dict(zip(inside, names, strict=True))
    write_model(best, original, part)
    return {"images": len(names), "registered": best.num_reg_images(), "models": len(models)}


def _nothing_reconstructed(root: Path, count: int, verified: int) -> str:
    return (
        f"{root}: structure from motion found no cameras for its {count} images ({verified} pairs of them match). It "
        "needs sharp images with texture, each overlapping with others by half or more and taken from another place. "
        "Take more images between these, or give their cameras with --poses."
    )
