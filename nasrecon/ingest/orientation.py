"""The EXIF orientation of photographs: which way up a camera was held.

Structure from motion takes photographs the right way up. Cameras that come with a set are those of the pixels as they
are stored, because COLMAP and its kin ignore EXIF; only where the turned image alone has the size of its camera, the
image is turned.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from nasrecon.errors import InputError, plural
from nasrecon.ingest.exif import read_orientation, turn_size
from nasrecon.ingest.images import image_size
from nasrecon.types import Scene, View

MADE_FROM = "made_from.json"
"""Beside the ``sparse`` folder of a model that nasrecon made: what it was made from."""
TURNED = "turned_by_exif"
"""Its entry that says that the model's cameras are those of images turned by EXIF."""


def is_of_turned_images(model: Path) -> bool:
    """Return whether a COLMAP model (its folder ``sparse/0``) was made from images turned by EXIF."""
    try:
        return bool(json.loads((model.parent.parent / MADE_FROM).read_text(encoding="utf-8"))[TURNED])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def with_orientations(scene: Scene, *, turn_all: bool) -> Scene:
    """Return the scene with the EXIF orientation of every image, and whether the image is turned by it.

    Args:
        scene: as a format read it.
        turn_all: the cameras are those of turned images; else the size of the camera decides.
    """
    views = [_with_orientation(view, turn_all) for view in scene.views]
    turned = sum(view.image.is_turned for view in views)
    stored = sum(view.image.orientation != 1 and not view.image.is_turned for view in views)
    origin = scene.origin
    if turned:
        verb = "is" if turned == 1 else "are"
        origin = origin.with_note(f"{plural(turned, 'image')} {verb} turned upright by the EXIF orientation")
    if stored:
        origin = origin.with_note(
            f"EXIF orientation of {plural(stored, 'image')} not followed: the cameras are those of the pixels as stored"
        )
    return replace(scene, views=tuple(views), origin=origin)


def _with_orientation(view: View, turn_all: bool) -> View:
    if view.image.video_frame is not None:
        return view
    orientation = read_orientation(view.image.path)
    if orientation == 1:
        return view
    camera = view.image.lens or view.camera
    try:
        stored = image_size(view.image.path)
    except InputError:
        return view
    wanted = (camera.width, camera.height)
    is_turned = turn_all or (stored != wanted and turn_size(stored, orientation) == wanted)
    return replace(view, image=replace(view.image, orientation=orientation, is_turned=is_turned))
