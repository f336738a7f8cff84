"""Read a scene, or find its cameras by structure from motion; take every Nth view; apply the fixes."""

from __future__ import annotations

import shlex
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from nasrecon.check.fixes import apply_fixes
from nasrecon.errors import InputError, NoPosesError, broken, plural
from nasrecon.ingest.images import unread_endings
from nasrecon.ingest.open_scene import open_scene
from nasrecon.ingest.video import is_video
from nasrecon.prepare.options import PrepareOptions
from nasrecon.progress import Progress
from nasrecon.sfm.reconstruct import reconstruct_cameras
from nasrecon.sfm.video_frames import write_frames
from nasrecon.types import Scene


def read_scene(
    images: Path | str,
    poses: Path | str | None,
    options: PrepareOptions,
    progress: Progress,
    *,
    work_dir: Path | None = None,
    overwrite: bool = False,
    find_cameras: bool = True,
    **reading: Any,
) -> Scene:
    """Read the scene with every Nth view and the fixes applied.

    Args:
        images, poses, reading: as for ``open_scene``.
        options: ``every`` and ``fixes`` are used.
        progress: receives what was recognised and applied.
        work_dir: where a model found by structure from motion is kept; None: nowhere.
        overwrite: make that model anew.
        find_cameras: find the cameras of images that have none by structure from motion.

    Raises:
        NoPosesError: if there are no cameras, and they are not to be found.
        InputError: as ``open_scene`` and ``apply_fixes``.
    """
    _note_unread(Path(images), work_dir, progress)
    try:
        scene = open_scene(images, poses, **reading)
    except NoPosesError:
        if not find_cameras:
            raise
        return _reconstructed(Path(images), options, progress, work_dir, overwrite, **reading)
    _note_origin(scene, progress)
    return select_and_fix(scene, options, progress)


def _note_origin(scene: Scene, progress: Progress) -> None:
    """Report what was read, in lines of a terminal's width."""
    first, *more = broken(f"{scene.root}: {scene.origin.in_words()}")
    progress.note("\n".join([first, *(f"  {line}" for line in more)]))


def _note_unread(images: Path, work_dir: Path | None, progress: Progress) -> None:
    """Report the files of a folder of images that no reader takes."""
    if images.is_dir() and (counts := unread_endings(images, work_dir)):
        listed = ", ".join(f"{count} {ending}" for ending, count in counts.items())
        progress.note(f"{images}: not read, because no format that is known: {listed}")


def select_and_fix(scene: Scene, options: PrepareOptions, progress: Progress) -> Scene:
    """Return every Nth view of a scene, with the fixes applied."""
    if options.every > 1:
        scene = scene.subset(range(0, len(scene.views), options.every))
        progress.note(f"every {options.every} views: {plural(len(scene.views), 'view')} taken")
    if options.fixes:
        scene = apply_fixes(scene, options.fixes)
        progress.note(f"repaired as asked: {', '.join(options.fixes)}")
    return scene


def _reconstructed(
    images: Path,
    options: PrepareOptions,
    progress: Progress,
    work_dir: Path | None,
    overwrite: bool,
    *,
    intrinsics: Path | None = None,
    convention: str | None = None,
    masks: Path | None = None,
    **_: Any,
) -> Scene:
    """Find the cameras of images that have none, and open the scene with them."""
    if options.fixes:
        raise InputError(
            f"--fix {options.fixes[0]}: there are no cameras to repair; they are found from the images"
        ) from None
    if convention is not None:
        raise InputError(f"--convention {convention}: there are no cameras in {images}, and none with --poses")
    every = options.every
    if is_video(images):
        if work_dir is None:
            raise InputError(f"{images}: a video without cameras; name a folder for its frames (work_dir)")
        images, every = write_frames(images, work_dir / "frames", every, progress, redo=overwrite), 1
    with nullcontext(work_dir) if work_dir else tempfile.TemporaryDirectory(prefix="nasrecon_") as folder:
        model, root, dropped = reconstruct_cameras(
            images,
            Path(folder) / "sfm",
            intrinsics=intrinsics,
            every=every,
            redo=overwrite,
            progress=progress,
        )
        scene = open_scene(root, model, masks=masks)
    if work_dir:
        progress.note(f"cameras are in {shlex.quote(str(model))}: use them elsewhere with --poses")
    _note_origin(scene, progress)
    return replace(scene, origin=replace(scene.origin, found_cameras=True), dropped=dropped)
