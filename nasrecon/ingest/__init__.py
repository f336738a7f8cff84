"""Files become a Scene. One module a family of layouts, one ``Layout`` (a recogniser and a reader) a layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nasrecon.errors import InputError
from nasrecon.ingest import colmap, folders, plain, trajectories
from nasrecon.ingest.layout import Convention, Layout, Request
from nasrecon.types import Scene

# In the order they are asked. A COLMAP model says the most (distortion, sparse points); plain matrices say the least.
LAYOUTS: tuple[Layout, ...] = (
    colmap.LAYOUT,
    trajectories.REDWOOD,
    trajectories.TUM,
    folders.SEVEN_SCENES,
    folders.DEMON,
    plain.LAYOUT,
)


def open_scene(
    images: Path | str,
    poses: Path | str | None = None,
    *,
    intrinsics: Path | str | None = None,
    convention: Convention | None = None,
) -> Scene:
    """Read a posed image set, whichever of the known layouts it is in.

    Args:
        images: the folder of the images, or of a whole set (images, transforms and intrinsics in one layout).
        poses: a COLMAP model, or a folder or file of transforms; None if it is in ``images``.
        intrinsics: a file with K for all images, for layouts that have none or to use in place of theirs
            (not for COLMAP models). Half-pixel or integer centres as the layout has it; each module says which.
        convention: which way the transforms go, for plain matrices; overrides the convention of folder layouts.

    Returns:
        The scene: views in the order of their names (of time, in a trajectory); ``source`` says what was recognised,
        ``dropped`` what was left out and why.

    Raises:
        InputError: if nothing known is found, or what is found is incomplete or not to be used.
    """
    request = Request(
        images=_existing(images, "images"),
        poses=None if poses is None else _existing(poses, "poses"),
        intrinsics=None if intrinsics is None else _existing(intrinsics, "intrinsics"),
        convention=convention,
    )
    if not request.images.is_dir():
        raise InputError(f"{images}: expected a folder of images, found a file")
    if convention not in (None, "cam-from-world", "world-from-cam"):
        raise InputError(f"convention must be cam-from-world or world-from-cam, found {convention!r}")
    found = [(layout, mark) for layout in LAYOUTS if (mark := layout.find(request)) is not None]
    if not found:
        raise InputError(_not_found(request))
    (layout, mark), *others = found
    scene = layout.read(request, mark)
    if not scene.views:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scene.dropped[:3])
        raise InputError(f"{mark}: {layout.name}, but no image of it can be used ({reasons})")
    also = tuple(
        (other.name, f"{at}: found too, but the {layout.name} was read")
        for other, at in others
        if other is not plain.LAYOUT  # any folder of text files looks like plain matrices
    )
    return replace(scene, dropped=(*scene.dropped, *also))


def _existing(path: Path | str, what: str) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder ({what})")
    return path


def _not_found(request: Request) -> str:
    looked_for = "\n".join(f"  {layout.name}: {layout.looks_for}" for layout in LAYOUTS)
    message = f"{request.place}: no cameras found. Looked for:\n{looked_for}"
    beside = colmap.model_folder(request.images.parent) if request.poses is None else None
    if beside is not None:
        message += f"\nThere is a COLMAP model beside the images: pass {beside} as the poses."
    return message
