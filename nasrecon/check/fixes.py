"""Repairs of cameras, by name: ``apply_fixes(scene, ["world-from-cam", "k-size=1280x960"])``.

Fixes are applied only on request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nasrecon.check.camera_edits import (
    FLIP_YZ,
    from_center,
    natural_order,
    scaled_K,
    swapped_center,
    swapped_focal,
    transposed,
    with_K,
    with_order,
)
from nasrecon.errors import InputError
from nasrecon.geometry import inverse, quaternion_from_rotation, rotation_from_quaternion
from nasrecon.ingest.images import view_size
from nasrecon.types import Lens, Scene, View


@dataclass(frozen=True, kw_only=True)
class Fix:
    """A repair.

    Attributes:
        values: what may follow the name and "=", for people; "" if nothing.
        does: what it takes the cameras for.
        apply: the repaired scene from a scene and the text after "=" (None without).
    """

    values: str
    does: str
    apply: Callable[[Scene, str | None], Scene]


def apply_fixes(scene: Scene, fixes: Sequence[str]) -> Scene:
    """Return the scene with repairs applied, in their order.

    Args:
        scene: as ``open_scene`` made it.
        fixes: names as in ``FIXES``, with "=" and a value where they take one.

    Raises:
        InputError: if a name or a value is not known.
    """
    for text in fixes:
        name, _, value = text.partition("=")
        if name not in FIXES:
            known = "\n".join(
                f"  {key}{'=' if fix.values else ''}{fix.values}: {fix.does}" for key, fix in FIXES.items()
            )
            raise InputError(f"--fix {text}: there is no such fix. Known are:\n{known}")
        if value and not FIXES[name].values:
            raise InputError(f"--fix {text}: {name} takes no value")
        scene = FIXES[name].apply(scene, value or None)
    return replace(scene, origin=scene.origin.with_note(f"repaired: {', '.join(fixes)}")) if fixes else scene


def _each_transform(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Scene, str | None], Scene]:
    """Make a fix of a function from cam_from_world (4, 4) as given to cam_from_world as it should be."""

    def apply(scene: Scene, value: str | None) -> Scene:
        return scene.replace_views([replace(view, cam_from_world=change(view.cam_from_world)) for view in scene.views])

    return apply


def _each_camera(change: Callable[[View], View]) -> Callable[[Scene, str | None], Scene]:
    def apply(scene: Scene, value: str | None) -> Scene:
        return scene.replace_views([change(view) for view in scene.views])

    return apply


def _requaternioned(order: Sequence[int]) -> Callable[[Scene, str | None], Scene]:
    """Make the fix that takes the four numbers of each rotation in another order.

    They are those of cam_from_world, or, with the value "world-from-cam", those of world_from_cam (the camera's
    position, which stood beside them in the file, is then kept).
    """

    def reorder(transform: np.ndarray) -> np.ndarray:
        out = transform.copy()
        out[:3, :3] = rotation_from_quaternion(quaternion_from_rotation(transform[:3, :3])[list(order)])
        return out

    def apply(scene: Scene, value: str | None) -> Scene:
        if value not in (None, "cam-from-world", "world-from-cam"):
            raise InputError(f"quaternion order: expected =cam-from-world or =world-from-cam, found ={value}")
        change = reorder if value != "world-from-cam" else lambda T: inverse(reorder(inverse(T)))
        return _each_transform(change)(scene, None)

    return apply


def _k_size(scene: Scene, value: str | None) -> Scene:
    """K belongs to images of the size ``value``, or (without) to the size that the camera says, but its file has
    not."""
    if value is not None:
        width, height = _numbers(value.lower().replace("x", ","), 2, "k-size", "WIDTHxHEIGHT in pixels")
        if min(width, height) <= 0:
            raise InputError(f"k-size={value}: both sides must be positive")
        return _each_camera(lambda view: with_K(view, scaled_K(view.camera, width, height)))(scene, None)
    return scene.replace_views([_at_file_size(view) for view in scene.views])


def _at_file_size(view: View) -> View:
    """Return the view with its camera (and lens) resized to its image file; unchanged if that is its size already."""
    made_for = view.image.lens or view.camera
    size = view_size(view)
    if size == (made_for.width, made_for.height):
        return view
    if view.image.lens is None:
        return replace(view, camera=view.camera.resized(*size))
    from nasrecon.ingest.undistort import pinhole_camera, resized_lens

    lens: Lens = resized_lens(view.image.lens, *size)
    return replace(view, camera=pinhole_camera(lens)).with_image(lens=lens)


def _principal_point(scene: Scene, value: str | None) -> Scene:
    if value is None:
        raise InputError("principal-point: say =center, or =DX,DY: by how many pixels it is to be moved")

    def change(view: View) -> View:
        K = view.camera.K.copy()
        if value == "center":
            K[:2, 2] = view.camera.width / 2, view.camera.height / 2
        else:
            K[:2, 2] += _numbers(value, 2, "principal-point", "center, or DX,DY in pixels")
        return with_K(view, K)

    return _each_camera(change)(scene, None)


def _focal_scale(scene: Scene, value: str | None) -> Scene:
    factor = _factor(value, "focal-scale")

    def change(view: View) -> View:
        K = view.camera.K.copy()
        K[[0, 0, 1], [0, 1, 1]] *= factor
        return with_K(view, K)

    return _each_camera(change)(scene, None)


def _translation_scale(scene: Scene, value: str | None) -> Scene:
    factor = _factor(value, "translation-scale")
    return _each_transform(lambda T: np.block([[T[:3, :3], factor * T[:3, 3:]], [T[3:]]]))(scene, None)


def _factor(value: str | None, name: str) -> float:
    (factor,) = _numbers(value or "", 1, name, "a factor")
    if factor <= 0:
        raise InputError(f"{name}={value}: the factor must be positive")
    return factor


def _numbers(text: str, count: int, name: str, expected: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not np.isfinite(values).all():
        raise InputError(f"{name}={text}: expected {expected}")
    return values


def _dropped(scene: Scene, value: str | None) -> Scene:
    if value is None:
        raise InputError("drop: say which view, as in drop=IMG_0003.jpg")
    out = scene.index(value)
    kept = scene.subset([i for i in range(len(scene.views)) if i != out])
    return replace(kept, dropped=(*scene.dropped, (value, "left out by --fix drop")))


def _without_duplicates(scene: Scene, value: str | None) -> Scene:
    from nasrecon.check.duplicates import without_duplicates

    return without_duplicates(scene)


def _order(scene: Scene, value: str | None) -> Scene:
    count = len(scene.views)
    if value == "matched":
        from nasrecon.check.order import matched_order

        return with_order(scene, matched_order(scene))
    if value == "reversed":
        return with_order(scene, list(range(count))[::-1])
    if value == "natural":
        return with_order(scene, natural_order(scene))
    if value is not None and re.fullmatch(r"[+-]\d+", value):
        step = int(value)
        if abs(step) >= count:
            raise InputError(f"order={value}: there are only {count} views")
        kept = [i for i in range(count) if 0 <= i + step < count]
        moved = with_order(scene, [min(max(i + step, 0), count - 1) for i in range(count)]).subset(kept)
        lost = [scene.views[i].name for i in range(count) if i not in kept]
        return replace(
            moved, dropped=(*scene.dropped, *((name, f"no transform is left for it by order={value}") for name in lost))
        )
    raise InputError(f"order={value}: expected reversed, natural, matched, or a step as in +1 or -1")


def _refined(scene: Scene, value: str | None) -> Scene:
    from nasrecon.refine.poses import refine_scene

    return refine_scene(scene).scene


FIXES: dict[str, Fix] = {
    "world-from-cam": Fix(
        values="",
        does="the poses are world_from_cam, and were taken for cam_from_world",
        apply=_each_transform(inverse),
    ),
    "cam-from-world": Fix(
        values="",
        does="the poses are cam_from_world, and were taken for world_from_cam",
        apply=_each_transform(inverse),
    ),
    "opengl-axes": Fix(
        values="",
        does="the cameras have OpenGL axes (y up, looking along -z), and were taken for OpenCV's",
        apply=_each_transform(lambda T: FLIP_YZ @ T),
    ),
    "opencv-axes": Fix(
        values="",
        does="the cameras have OpenCV axes, and were taken for OpenGL's (y up, looking along -z)",
        apply=_each_transform(lambda T: FLIP_YZ @ T),
    ),
    "transposed-rotations": Fix(
        values="", does="the rotations are transposed, the translations are right", apply=_each_transform(transposed)
    ),
    "camera-centers": Fix(
        values="",
        does="the translations are the positions of the cameras in the world",
        apply=_each_transform(from_center),
    ),
    "quaternion-xyzw": Fix(
        values="world-from-cam",
        does="the quaternions are x y z w, and were taken for w x y z",
        apply=_requaternioned((3, 0, 1, 2)),
    ),
    "quaternion-wxyz": Fix(
        values="world-from-cam",
        does="the quaternions are w x y z, and were taken for x y z w",
        apply=_requaternioned((1, 2, 3, 0)),
    ),
    "k-size": Fix(
        values="WxH", does="K belongs to images of that size (alone: of the size in the camera file)", apply=_k_size
    ),
    "swap-focal-lengths": Fix(values="", does="fx and fy are exchanged", apply=_each_camera(swapped_focal)),
    "swap-principal-point": Fix(values="", does="cx and cy are exchanged", apply=_each_camera(swapped_center)),
    "principal-point": Fix(
        values="center|DX,DY",
        does="the principal point is at the image's centre, or off by so many px",
        apply=_principal_point,
    ),
    "focal-scale": Fix(values="S", does="the focal lengths are to be multiplied by S", apply=_focal_scale),
    "order": Fix(
        values="reversed|natural|matched|+N|-N",
        does="the images are in another order than the poses (matched: found from the images)",
        apply=_order,
    ),
    "translation-scale": Fix(values="S", does="the translations are to be multiplied by S", apply=_translation_scale),
    "refine-poses": Fix(
        values="", does="the poses are a little off: fit them to the matches of the images", apply=_refined
    ),
    "drop-duplicates": Fix(
        values="", does="leave out views that show the picture of another", apply=_without_duplicates
    ),
    "drop": Fix(values="NAME", does="leave a view out", apply=_dropped),
}
