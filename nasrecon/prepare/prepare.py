"""The options by which commands are told of a scene, and the opening of it: cameras read, found, looked at, refined.

What is recognised, repaired and changed is said on stderr. Everything heavy is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from nasrecon.errors import InputError

if TYPE_CHECKING:
    from nasrecon.check.findings import Diagnosis
    from nasrecon.types import Scene
from nasrecon.cli.options import Convention, Format
from nasrecon.prepare.cache import read_refined_poses, write_refined_poses


def open_asked(
    images: Path,
    poses: Path | None,
    intrinsics: Path | None,
    convention: Convention | None,
    every: int,
    fixes: Sequence[str] | None,
    *,
    layout: Format | None = None,
    masks: Path | None = None,
    hints: bool = True,
) -> Scene:
    """Open the scene of the shared options and say on stderr what was recognised and repaired."""
    from nasrecon.cli.console import say
    from nasrecon.ingest.open_scene import open_scene

    scene = open_scene(
        images,
        poses,
        intrinsics=intrinsics,
        convention=convention.value if convention else None,
        layout=layout.value if layout else None,
        masks=masks,
        hints=hints,
    )
    say(f"{scene.root}: {scene.source}")
    if every > 1:
        scene = scene.subset(range(0, len(scene.views), every))
        say(f"every {every} views: {len(scene.views)} are taken")
    if fixes:
        from nasrecon.check.fixes import apply_fixes

        scene = apply_fixes(scene, fixes)
        say(f"repaired as asked: {', '.join(fixes)}")
    return scene


def reconstruct(
    images: Path,
    intrinsics: Path | None,
    convention: Convention | None,
    every: int,
    masks: Path | None,
    out: Path,
    overwrite: bool,
) -> Scene:
    """Find the cameras of images that have none, and open the scene with them; the model stays in the results."""
    from nasrecon.cli.console import Bar, say
    from nasrecon.ingest.open_scene import open_scene
    from nasrecon.sfm.reconstruct import reconstruct_cameras

    if convention is not None:
        raise InputError(f"--convention {convention.value}: there are no cameras in {images}, and none with --poses")
    model, root, dropped = reconstruct_cameras(
        images, out / "sfm", intrinsics=intrinsics, every=every, redo=overwrite, progress=Bar()
    )
    scene = open_scene(root, model, masks=masks)
    say(f"{scene.root}: {scene.source}; use it elsewhere with --poses {model}")
    return replace(scene, source=f"structure from motion: {scene.source}", dropped=dropped)


def with_sparse_points(scene: Scene, out: Path, overwrite: bool) -> Scene:
    """Give a scene sparse points if it has none; the model stays in the results."""
    from nasrecon.cli.console import Bar, say
    from nasrecon.sfm.triangulate import triangulate

    if scene.visible is not None and len(scene.points_in_world):
        say(f"--triangulate: there are {len(scene.points_in_world)} sparse points already; they are used")
        return scene
    return triangulate(scene, out / "triangulated", redo=overwrite, progress=Bar())


def look_at_cameras(scene: Scene, images: Path, poses: Path | None) -> Diagnosis | None:
    """Say on stderr which faults a quick look at the cameras finds, and return what was seen; nothing is changed.

    None where the input cannot be looked at: ``infer`` is the one to say what is wrong with it.
    """
    from nasrecon.check.diagnose import check_scene
    from nasrecon.check.summary import warning
    from nasrecon.cli.console import say

    try:
        diagnosis = check_scene(scene, quick=True)
    except InputError:
        return None
    for line in warning(diagnosis, f"{images}{f' --poses {poses}' if poses else ''}"):
        say(line)
    return diagnosis


def with_refined_poses(scene: Scene, seen: Diagnosis | None, out: Path, overwrite: bool) -> Scene:
    """Refine the poses by the matches of all images, where a quick look saw that they are off; else return the scene.

    Cameras that have a fault stay as they are: no small turn repairs it. What was found stays in the results folder
    ``out``, and is used again by the next run on the same scene.
    """
    from nasrecon.cli.console import say
    from nasrecon.refine.poses import LEAST_OFF_PX

    if seen is None or seen.faults or seen.given is None or seen.given.median_px < LEAST_OFF_PX:
        return scene
    found = read_refined_poses(scene, out) if not overwrite else None
    if found is None:
        from nasrecon.cli.console import Bar
        from nasrecon.refine.poses import refine_scene

        say("matches lie beside their epipolar lines; refining the poses")
        with Bar() as bar:
            refined = refine_scene(scene, bar)
        found = write_refined_poses(scene, refined, out)
    new, words = found
    say(f"{words}; --keep-poses leaves them as they are" if new is not scene else words)
    return new
