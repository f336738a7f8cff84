"""Recognise the format of a posed image set, read it, attach masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nasrecon.errors import InputError, NoPosesError
from nasrecon.ingest.cameras import with_sound_cameras
from nasrecon.ingest.formats import (
    colmap,
    demon,
    kitti,
    middlebury,
    mvsnet,
    plain,
    redwood,
    scannet,
    seven_scenes,
    strecha,
    transforms,
    tum,
)
from nasrecon.ingest.formats.base import Format, OtherImagesError, Request
from nasrecon.ingest.masks import check_sizes, with_masks
from nasrecon.ingest.orientation import is_of_turned_images, with_orientations
from nasrecon.ingest.video import is_video
from nasrecon.types import Convention, Hints, Scene

FORMATS: tuple[Format, ...] = (
    colmap.FORMAT,
    transforms.FORMAT,
    mvsnet.FORMAT,
    middlebury.MIDDLEBURY,
    strecha.STRECHA,
    redwood.REDWOOD,
    tum.TUM,
    seven_scenes.SEVEN_SCENES,
    scannet.SCANNET,
    demon.DEMON,
    kitti.FORMAT,
    plain.FORMAT,
)


def open_scene(
    images: Path | str,
    poses: Path | str | None = None,
    *,
    intrinsics: Path | str | None = None,
    convention: Convention | None = None,
    format: str | None = None,
    masks: Path | str | None = None,
    use_hints: bool = True,
) -> Scene:
    """Read a posed image set, whichever of the known layouts it is in.

    Args:
        images: the folder of the images, or of a whole set (images, transforms and intrinsics in one layout), or a
            video (with transforms by the numbers of its frames).
        poses: a COLMAP model, or a folder or file of transforms; None if it is in ``images``.
        intrinsics: a file with K for all images, or with a name and a K for each, or a folder with a file for each; for
            layouts that have none or to use in place of theirs (not for layouts with a K of its own for each view).
            Half-pixel or integer centres as the layout has it; each module says which.
        convention: which way the transforms go, for plain matrices; overrides the convention of folder layouts.
        format: key of the format (``Format.key``: "colmap", "transforms" ...); None: the one that fits, if one does.
        masks: a folder with a mask for each image (``masks.with_masks``), in place of those that the set may have.
        use_hints: take the sources and depth ranges that the set lists (MVSNet's pair.txt and camera files); False:
        they
            are chosen as for any other set.

    Returns:
        The scene: views in the order of their names (of time, in a trajectory); ``origin`` says what was recognised,
        ``dropped`` what was left out and why.

    Raises:
        NoPosesError: if no poses are given and nothing known is found (``ingest.sfm`` may find the cameras).
        InputError: if what is given or found is unknown, incomplete or not to be used, or several layouts fit.
    """
    request = Request(
        images=_existing(images, "images"),
        poses=None if poses is None else _existing(poses, "poses"),
        intrinsics=None if intrinsics is None else _existing(intrinsics, "intrinsics"),
        convention=convention,
        format=format,
    )
    masks = None if masks is None else _existing(masks, "masks")
    if not request.images.is_dir() and not is_video(request.images):
        raise InputError(f"{images}: expected a folder of images or a video, found a file")
    if convention not in (None, "cam-from-world", "world-from-cam"):
        raise InputError(f"convention must be cam-from-world or world-from-cam, found {convention!r}")
    chosen, mark = _recognised(request)
    scene = chosen.read(request, mark)
    if not scene.views:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in scene.dropped[:3])
        raise InputError(f"{mark}: {chosen.name}, but no image of it can be used ({reasons})")
    scene = with_orientations(with_sound_cameras(scene), turn_all=is_of_turned_images(mark))
    if masks is not None:
        scene = with_masks(scene, masks)
    check_sizes(scene)
    return scene if use_hints else replace(scene, hints=Hints())


def _recognised(request: Request) -> tuple[Format, Path]:
    """Return the layout that was chosen, or else the only one that fits, and the file or folder that marks it.

    Raises:
        InputError: if none fits, or several do and none was chosen.
    """
    able = [format for format in FORMATS if request.images.is_dir() or format.takes_video]
    if request.format is not None:
        return _chosen(request, able)
    fitting = [(format, mark) for format in able if (mark := format.find(request)) is not None]
    if not fitting:
        raise _not_found(request, able)
    # Any folder of text files looks like plain matrices.
    fitting = [each for each in fitting if not each[0].is_fallback] or fitting
    if len(fitting) > 1:
        fits = ", ".join(f"{format.name} ({mark})" for format, mark in fitting)
        switches = " or ".join(f"--format {format.key}" for format, _ in fitting)
        raise InputError(
            f"{request.place}: several layouts fit: {fits}. Say which to read: {switches} (format=... in Python); or "
            "pass its own file or folder as the poses."
        )
    return fitting[0]


def _chosen(request: Request, able: list[Format]) -> tuple[Format, Path]:
    """Return the layout of the request's key, and what marks it."""
    format = next((format for format in FORMATS if format.key == request.format), None)
    if format is None:
        raise InputError(f"format {request.format!r} is not known; known are {', '.join(each.key for each in FORMATS)}")
    if format not in able:
        raise InputError(f"{request.images}: a video; {format.name} is read with a folder of images only")
    mark = format.find(request)
    if mark is None:
        raise InputError(
            f"{request.place}: --format {format.key} reads {format.name}, but there is no {format.looks_for}. "
            "Name the folder that has it, or leave the format out to have it recognised."
        )
    return format, mark


def _is_of_these_images(format: Format, request: Request, mark: Path) -> bool:
    """Return whether cameras beside the images may be theirs: those of another set are not in the way."""
    try:
        format.read(request, mark)
    except OtherImagesError:
        return False
    except InputError:  # damaged ones are named, not replaced
        return True
    return True


def _existing(path: Path | str, what: str) -> Path:
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder ({what})")
    return path


def _not_found(request: Request, able: list[Format]) -> InputError:
    """Return the error that says what was looked for; ``NoPosesError`` if the cameras may still be found."""
    looked_for = "\n".join(f"  {format.name}: {format.looks_for}" for format in able)
    message = f"{request.place}: no cameras found. Looked for:\n{looked_for}"
    if request.poses is not None:
        return InputError(message)
    if not request.images.is_dir():
        return NoPosesError(
            f"{message}\n`nasrecon reconstruct` and `nasrecon infer` find the cameras of a video's frames"
        )
    beside = replace(request, poses=request.images.parent)
    marks = [(format, mark) for format in able if not format.is_fallback and (mark := format.find(beside))]
    fitting = [(format, mark) for format, mark in marks if _is_of_these_images(format, beside, mark)]
    for format, mark in fitting:
        message += f"\nThere is a {format.name} beside the images: pass {mark} as the poses."
    if fitting:
        return InputError(message)
    return NoPosesError(
        f"{message}\n`nasrecon reconstruct` and `nasrecon infer` find the cameras of such images themselves "
        "(from Python: nasrecon.sfm.reconstruct.reconstruct_cameras)."
    )
