"""Cameras that were made for another image size than that of their files."""

from __future__ import annotations

from dataclasses import replace

from nasrecon.check.findings import Finding
from nasrecon.check.fixes import apply_fixes
from nasrecon.errors import InputError
from nasrecon.ingest.images import view_size
from nasrecon.types import Scene


def image_size_findings(scene: Scene) -> tuple[Scene, list[Finding]]:
    """Find cameras that are made for another size than their image file has; returns the scene with them resized."""
    wrong = []
    for view in scene.views:
        made_for = view.image.lens or view.camera
        try:
            size = view_size(view)
        except InputError:
            continue  # told when the image is read
        if size != (made_for.width, made_for.height):
            wrong.append((view.name, f"{made_for.width}x{made_for.height}", f"{size[0]}x{size[1]}"))
    if not wrong:
        return scene, []
    name, camera, image = wrong[0]
    finding = Finding(
        name="k-size",
        kind="fault",
        what="the cameras are made for images of another size",
        evidence=(f"{len(wrong)} of {len(scene.views)} views; {name}: camera {camera}, image {image}",),
        fixes=("k-size",),
        views=tuple(name for name, _, _ in wrong) if len(wrong) < len(scene.views) else (),
    )
    return readable_size(scene), [finding]


def readable_size(scene: Scene) -> Scene:
    """Apply the fix ``k-size`` to the views whose images can be read."""
    views = []
    for view in scene.views:
        try:
            views.append(apply_fixes(replace(scene, views=(view,), visible=None), ["k-size"]).views[0])
        except InputError:
            views.append(view)
    return scene.replace_views(views)
