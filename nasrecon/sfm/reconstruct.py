"""Cameras from images alone (structure from motion), through pycolmap.

It leaves a COLMAP model that is kept and used again, as ``sfm.triangulate`` does::

    folder/
      sparse/0/         the model: cameras.bin, images.bin, points3D.bin; ``--poses folder`` reads it
      made_from.json    what it was made from: a rerun with the same images (and cameras) reads the model
      colmap.log        COLMAP's own log

The folder is made beside its place and then renamed, so one that is there is complete. Photographs are turned upright
by their EXIF orientation before anything else, so the model's cameras are those of upright images.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nasrecon.atomic import replacing_folder
from nasrecon.errors import InputError, plural
from nasrecon.ingest.orientation import MADE_FROM, TURNED
from nasrecon.progress import LogProgress, Progress
from nasrecon.sfm.child import run_in_child
from nasrecon.sfm.database import LOG, CameraGroup, choose_pairs, extract, match, quiet, verified_pairs
from nasrecon.sfm.kept_model import MODEL, digest, is_kept, write_made_from, write_model
from nasrecon.sfm.photos import SfmPhoto, find_photos, known_camera, passed_over, read_headers, shared_cameras, stage

MIN_MODEL = 2

Dropped = tuple[tuple[str, str], ...]


def reconstruct_cameras(
    images: Path,
    folder: Path,
    *,
    intrinsics: Path | None = None,
    every: int = 1,
    redo: bool = False,
    progress: Progress | None = None,
) -> tuple[Path, Path, Dropped]:
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
    root, names = find_photos(images, folder.parent)
    if below := passed_over(root, names, folder.parent):
        listed = ", ".join(f"{plural(count, 'image')} in {name}" for name, count in below.items())
        progress.note(f"{root}: its subfolders are not read, because it has images of its own: {listed}")
    photos, unread = read_headers(root, names[::every])
    if len(photos) < MIN_MODEL:
        reasons = "".join(f"\n  {reason}" for _, reason in unread[:3])
        raise InputError(f"{images}: structure from motion needs two images or more, found {len(photos)}{reasons}")
    groups = shared_cameras(photos) if intrinsics is None else known_camera(intrinsics, photos)
    content = [(photo.name, photo.path.stat().st_size, photo.orientation) for photo in photos]
    made_from = {"what": "structure from motion", "digest": digest(content, [(g.model, g.params) for g in groups])}
    if is_kept(folder, made_from, redo):
        progress.note(f"cameras: {folder / MODEL}, found in an earlier run")
    else:
        progress.note(f"no cameras given: finding those of {plural(len(photos), 'image')} (structure from motion)")
        with replacing_folder(folder) as part:
            about = run_in_child(_run_sfm, root, photos, groups, intrinsics is not None, part, progress=progress)
            write_made_from(part, made_from | about)
    left_out = json.loads((folder / MADE_FROM).read_text(encoding="utf-8"))["left_out"]
    return folder / MODEL, root, (*unread, *((str(name), str(reason)) for name, reason in left_out))


def _run_sfm(
    root: Path,
    photos: Sequence[SfmPhoto],
    groups: Sequence[CameraGroup],
    keep_intrinsics: bool,
    part: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Make the model in a folder; return what ``made_from.json`` records of it."""
    database, staged = part / "database.db", part / "images"
    inside = stage(photos, staged)
    with quiet(part / LOG):
        extract(database, staged, inside, groups, progress)
        pairs = choose_pairs(database, inside)
        match(database, pairs, progress)
    verified = verified_pairs(database)
    if len(pairs) < len(photos) * (len(photos) - 1) // 2:
        progress.note(f"{len(pairs)} pairs compared: neighbours by name, and those whose largest features match")
    progress.note(f"pairs of images that show the same things: {len(verified)} of {len(pairs)}")
    models = _map(database, staged, part, len(photos), keep_intrinsics, progress) if verified else []
    if not models:
        raise InputError(_nothing_reconstructed(root, len(photos), len(verified)))
    best = models[0]
    if len(models) > 1:
        sizes = ", ".join(str(model.num_reg_images()) for model in models)
        progress.note(
            f"the images fall into {len(models)} groups without overlap, of {sizes} images; the largest is used. "
            "Images taken between them join the groups."
        )
    progress.note(
        f"{best.num_reg_images()} of {len(photos)} images have cameras now, "
        f"{plural(best.num_points3D(), 'sparse point')}, "
        f"{best.compute_mean_reprojection_error():.2f} px reprojection error"
    )
    names = dict(zip(inside, (photo.name for photo in photos), strict=True))
    left_out = [(names[name], reason) for name, reason in _left_out(inside, verified, models)]
    write_model(best, names, part)
    counts = {"images": len(photos), "registered": best.num_reg_images(), "models": len(models)}
    return {**counts, TURNED: True, "left_out": left_out}


def _map(database: Path, staged: Path, part: Path, count: int, keep_intrinsics: bool, progress: Progress) -> list[Any]:
    """Return the models that COLMAP's mapper finds, the largest first."""
    import pycolmap

    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = 0
    options.min_model_size = MIN_MODEL
    options.ba_refine_focal_length = options.ba_refine_extra_params = not keep_intrinsics
    (part / "models").mkdir()
    registered = 0

    def add(images: int) -> None:
        nonlocal registered
        registered = min(registered + images, count)
        progress.update("cameras found", registered, count)

    progress.update("cameras found", 0, count)
    with quiet(part / LOG):
        models = pycolmap.incremental_mapping(
            database,
            staged,
            part / "models",
            options,
            initial_image_pair_callback=lambda: add(2),
            next_image_callback=lambda: add(1),
        )
    progress.update("cameras found", count, count)
    return sorted(models.values(), key=lambda model: (-model.num_reg_images(), -model.num_points3D()))


def _left_out(inside: Sequence[str], verified: Sequence[tuple[str, str]], models: Sequence[Any]) -> list[list[str]]:
    """Return [staged name, reason] of every image that is not in the first model."""
    groups = [{model.images[i].name for i in model.reg_image_ids()} for model in models]
    matched = {name for pair in verified for name in pair}
    out = []
    for name in inside:
        if name in groups[0]:
            continue
        other = next((len(group) for group in groups[1:] if name in group), 0)
        if other:
            reason = f"it belongs to another group of {other} images that does not overlap with the largest"
        elif name in matched:
            reason = "structure from motion could not place it: too few matches with the images that have cameras"
        else:
            reason = "no other image shows the same things (blurred, without texture, or of another place)"
        out.append([name, reason])
    return out


def _nothing_reconstructed(root: Path, count: int, verified: int) -> str:
    return (
        f"{root}: structure from motion found no cameras for its {count} images ({verified} pairs of them match). It "
        "needs sharp images with texture, each overlapping with others by half or more and taken from another place. "
        "Take more images between these, or give their cameras with --poses."
    )
