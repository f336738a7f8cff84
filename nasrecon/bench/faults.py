"""Break the cameras of a sound set on purpose, each time in one way.

Each fault states the name under which the check should report it.

For its tests and for ``nasrecon bench check``. Every fault is drawn with a seed and returns the broken scene; faults
of the images (doubles, a still camera, a pure turn) write their images into a folder of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nasrecon.check.camera_edits import FLIP_YZ, with_order
from nasrecon.geometry import in_image, inverse, quaternion_from_rotation, rotation_from_quaternion
from nasrecon.ingest.images import read_view
from nasrecon.types import Camera, ImageSource, Scene, View

# Focal lengths or principal points that are closer than this (share of themselves) count as equal when exchanged.
DIFFERENT = 0.1
HALF_PIXEL = np.array([[0.0, 0, 1], [0, 0, 1], [0, 0, 0]])
# Images of faults of the images are written at this size, at most.
SIDE_PX = 640
# The names of two faults depend on how the set was read.
TURNED, FLIPPED = ("world-from-cam", "cam-from-world"), ("opengl-axes", "opencv-axes")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A way to break a set.

    Attributes:
        name: for tables ("K of double size").
        expected: the names of faults that are a right diagnosis.
        inject: the broken scene, from the sound one, a random generator and an empty folder; None where the fault
            changes nothing that could be seen in this set (fx and fy exchanged where they are equal).
        changes_images: whether the images are other ones than those of the sound set.
        unless_noted: the name of a note that says this fault is undecidable in a set; it then does not count.
        whole: whether repairing by the fixes that the check names must bring the cameras back.
    """

    name: str
    expected: tuple[str, ...]
    inject: Callable[[Scene, np.random.Generator, Path], Scene | None]
    changes_images: bool = False
    unless_noted: str = ""
    whole: bool = True


def _transforms(change: Callable[[np.ndarray], np.ndarray]) -> Callable[..., Scene]:
    def inject(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene:
        return scene.replace_views([replace(view, cam_from_world=change(view.cam_from_world)) for view in scene.views])

    return inject


def _cameras(change: Callable[[Camera], Camera | None]) -> Callable[..., Scene | None]:
    def inject(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene | None:
        cameras = [change(view.camera) for view in scene.views]
        if any(camera is None for camera in cameras):
            return None
        return scene.replace_views(
            [replace(view, camera=camera) for view, camera in zip(scene.views, cameras, strict=True)]
        )

    return inject


def _with_K(camera: Camera, change: np.ndarray) -> Camera:
    return Camera(width=camera.width, height=camera.height, K=change)


def _quaternions(order: tuple[int, ...], of_world_from_cam: bool) -> Callable[..., Scene]:
    """Misread the quaternion as a reader does that expects its four numbers in another order."""

    def reorder(T: np.ndarray) -> np.ndarray:
        out = T.copy()
        out[:3, :3] = rotation_from_quaternion(quaternion_from_rotation(T[:3, :3])[list(order)])
        return out

    return _transforms((lambda T: inverse(reorder(inverse(T)))) if of_world_from_cam else reorder)


def _with_rotation(T: np.ndarray, R: np.ndarray) -> np.ndarray:
    out = T.copy()
    out[:3, :3] = R
    return out


def _with_translation(T: np.ndarray, t: np.ndarray) -> np.ndarray:
    out = T.copy()
    out[:3, 3] = t
    return out


def _swapped_focal(camera: Camera) -> Camera | None:
    K = camera.K.copy()
    K[0, 0], K[1, 1] = K[1, 1], K[0, 0]
    return _with_K(camera, K) if abs(K[0, 0] / K[1, 1] - 1) > DIFFERENT else None


def _swapped_center(camera: Camera) -> Camera | None:
    K = camera.K.copy()
    K[0, 2], K[1, 2] = K[1, 2], K[0, 2]
    return _with_K(camera, K) if abs(K[0, 2] / K[1, 2] - 1) > DIFFERENT else None


def _moved_center(x: float, y: float) -> Callable[[Camera], Camera]:
    """Move the principal point by shares of the image's width."""
    return lambda camera: _with_K(camera, camera.K + camera.width * np.array([[0, 0, x], [0, 0, y], [0, 0, 0]]))


def _shuffled(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene:
    return with_order(scene, rng.permutation(len(scene.views)).tolist())


def _two_exchanged(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene:
    count = len(scene.views)
    order = list(range(count))
    i = int(rng.integers(count // 2))
    j = i + count // 2
    order[i], order[j] = order[j], order[i]
    return with_order(scene, order)


def _shifted(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene:
    count = len(scene.views)
    return with_order(scene, [(i + 1) % count for i in range(count)])


def _wrong_poses(count: int) -> Callable[..., Scene]:
    """Turn some cameras by 8 to 20 degrees and move them by half of the set's median baseline."""

    def inject(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene:
        centers = np.array([view.center_in_world for view in scene.views])
        baseline = np.median(np.linalg.norm(np.diff(centers, axis=0), axis=1))
        chosen = rng.choice(len(scene.views), size=min(count, max(1, len(scene.views) // 5)), replace=False)
        views = list(scene.views)
        for i in chosen:
            axis, shift = rng.normal(size=(2, 3))
            axis, shift = axis / np.linalg.norm(axis), shift / np.linalg.norm(shift)
            half = np.radians(rng.uniform(8, 20)) / 2
            wrong = np.eye(4)
            wrong[:3, :3] = rotation_from_quaternion(np.array([np.cos(half), *(np.sin(half) * axis)]))
            wrong[:3, 3] = 0.5 * baseline * shift
            views[i] = replace(views[i], cam_from_world=wrong @ views[i].cam_from_world)
        return scene.replace_views(views)

    return inject


def _save(view: View, rgb: np.ndarray, folder: Path, camera: Camera) -> View:
    import imageio.v3 as iio

    path = folder / f"{Path(view.name).stem}.png"
    iio.imwrite(path, rgb)
    return replace(view, image=ImageSource(path=path), camera=camera)


def _small(view: View) -> tuple[np.ndarray, Camera]:
    scale = min(1.0, SIDE_PX / max(view.camera.width, view.camera.height))
    rgb, small = read_view(view, round(view.camera.width * scale), round(view.camera.height * scale))
    return rgb, small.camera


def _one_image_twice(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene:
    i, j = rng.choice(len(scene.views), size=2, replace=False)
    views = list(scene.views)
    views[j] = replace(views[i], name=views[j].name, cam_from_world=views[j].cam_from_world)
    return scene.replace_views(views)


def _still(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene:
    """Give every view the same photograph with other noise."""
    rgb, camera = _small(scene.views[len(scene.views) // 2])

    def noisy():
        return np.clip(rgb + rng.normal(0, 2, rgb.shape), 0, 255).astype(np.uint8)

    return scene.replace_views([_save(view, noisy(), folder, camera) for view in scene.views])


def _turning(scene: Scene, rng: np.random.Generator, folder: Path) -> Scene:
    """Give every view what a camera sees that only turns: one photograph, warped; poses stay as they are."""
    rgb, camera = _small(scene.views[len(scene.views) // 2])
    views = []
    for view in scene.views:
        turn = np.radians(rng.uniform(-5, 5, 3))
        quaternion = np.array([1.0, *(turn / 2)])
        R = rotation_from_quaternion(quaternion)
        rays = camera.unproject(camera.pixel_centers(), np.ones((camera.height, camera.width))) @ R
        views.append(_save(view, _sampled(rgb, camera.project(rays)), folder, camera))
    return scene.replace_views(views)


def _sampled(rgb: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return rgb (H, W, 3) at pixels (h, w, 2), bilinear; black outside."""
    height, width = rgb.shape[:2]
    inside = in_image(at, width, height, margin=0.5)
    x, y = np.moveaxis(np.where(inside[..., None], at - 0.5, 0), -1, 0)
    x0, y0 = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    a, b = (x - x0)[..., None], (y - y0)[..., None]
    top = rgb[y0, x0] * (1 - a) + rgb[y0, x0 + 1] * a
    low = rgb[y0 + 1, x0] * (1 - a) + rgb[y0 + 1, x0 + 1] * a
    return np.where(inside[..., None], top * (1 - b) + low * b, 0).round().astype(np.uint8)


FAULTS: tuple[Fault, ...] = (
    Fault(name="poses the wrong way round", expected=TURNED, inject=_transforms(inverse)),
    Fault(name="OpenGL axes", expected=FLIPPED, inject=_transforms(lambda T: FLIP_YZ @ T)),
    Fault(
        name="OpenGL axes, the wrong way round",
        expected=tuple(f"{way}+{axes}" for way in TURNED for axes in FLIPPED),
        inject=_transforms(lambda T: inverse(FLIP_YZ @ T)),
    ),
    Fault(
        name="rotations transposed",
        expected=("transposed-rotations",),
        inject=_transforms(lambda T: _with_rotation(T, T[:3, :3].T)),
    ),
    Fault(
        name="positions for translations",
        expected=("camera-centers",),
        inject=_transforms(lambda T: _with_translation(T, inverse(T)[:3, 3])),
    ),
    Fault(name="x y z w read as w x y z", expected=("quaternion-xyzw",), inject=_quaternions((1, 2, 3, 0), False)),
    Fault(name="w x y z read as x y z w", expected=("quaternion-wxyz",), inject=_quaternions((3, 0, 1, 2), False)),
    Fault(
        name="x y z w of world_from_cam read as w x y z",
        expected=("quaternion-xyzw",),
        inject=_quaternions((1, 2, 3, 0), True),
    ),
    Fault(
        name="K of double size",
        expected=("k-size",),
        inject=_cameras(lambda camera: _with_K(camera, np.diag([2.0, 2.0, 1.0]) @ camera.K)),
    ),
    Fault(
        name="K of half size",
        expected=("k-size",),
        inject=_cameras(lambda camera: _with_K(camera, np.diag([0.5, 0.5, 1.0]) @ camera.K)),
    ),
    Fault(
        name="cameras of double size",
        expected=("k-size",),
        inject=_cameras(lambda camera: camera.resized(2 * camera.width, 2 * camera.height)),
    ),
    Fault(name="fx and fy exchanged", expected=("swap-focal-lengths",), inject=_cameras(_swapped_focal)),
    Fault(name="cx and cy exchanged", expected=("swap-principal-point",), inject=_cameras(_swapped_center)),
    Fault(
        name="principal point off by 12 % to the right",
        expected=("principal-point",),
        inject=_cameras(_moved_center(0.12, 0)),
    ),
    Fault(
        name="principal point off by 10 % up and left",
        expected=("principal-point",),
        inject=_cameras(_moved_center(-0.1, -0.1)),
    ),
    Fault(
        name="order reversed",
        expected=("order",),
        inject=lambda scene, rng, folder: with_order(scene, range(len(scene.views))[::-1]),
    ),
    Fault(name="order shuffled", expected=("order",), inject=_shuffled),
    Fault(name="order off by one", expected=("order",), inject=_shifted),
    Fault(name="two images exchanged", expected=("order",), inject=_two_exchanged),
    Fault(
        name="millimetres for metres",
        expected=("translation-scale",),
        inject=_transforms(lambda T: _with_translation(T, 1000 * T[:3, 3])),
    ),
    Fault(
        name="metres for millimetres",
        expected=("translation-scale",),
        inject=_transforms(lambda T: _with_translation(T, T[:3, 3] / 1000)),
    ),
    Fault(name="one wrong pose", expected=("wrong-poses",), inject=_wrong_poses(1)),
    Fault(name="a few wrong poses", expected=("wrong-poses",), inject=_wrong_poses(3)),
    Fault(
        name="half a pixel",
        expected=("half-pixel",),
        inject=_cameras(lambda camera: _with_K(camera, camera.K + 0.5 * HALF_PIXEL)),
        unless_noted="half-pixel-unknown",
    ),
    Fault(
        name="no baselines",
        expected=("no-baseline",),
        inject=_transforms(lambda T: _with_translation(T, np.zeros(3))),
        whole=False,
    ),
    Fault(name="one image twice", expected=("duplicates",), inject=_one_image_twice, changes_images=True),
    Fault(name="still images", expected=("still-images",), inject=_still, changes_images=True, whole=False),
    Fault(name="pure rotation", expected=("pure-rotation",), inject=_turning, changes_images=True, whole=False),
)
