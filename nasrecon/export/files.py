"""Names, images and camera lists that several formats share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from nasrecon.results.view_file import file_name
from nasrecon.types import Estimate, Unit, View

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
JPEG_QUALITY = 95


def image_name(view_name: str) -> str:
    """Return the name of a view's image in an export, subfolders too: the view's own, where it is a safe name.

    Names of other endings than JPEG and PNG, that would leave the folder, or that break a list of names, become
    ``<safe name>.png``.
    """
    path = PurePosixPath(view_name)
    safe = not path.is_absolute() and ".." not in path.parts and not set(view_name) & set("\\,\n")
    if safe and path.suffix.lower() in IMAGE_ENDINGS:
        return path.as_posix()
    return f"{file_name(view_name)}.png"


def write_image(path: Path, rgb: np.ndarray) -> None:
    """Write rgb (H, W, 3) uint8 as JPEG or PNG, by the ending; folders are made."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {} if path.suffix.lower() == ".png" else {"quality": JPEG_QUALITY, "subsampling": 0}
    Image.fromarray(rgb).save(path, **options)


def write_cameras(path: Path, entries: Sequence[dict[str, Any]], unit: Unit, **about: Any) -> None:
    """Write cameras.json: what holds for all, and for each view its files and camera, in our conventions."""
    content = {
        "unit": unit,
        "pixel_center_of_first": 0.5,
        "depth": "z in the camera; 0 = no value",
        "camera_axes": "x right, y down, z forward",
        **about,
        "views": list(entries),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def camera_entry(view: View) -> dict[str, Any]:
    """Return a view's name, size, K and transform as JSON values."""
    return {
        "name": view.name,
        "width": view.camera.width,
        "height": view.camera.height,
        "K": view.camera.K.tolist(),
        "cam_from_world": view.cam_from_world.tolist(),
    }


def map_name(estimate: Estimate, ending: str) -> str:
    """Return the file name of a view's map, without folders ("room_00.jpg.exr")."""
    return f"{file_name(estimate.view.name)}{ending}"
