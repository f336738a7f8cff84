"""What the panels of the live page contain, as plain HTML: everything from the results is escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from nasrecon.results.preview import INVALID_RGB, bar_depths, color_table, length_label, normal_legend, png_bytes
from nasrecon.types import Estimate, Unit
from nasrecon.view.contents import Survey
from nasrecon.view.page_data import PageData, run_holds
from nasrecon.view.pictures import css_gradient, data_uri, jpeg_bytes, view_pictures
from nasrecon.view.points import Coloring
from nasrecon.view.quality import COLUMNS, ViewFacts, ViewQuality
from nasrecon.view.server import SHEET_PX
from nasrecon.view.values import maps_of

_PICTURE_PX = 640
_SMALL = "font-size:12px;line-height:1.35;opacity:.75"
_WARNING = "margin-top:6px;padding:5px 8px;background:#fff4e0;color:#3a2a10;border-left:3px solid #e08a00"
_FAULT = "#c86400"
"""Orange, for what needs attention and nothing else."""
_SHEET = f"<style>@media (max-width:{SHEET_PX}px){{[style*='width: 20em']{{width:100%!important}}}}</style>"
"""Makes viser's sheet of a narrow window as wide as the window; viser gives it 20 em."""
_NO_VALUE = "#{:02x}{:02x}{:02x}".format(*INVALID_RGB)


def waiting_html(data: PageData) -> str:
    """State that nothing is finished, and whether a run is at work."""
    state = (
        "The run is at work: cameras, checks and depth ranges come before it."
        if run_holds(data.folder)
        else "No run is at work in this folder. The page fills once one is."
    )
    return _SHEET + _box(f"<b>Waiting for the first view</b><br>{escape(str(data.folder))}<br>{state}")


def status_html(data: PageData, points_shown: int | None = None) -> str:
    """State what the page shows, what is not there yet, and, in orange, what needs attention.

    Args:
        data: of the page.
        points_shown: on the page of a visitor; None: all that are in memory.
    """
    contents = data.contents
    if contents is None:
        return waiting_html(data)
    points, faces = sum(map(len, data.parts.values())), len(data.mesh.faces) if data.mesh else 0
    pieces = (
        ("views", len(contents.results) if data.frame else 0, contents.expected_views, False),
        ("points", points if points_shown is None else points_shown, data.points, points < data.points),
        ("faces", faces, data.mesh_faces, faces < data.mesh_faces),
    )
    rows = []
    for name, shown, of, is_thinned in pieces:
        if of:
            number = f"{shown:,}" if shown == of else f"{shown:,} of {of:,}"
            rows.append(f"<b>{number}</b> {name}{' (thinned for the browser)' if is_thinned else ''}")
    state = ["infer has not finished: views appear as they do"] if contents.is_running else []
    state += [f"reading: {data.unread} views to go"] if data.unread else []
    lines = "<br>".join([*rows, *(escape(line) for line in (*state, *contents.missing))])
    warnings = (*contents.warnings, *data.problems.values())
    return _SHEET + _box(lines + "".join(f"<div style='{_WARNING}'>{escape(warning)}</div>" for warning in warnings))


def _box(content: str) -> str:
    return f"<div style='font-size:13px;line-height:1.5;padding:2px 12px 8px;overflow-wrap:anywhere'>{content}</div>"


def view_html(
    estimate: Estimate,
    sources: dict[str, np.ndarray | None],
    survey: Survey,
    unit: Unit,
    quality: ViewQuality | None = None,
    *,
    min_confidence: float = 0.0,
) -> str:
    """Show a view: its image, depth, normals and confidence side by side, each enlarged on a click; sources below.

    Args:
        estimate: the view.
        sources: small images (h, w, 3) uint8 of its sources by name; None for one that is not finished.
        survey: the depths at the ends of the colours that all views share.
        unit: of the scene.
        quality: of the view, once it is known.
        min_confidence: pixels with less lose their values.
    """
    facts = ViewFacts.of(estimate)
    confident = replace(estimate, depth=np.where(estimate.confidence >= min_confidence, estimate.depth, 0))
    shown = view_pictures(confident, 1.0, 1.0, names=("image", "normals"), width=_PICTURE_PX)
    pictures = {name: data_uri(jpeg_bytes(picture)) for name, picture in shown.items()}
    maps = maps_of(confident, facts, pictures, _PICTURE_PX)
    page = {"near": survey.near, "far": survey.far, "unit": unit, **_colors()}
    thumbnails = "".join(_source(name, picture) for name, picture in sources.items()) or "none"
    words = (
        f"depth {length_label(facts.near, unit)} to {length_label(facts.far, unit)}, "
        f"median confidence {facts.median_confidence:.2f}, {100 * facts.valid:.0f} % of the pixels have a depth"
        if facts.valid
        else "no pixel has a depth"
    )
    values = escape(json.dumps({"view": maps, "page": page}))
    script = _script("nasreconPanel.paint(this)")
    return (
        f"<div class='nasrecon-view' style='padding:4px 12px' data-view='{values}'>"
        f"<div style='font-weight:600;overflow-wrap:anywhere'>{escape(estimate.view.name)}</div>"
        f"<div style='{_SMALL};margin-bottom:8px'>{words}</div>{_quality_line(quality)}"
        f"<div style='display:grid;grid-template-columns:1fr 1fr;gap:8px'>{_figures(maps)}</div>"
        f"<div style='font-size:12px;font-weight:600;margin-top:8px'>Sources</div>"
        f"<div style='display:grid;grid-template-columns:repeat(4,1fr);gap:6px'>{thumbnails}</div>{script}</div>"
    )


@cache
def _colors() -> dict[str, str]:
    """Return the colours and legends that live_panel.js gives to maps.js."""
    return {
        "palette": base64.b64encode(color_table().tobytes()).decode(),
        "gradient": css_gradient(),
        "ball": data_uri(png_bytes(normal_legend(96)), "image/png"),
    }


@cache
def _script(call: str = "") -> str:
    """Return an element that runs the scripts and then ``call``.

    HTML that is put into a page runs no script element, but an image reports that it has loaded.
    """
    code = "".join(files("nasrecon.view").joinpath(name).read_text() for name in ("maps.js", "live_panel.js"))
    empty = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///ywAAAAAAQABAAACAUwAOw=="
    return f"<img alt='' style='display:none' src='{empty}' onload='{escape(code)}{call}'>"


def _figures(maps: dict[str, Any]) -> str:
    width, height = maps["size"]
    scales = "<option value='all'>scale of all views</option><option value='view'>scale of each view</option>"
    choice = f"<select aria-label='Depths at the ends of the colours' style='font-size:11px'>{scales}</select>"
    legends = {
        "image": "",
        "depth": f"{_gradient()}<div class='marks'></div>{_no_value()}{choice}",
        "normals": _normals_legend(),
        "confidence": _bar(["0", "0.25", "0.5", "0.75", "1"]),
    }
    style = "width:100%;display:block;cursor:zoom-in"
    out = []
    for kind, legend in legends.items():
        about = f"class='map' title='Click to enlarge' style='{style}'"
        source = maps["pictures"].get(kind)
        map_ = (
            f"<img alt='{kind}' src='{source}' {about}>"
            if source
            else f"<canvas aria-label='{kind}' width='{width}' height='{height}' {about}></canvas>"
        )
        caption = f"<figcaption style='font-size:12px;font-weight:600'>{kind.capitalize()}</figcaption>"
        out.append(f"<figure data-kind='{kind}' style='margin:0'>{caption}{map_}{legend}</figure>")
    return "".join(out)


def _quality_line(quality: ViewQuality | None) -> str:
    if quality is None or not quality.in_words():
        return ""
    color = f"color:{_FAULT};font-weight:600" if quality.fault else "opacity:.75"
    return f"<div style='font-size:12px;{color};margin:-4px 0 8px'>{escape(quality.in_words())}</div>"


def quality_html(ranking: Sequence[ViewQuality]) -> str:
    """Show the quality of the views as a table, worst first; a click on a row goes to the view."""
    if not ranking:
        return _box("No view has been read yet.")
    cell = "padding:2px 5px;text-align:right;white-space:nowrap"
    heads = "".join(f"<th style='{cell}' title='{escape(meaning)}'>{name}</th>" for name, meaning in COLUMNS)
    rows = []
    for view in ranking:
        color = f"color:{_FAULT};" if view.fault else ""
        fault = f"<div style='font-weight:600'>{escape(view.fault)}</div>" if view.fault else ""
        name = f"<td style='padding:2px 5px;overflow-wrap:anywhere'>{escape(view.name)}{fault}</td>"
        cells = "".join(f"<td style='{cell}'>{text}</td>" for text in view.cells())
        go = "nasreconPanel.goTo(this.dataset.name)"
        rows.append(
            f"<tr tabindex='0' data-name='{escape(view.name)}' style='{color}cursor:pointer;"
            f"border-top:1px solid rgba(128,128,128,.3)' onclick='{go}'>{name}{cells}</tr>"
        )
    words = "; ".join(f"{name}: {meaning}" for name, meaning in COLUMNS)
    return (
        f"<div style='padding:0 12px 8px;font-size:12px;overflow-x:auto'><table class='nasrecon-quality' "
        f"style='border-collapse:collapse;width:100%;font-size:11px'><tr><th style='text-align:left;padding:2px 5px'>"
        f"view</th>{heads}</tr>{''.join(rows)}</table><div style='{_SMALL};margin-top:6px'>Worst first; a click on a "
        f"row goes to the view. {words}.</div>{_script()}</div>"
    )


def _source(name: str, picture: np.ndarray | None) -> str:
    image = (
        f"<img alt='{escape(name)}' src='{data_uri(jpeg_bytes(picture))}' style='width:100%;display:block'>"
        if picture is not None
        else f"<div style='{_SMALL}'>not finished</div>"
    )
    return f"<div style='font-size:11px;overflow:hidden;text-overflow:ellipsis'>{image}{escape(name)}</div>"


def _gradient() -> str:
    return f"<div style='height:9px;margin-top:4px;background:{css_gradient()}'></div>"


def _bar(labels: list[str]) -> str:
    """Draw the colour scale, low at the left, with labels at even distances below."""
    words = "".join(f"<span>{escape(label)}</span>" for label in labels)
    return (
        _gradient() + f"<div style='display:flex;justify-content:space-between;font-size:11px;opacity:.8'>{words}</div>"
    )


def depth_legend(near: float, far: float, unit: Unit) -> str:
    """Draw the scale bar of ``color_depth``: far at the left, even in inverse depth, with its unit."""
    return _bar([length_label(depth, unit) for depth in bar_depths(near, far, 4)])


def _no_value() -> str:
    return (
        f"<div style='font-size:11px;opacity:.8'><span style='display:inline-block;width:9px;height:9px;"
        f"background:{_NO_VALUE};margin-right:4px'></span>no value</div>"
    )


def _normals_legend() -> str:
    ball = data_uri(png_bytes(normal_legend(64)), "image/png")
    return (
        f"<div style='display:flex;gap:6px;align-items:center;font-size:11px;opacity:.8;margin-top:4px'>"
        f"<img alt='legend of the normals' src='{ball}' style='width:32px'>"
        f"facing right is red, up is green, to the camera is blue</div>"
    )


def cloud_legend(coloring: Coloring, near: float, far: float, unit: Unit, support: int) -> str:
    """Explain the colours of the cloud; ``support``: the number of views at the upper end."""
    if coloring == "image":
        return ""
    if coloring == "depth":
        inner = (
            depth_legend(near, far, unit) + "<span>in the nearest view that sees the point; grey: not read yet</span>"
        )
    elif coloring == "confidence":
        inner = _bar(["0", "0.25", "0.5", "0.75", "1"]) + "<span>the highest of the views that see the point</span>"
    elif coloring == "normal":
        inner = _normals_legend() + "<span>as the chosen view sees them</span>"
    elif support:
        top = max(2, support)
        inner = _bar(["1", f"{(1 + top) / 2:g}", f"{top} or more"]) + "<span>views that agree on the point</span>"
    else:
        inner = "<span>known once the views are fused: run nasrecon fuse</span>"
    return f"<div style='padding:0 12px 6px;{_SMALL}'>{inner}</div>"
