"""Refined poses in the results folder, so that the next run on the same scene does not match its images again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasrecon.atomic import write_atomically
from nasrecon.refine.poses import RefinedPoses
from nasrecon.results.digest import scene_digest
from nasrecon.types import Scene

REFINED_POSES = "refined_poses.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class Refinement:
    """The answer of a refinement.

    Attributes:
        poses: (N, 4, 4) refined cam_from_world; None where the given poses stay.
        summary: one line for people.
    """

    poses: np.ndarray | None
    summary: str


def read_refinement(scene: Scene, folder: Path) -> Refinement | None:
    """Return the refinement that an earlier run wrote for this scene; None where there is none, or a damaged one."""
    try:
        stored = json.loads((folder / REFINED_POSES).read_text(encoding="utf-8"))
        if stored["scene_sha256"] != scene_digest(scene):
            return None
        by_name = stored["cam_from_world"]
        poses = None if by_name is None else np.array([by_name[view.name] for view in scene.views])
        return Refinement(poses=poses, summary=str(stored["summary"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_refinement(scene: Scene, refined: RefinedPoses, folder: Path | None) -> Refinement:
    """Write a refinement of ``scene`` into a folder (None: write nothing) and return it."""
    poses = np.array([view.cam_from_world for view in refined.scene.views]) if refined.changed else None
    out = Refinement(poses=poses, summary=refined.in_words())
    if folder is not None:
        by_name = {view.name: view.cam_from_world.tolist() for view in refined.scene.views} if refined.changed else None
        content = {"scene_sha256": scene_digest(scene), "summary": out.summary, "cam_from_world": by_name}
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / REFINED_POSES, json.dumps(content).encode())
    return out
