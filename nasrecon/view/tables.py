"""The tables of a report: what was run on what, with which options, what was kept, and how long it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nasrecon.results.preview import length_label
from nasrecon.view.contents import Contents


def report_tables(contents: Contents) -> list[dict[str, Any]]:
    """Return the tables in order, each {"title", "head", "rows"} of text; those without rows are left out."""
    manifest, fusion = contents.results.manifest, contents.fusion
    tables = [
        _table("Run", ("", ""), _run_rows(contents)),
        _table("Options of infer", ("option", "value"), _pairs(manifest["settings"]["options"])),
        _table("Filter stages", ("stage", "pixels or points", "of all pixels"), _stage_rows(fusion)),
        _table("Fusion", ("", ""), _fusion_rows(contents)),
        _table("Options of fuse", ("option", "value"), _pairs((fusion or {}).get("options", {}))),
        _table("Timings", ("step", "seconds"), _timing_rows(contents)),
        _table("Left out", ("input", "reason"), [(line["name"], line["reason"]) for line in manifest["dropped"]]),
        _table(
            "Cameras", ("view", "size", "fx", "fy", "cx", "cy", "depth range", "sources", "seconds"), _cameras(contents)
        ),
    ]
    return [table for table in tables if table["rows"]]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> dict[str, Any]:
    return {"title": title, "head": list(head), "rows": [[str(cell) for cell in row] for row in rows]}


def _pairs(values: dict[str, Any]) -> list[tuple[str, object]]:
    return [
        (key.replace("_", " "), "chosen from the data" if value is None else value) for key, value in values.items()
    ]


def _run_rows(contents: Contents) -> list[tuple[str, object]]:
    manifest = contents.results.manifest
    scene, settings = manifest["scene"], manifest["settings"]
    done = "finished" if manifest["complete"] else "not finished"
    rows = [
        ("images", scene.get("root", "")),
        ("read as", scene.get("read_as", "")),
        ("unit", scene.get("unit", "unknown")),
        ("views", f"{len(contents.results)} of {contents.expected_views} ({done})"),
        ("source views from", scene.get("sources_from", "")),
        ("network", settings["network"]),
        ("weights", manifest.get("weights", "")),
        ("weights, sha256", settings["weights_sha256"]),
    ]
    return rows + list(manifest["versions"].items())


def _stage_rows(fusion: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    stages = (fusion or {}).get("stages", {})
    pixels = max(stages.get("pixels", 1), 1)
    return [(stage, f"{left:,}", f"{100 * left / pixels:.1f} %") for stage, left in stages.items()]


def _fusion_rows(contents: Contents) -> list[tuple[str, object]]:
    fusion, unit = contents.fusion, contents.results.unit
    if fusion is None:
        return []
    rows: list[tuple[str, object]] = [("mesh", contents.mesh or "none"), ("cloud", contents.cloud or "none")]
    if fusion.get("faces") is not None:
        rows += [("vertices", f"{fusion['vertices']:,}"), ("faces", f"{fusion['faces']:,}")]
    if fusion.get("voxel"):
        rows.append(("voxel", length_label(fusion["voxel"], unit)))
    if fusion.get("isolated_views"):
        rows.append(("overlap with no other view", ", ".join(fusion["isolated_views"])))
    return rows


def _timing_rows(contents: Contents) -> list[tuple[str, str]]:
    seconds = [line["seconds"] for line in contents.results.manifest["views"] if line.get("seconds") is not None]
    rows = []
    if seconds:
        rows = [
            ("infer, all views", f"{sum(seconds):.1f}"),
            ("infer, a view (median)", f"{np.median(seconds):.2f}"),
            ("infer, a view (longest)", f"{max(seconds):.2f}"),
        ]
    return rows + [
        (f"fuse, {step}", f"{value:.1f}") for step, value in (contents.fusion or {}).get("seconds", {}).items()
    ]


def _cameras(contents: Contents) -> list[list[str]]:
    unit = contents.results.unit
    rows = []
    for line in contents.results.manifest["views"]:
        (fx, _, cx), (_, fy, cy), _ = line["K"]
        depths = " to ".join(length_label(depth, unit) for depth in line["depth_range"] or ())
        size = f"{line['width']} x {line['height']}"
        lens = [f"{value:.1f}" for value in (fx, fy, cx, cy)]
        rows.append([line["name"], size, *lens, depths, ", ".join(line["sources"]), line.get("seconds", "")])
    return rows
