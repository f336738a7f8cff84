"""The controls of the live page, and what its panels say: plain HTML, everything from the results escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nasrecon.results.preview import INVALID_RGB, bar_depths, length_label, normal_legend, png_bytes
from nasrecon.types import Estimate, Unit
from nasrecon.view.glb import SURFACES
from nasrecon.view.pictures import css_gradient, data_uri, jpeg_bytes, view_pictures
from nasrecon.view.points import COLORINGS, Coloring
from nasrecon.view.quality import ViewFacts

if TYPE_CHECKING:
    import viser

_PICTURE_PX = 480
_SMALL = "font-size:12px;line-height:1.35;color:#555"
_NO_VALUE = "#{:02x}{:02x}{:02x}".format(*INVALID_RGB)


class Controls:
    """The page's widgets; ``live.py`` gives them their meaning.

    Args:
        server: where they are added.
        show_cloud: whether the cloud is seen at first; it lies on the mesh and hides it.
    """

    PREVIOUS, NEXT = "Previous", "Next"

    def __init__(self, server: viser.ViserServer, *, show_cloud: bool) -> None:
        gui = server.gui
        self.status = gui.add_html("")
        with gui.add_folder("Layers"):
            self.mesh = gui.add_checkbox("Mesh", True)
            self.cloud = gui.add_checkbox("Point cloud", show_cloud)
            self.cameras = gui.add_checkbox("Cameras", True)
            self.dark = gui.add_checkbox("Dark", False)
            self.overview = gui.add_button("Overview", hint="Back to where the page began. Key: F")
            self.keys = gui.add_button("? Keys", hint="The keys of this page.")
        with gui.add_folder("Mesh", expand_by_default=False):
            self.surface = gui.add_dropdown("Surface", SURFACES)
        with gui.add_folder("Point cloud"):
            self.coloring = gui.add_dropdown("Colour by", COLORINGS)
            self.legend = gui.add_html("")
            self.threshold = gui.add_slider(
                "Confidence", 0.0, 1.0, 0.01, 0.0, hint="Hide points and pixels with less than this."
            )
            self.point_size = gui.add_slider("Point size", 1.0, 20.0, 0.5, 4.0)
            self.points = gui.add_slider(
                "Thousands", 50, 1000, 50, 500, hint="Points that are shown at most: fewer are faster."
            )
        with gui.add_folder("Cameras", expand_by_default=False):
            self.camera_size = gui.add_slider("Size", 1.0, 30.0, 0.5, 8.0)
        panel = gui.add_panel()
        with panel.add_tab("View"):
            self.view = gui.add_dropdown("View", ("(none yet)",), hint="Or click on a camera.")
            self.steps = gui.add_button_group("Step", (self.PREVIOUS, self.NEXT))
            self.photo = gui.add_slider(
                "Photo", 0.0, 1.0, 0.05, 0.0, hint="Photograph over the mesh, in the viewpoint of the chosen camera."
            )
            self.depth = gui.add_slider("Depth", 0.0, 1.0, 0.05, 0.0, hint="Depth over that photograph.")
            self.pictures = gui.add_html(f"<p style='{_SMALL};padding:0 12px'>No view is finished yet.</p>")
        gui.main_panel.dock_right()
        gui.main_panel.set_width(260)
        panel.dock_left()
        panel.set_width(360)


def waiting_html(folder: Path) -> str:
    """Say that a run has begun and nothing of it is finished."""
    return _box(f"<b>Waiting for the first view</b><br>{escape(str(folder))}")


def status_html(pieces: dict[str, tuple[int, int]], is_running: bool, unread: int, missing: list[str]) -> str:
    """Say what the page shows.

    Args:
        pieces: of "views", "points" and "faces": (how many are shown, how many there are).
        is_running: whether the run has not come to its end.
        unread: views whose maps the page has still to read.
        missing: what is not there, one sentence each.
    """
    rows = []
    for name, (shown, of) in pieces.items():
        if of:
            number = f"{shown:,}" if shown == of else f"{shown:,} of {of:,}"
            thinned = " (thinned for the browser)" if name != "views" and shown < of else ""
            rows.append(f"<b>{number}</b> {name}{thinned}")
    state = ["infer has not finished: views appear as they do"] if is_running else []
    state += [f"reading: {unread} views to go"] if unread else []
    lines = "<br>".join([*rows, *(escape(line) for line in state)])
    style = "margin-top:6px;padding:5px 8px;background:#fff4e0;border-left:3px solid #e08a00"
    notes = "".join(f"<div style='{style}'>{escape(note)}</div>" for note in missing)
    return _box(lines + notes)


def _box(content: str) -> str:
    return f"<div style='font-size:13px;line-height:1.5;padding:2px 12px 8px;overflow-wrap:anywhere'>{content}</div>"


def view_html(
    estimate: Estimate, sources: dict[str, np.ndarray | None], unit: Unit, *, min_confidence: float = 0.0
) -> str:
    """Show a view: its image, depth, normals and confidence side by side, and its sources below.

    Args:
        estimate: the view.
        sources: small images (h, w, 3) uint8 of its sources by name; None for one that is not finished.
        unit: of the scene.
        min_confidence: pixels with less lose their depth and normal.
    """
    facts = ViewFacts.of(estimate)
    near, far = (facts.near, facts.far) if facts.valid else (1.0, 1.0)
    pictures = view_pictures(estimate, near, far, width=_PICTURE_PX, min_confidence=min_confidence)
    legends = {
        "image": "",
        "depth": depth_legend(near, far, unit) + _no_value(),
        "normals": _normals_legend(),
        "confidence": _bar(["0", "0.25", "0.5", "0.75", "1"]),
    }
    figures = "".join(
        f"<figure style='margin:0'><figcaption style='font-size:12px;font-weight:600'>{name.capitalize()}</figcaption>"
        f"<img alt='{name}' src='{data_uri(jpeg_bytes(picture))}' style='width:100%;display:block'>"
        f"{legends[name]}</figure>"
        for name, picture in pictures.items()
    )
    shown = "".join(_source(name, picture) for name, picture in sources.items()) or "none"
    words = (
        f"depth {length_label(near, unit)} to {length_label(far, unit)}, "
        f"median confidence {facts.median_confidence:.2f}, {100 * facts.valid:.0f} % of the pixels have a depth"
        if facts.valid
        else "no pixel has a depth"
    )
    return (
        "<div style='padding:4px 12px'>"
        f"<div style='font-weight:600;overflow-wrap:anywhere'>{escape(estimate.view.name)}</div>"
        f"<div style='{_SMALL};margin-bottom:8px'>{words}</div>"
        f"<div style='display:grid;grid-template-columns:1fr 1fr;gap:8px'>{figures}</div>"
        f"<div style='font-size:12px;font-weight:600;margin-top:8px'>Sources</div>"
        f"<div style='display:grid;grid-template-columns:repeat(4,1fr);gap:6px'>{shown}</div></div>"
    )


def _source(name: str, picture: np.ndarray | None) -> str:
    image = (
        f"<img alt='{escape(name)}' src='{data_uri(jpeg_bytes(picture))}' style='width:100%;display:block'>"
        if picture is not None
        else f"<div style='{_SMALL}'>not finished</div>"
    )
    return f"<div style='font-size:11px;overflow:hidden;text-overflow:ellipsis'>{image}{escape(name)}</div>"


def _bar(labels: list[str]) -> str:
    """Draw the colour scale, low at the left, with labels at even distances below."""
    words = "".join(f"<span>{escape(label)}</span>" for label in labels)
    return (
        f"<div style='height:9px;margin-top:4px;background:{css_gradient()}'></div>"
        f"<div style='display:flex;justify-content:space-between;font-size:11px;color:#333'>{words}</div>"
    )


def depth_legend(near: float, far: float, unit: Unit) -> str:
    """Draw the scale bar of ``color_depth``: far at the left, even in inverse depth, with its unit."""
    return _bar([length_label(depth, unit) for depth in bar_depths(near, far, 4)])


def _no_value() -> str:
    return (
        f"<div style='font-size:11px;color:#333'><span style='display:inline-block;width:9px;height:9px;"
        f"background:{_NO_VALUE};margin-right:4px'></span>no value</div>"
    )


def _normals_legend() -> str:
    ball = data_uri(png_bytes(normal_legend(64)), "image/png")
    return (
        f"<div style='display:flex;gap:6px;align-items:center;font-size:11px;color:#333;margin-top:4px'>"
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
        inner = (
            "<span>up is <b style='color:#6a6aff'>blue</b>; right, seen as the cameras look, "
            "<b style='color:#d33'>red</b>; ahead <b style='color:#292'>green</b></span>"
        )
    elif support:
        top = max(2, support)
        inner = _bar(["1", f"{(1 + top) / 2:g}", f"{top} or more"]) + "<span>views that agree on the point</span>"
    else:
        inner = "<span>Support is known once the views are fused: run nasrecon fuse</span>"
    return f"<div style='padding:0 12px 6px;{_SMALL}'>{inner}</div>"
