"""What a layout (a way of writing posed images to disk) is, and the steps that all layouts share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import inverse
from nasrecon.ingest.images import UnreadableImageError, direct_images, image_size
from nasrecon.ingest.text import (
    Intrinsics,
    file_of,
    named_intrinsics,
    read_intrinsics,
    rows,
)
from nasrecon.types import MAX_TRANSLATION, Camera, Convention, ImageSource, Lens, Scene, View

# Rotations written with six digits are off by 1e-6; one that is off by more than this was not just rounded.
ROUNDING = 1e-2


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user gave ``open_scene``; the paths exist, ``format`` is the key of one if it was chosen."""

    images: Path
    poses: Path | None = None
    intrinsics: Path | None = None
    convention: Convention | None = None
    format: str | None = None

    @property
    def place(self) -> Path:
        """Where the cameras are looked for: the poses if they were named, else the images' folder (or the video's)."""
        return self.poses or (self.images if self.images.is_dir() else self.images.parent)


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way of writing posed images to disk.

    Attributes:
        key: by which it is chosen (``--format``).
        name: for people ("7-Scenes folder").
        looks_for: the files that mark it, for the message that says what was not found.
        find: the file or folder that marks the layout in a request, or None. Looks at names (and at the first lines of
            text files), never at pixels.
        read: the scene, from the request and what ``find`` found.
        takes_video: reads the frames of a video too, by their numbers.
        says_little: its marks are part of what other layouts look like too; it is taken where no other fits.
    """

    key: str
    name: str
    looks_for: str
    find: Callable[[Request], Path | None]
    read: Callable[[Request, Path], Scene]
    takes_video: bool = False
    is_fallback: bool = False


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image and its transform as found.

    Attributes:
        name, image: as in ``View``; the image without its lens.
        matrix: the transform, (3, 4) or (4, 4).
        origin: says where it stood.
    """

    name: str
    image: ImageSource
    matrix: np.ndarray
    origin: str


class OtherImagesError(InputError):
    """Report cameras of other images: none of those that they name is there."""


class NoCameraError(InputError):
    """Report that one image has no usable intrinsics; the rest of its set goes on without it."""


def check_size(matrix: np.ndarray, origin: str) -> None:
    """Refuse numbers that no camera has: beyond ``MAX_TRANSLATION``; ``origin`` says where they stood."""
    if np.isfinite(matrix).all() and np.abs(matrix).max() > MAX_TRANSLATION:
        raise InputError(
            f"{origin}: expected a rotation and a translation, found the number "
            f"{matrix.flat[np.abs(matrix).argmax()]:.3g}; positions reach {MAX_TRANSLATION:g} at most"
        )


def rigid(matrix: np.ndarray, origin: str) -> np.ndarray:
    """Return the rigid transform (4, 4) nearest to a matrix (3, 4) or (4, 4) that was rounded when it was written.

    Raises:
        InputError: if it is not a rotation and a translation; ``origin`` says where it stood.
    """
    check_size(matrix, origin)
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


class ConventionFields(TypedDict):
    """The fields of ``SceneOrigin`` that say which way the transforms go."""

    pose_convention: Convention
    convention_given: bool


CameraOf = Callable[[Frame], tuple[Camera, Lens | None]]
"""The camera of a frame, and its lens where the file is distorted; raises ``NoCameraError`` where it has none."""


def one_camera(intrinsics: Intrinsics, first_center: float) -> CameraOf:
    """Return the function from a frame to its camera, where all images share K (the size is the file's).

    Args:
        intrinsics: as the file has them.
        first_center: the layout's convention, 0 or 0.5: x and y of the centre of the top-left pixel.
    """
    return lambda frame: (intrinsics.camera(image_size(frame.image.path), first_center), None)


def cameras_of(path: Path, first_center: float) -> tuple[CameraOf, str]:
    """Read intrinsics that were given for a set, one K for all or one for each view.

    Args:
        path: a file with one K (``read_intrinsics``); a text file with an image's name before each K, one a row; or a
            folder with a file for each image, named after it.
        first_center: as in ``one_camera``, where a file does not say itself.

    Returns:
        the function from a frame to its camera, and the words for ``SceneOrigin.intrinsics``.

    Raises:
        InputError: if there is no K in it.
    """
    if path.is_file():
        named = named_intrinsics(path)
        if named is None:
            return one_camera(read_intrinsics(path), first_center), path.name

        def find(name):
            return named.get(name) or named.get(Path(name).with_suffix("").as_posix())
    else:

        def find(name):
            return (
                None if (intrinsics := file_of(path, name, (".txt", ".json"))) is None else read_intrinsics(intrinsics)
            )

    def camera_of(frame: Frame) -> tuple[Camera, Lens | None]:
        intrinsics = find(frame.name)
        if intrinsics is None:
            raise NoCameraError(f"no intrinsics for it in {path}")
        return intrinsics.camera(image_size(frame.image.path), first_center), None

    return camera_of, f"each view in {path.name}"


def posed_views(
    frames: Iterable[Frame],
    camera_of: CameraOf,
    convention: Convention,
) -> tuple[tuple[View, ...], tuple[tuple[str, str], ...]]:
    """Turn frames into views; returns them and (name, reason) of the frames left out.

    Left out are those with a transform that is not finite, without intrinsics, or with an image that cannot be read.

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
        try:
            camera, lens = camera_of(frame)
        except (NoCameraError, UnreadableImageError) as error:
            dropped.append((frame.name, str(error)))
            continue
        view = View(
            name=frame.name,
            image=replace(frame.image, lens=lens),
            camera=camera,
            cam_from_world=cam_from_world,
        )
        views.append(view)
    return tuple(views), tuple(dropped)


def image_root(images: Path) -> Path:
    """Return the folder that image names start from: as given, or its ``images`` where it holds no images itself."""
    inside = images / "images"
    return inside if inside.is_dir() and not direct_images(images) else images


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


def convention_of(request: Request, usual: Convention) -> ConventionFields:
    """Return the convention to read by: the format's own unless the request gives one."""
    return {"pose_convention": request.convention or usual, "convention_given": request.convention is not None}


def refuse_own_cameras(request: Request, mark: Path, convention: str) -> None:
    """Refuse intrinsics and a convention that the files leave no room for."""
    if request.intrinsics is not None:
        raise InputError(f"{mark}: these cameras have their own intrinsics; leave {request.intrinsics} out")
    if request.convention not in (None, convention):
        raise InputError(f"{mark}: these cameras are {convention} by definition; leave the convention out")


def cameras_by_name(intrinsics: dict[str, Intrinsics]) -> CameraOf:
    """Return the function from a frame to its camera, for K by the image's name."""
    return lambda frame: (intrinsics[frame.name].camera(image_size(frame.image.path), first_center=0.5), None)


def stems(folder: Path, ending: str) -> set[str]:
    return {path.name[: -len(ending)] for path in folder.glob(f"*{ending}")}


def first_rows(path: Path, count: int) -> list[list[str]]:
    """Return the first rows of a text file, [] if it is none."""
    try:
        return rows(path)[:count]
    except InputError:
        return []
