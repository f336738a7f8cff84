"""The types that travel between the stages, and the conventions that they all obey.

Frames.  Right-handed. A camera looks along +z, x is right, y is down. Transforms are named ``target_from_source``,
are 4x4 and act on column vectors: ``x_in_cam = cam_from_world @ x_in_world``.

Pixels.  ``(x, y)`` with x to the right; the image spans ``[0, width] x [0, height]`` and the centre of the top-left
pixel is at (0.5, 0.5), as in COLMAP::

      0     1     2          x
    0 +-----+-----+--
      | .5  | 1.5 |          pixel (row 0, column 1) has its centre at x = 1.5, y = 0.5
    1 +-----+-----+--        and is array element [0, 1]
      |     |     |
    y

Depth.   ``depth`` is z in the camera frame, in scene units; 0 means "no value". Along the ray it is ``distance``.
Normals. Unit length, in the camera frame, facing the camera (n . ray < 0); (0, 0, 0) where there is none.

Shape letters: B batch, S sources, D planes, C channels, H x W image, h x w feature map (a quarter), N points, V
vertices, F faces. All types are frozen; arrays in them are shared, not copied, and must not be written to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nasrecon.camera import Camera, Lens, not_finite
from nasrecon.errors import InputError

__all__ = [
    "Camera",
    "Convention",
    "Estimate",
    "Hints",
    "ImageSource",
    "Lens",
    "Mesh",
    "PointCloud",
    "Scene",
    "SceneOrigin",
    "Unit",
    "View",
]

Unit = Literal["m", "mm", "unknown"]
Convention = Literal["cam-from-world", "world-from-cam"]

MAX_TRANSLATION = 1e9
"""The largest translation of a pose [scene units]; beyond it single precision says nothing of a scene."""
MAX_FOCAL_SIDES = 1000.0
"""The longest focal length, in longer sides of the image: its angle of view is 0.06 degrees."""


@dataclass(frozen=True, kw_only=True)
class SceneOrigin:
    """What a scene was read from, as data; ``in_words`` is the only sentence made of it.

    Attributes:
        format: the name of the format ("COLMAP model", "DeMoN folder" ...); "" for a scene made in Python.
        images: how many images were read, with what they are ("11 of 12 images", "40 frames of clip.mp4").
        poses: the file or folder of the poses ("poses.txt"); "" where there is none.
        pose_convention: which way the transforms of the files go.
        convention_given: whether the user gave ``pose_convention``.
        axes: the camera axes of the files; OpenGL's are turned to OpenCV's while reading.
        intrinsics: the file of K, or the published calibration.
        found_cameras: whether structure from motion made the poses.
        notes: what else was read or changed since, one phrase each.
    """

    format: str = ""
    images: str = ""
    poses: str = ""
    pose_convention: Convention = "cam-from-world"
    convention_given: bool = False
    axes: Literal["OpenCV", "OpenGL"] = "OpenCV"
    intrinsics: str = ""
    found_cameras: bool = False
    notes: tuple[str, ...] = ()

    def with_note(self, note: str) -> SceneOrigin:
        """Return the origin with one more note."""
        return replace(self, notes=(*self.notes, note))

    def in_words(self) -> str:
        """Return one line for people; no program reads it."""
        parts = [self.images] if self.images else []
        if self.poses:
            way = self.pose_convention.replace("-", "_") + (", as given" if self.convention_given else "")
            parts.append(f"{self.poses} ({way}{', OpenGL axes' if self.axes == 'OpenGL' else ''})")
        parts += [f"K of {self.intrinsics}"] if self.intrinsics else []
        start = "structure from motion: " if self.found_cameras else ""
        return f"{start}{self.format or 'scene'}: " + "; ".join([", ".join(parts) or "made in Python", *self.notes])


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What a set lists beside its cameras (MVSNet's pair.txt and camera files); by the names of views.

    Attributes:
        sources: the source views of a view, best first.
        depth_ranges: (near, far) of a view [scene units].
        sources_from, depth_ranges_from: where these stand ("pair.txt").
    """

    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    depth_ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    sources_from: str = ""
    depth_ranges_from: str = ""


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Where the pixels of a view are.

    Attributes:
        path: the image file, or a video.
        video_frame: number of the frame, from 0, where ``path`` is a video, else None.
        lens: the camera of the file where that is distorted (``ingest.images`` turns its pixels into those of the
            view's camera), else None.
        mask_path: the image whose nonzero pixels are used, of the file's size; None: all are.
        orientation: EXIF orientation of the file, 1 to 8; 1: its pixels are stored upright.
        is_turned: the image is turned by its orientation when it is read; ``lens``, the mask, and the view's camera are
            those of the turned image.
    """

    path: Path
    video_frame: int | None = None
    lens: Lens | None = None
    mask_path: Path | None = None
    orientation: int = 1
    is_turned: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One posed image.

    Attributes:
        name: the image's name, unique in its scene ("IMG_0001.jpg", "left/0001.png").
        image: where its pixels are.
        camera: the pinhole camera of the undistorted image.
        cam_from_world: (4, 4) float64.
        depth_range: (near, far) [scene units], or None while nothing is known.
        depth_range_from: how it was found ("sparse points" ...), "" while it is not.
    """

    name: str
    image: ImageSource
    camera: Camera
    cam_from_world: np.ndarray
    depth_range: tuple[float, float] | None = None
    depth_range_from: str = ""

    def __post_init__(self) -> None:
        matrix = np.array(self.cam_from_world, dtype=np.float64)
        if matrix.shape == (3, 4):
            matrix = np.vstack([matrix, (0, 0, 0, 1)])
        object.__setattr__(self, "cam_from_world", matrix)
        if matrix.shape != (4, 4):
            raise InputError(f"{self.name}: cam_from_world must be a 4x4 matrix, found shape {matrix.shape}:\n{matrix}")
        if not np.isfinite(matrix).all():
            raise InputError(
                f"{self.name}: cam_from_world must hold finite numbers, found {not_finite(matrix)}:\n{matrix}"
            )
        if np.abs(matrix).max() > MAX_TRANSLATION:
            raise InputError(
                f"{self.name}: cam_from_world holds the number {matrix.flat[np.abs(matrix).argmax()]:.3g}; positions "
                f"reach {MAX_TRANSLATION:g} at most"
            )
        R = matrix[:3, :3]
        off = np.abs(R @ R.T - np.eye(3)).max()
        if off > 1e-2 or np.linalg.det(R) < 0 or np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-6:
            raise InputError(
                f"{self.name}: cam_from_world must be a rotation (right-handed, orthonormal) and a translation; found"
                f"\n{matrix}\n(R R^T is off the identity by {off:.3g}, det R = {np.linalg.det(R):.3g})"
            )

    @property
    def center_in_world(self) -> np.ndarray:
        """The camera centre (3,) in the world frame."""
        return -self.cam_from_world[:3, :3].T @ self.cam_from_world[:3, 3]

    @property
    def world_from_cam(self) -> np.ndarray:
        """(4, 4), the inverse of ``cam_from_world``."""
        return np.linalg.inv(self.cam_from_world)

    def with_image(self, **fields: Any) -> View:
        """Return the view with these fields of its ``ImageSource`` replaced."""
        return replace(self, image=replace(self.image, **fields))


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A posed image set.

    Attributes:
        root: the folder that relative names are read from.
        views: the posed images.
        points_in_world: sparse points (P, 3) or None.
        visible: for each view the indices (n,) into ``points_in_world`` that it sees, or None.
        unit: "m", "mm" or "unknown".
        origin: what it was read from.
        hints: what the set lists beside its cameras.
        dropped: (name, reason) of every input that was left out.
    """

    root: Path
    views: tuple[View, ...]
    points_in_world: np.ndarray | None = None
    visible: tuple[np.ndarray, ...] | None = None
    unit: Unit = "unknown"
    origin: SceneOrigin = SceneOrigin()
    hints: Hints = field(default_factory=Hints)
    dropped: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "views", tuple(self.views))
        names = [view.name for view in self.views]
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise InputError(f"view names must be unique, found twice: {', '.join(twice[:5])}")
        if self.visible is not None and (self.points_in_world is None or len(self.visible) != len(self.views)):
            raise InputError("visible needs points_in_world and one index array for each view")

    def index(self, name: str) -> int:
        """Return the position of the view of that name.

        Raises:
            InputError: if there is none.
        """
        for i, view in enumerate(self.views):
            if view.name == name:
                return i
        raise InputError(f"no view is named {name!r}; there are {len(self.views)}, the first is {self.views[0].name!r}")

    def subset(self, indices: Sequence[int]) -> Scene:
        """Return the scene with only the views at these positions; the sparse points stay."""
        visible = None if self.visible is None else tuple(self.visible[i] for i in indices)
        return replace(self, views=tuple(self.views[i] for i in indices), visible=visible)

    def replace_views(self, views: Sequence[View]) -> Scene:
        """Return the scene with the same views in the same order, changed in their fields (a resize, a depth range)."""
        return replace(self, views=tuple(views))


@dataclass(frozen=True, kw_only=True, eq=False)
class Estimate:
    """Depth, normals and uncertainty of one view.

    Attributes:
        view: the view, its camera at the size of the maps.
        depth: (H, W) float32, z in the camera [scene units]; 0 = invalid.
        normal: (H, W, 3) float32, unit, camera frame, facing the camera; 0 where the depth is invalid.
        confidence: (H, W) float32 in [0, 1].
        sigma: (H, W) float32, one standard deviation of the depth [scene units], the error of the poses included.
        rgb: (H, W, 3) uint8, the image at the size of the maps.
        sources: names of the source views.
    """

    view: View
    depth: np.ndarray
    normal: np.ndarray
    confidence: np.ndarray
    sigma: np.ndarray
    rgb: np.ndarray
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size = (self.view.camera.height, self.view.camera.width)
        shapes = {"depth": size, "normal": (*size, 3), "confidence": size, "sigma": size, "rgb": (*size, 3)}
        for name, shape in shapes.items():
            actual = getattr(self, name).shape
            if actual != shape:
                raise InputError(f"{self.view.name}: {name} has shape {actual}, its camera asks for {shape}")


@dataclass(frozen=True, kw_only=True, eq=False)
class PointCloud:
    """Points in the world frame.

    Attributes:
        xyz: (N, 3) float64 [scene units], world frame.
        normal: (N, 3) float32, unit, world frame, facing the camera that saw the point.
        rgb: (N, 3) uint8.
        support: (N,) int32, the number of views that agree on the point, its own included.
        sigma: (N,) float32, one standard deviation of the position along the ray [scene units]; None: unknown.
        unit: "m", "mm" or "unknown".
    """

    xyz: np.ndarray
    normal: np.ndarray
    rgb: np.ndarray
    support: np.ndarray
    unit: Unit = "unknown"
    sigma: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.xyz)


@dataclass(frozen=True, kw_only=True, eq=False)
class Mesh:
    """A triangle mesh in the world frame.

    Attributes:
        vertices: (V, 3) float64 [scene units], world frame.
        faces: (F, 3) int32, counter-clockwise seen from outside.
        normal: (V, 3) float32, unit, world frame.
        rgb: (V, 3) uint8.
        unit: "m", "mm" or "unknown".
    """

    vertices: np.ndarray
    faces: np.ndarray
    normal: np.ndarray
    rgb: np.ndarray
    unit: Unit = "unknown"


@dataclass(frozen=True, kw_only=True, eq=False)
class TexturedMesh:
    """A mesh with a texture atlas.

    Attributes:
        mesh: the mesh; vertices are doubled where parts of the atlas meet.
        uv: (V, 2) float32, places in the atlas: (0, 0) is its lower left corner, (1, 1) the upper right one.
        image: (S, S, 3) uint8, the atlas.
    """

    mesh: Mesh
    uv: np.ndarray
    image: np.ndarray
