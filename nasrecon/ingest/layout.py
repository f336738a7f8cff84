"""What a layout (a way of writing posed images to disk) is, and the steps that all layouts share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import inverse
from nasrecon.ingest.images import direct_images, image_size
from nasrecon.ingest.textfiles import Intrinsics
from nasrecon.types import Camera, Lens, Scene, View

Convention = Literal["cam-from-world", "world-from-cam"]

# Rotations written with six digits are off by 1e-6; one that is off by more than this was not just rounded.
ROUNDING = 1e-2


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user gave ``open_scene``; ``images`` and ``poses`` exist."""

    images: Path
    poses: Path | None = None
    intrinsics: Path | None = None
    convention: Convention | None = None

    @property
    def place(self) -> Path:
        """Where the cameras are looked for: the poses if they were named, else the images' folder."""
        return self.poses or self.images


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way of writing posed images to disk.

    Attributes:
        name: for people ("7-Scenes folder").
        looks_for: the files that mark it, for the message that says what was not found.
        find: the file or folder that marks the layout in a request, or None. Looks at names (and at the first lines of
            text files), never at pixels.
        read: the scene, from the request and what ``find`` found.
    """

    name: str
    looks_for: str
    find: Callable[[Request], Path | None]
    read: Callable[[Request, Path], Scene]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image and its transform as found: ``matrix`` (3, 4) or (4, 4), ``origin`` says where it stood."""

    name: str
    image_path: Path
    matrix: np.ndarray
    origin: str


def rigid(matrix: np.ndarray, origin: str) -> np.ndarray:
    """Return the rigid transform (4, 4) nearest to a matrix (3, 4) or (4, 4) that was rounded when it was written.

    Raises:
        InputError: if it is not a rotation and a translation; ``origin`` says where it stood.
    """
    R, t = matrix[:3, :3], matrix[:3, 3]
    off = np.abs(R @ R.T - np.eye(3)).max()
    last_row_wrong = matrix.shape == (4, 4) and np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6
    if off > ROUNDING or np.linalg.det(R) < 0 or last_row_wrong:
        raise InputError(
            f"{origin}: expected a rotation and a translation (right-handed, no scale), found\n{matrix}\n"
            f"(R R^T is off the identity by {off:.3g}, det R = {np.linalg.det(R):.3g}). "
            "Divide a scale out of the rotation; turn left-handed axes before you pass them."
        )
    U, _, Vt = np.linalg.svd(R)
    out = np.eye(4)
    out[:3, :3] = U @ Vt
    out[:3, 3] = t
    return out


CameraOf = Callable[[Path], tuple[Camera, Lens | None]]


def one_camera(intrinsics: Intrinsics, first_center: float) -> CameraOf:
    """Return the function from an image's path to its camera, where all images share K (the size is the file's).

    Args:
        intrinsics: as the file has them.
        first_center: the layout's convention, 0 or 0.5: x and y of the centre of the top-left pixel.
    """
    return lambda path: (intrinsics.camera(image_size(path), first_center), None)


def posed_views(
    frames: Iterable[Frame],
    camera_of: CameraOf,
    convention: Convention,
) -> tuple[tuple[View, ...], tuple[tuple[str, str], ...]]:
    """Turn frames into views; returns them and (name, reason) of the frames left out (transforms that are not finite).

    Raises:
        InputError: if a transform is not rigid.
    """
    views, dropped = [], []
    for frame in frames:
        if not np.isfinite(frame.matrix).all():
            dropped.append((frame.name, f"{frame.origin}: the transform is not finite (the tracker was lost?)"))
            continue
        cam_from_world = rigid(frame.matrix, frame.origin)
        if convention == "world-from-cam":
            cam_from_world = inverse(cam_from_world)
        camera, lens = camera_of(frame.image_path)
        views.append(
            View(name=frame.name, image_path=frame.image_path, camera=camera, cam_from_world=cam_from_world, lens=lens)
        )
    return tuple(views), tuple(dropped)


def image_folder(folder: Path) -> Path:
    """Return the folder that holds the images: itself, else its first usual subfolder that does.

    Raises:
        InputError: if there is none.
    """
    usual = ("image", "images", "color", "rgb")
    for candidate in (folder, *(folder / name for name in usual)):
        if candidate.is_dir() and direct_images(candidate):
            return candidate
    raise InputError(f"{folder}: no images in it, nor in {', '.join(name + '/' for name in usual)}")


def choose_convention(request: Request, usual: Convention) -> tuple[Convention, str]:
    """Return the convention to read by (the layout's own unless one was given) and the words for ``Scene.source``."""
    chosen = request.convention or usual
    return chosen, chosen.replace("-", "_") + (" (as given)" if request.convention else "")
