"""The pinhole camera and the lens of a distorted file; frames and pixels as in ``nasrecon.types``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nasrecon.errors import InputError


def not_finite(matrix: np.ndarray) -> str:
    """Name the first entry of a matrix that is not finite, with its place counted from 1."""
    row, column = np.argwhere(~np.isfinite(matrix))[0]
    return f"{matrix[row, column]:g} in row {row + 1}, column {column + 1}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """A pinhole camera: image size in pixels and ``K (3, 3) float64``, principal point in the half-pixel convention
    above.

    Raises:
        InputError: if K is not an upper-triangular pinhole matrix with positive focal lengths, or a side is not
            positive.
    """

    width: int
    height: int
    K: np.ndarray

    def __post_init__(self) -> None:
        K = np.array(self.K, dtype=np.float64)
        object.__setattr__(self, "K", K)
        if self.width <= 0 or self.height <= 0:
            raise InputError(f"camera size must be positive, found {self.width}x{self.height}")
        if K.shape != (3, 3):
            raise InputError(f"K must be a 3x3 matrix, found shape {K.shape}:\n{K}")
        if not np.isfinite(K).all():
            raise InputError(f"K must hold finite numbers, found {not_finite(K)}:\n{K}")
        if K[0, 0] <= 0 or K[1, 1] <= 0 or np.abs(K[2] - (0, 0, 1)).max() > 1e-9 or abs(K[1, 0]) > 1e-9:
            raise InputError(f"K must be [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with positive fx and fy, found\n{K}")

    def resized(self, width: int, height: int) -> Camera:
        """Return the camera of the same view sampled at another size [px]; x and y scale independently."""
        scale = np.diag([width / self.width, height / self.height, 1.0])
        return Camera(width=width, height=height, K=scale @ self.K)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """Return the camera of the window with top-left corner (left, top) [px]; the window may exceed the image
        (padding)."""
        K = self.K.copy()
        K[0, 2] -= left
        K[1, 2] -= top
        return Camera(width=width, height=height, K=K)

    def project(self, points_in_cam: np.ndarray) -> np.ndarray:
        """Project points (..., 3) in the camera frame to pixels (..., 2). Points at or behind the camera give NaN."""
        points_in_cam = np.asarray(points_in_cam, dtype=np.float64)
        z = points_in_cam[..., 2:]
        with np.errstate(divide="ignore", invalid="ignore"):
            flat = np.where(z > 0, points_in_cam / z, np.nan)
        return (flat @ self.K.T)[..., :2]

    def unproject(self, pixels: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """Lift pixels (..., 2) with z-depth (...) [scene units] to points (..., 3) in the camera frame."""
        pixels = np.asarray(pixels, dtype=np.float64)
        depth = np.asarray(depth, dtype=np.float64)
        homogeneous = np.concatenate([pixels, np.ones_like(pixels[..., :1])], axis=-1)
        return homogeneous @ np.linalg.inv(self.K).T * depth[..., None]

    def pixel_centers(self) -> np.ndarray:
        """Return the pixel centres (H, W, 2), x before y; the first is (0.5, 0.5)."""
        x, y = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
        return np.stack([x, y], axis=-1)

    def unproject_depth(self, depth: np.ndarray) -> np.ndarray:
        """Lift a depth map (H, W) of this camera to points (H, W, 3) in the camera frame; invalid pixels give
        (0, 0, 0).

        Raises:
            InputError: if the map's size is not the camera's.
        """
        if depth.shape != (self.height, self.width):
            raise InputError(f"depth map is {depth.shape}, the camera is {(self.height, self.width)} (height, width)")
        return self.unproject(self.pixel_centers(), depth)


@dataclass(frozen=True, kw_only=True)
class Lens:
    """The camera that took a distorted image file, as COLMAP describes it; the file's pixels are in its frame.

    Attributes:
        model: COLMAP's name of the model ("OPENCV", "SIMPLE_RADIAL", "FOV" ...).
        width, height: size of the file [px].
        params: the model's parameters in COLMAP's order [px and none].
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]
