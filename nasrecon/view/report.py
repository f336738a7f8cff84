"""The report: one HTML file with the scene in 3D, every view, the run's tables and histograms. It asks for nothing.

Its content security policy forbids every request, so what it shows is in the file: ``report.html``, ``report.css`` and
three scripts (the maps, the scene in WebGL, the page) with the data filled in. Arrays are quantised, compressed with
zlib and written as base64; the browser's own DecompressionStream unpacks them.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.atomic import write_atomically
from nasrecon.errors import InputError
from nasrecon.fuse.save import load_cloud, load_mesh
from nasrecon.progress import LogProgress, Progress, under_way
from nasrecon.results.preview import color_table, normal_legend, png_bytes
from nasrecon.types import Estimate, Mesh, PointCloud, View
from nasrecon.view.contents import Contents, Survey, look, survey_depths
from nasrecon.view.options import MAX_REPORT_MB
from nasrecon.view.page_frame import OVERVIEW_FOV_DEG, PageFrame, choose_frame, overview
from nasrecon.view.pictures import css_gradient, data_uri, jpeg_bytes, view_pictures
from nasrecon.view.points import Points, concatenate, points_of_cloud, points_of_view, support_limit
from nasrecon.view.quality import COLUMNS, ViewFacts, rank_views
from nasrecon.view.simplify import simplify_mesh
from nasrecon.view.tables import report_tables
from nasrecon.view.values import maps_of

MAX_FACES = 400_000
MAX_POINTS = 500_000
_PICTURES_SHARE = 0.45
"""Part of the file that the pictures of the views may take."""
_WIDTHS = (400, 320, 256, 192, 144, 112, 80)
"""Widths of the pictures [px], the first that fits is taken."""
_BINS = 40


@dataclass(kw_only=True, eq=False)
class _Pass:
    """What one pass over the views collects."""

    cards: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, ViewFacts] = field(default_factory=dict)
    depth_counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    confidence_counts: np.ndarray = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    beyond: int = 0
    invalid: int = 0
    parts: list[Points] = field(default_factory=list)


def write_report(
    folder: Path | str, path: Path | str, *, max_mb: float = MAX_REPORT_MB, progress: Progress | None = None
) -> Path:
    """Write the report of a results folder and return its path.

    Args:
        folder: the results folder; a mesh or cloud that is not there is said to be missing on the page.
        path: the file to write.
        max_mb: its size at most [millions of bytes]; pictures get smaller and the scene thinner to keep to it.
        progress: receives the reports.

    Raises:
        InputError: if it is no results folder, a file of it is damaged, or the size is too small for so many views.
    """
    folder, path = Path(folder), Path(path)
    contents, progress = look(folder), progress or LogProgress()
    results = contents.results
    progress.update("report", 0, len(results))
    survey = survey_depths(results)
    frame = choose_frame(results.views, survey.points_in_world)
    budget = max_mb * 1e6
    width = _picture_width(results[0], len(results), _PICTURES_SHARE * budget)
    cloud = load_cloud(contents.cloud) if contents.cloud else None
    points = points_of_cloud(cloud, MAX_POINTS) if cloud else None
    collected = _visit(contents, survey, width, points, progress)
    ranking = rank_views(collected.facts, contents.fusion, results.epipolar_px)
    points = points or concatenate(collected.parts)
    mesh = load_mesh(contents.mesh) if contents.mesh else None

    data = {
        **_about(contents, survey, frame),
        "histograms": _histograms(collected, cloud, survey),
        "views": collected.cards,
        "quality": [{"name": view.name, "cells": view.cells(), "fault": view.fault} for view in ranking],
        "qualityColumns": COLUMNS,
        "words": {view.name: view.in_words() for view in ranking},
    }
    left = 0.97 * budget - len(json.dumps(data)) - len(_page({}, {}))
    with under_way(progress, "pack"):
        data["scene"], arrays = _scene(mesh, points, frame, survey, left)
    data["scene"]["points"]["of"] = len(cloud) if cloud else len(points)
    page = _page(data, arrays).encode()
    if len(page) > budget:
        raise InputError(
            f"{path}: the report of {len(results)} views takes {len(page) / 1e6:.1f} MB with the smallest pictures and "
            f"the thinnest scene, more than the {max_mb:g} MB that are allowed; raise --max-mb"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page)
    return path


def _picture_width(estimate: Estimate, views: int, budget: float) -> int:
    """Return the width [px] at which the pictures of all views fit the budget, going by one view."""
    for width in _WIDTHS:
        if len(json.dumps(_maps(estimate, ViewFacts.of(estimate), width))) * views <= budget:
            return width
    return _WIDTHS[-1]


def _maps(estimate: Estimate, facts: ViewFacts, width: int) -> dict[str, Any]:
    shown = view_pictures(estimate, 1.0, 1.0, names=("image", "normals"), width=width)
    pictures = {name: data_uri(jpeg_bytes(picture, quality=80)) for name, picture in shown.items()}
    return maps_of(estimate, facts, pictures, width)


def _visit(contents: Contents, survey: Survey, width: int, cloud: Points | None, progress: Progress) -> _Pass:
    """Read every view once: its pictures and facts, the histograms, and what it knows of the points."""
    results, out = contents.results, _Pass()
    edges = np.linspace(0, 1.25 * survey.far, _BINS + 1)
    share = max(500, MAX_POINTS // len(results))
    for i in range(len(results)):
        estimate = results[i]
        facts = out.facts[estimate.view.name] = ViewFacts.of(estimate)
        about = {"sources": list(estimate.sources), "confidence": facts.median_confidence}
        out.cards.append(_maps(estimate, facts, width) | about)
        valid = estimate.depth > 0
        depth = estimate.depth[valid]
        out.depth_counts += np.histogram(depth, edges)[0]
        out.beyond += int((depth > edges[-1]).sum())
        out.invalid += int((~valid).sum())
        out.confidence_counts += np.histogram(estimate.confidence[valid], _BINS, (0, 1))[0]
        if cloud is not None:
            cloud.observe(estimate)
        else:
            out.parts.append(points_of_view(estimate, share))
        progress.update("report", i + 1, len(results))
    return out


def _histograms(collected: _Pass, cloud: PointCloud | None, survey: Survey) -> dict[str, Any]:
    """Return the histograms, JSON values: counts between ends; of support one count a number of views, from 1."""
    support = np.bincount(cloud.support)[1:] if cloud else np.zeros(0, np.int64)
    last = len(support)
    if last > _BINS:
        support = np.append(support[: _BINS - 1], support[_BINS - 1 :].sum())
    return {
        "depth": {"counts": collected.depth_counts.tolist(), "low": 0.0, "high": 1.25 * survey.far},
        "confidence": {"counts": collected.confidence_counts.tolist(), "low": 0.0, "high": 1.0},
        "support": {"counts": support.tolist(), "last": last},
        "beyond": collected.beyond,
        "invalid": collected.invalid,
    }


def _about(contents: Contents, survey: Survey, frame: PageFrame) -> dict[str, Any]:
    """Return what the page says of the run as a whole, JSON values."""
    results = contents.results
    position, look_at = overview(frame, results.views, survey.points_in_world)
    return {
        "title": results.folder.resolve().name,
        "written": time.strftime("%Y-%m-%d %H:%M"),
        "unit": results.unit,
        "near": survey.near,
        "far": survey.far,
        "scale": frame.scale,
        "missing": list(contents.missing),
        "warnings": list(contents.warnings),
        "tables": report_tables(contents),
        "overview": {"position": position.tolist(), "lookAt": look_at.tolist(), "fovDeg": OVERVIEW_FOV_DEG},
        "gradient": css_gradient(),
        "palette": base64.b64encode(color_table().tobytes()).decode(),
        "ball": data_uri(png_bytes(normal_legend(96)), "image/png"),
        "cameras": [_camera(frame, view, survey) for view in results.views],
    }


def _camera(frame: PageFrame, view: View, survey: Survey) -> dict[str, Any]:
    """Return a camera for the page: corners of its image at distance 1, place, axes, field of view."""
    page_from_cam = frame.page_from_cam(view)
    camera = view.camera
    corners = np.array([[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]], float)
    rays = camera.unproject(corners, np.ones(4))
    middle = 2 / (1 / survey.near + 1 / survey.far) * frame.scale
    return {
        "at": np.round(page_from_cam[:3, 3], 6).tolist(),
        "axes": np.round(page_from_cam[:3, :3].T, 6).tolist(),
        "corners": np.round(rays @ page_from_cam[:3, :3].T, 6).tolist(),
        "tanX": 0.5 * camera.width / camera.K[0, 0],
        "tanY": 0.5 * camera.height / camera.K[1, 1],
        "middle": middle,
    }


def _scene(
    mesh: Mesh | None, points: Points, frame: PageFrame, survey: Survey, budget: float
) -> tuple[dict[str, Any], dict[str, str]]:
    """Encode mesh and points so that they fit the budget [bytes]: each halved until they do, the larger first."""
    max_faces, max_points = MAX_FACES, min(MAX_POINTS, len(points))
    shown = simplify_mesh(mesh, max_faces) if mesh is not None else None
    encoded_mesh = _encode_mesh(shown, frame) if shown is not None else {}
    encoded_points = _encode_points(points, max_points, frame, survey)
    while sum(map(len, encoded_mesh.values())) + sum(map(len, encoded_points.values())) > budget:
        if (
            sum(map(len, encoded_mesh.values())) > sum(map(len, encoded_points.values()))
            and mesh is not None
            and max_faces > 2000
        ):
            max_faces = max_faces * 2 // 3
            shown = simplify_mesh(mesh, max_faces)
            encoded_mesh = _encode_mesh(shown, frame)
        elif max_points > 2000:
            max_points = max_points * 2 // 3
            encoded_points = _encode_points(points, max_points, frame, survey)
        else:
            break
    scene: dict[str, Any] = {
        "points": {"count": max_points, "of": len(points), "support": support_limit(points.support)},
        "box": _BOX,
    }
    if shown is not None and mesh is not None:
        scene["mesh"] = {"vertices": len(shown.vertices), "faces": len(shown.faces), "of": len(mesh.faces)}
    return scene, {**encoded_mesh, **encoded_points}


_BOX = 4.0
"""Half the edge of the cube of the page that positions are quantised in; what lies outside moves to its faces."""


def _quantised(points: np.ndarray) -> np.ndarray:
    return np.rint((points / _BOX).clip(-1, 1) * 32767).astype("<i2")


def _encode_mesh(mesh: Mesh, frame: PageFrame) -> dict[str, str]:
    inside = np.abs(frame.points(mesh.vertices)).max(axis=-1) < _BOX if len(mesh.vertices) else np.zeros(0, bool)
    faces = mesh.faces[inside[mesh.faces].all(axis=-1)] if len(mesh.faces) else mesh.faces
    steps = np.diff(faces.astype(np.int64).ravel(), prepend=0).astype("<i4")  # small numbers: they compress
    return {
        "meshPosition": _packed(_quantised(frame.points(mesh.vertices))),
        "meshNormal": _packed(np.rint(frame.directions(mesh.normal) * 127).astype("i1")),
        "meshColor": _packed(mesh.rgb),
        "meshIndex": _packed(steps),
    }


def _encode_points(points: Points, count: int, frame: PageFrame, survey: Survey) -> dict[str, str]:
    """Encode the first points: depth as its place on the colours' scale, 0 = unknown, and so the confidence."""
    depth, confidence = points.depth[:count], points.confidence[:count]
    known = depth > 0
    place = (1 / np.where(known, depth, 1) - 1 / survey.far) / max(1 / survey.near - 1 / survey.far, 1e-12)
    return {
        "pointPosition": _packed(_quantised(frame.points(points.points_in_world[:count]))),
        "pointNormal": _packed(np.rint(frame.directions(points.normal[:count]) * 127).astype("i1")),
        "pointColor": _packed(points.rgb[:count]),
        "pointDepth": _packed(np.where(known, 1 + np.rint(place.clip(0, 1) * 254), 0).astype("u1")),
        "pointConfidence": _packed(
            np.where(np.isnan(confidence), 0, 1 + np.rint(np.nan_to_num(confidence).clip(0, 1) * 254)).astype("u1")
        ),
        "pointSupport": _packed(points.support[:count].clip(0, 255).astype("u1")),
    }


def _packed(array: np.ndarray) -> str:
    """Compress an array for the page, byte planes apart as they compress better so."""
    planes = np.ascontiguousarray(array).view("u1").reshape(-1, array.itemsize).T
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")


def _page(data: dict[str, Any], arrays: dict[str, str]) -> str:
    """Fill the page's parts in; ``</`` is escaped, so that no text ends the script that carries it."""
    template_folder = files("nasrecon.view")
    text = json.dumps(data).replace("</", "<\\/")
    blobs = "\n".join(f'<script type="text/plain" id="{name}">{content}</script>' for name, content in arrays.items())
    page = template_folder.joinpath("report.html").read_text()
    for mark, part in (
        ("/*CSS*/", template_folder.joinpath("report.css").read_text()),
        ("/*MAPS*/", template_folder.joinpath("maps.js").read_text()),
        ("/*SCENE*/", template_folder.joinpath("report_scene.js").read_text()),
        ("/*PAGE*/", template_folder.joinpath("report_page.js").read_text()),
        ("<!--ARRAYS-->", blobs),
        ("/*DATA*/", text),
    ):
        head, _, tail = page.partition(mark)
        page = head + part + tail
    return page
