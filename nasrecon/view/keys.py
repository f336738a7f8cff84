"""The keys of the live page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import viser

    from nasrecon.view.controls import Controls

KEYS = (
    ("left, right", "the view before and after"),
    ("F", "frame all: back to the overview"),
    ("M", "mesh on and off"),
    ("C", "point cloud on and off"),
    ("P", "cameras on and off"),
    ("D", "dark and light"),
    ("R", "measure a distance"),
    ("X", "clipping box on and off"),
    ("1 to 4, Esc", "in an enlarged map: its four maps, close"),
    ("?, H", "this list"),
    ("Ctrl K", "search all commands"),
)


def connect_keys(
    client: viser.ClientHandle,
    controls: Controls,
    step: Callable[[int], None],
    frame_all: Callable[[Any], Coroutine[Any, Any, None]],
) -> None:
    """Register the keys of ``KEYS``, and the button that lists them.

    Args:
        client, controls: the visitor and its page.
        step: goes to the view so many places after the chosen one.
        frame_all: shows everything.
    """
    key: Any  # viser's names of keys are literals
    for key, label, by in (("arrowleft", "View before", -1), ("arrowright", "View after", 1)):
        command = client.gui.add_command(label, hotkey=key)
        command.on_trigger(lambda _, by=by: step(by))
    client.gui.add_command("Frame all", hotkey="F").on_trigger(frame_all)
    for key, label, box in (
        ("M", "Mesh on and off", controls.mesh),
        ("C", "Point cloud on and off", controls.cloud),
        ("P", "Cameras on and off", controls.cameras),
        ("D", "Dark and light", controls.dark),
        ("R", "Measure a distance", controls.measure),
        ("X", "Clipping box on and off", controls.clip),
    ):
        client.gui.add_command(label, hotkey=key).on_trigger(lambda _, box=box: setattr(box, "value", not box.value))

    def show(_: Any) -> None:
        client.add_notification(
            title="Keys", body="\n".join(f"{keys}: {what}" for keys, what in KEYS), auto_close_seconds=15
        )

    client.gui.add_command("Keys", hotkey="H").on_trigger(show)
    question: Any = "?"  # it is typed with shift, on all usual keyboards; viser's page takes any character
    client.gui.add_command("Keys (?)", hotkey=question, modifier="shift").on_trigger(show)
    controls.keys.on_click(show)
