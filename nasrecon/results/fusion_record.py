"""fusion.json: what a fusion made of a results folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nasrecon.atomic import write_atomically
from nasrecon.results.reader import FUSION_FILE, Results, view_files


def fusion_facts(
    fusion: Any, files: dict[str, str], options: Any, epipolar_px: dict[str, float] | None = None
) -> dict[str, Any]:
    """Return the facts of a ``fuse.fusion.Fusion``, JSON values only; ``files``: the files that were written
    ("mesh": path); ``options``: ``FuseOptions``; ``epipolar_px``: as ``Results.epipolar_px``."""
    stats, mesh = fusion.stats, fusion.mesh
    return {
        **files,
        "views": stats.views,
        "stages": dict(stats.stages()),
        "isolated_views": stats.isolated_views,
        "scales": stats.scales,
        "sigma_scales": stats.sigma_scales,
        "contradicting": stats.contradicting(),
        "quality": _quality(stats, epipolar_px or {}),
        "notes": stats.notes(),
        "cell": fusion.cell,
        "voxel": fusion.voxel.size if fusion.voxel else None,
        "vertices": len(mesh.vertices) if mesh else None,
        "faces": len(mesh.faces) if mesh else None,
        "options": asdict(options),
        "seconds": {name: round(value, 3) for name, value in fusion.seconds.items()},
    }


def _quality(stats: Any, epipolar_px: dict[str, float]) -> dict[str, dict[str, float | None]]:
    """Return for each view "confirmed", the part of its pixels that other views confirm, "agreement", the part of the
    comparisons with other views in which depths agree, None where there were too few of these, and "epipolar_px", the
    median epipolar error of the camera check, None where it did not compare the view."""
    return {
        name: {
            "confirmed": round(confirmed, 4),
            "agreement": round(stats.agreement[name], 4) if name in stats.agreement else None,
            "epipolar_px": epipolar_px.get(name),
        }
        for name, confirmed in stats.confirmed.items()
    }


def write_fusion(folder: str | Path, facts: dict[str, Any]) -> None:
    """Write fusion.json: what a fusion made of a folder's views, so that `viz` finds it.

    Args:
        folder: the results folder.
        facts: JSON values; "mesh" and "cloud", where they are there, are the paths of what was written.
    """
    folder = Path(folder)
    facts = dict(facts)
    for what in ("mesh", "cloud"):
        if what in facts:
            path = Path(facts[what]).resolve()
            inside = path.is_relative_to(folder.resolve())  # such a folder can be moved
            facts[what] = str(path.relative_to(folder.resolve()) if inside else path)
    if view_files(folder):
        facts["views_sha256"] = Results.open(folder).digest
    write_atomically(folder / FUSION_FILE, json.dumps(facts, indent=1).encode())
