"""The widgets of a visitor's page; ``visitor.py`` gives them their meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nasrecon.view.glb import SURFACES
from nasrecon.view.points import COLORINGS
from nasrecon.view.server import SHEET_PX

if TYPE_CHECKING:
    import viser


class Controls:
    """The widgets of a visitor's page: this browser's alone.

    Args:
        client: the visitor.
        show_cloud: whether the cloud is shown at first; it lies on the mesh and hides it.
    """

    PREVIOUS, NEXT = "Previous", "Next"

    def __init__(self, client: viser.ClientHandle, *, show_cloud: bool) -> None:
        gui = client.gui
        self.status = gui.add_html("")
        with gui.add_folder("Layers"):
            self.mesh = gui.add_checkbox("Mesh", True)
            self.cloud = gui.add_checkbox("Point cloud", show_cloud)
            self.cameras = gui.add_checkbox("Cameras", True)
            self.scale_bar = gui.add_checkbox("Scale bar", True)
            self.dark = gui.add_checkbox("Dark", False, hint="Dark panels and a dark background. Key: D")
            self.overview = gui.add_button("Overview", hint="Back to where the page began. Key: F")
            self.keys = gui.add_button("? Keys", hint="The keys of this page.")
        with gui.add_folder("Tools"):
            self.measure = gui.add_checkbox("Measure", False, hint="The distance between two clicks. Key: R")
            self.distance = gui.add_html("")
            self.clip = gui.add_checkbox(
                "Clipping box",
                False,
                hint="Hide what lies outside a box; drag the handles at two of its corners. Key: X",
            )
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
        self._add_view_panel(gui)
        if client.camera.image_width > SHEET_PX:  # a sheet is as wide as its window
            gui.main_panel.dock_right()
            gui.main_panel.set_width(260)
            self.panel.dock_left()
            self.panel.set_width(360)

    def _add_view_panel(self, gui: viser.GuiApi) -> None:
        panel = self.panel = gui.add_panel()
        with panel.add_tab("View"):
            self.view = gui.add_dropdown("View", ("(none yet)",), hint="Or click on a camera.")
            self.steps = gui.add_button_group("Step", (self.PREVIOUS, self.NEXT))
            self.photo = gui.add_slider(
                "Photo", 0.0, 1.0, 0.05, 0.0, hint="Photograph over the mesh, in the viewpoint of the chosen camera."
            )
            self.depth = gui.add_slider("Depth", 0.0, 1.0, 0.05, 0.0, hint="Depth over that photograph.")
            self.pictures = gui.add_html("<p style='font-size:12px;padding:0 12px'>No view is finished yet.</p>")
        with panel.add_tab("Quality"):
            # A click on a row of the table writes here (live_panel.js).
            self.go_to = gui.add_text("Go to", "", hint="The name of a view, or the end of it.")
            self.quality = gui.add_html("")
