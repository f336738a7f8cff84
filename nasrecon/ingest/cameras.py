"""Leave out cameras that no photograph was taken with; what is merely doubtful is for ``check``."""

from __future__ import annotations

from dataclasses import replace

from nasrecon.errors import InputError
from nasrecon.types import Camera, Lens, Scene

FOCAL_SIDES = (1e-3, 1e3)
CENTER_SIDES = 20.0


def with_sound_cameras(scene: Scene) -> Scene:
    """Return the scene without the views whose camera no photograph was taken with; they are in ``dropped``.

    Left out are focal lengths outside ``FOCAL_SIDES`` (in longer sides of the image), principal points more than
    ``CENTER_SIDES`` sides away, and lenses that bend rays as none does.

    Raises:
        InputError: if no view is left, with the reason of the first.
    """
    problems: dict[object, str] = {}
    kept, dropped = [], []
    for i, view in enumerate(scene.views):
        lens, camera = view.image.lens, view.camera
        key = lens or (camera.width, camera.height, camera.K.tobytes())
        if key not in problems:
            problems[key] = _problem_of_lens(lens) if lens is not None else _problem_of_pinhole(camera)
        if problems[key]:
            dropped.append((view.name, problems[key]))
        else:
            kept.append(i)
    if dropped and not kept:
        raise InputError(f"no image can be used: {dropped[0][0]}: {dropped[0][1]}")
    return replace(scene.subset(kept), dropped=(*scene.dropped, *dropped)) if dropped else scene


def _problem_of_lens(lens: Lens) -> str:
    from nasrecon.ingest.undistort import is_absurd, parameter_names

    if is_absurd(lens):
        named = ", ".join(f"{key} {value:g}" for key, value in zip(parameter_names(lens), lens.params, strict=True))
        return f"its camera {lens.model} has a distortion that no lens has ({named}); correct it, or export it again"
    return ""


def _problem_of_pinhole(camera: Camera) -> str:
    fx, fy, cx, cy = camera.K[0, 0], camera.K[1, 1], camera.K[0, 2], camera.K[1, 2]
    side, size = max(camera.width, camera.height), f"{camera.width}x{camera.height}"
    if not FOCAL_SIDES[0] * side <= min(fx, fy) <= max(fx, fy) <= FOCAL_SIDES[1] * side:
        return f"a focal length of {fx:g}, {fy:g} px does not go with an image of {size}; correct K"
    if max(abs(cx), abs(cy)) > CENTER_SIDES * side:
        return f"the principal point {cx:g}, {cy:g} is far outside the image of {size}; correct K"
    return ""
