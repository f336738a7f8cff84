"""Lens distortion, through pycolmap: from a camera as COLMAP describes it to that of the undistorted image.

COLMAP's pixels have half-pixel centres, as ours. An image is undistorted without blank borders
(``UndistortCameraOptions`` as they come), so its size differs from the file's by some pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from nasrecon.types import Camera, Lens

if TYPE_CHECKING:
    import pycolmap


def pinhole_camera(lens: Lens) -> Camera:
    """Return the pinhole camera of the undistorted image."""
    import pycolmap

    return camera_from_colmap(pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), _colmap_camera(lens)))


def parameter_names(lens: Lens) -> list[str]:
    """Return the names of a lens's parameters, in their order."""
    return [name.strip() for name in _colmap_camera(lens).params_info.split(",")]


def is_absurd(lens: Lens) -> bool:
    """Return whether a lens bends rays as none does: halfway to the corners by less than 0.6 or more than 4 times."""
    camera = _colmap_camera(lens)
    center = np.array([camera.principal_point_x, camera.principal_point_y])
    corners = np.array([[0, 0], [lens.width, 0], [0, lens.height], [lens.width, lens.height]], dtype=float)
    pixels = center + 0.5 * (corners - center)
    with np.errstate(all="ignore"):
        bearings: Any = camera.cam_from_img(pixels)
        rays = np.array([(np.nan, np.nan) if ray is None else np.asarray(ray, dtype=float) for ray in bearings])
        straight = (pixels - center) / [camera.focal_length_x, camera.focal_length_y]
        ratio = np.linalg.norm(rays[:, :2], axis=1) / np.linalg.norm(straight, axis=1)
    return not bool(((ratio > 0.6) & (ratio < 4)).all())


def resized_lens(lens: Lens, width: int, height: int) -> Lens:
    """Return the lens of the same photographs resized to other files [px]."""
    camera = _colmap_camera(lens)
    camera.rescale(width, height)
    return Lens(model=lens.model, width=width, height=height, params=tuple(float(value) for value in camera.params))


def undistort(rgb: np.ndarray, lens: Lens) -> np.ndarray:
    """Turn the pixels of the file (H, W, 3) uint8 into those of ``pinhole_camera(lens)``; sizes differ."""
    import pycolmap

    bitmap = pycolmap.Bitmap.from_array(rgb)
    out, _ = pycolmap.undistort_image(pycolmap.UndistortCameraOptions(), bitmap, _colmap_camera(lens))
    return out.to_array()


def file_pixels(lens: Lens, camera: Camera) -> np.ndarray:
    """Return where the pixel centres of ``pinhole_camera(lens)`` (or of a resize) fall in the file: (H, W, 2) [px]."""
    rays = camera.unproject(camera.pixel_centers(), np.ones((camera.height, camera.width)))
    pixels = _colmap_camera(lens).img_from_cam(rays.reshape(-1, 3))
    return np.asarray(pixels).reshape((*rays.shape[:2], 2))


def camera_from_colmap(camera: Any) -> Camera:
    """Turn an undistorted ``pycolmap.Camera`` into ours."""
    return Camera(width=camera.width, height=camera.height, K=camera.calibration_matrix())


def lens_from_colmap(camera: Any) -> Lens | None:
    """Return the lens of a ``pycolmap.Camera``, or None if its pixels are those of a pinhole already."""
    straight = camera.is_undistorted() and not camera.is_perspective_fisheye() and not camera.is_spherical()
    if straight:
        return None
    params = tuple(float(value) for value in camera.params)
    return Lens(model=camera.model_name, width=camera.width, height=camera.height, params=params)


def _colmap_camera(lens: Lens) -> pycolmap.Camera:
    import pycolmap

    return pycolmap.Camera(model=lens.model, width=lens.width, height=lens.height, params=list(lens.params))
