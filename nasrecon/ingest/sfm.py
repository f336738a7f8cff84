"""Cameras from images alone (structure from motion), and sparse points for cameras that are known; through pycolmap.

Both leave a COLMAP model that is kept and used again::

    folder/
      sparse/0/         the model: cameras.bin, images.bin, points3D.bin; ``--poses folder`` reads it
      made_from.json    what it was made from: a rerun with the same images (and cameras) reads the model
      colmap.log        what COLMAP said

The folder is made beside its place and then renamed, so one that is there is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.colmap import read_model, sparse_points
from nasrecon.ingest.features import (
    EXHAUSTIVE_UP_TO,
    CameraGroup,
    choose_pairs,
    extract,
    match,
    quiet,
    stage,
    verified_pairs,
)
from nasrecon.ingest.images import direct_images, image_files, image_size
from nasrecon.ingest.neighbors import source_scores
from nasrecon.ingest.textfiles import read_intrinsics
from nasrecon.types import Scene, View

MODEL = "sparse/0"
LEAST_MODEL = 2
# Known cameras: every view is matched with so many others, those that see most of what it sees.
TRIANGULATED_NEIGHBORS = 15
LEAST_ANGLE_DEG = 0.5

Say = Callable[[str], None]


def reconstruct_cameras(
    images: Path,
    folder: Path,
    *,
    intrinsics: Path | None = None,
    every: int = 1,
    redo: bool = False,
    say: Say = lambda message: None,
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
        say: told what is being done, one line at a time.

    Returns:
        the model, the folder that its image names start from, and (name, reason) of the images left out.

    Raises:
        InputError: if there are fewer than two images, the folder holds a model of others, or no camera can be found.
    """
    root, names = _images_for_sfm(images, folder)
    names = names[::every]
    if len(names) < LEAST_MODEL:
        raise InputError(f"{images}: structure from motion needs two images or more, found {len(names)}")
    sizes = [image_size(root / name) for name in names]
    groups = _shared_cameras(root, names, sizes) if intrinsics is None else _known_camera(intrinsics, names, sizes)
    content = [(name, (root / name).stat().st_size) for name in names]
    made_from = {"what": "structure from motion", "digest": _digest(content, [(g.model, g.params) for g in groups])}
    if _is_kept(folder, made_from, redo):
        say(f"cameras: {folder / MODEL}, found by structure from motion in an earlier run")
    else:
        say(f"no cameras given: finding those of {len(names)} images by structure from motion")
        with _made_beside(folder) as part:
            about = _run_sfm(root, names, groups, intrinsics is not None, part, say)
            _finish(part, made_from | about)
    registered = {image.name for image in read_model(folder / MODEL).images.values()}
    reason = "structure from motion could not register it (too few matches with the others)"
    return folder / MODEL, root, tuple((name, reason) for name in names if name not in registered)


def _images_for_sfm(images: Path, folder: Path) -> tuple[Path, list[str]]:
    """Return the folder that names start from, and the images in it; those of the results are none of them."""
    inside = images / "images"
    if not images.is_dir():
        raise InputError(f"{images}: no such folder (images)")
    root = inside if inside.is_dir() and not direct_images(images) else images
    own = folder.parent.resolve()
    names = direct_images(root) or image_files(root)
    return root, [name for name in names if own == root.resolve() or own not in (root / name).resolve().parents]


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
    return [
        CameraGroup(members=tuple(range(len(names))), model="PINHOLE", params=_pinhole_params(camera.K, intrinsics))
    ]


def _pinhole_params(K: np.ndarray, origin: object) -> tuple[float, ...]:
    if K[0, 1] != 0:
        raise InputError(f"{origin}: K has skew ({K[0, 1]:g}), which COLMAP's cameras have not; it must be 0")
    return K[0, 0], K[1, 1], K[0, 2], K[1, 2]


def _run_sfm(
    root: Path, names: Sequence[str], groups: Sequence[CameraGroup], keep_intrinsics: bool, part: Path, say: Say
) -> dict[str, Any]:
    import pycolmap

    database, staged = part / "database.db", part / "images"
    inside = stage([root / name for name in names], staged)
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = 0
    options.min_model_size = LEAST_MODEL
    options.ba_refine_focal_length = options.ba_refine_extra_params = not keep_intrinsics
    with quiet(part / "colmap.log"):
        extract(database, staged, inside, groups)
        pairs = choose_pairs(database, inside)
    everything = len(pairs) == len(names) * (len(names) - 1) // 2
    how = "all" if everything else "neighbours by name, and those whose largest features match"
    say(f"features found; matching {len(pairs)} pairs ({how})")
    with quiet(part / "colmap.log"):
        match(database, pairs)
    verified = verified_pairs(database)
    say(f"{verified} pairs match; mapping")
    (part / "models").mkdir()
    with quiet(part / "colmap.log"):
        models = pycolmap.incremental_mapping(database, staged, part / "models", options) if verified else {}
    if not models:
        raise InputError(_nothing_reconstructed(root, len(names), verified))
    best = max(models.values(), key=lambda model: (model.num_reg_images(), model.num_points3D()))
    say(
        f"{best.num_reg_images()} of {len(names)} images registered, {best.num_points3D()} points, "
        f"{best.compute_mean_reprojection_error():.2f} px reprojection error"
        + (f"; {len(models) - 1} smaller models are left out" if len(models) > 1 else "")
    )
    original = dict(zip(inside, names, strict=True))
    _write_model(best, original, part)
    return {"images": len(names), "registered": best.num_reg_images(), "models": len(models)}


def _nothing_reconstructed(root: Path, count: int, verified: int) -> str:
    return (
        f"{root}: structure from motion found no cameras for its {count} images ({verified} pairs of them match). It "
        "needs sharp images with texture, each overlapping with others by half or more and taken from another place. "
        "Take more images between these, or give their cameras with --poses."
    )


def triangulate(scene: Scene, folder: Path, *, redo: bool = False, say: Say = lambda message: None) -> Scene:
    """Return the scene with sparse points, triangulated from feature matches under its cameras, which stay as they are.

    Args:
        scene: with known cameras.
        folder: where the model is kept; used again where it was made from the same images and cameras.
        redo: make a model anew where the folder holds one of others.
        say: told what is being done, one line at a time.

    Raises:
        InputError: if the folder holds a model of other images or cameras, or nothing can be triangulated.
    """
    usable = [i for i, view in enumerate(scene.views) if _fits(view)]
    if any(view.video_frame is not None for view in scene.views):
        raise InputError(f"{scene.root}: COLMAP reads no videos; write the frames to files to triangulate their points")
    if len(usable) < 2:
        raise InputError(f"{scene.root}: two views or more are needed to triangulate, found {len(usable)} to be used")
    content = [(scene.views[i].name, scene.views[i].image_path.stat().st_size) for i in usable]
    cameras = [(_lens(scene.views[i]), scene.views[i].cam_from_world.tolist()) for i in usable]
    made_from = {"what": "triangulation under known cameras", "digest": _digest(content, cameras)}
    if _is_kept(folder, made_from, redo):
        say(f"sparse points: {folder / MODEL}, triangulated in an earlier run")
    else:
        say(f"triangulating sparse points from {len(usable)} views under their cameras")
        with _made_beside(folder) as part:
            _finish(part, made_from | _run_triangulation(scene.subset(usable), part, say))
    model = read_model(folder / MODEL)
    images = {image.name: image for image in model.images.values()}
    points_in_world, visible = sparse_points(model, [images[view.name] for view in scene.views if view.name in images])
    seen = dict(zip([view.name for view in scene.views if view.name in images], visible, strict=True))
    nothing = np.empty(0, dtype=np.int64)
    return replace(
        scene,
        points_in_world=points_in_world,
        visible=tuple(seen.get(view.name, nothing) for view in scene.views),
        source=f"{scene.source}; {len(points_in_world)} points triangulated",
    )


def _fits(view: View) -> bool:
    """Say whether a view's image is there and has the size that its camera is made for (``estimate`` reports others)."""
    expected = view.lens or view.camera
    try:
        return image_size(view.image_path) == (expected.width, expected.height)
    except InputError:
        return False


def _lens(view: View) -> tuple[str, int, int, tuple[float, ...]]:
    """Return the camera of a view's image file: COLMAP's model, width, height, parameters."""
    if view.lens is not None:
        return view.lens.model, view.lens.width, view.lens.height, view.lens.params
    return "PINHOLE", view.camera.width, view.camera.height, _pinhole_params(view.camera.K, view.name)


def _run_triangulation(scene: Scene, part: Path, say: Say) -> dict[str, Any]:
    import pycolmap

    database, staged = part / "database.db", part / "images"
    inside = stage([view.image_path for view in scene.views], staged)
    cameras: dict[Any, list[int]] = {}
    for i, view in enumerate(scene.views):
        cameras.setdefault(_lens(view), []).append(i)
    groups = [
        CameraGroup(members=tuple(members), model=model, params=params)
        for (model, _, _, params), members in cameras.items()
    ]
    pairs = [(inside[i], inside[j]) for i, j in _overlapping(scene)]
    options = pycolmap.IncrementalPipelineOptions()
    options.triangulation.ignore_two_view_tracks = False  # of two views there are no others
    options.triangulation.min_angle = options.mapper.filter_min_tri_angle = LEAST_ANGLE_DEG
    with quiet(part / "colmap.log"):
        extract(database, staged, inside, groups)
    say(f"features found; matching {len(pairs)} pairs")
    with quiet(part / "colmap.log"):
        match(database, pairs)
        known = _known_cameras(scene, inside, database)
        (part / "models").mkdir()
        model = pycolmap.triangulate_points(known, database, staged, part / "models", options=options)
    if not model.num_points3D():
        raise InputError(
            f"{scene.root}: no sparse point could be triangulated ({verified_pairs(database)} of {len(pairs)} pairs of "
            "views match). Leave --triangulate out, or check the cameras: are they those of these images?"
        )
    say(f"{model.num_points3D()} points, {model.compute_mean_reprojection_error():.2f} px reprojection error")
    _write_model(model, dict(zip(inside, (view.name for view in scene.views), strict=True)), part)
    return {"images": len(scene.views), "points": model.num_points3D()}


def _overlapping(scene: Scene) -> list[tuple[int, int]]:
    """Return the pairs of views (i < j) to match: all of a small set, else each with its best neighbours."""
    count = len(scene.views)
    if count <= EXHAUSTIVE_UP_TO:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    pairs = set()
    for i in range(count):
        scores = source_scores(scene, i)
        best = np.argsort(-scores, kind="stable")[:TRIANGULATED_NEIGHBORS]
        pairs |= {(min(i, int(j)), max(i, int(j))) for j in best if scores[j] > 0}
    return sorted(pairs)


def _known_cameras(scene: Scene, names: Sequence[str], database: Path) -> Any:
    """Return the scene's cameras as a ``pycolmap.Reconstruction`` without points, with the database's ids."""
    import pycolmap

    out = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as opened:
        for view, name in zip(scene.views, names, strict=True):
            stored = opened.read_image_with_name(name)
            if stored is None:
                continue  # COLMAP cannot read the file: the view has no points
            if not out.exists_camera(stored.camera_id):
                out.add_camera_with_trivial_rig(opened.read_camera(stored.camera_id))
            image = pycolmap.Image(name=name, camera_id=stored.camera_id, image_id=stored.image_id)
            out.add_image_with_trivial_frame(image, pycolmap.Rigid3d(view.cam_from_world[:3]))
    return out


def _write_model(model: Any, original: dict[str, str], part: Path) -> None:
    """Write a model under the images' own names, and remove what it was made with."""
    for image in model.images.values():
        image.name = original[image.name]
    place = part / MODEL
    place.mkdir(parents=True)
    model.write(place)
    for used in ("images", "models"):
        shutil.rmtree(part / used)
    for used in ("database.db", "pairs.txt"):
        (part / used).unlink()


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _is_kept(folder: Path, made_from: dict[str, Any], redo: bool) -> bool:
    """Say whether the folder holds the model that would be made; one of other images goes if ``redo``.

    Raises:
        InputError: if it holds one of other images, or something else.
    """
    if not folder.exists():
        return False
    try:
        found = json.loads((folder / "made_from.json").read_text())["digest"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{folder}: not a model that nasrecon made ({error}); give another --out") from error
    if found == made_from["digest"]:
        return True
    if not redo:
        raise InputError(
            f"{folder}: it holds a model made from other images or cameras ({made_from['what']}); give another --out, "
            "or --overwrite to make it anew"
        )
    shutil.rmtree(folder)
    return False


@contextmanager
def _made_beside(folder: Path) -> Iterator[Path]:
    """Hand out an empty folder that takes its place at the end, and is removed if there is an error."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _finish(part: Path, about: dict[str, Any]) -> None:
    text = json.dumps(about | {"pycolmap": version("pycolmap")}, indent=1)
    (part / "made_from.json").write_text(f"{text}\n")
