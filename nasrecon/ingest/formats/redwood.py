"""Redwood: one file, ``trajectory.log``, with the transforms of a whole video.

Three integers, then a 4x4 world_from_cam; metres. ``camera.json`` beside it; where that does not say
``pixel_center_of_first``, the centre of the top-left pixel is at 0 (Open3D's own convention: its PrimeSense default
has the principal point (319.5, 239.5) of 640x480, the middle of the image).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.formats.base import (
    Format,
    Frame,
    Request,
    cameras_of,
    convention_of,
    first_rows,
    image_folder,
    posed_views,
)
from nasrecon.ingest.images import direct_images, pictures
from nasrecon.ingest.text import is_number, numbers
from nasrecon.ingest.video import is_video
from nasrecon.types import ImageSource, Scene, SceneOrigin


def _is_log(path: Path) -> bool:
    first = first_rows(path, 5)
    return [len(words) for words in first] == [3, 4, 4, 4, 4] and all(is_number(word) for row in first for word in row)


def _find_redwood(request: Request) -> Path | None:
    place = request.place
    candidates = [place] if place.is_file() else [place / "trajectory.log", *sorted(place.glob("*.log"))]
    return next((path for path in candidates if path.is_file() and _is_log(path)), None)


def _read_redwood(request: Request, log: Path) -> Scene:
    clip = is_video(request.images)
    folder = request.images.parent if clip else image_folder(request.images)
    camera_of, which = cameras_of(request.intrinsics or _redwood_intrinsics(folder, log), first_center=0.0)
    values = numbers(log)
    if values.size % 19:
        raise InputError(
            f"{log}: expected blocks of 3 + 16 numbers, found {values.size} numbers. Is the file cut short?"
        )
    blocks = values.reshape(-1, 19)
    images = (
        pictures(request.images) if clip else {name: ImageSource(path=folder / name) for name in direct_images(folder)}
    )
    pairs, dropped = _match_by_number(tuple(images), blocks[:, 0].astype(int), log)
    matrices = blocks[:, 3:].reshape(-1, 4, 4)
    frames = [
        Frame(name=name, image=images[name], matrix=matrices[i], origin=f"{log}, block {i + 1}") for name, i in pairs
    ]
    what = f"frames of {request.images.name}" if clip else "images"
    convention = convention_of(request, "world-from-cam")
    views, lost = posed_views(frames, camera_of, convention["pose_convention"])
    origin = SceneOrigin(
        format="Redwood trajectory",
        images=f"{len(views)} {what}",
        poses=log.name,
        intrinsics=which,
        **convention,
    )
    return Scene(root=folder, views=views, unit="m", origin=origin, dropped=(*dropped, *lost))


def _redwood_intrinsics(folder: Path, log: Path) -> Path:
    names = ("camera.json", "camera_intrinsic.json", "intrinsic.json", "camera.txt", "intrinsics.txt")
    for place in (log.parent, folder, folder.parent):
        for name in names:
            if (place / name).is_file():
                return place / name
    raise InputError(
        f"{log}: a Redwood trajectory, but there is none of {', '.join(names)} beside it. Pass the intrinsics. "
        "(Redwood's own scans have 525 525 319.5 239.5 at 640x480.)"
    )


def _match_by_number(
    names: tuple[str, ...], keys: np.ndarray, log: Path
) -> tuple[list[tuple[str, int]], list[tuple[str, str]]]:
    """Match images to blocks: by the last number in the name if it names a block, else in order if there are as many.

    Returns:
        (name, index of its block) of each image, and (name, reason) of the images and blocks left out.
    """
    digits = [re.findall(r"\d+", Path(name).stem) for name in names]
    block_of = {int(key): i for i, key in enumerate(keys)}
    numbered = [block_of.get(int(runs[-1])) if runs else None for runs in digits]
    used = [i for i in numbered if i is not None]
    if len(names) == len(keys) and len(used) < len(names):
        numbered = used = list(range(len(names)))  # numbered from 1, or not at all: as many as there are, so in order
    if not used or len(set(used)) < len(used) or len(block_of) < len(keys):
        raise InputError(
            f"{log}: {len(keys)} camera poses for {len(names)} images, and the numbers in the images' names do not say "
            "which is which. Give as many images as poses, or number each image as its block (its first integer)."
        )
    pairs = [(name, i) for name, i in zip(names, numbered, strict=True) if i is not None]
    without = [name for name, i in zip(names, numbered, strict=True) if i is None]
    dropped = [(name, f"no transform of that number in {log.name}") for name in without]
    unused = sorted(set(range(len(keys))) - set(used))
    dropped += [(f"{log.name} block {i + 1}", "there is no image of that number") for i in unused]
    return pairs, dropped


REDWOOD = Format(
    key="redwood",
    name="Redwood trajectory",
    looks_for="trajectory.log (or another .log with 3 integers and a 4x4 a block) with camera.json",
    find=_find_redwood,
    read=_read_redwood,
    takes_video=True,
)
