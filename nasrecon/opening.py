"""The options by which commands are told of a scene, and the opening of it: cameras read, found, looked at, refined.

What is recognised, repaired and changed is said on stderr. Everything heavy is imported inside the functions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nasrecon.errors import InputError

if TYPE_CHECKING:
    from nasrecon.doctor import Diagnosis, RefinedPoses
    from nasrecon.types import Scene

REFINED_POSES = "refined_poses.json"
"""Where a results folder keeps poses that were refined."""


class Convention(StrEnum):
    """Which way the transforms in a file of plain matrices go."""

    cam_from_world = "cam-from-world"
    world_from_cam = "world-from-cam"


class Format(StrEnum):
    """The layouts that are read, by their keys (``ingest.LAYOUTS``)."""

    colmap = "colmap"
    transforms = "transforms"
    mvsnet = "mvsnet"
    middlebury = "middlebury"
    strecha = "strecha"
    redwood = "redwood"
    tum = "tum"
    seven_scenes = "7scenes"
    scannet = "scannet"
    demon = "demon"
    kitti = "kitti"
    matrices = "matrices"


Images = Annotated[
    Path, typer.Argument(metavar="IMAGES", help="Folder of images, or of a whole set with its cameras, or a video.")
]
Poses = Annotated[
    Path | None,
    typer.Option("--poses", help="COLMAP model, or folder or file of transforms; default: within IMAGES."),
]
Intrinsics = Annotated[
    Path | None,
    typer.Option("--intrinsics", help="File with K, or folder with one for each image, where the cameras have none."),
]
WhichFormat = Annotated[
    Format | None,
    typer.Option("--format", help="The layout to read, where several fit.", show_default="the one that fits"),
]
Masks = Annotated[
    Path | None,
    typer.Option("--masks", help="Folder with a mask for each image, by name: no depth where it is zero."),
]
IgnoreHints = Annotated[
    bool,
    typer.Option("--ignore-hints", help="Choose sources and depth ranges also where the set lists them (pair.txt)."),
]
WhichWay = Annotated[
    Convention | None,
    typer.Option("--convention", help="Which way plain matrices go, where the layout leaves it open."),
]
Fixes = Annotated[
    list[str] | None,
    typer.Option("--fix", help="A repair that `check` named, as in world-from-cam; may be repeated.", metavar="NAME"),
]
Every = Annotated[int, typer.Option("--every", min=1, help="Take every Nth view only, as in a video.", metavar="N")]


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
    from nasrecon.ingest import open_scene
    from nasrecon.terminal import say

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
        from nasrecon.doctor.fixes import apply_fixes

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
    from nasrecon.ingest import open_scene
    from nasrecon.ingest.sfm import reconstruct_cameras
    from nasrecon.terminal import say

    if convention is not None:
        raise InputError(f"--convention {convention.value}: there are no cameras in {images}, and none with --poses")
    model, root, dropped = reconstruct_cameras(
        images, out / "sfm", intrinsics=intrinsics, every=every, redo=overwrite, say=say
    )
    scene = open_scene(root, model, masks=masks)
    say(f"{scene.root}: {scene.source}; use it elsewhere with --poses {model}")
    return replace(scene, source=f"structure from motion: {scene.source}", dropped=dropped)


def with_sparse_points(scene: Scene, out: Path, overwrite: bool) -> Scene:
    """Give a scene sparse points if it has none; the model stays in the results."""
    from nasrecon.ingest.sfm import triangulate
    from nasrecon.terminal import say

    if scene.visible is not None and len(scene.points_in_world):
        say(f"--triangulate: there are {len(scene.points_in_world)} sparse points already; they are used")
        return scene
    return triangulate(scene, out / "triangulated", redo=overwrite, say=say)


def look_at_cameras(scene: Scene, images: Path, poses: Path | None) -> Diagnosis | None:
    """Say on stderr which faults a quick look at the cameras finds, and return what was seen; nothing is changed.

    None where the input cannot be looked at: ``infer`` is the one to say what is wrong with it.
    """
    from nasrecon.doctor import check_scene
    from nasrecon.doctor.report import warning
    from nasrecon.terminal import say

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
    from nasrecon.doctor.poses import LEAST_OFF_PX
    from nasrecon.terminal import say

    if seen is None or seen.faults or seen.given is None or seen.given.median_px < LEAST_OFF_PX:
        return scene
    found = _refined_before(scene, out) if not overwrite else None
    if found is None:
        from nasrecon.doctor import refine_scene
        from nasrecon.terminal import Bar

        say("matches lie beside their epipolar lines; refining the poses")
        with Bar() as bar:
            refined = refine_scene(scene, bar.set)
        found = _keep_refined(scene, refined, out)
    new, words = found
    say(f"{words}; --keep-poses leaves them as they are" if new is not scene else words)
    return new


def _refined_before(scene: Scene, out: Path) -> tuple[Scene, str] | None:
    """Return the scene with the poses that an earlier run refined, and its words; None if there was none on this scene."""
    from nasrecon.results import scene_digest

    path = out / REFINED_POSES
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["scene_sha256"] != scene_digest(scene):
            return None
        return _with_poses(scene, kept["cam_from_world"], kept["said"]), kept["said"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or damaged: made anew


def _keep_refined(scene: Scene, refined: RefinedPoses, out: Path) -> tuple[Scene, str]:
    """Write what was found into the folder; returns the scene with it, and what was done in words."""
    from nasrecon.results import scene_digest

    words = refined.in_words()
    if not refined.changed:
        return scene, words
    poses = {view.name: view.cam_from_world.tolist() for view in refined.scene.views}
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{REFINED_POSES}.part"
    part.write_text(
        json.dumps({"scene_sha256": scene_digest(scene), "said": words, "cam_from_world": poses}), encoding="utf-8"
    )
    part.replace(out / REFINED_POSES)
    return _with_poses(scene, poses, words), words


def _with_poses(scene: Scene, poses: dict[str, list], words: str) -> Scene:
    views = [
        replace(view, cam_from_world=poses[view.name], given_cam_from_world=view.cam_from_world) for view in scene.views
    ]
    return replace(scene.replace_views(views), source=f"{scene.source}; {words}")
