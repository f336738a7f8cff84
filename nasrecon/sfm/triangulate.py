"""Sparse points for cameras that are known, through pycolmap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.atomic import replacing_folder
from nasrecon.errors import InputError, plural
from nasrecon.ingest.formats.colmap import read_model, sparse_points
from nasrecon.ingest.images import view_size
from nasrecon.matching.pairs import pairs_to_triangulate
from nasrecon.progress import LogProgress, Progress
from nasrecon.sfm.child import run_in_child
from nasrecon.sfm.database import (
    LOG,
    CameraGroup,
    extract,
    match,
    quiet,
    verified_pairs,
)
from nasrecon.sfm.kept_model import (
    MODEL,
    digest,
    is_kept,
    pinhole_params,
    write_made_from,
    write_model,
)
from nasrecon.sfm.photos import SfmPhoto, stage
from nasrecon.types import Scene, View

MIN_ANGLE_DEG = 0.5


def triangulate(scene: Scene, folder: Path, *, redo: bool = False, progress: Progress | None = None) -> Scene:
    """Return the scene with sparse points, triangulated from feature matches under its cameras, which stay as they are.

    Args:
        scene: with known cameras.
        folder: where the model is kept; used again where it was made from the same images and cameras.
        redo: make a model anew where the folder holds one of others.
        progress: receives the reports.

    Raises:
        InputError: if the folder holds a model of other images or cameras, or nothing can be triangulated.
    """
    progress = progress or LogProgress()
    usable = [i for i, view in enumerate(scene.views) if _fits(view)]
    if any(view.image.video_frame is not None for view in scene.views):
        raise InputError(f"{scene.root}: COLMAP reads no videos; write the frames to files to triangulate their points")
    if len(usable) < 2:
        raise InputError(f"{scene.root}: two views or more are needed to triangulate, found {len(usable)} to be used")
    content = [(scene.views[i].name, scene.views[i].image.path.stat().st_size) for i in usable]
    cameras = [(_lens(scene.views[i]), scene.views[i].cam_from_world.tolist()) for i in usable]
    made_from = {"what": "triangulation under known cameras", "digest": digest(content, cameras)}
    if is_kept(folder, made_from, redo):
        progress.note(f"sparse points: {folder / MODEL}, triangulated in an earlier run")
    else:
        progress.note(f"triangulating sparse points from {plural(len(usable), 'view')} under their cameras")
        with replacing_folder(folder) as part:
            about = run_in_child(_run_triangulation, scene.subset(usable), part, progress=progress)
            write_made_from(part, made_from | about)
    model = read_model(folder / MODEL)
    images = {image.name: image for image in model.images.values()}
    points_in_world, visible = sparse_points(model, [images[view.name] for view in scene.views if view.name in images])
    indices_of_view = dict(zip([view.name for view in scene.views if view.name in images], visible, strict=True))
    nothing = np.empty(0, dtype=np.int64)
    return replace(
        scene,
        points_in_world=points_in_world,
        visible=tuple(indices_of_view.get(view.name, nothing) for view in scene.views),
        origin=scene.origin.with_note(f"{plural(len(points_in_world), 'point')} triangulated"),
    )


def _fits(view: View) -> bool:
    """Say whether a view's image is there and has the size that its camera is made for
    (``estimate`` reports others)."""
    expected = view.image.lens or view.camera
    try:
        return view_size(view) == (expected.width, expected.height)
    except InputError:
        return False


def _photo(view: View) -> SfmPhoto:
    """Return a view's file as it is read: turned by EXIF where the view is."""
    made_for = view.image.lens or view.camera
    orientation = view.image.orientation if view.image.is_turned else 1
    size = (made_for.width, made_for.height)
    return SfmPhoto(name=view.name, path=view.image.path, size=size, orientation=orientation)


def _lens(view: View) -> tuple[str, int, int, tuple[float, ...]]:
    """Return the camera of a view's image file: COLMAP's model, width, height, parameters."""
    if view.image.lens is not None:
        return view.image.lens.model, view.image.lens.width, view.image.lens.height, view.image.lens.params
    return "PINHOLE", view.camera.width, view.camera.height, pinhole_params(view.camera.K, view.name)


def _run_triangulation(scene: Scene, part: Path, progress: Progress) -> dict[str, Any]:
    import pycolmap

    database, staged = part / "database.db", part / "images"
    inside = stage([_photo(view) for view in scene.views], staged)
    cameras: dict[Any, list[int]] = {}
    for i, view in enumerate(scene.views):
        cameras.setdefault(_lens(view), []).append(i)
    groups = [
        CameraGroup(members=tuple(members), model=model, params=params)
        for (model, _, _, params), members in cameras.items()
    ]
    pairs = [(inside[i], inside[j]) for i, j in sorted(pairs_to_triangulate(scene))]
    options = pycolmap.IncrementalPipelineOptions()
    options.triangulation.ignore_two_view_tracks = False  # of two views there are no others
    options.triangulation.min_angle = options.mapper.filter_min_tri_angle = MIN_ANGLE_DEG
    with quiet(part / LOG):
        extract(database, staged, inside, groups, progress)
        match(database, pairs, progress)
        known = _known_cameras(scene, inside, database)
        (part / "models").mkdir()
        model = pycolmap.triangulate_points(known, database, staged, part / "models", options=options)
    if not model.num_points3D():
        raise InputError(
            f"{scene.root}: no sparse point could be triangulated ({len(verified_pairs(database))} of {len(pairs)} "
            "pairs of views match). Leave --triangulate out, or check the cameras: are they those of these images?"
        )
    progress.note(
        f"{plural(model.num_points3D(), 'point')}, {model.compute_mean_reprojection_error():.2f} px reprojection error"
    )
    write_model(model, dict(zip(inside, (view.name for view in scene.views), strict=True)), part)
    return {"images": len(scene.views), "points": model.num_points3D()}


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
