"""Refined poses in the results folder, so that the next run on the same scene reads them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nasrecon.refine.poses import RefinedPoses
    from nasrecon.types import Scene


REFINED_POSES = "refined_poses.json"
"""Where a results folder keeps poses that were refined."""


def read_refined_poses(scene: Scene, out: Path) -> tuple[Scene, str] | None:
    """Return the scene with the poses that an earlier run refined, and its words; None if there was none on this scene."""
    from nasrecon.results.digest import scene_digest

    path = out / REFINED_POSES
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["scene_sha256"] != scene_digest(scene):
            return None
        return with_poses(scene, kept["cam_from_world"], kept["said"]), kept["said"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # none, or damaged: made anew


def write_refined_poses(scene: Scene, refined: RefinedPoses, out: Path) -> tuple[Scene, str]:
    """Write what was found into the folder; returns the scene with it, and what was done in words."""
    from nasrecon.results.digest import scene_digest

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
    return with_poses(scene, poses, words), words


def with_poses(scene: Scene, poses: dict[str, list], words: str) -> Scene:
    views = [
        replace(view, cam_from_world=poses[view.name], given_cam_from_world=view.cam_from_world) for view in scene.views
    ]
    return replace(scene.replace_views(views), source=f"{scene.source}; {words}")
