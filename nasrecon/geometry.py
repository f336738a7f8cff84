"""Rigid transforms, normals from depth, angles. Pure numpy; conventions as in ``types.py``."""

from __future__ import annotations

import numpy as np

from nasrecon.types import Camera


def inverse(target_from_source: np.ndarray) -> np.ndarray:
    """Invert rigid transforms (..., 4, 4): target_from_source -> source_from_target."""
    R = np.swapaxes(target_from_source[..., :3, :3], -1, -2)
    out = np.zeros_like(target_from_source)
    out[..., :3, :3] = R
    out[..., :3, 3] = -(R @ target_from_source[..., :3, 3:])[..., 0]
    out[..., 3, 3] = 1
    return out


def transform(target_from_source: np.ndarray, points_in_source: np.ndarray) -> np.ndarray:
    """Apply one transform (4, 4) to points (..., 3); returns points_in_target (..., 3)."""
    return points_in_source @ target_from_source[:3, :3].T + target_from_source[:3, 3]


def relative_pose(src_cam_from_world: np.ndarray, ref_cam_from_world: np.ndarray) -> np.ndarray:
    """Return src_from_ref (4, 4) of two cameras given by their cam_from_world (4, 4)."""
    return src_cam_from_world @ inverse(ref_cam_from_world)


def in_image(pixels: np.ndarray, width: float, height: float, margin: float = 0.0) -> np.ndarray:
    """Return which pixels (..., 2) lie in an image: from ``margin`` to size less ``margin``, and below size.

    NaN lies outside. A margin of half a pixel is what bilinear sampling needs.
    """
    size = np.array([width, height])
    with np.errstate(invalid="ignore"):
        return np.asarray(((pixels >= margin) & (pixels <= size - margin) & (pixels < size)).all(axis=-1))


def array_indices(pixels: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return row, column (...) of the array elements that pixels (..., 2) fall on, and which lie in the image.

    Row and column are 0 for those outside.
    """
    inside = in_image(pixels, width, height)
    column, row = np.moveaxis(np.where(inside[..., None], pixels, 0).astype(np.intp), -1, 0)
    return row, column, inside


def rotation_from_quaternion(wxyz: np.ndarray) -> np.ndarray:
    """Turn quaternions (..., 4), scalar first and of any non-zero length, into rotations (..., 3, 3)."""
    w, x, y, z = np.moveaxis(np.asarray(wxyz, dtype=np.float64) / np.linalg.norm(wxyz, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotation_from_vector(vector: np.ndarray) -> np.ndarray:
    """Turn axis-angle vectors (..., 3) [rad] into rotations (..., 3, 3)."""
    half = np.linalg.norm(vector, axis=-1, keepdims=True) / 2
    return rotation_from_quaternion(np.concatenate([np.cos(half), vector * np.sinc(half / np.pi) / 2], axis=-1))


def vector_from_rotation(R: np.ndarray) -> np.ndarray:
    """Return the axis-angle vectors (..., 3) [rad] of rotations (..., 3, 3) by less than half a turn."""
    skew = (R - np.swapaxes(R, -1, -2)) / 2
    sine = np.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], axis=-1)
    length = np.linalg.norm(sine, axis=-1, keepdims=True)
    angle = np.arctan2(length, (np.trace(R, axis1=-2, axis2=-1)[..., None] - 1) / 2)
    return sine * np.where(length > 1e-12, angle / np.maximum(length, 1e-12), 1)


def angle_between_deg(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the angle [degrees] between vectors (..., 3); accurate for tiny angles too."""
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), np.sum(a * b, axis=-1)))


def rotation_angle_deg(R: np.ndarray) -> np.ndarray:
    """Return the angle [degrees] by which rotations (..., 3, 3) turn."""
    cosine = (np.trace(R, axis1=-2, axis2=-1) - 1) / 2
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def normals_from_depth(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """Return the normals (H, W, 3) of a depth map (H, W), in the camera frame, facing the camera.

    Along each axis the difference to the neighbour that lies nearer in inverse depth is taken (inverse depth is
    linear on a plane, so a plane is exact up to rounding, and a step in depth does not bend the normals beside it).
    Pixels with no depth, or with no valid neighbour along an axis, get (0, 0, 0).
    """
    points_in_cam = camera.unproject_depth(depth)
    inv_depth = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), np.nan)
    along_x = _one_sided_difference(points_in_cam, inv_depth, axis=1)
    along_y = _one_sided_difference(points_in_cam, inv_depth, axis=0)
    normal = np.cross(along_y, along_x)
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        normal = np.where(length > 0, normal / length, 0.0)
    return np.nan_to_num(normal).astype(np.float32)  # y cross x faces the camera, whatever the slope


def plane_normals(depth: np.ndarray, camera: Camera, *, reach: int = 4, step: int = 2, jump: float = 0.1) -> np.ndarray:
    """Return the normals (H, W, 3) of planes fitted to a depth map (H, W) with noise or holes, facing the camera.

    Inverse depth is linear in the pixel on a plane; the fit takes the pixels ``step`` apart up to ``reach`` away whose
    inverse depth differs by less than ``jump`` of the centre's. Pixels without depth, or with too few such pixels
    around them, get (0, 0, 0).
    """
    inv_depth = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0).astype(np.float64)
    height, width = depth.shape
    padded = np.pad(inv_depth, reach)
    sums = np.zeros((9, height, width))  # of 1, x, y, xx, xy, yy, v, xv, yv
    steps = range(-reach, reach + 1, step)
    for y in steps:
        for x in steps:
            value = padded[reach + y : reach + y + height, reach + x : reach + x + width]
            near = (value > 0) & (np.abs(value - inv_depth) < jump * inv_depth)
            value = np.where(near, value, 0)
            for k, factor in enumerate((1, x, y, x * x, x * y, y * y)):
                sums[k] += factor * near
            for k, factor in enumerate((1, x, y)):
                sums[6 + k] += factor * value
    n, sx, sy, sxx, sxy, syy, v, xv, yv = sums
    # Centred moments: slopes of the least-squares plane, then its level at the centre.
    count = np.maximum(n, 1)
    cxx, cxy, cyy = sxx - sx * sx / count, sxy - sx * sy / count, syy - sy * sy / count
    cxv, cyv = xv - sx * v / count, yv - sy * v / count
    determinant = cxx * cyy - cxy * cxy
    fits = (n >= 5) & (determinant > 1e-6)
    safe = np.where(fits, determinant, 1)
    slope_x, slope_y = (cxv * cyy - cyv * cxy) / safe, (cyv * cxx - cxv * cxy) / safe
    level = (v - slope_x * sx - slope_y * sy) / count
    pixels = camera.pixel_centers()
    # inverse depth = a . pixel (homogeneous) = -n . K^-1 pixel, up to the length of n.
    plane = np.stack([slope_x, slope_y, level - slope_x * pixels[..., 0] - slope_y * pixels[..., 1]], axis=-1)
    normal = -np.where(fits[..., None], plane, 0) @ camera.K
    length = np.linalg.norm(normal, axis=-1, keepdims=True)
    return (normal / np.where(length > 0, length, 1)).astype(np.float32)


def _one_sided_difference(points: np.ndarray, inv_depth: np.ndarray, axis: int) -> np.ndarray:
    """Return, per pixel, the forward or backward difference of points (H, W, 3), whichever steps less in inverse
    depth."""
    step = np.diff(points, axis=axis)
    jump = np.abs(np.diff(inv_depth, axis=axis))
    jump = np.where(np.isnan(jump), np.inf, jump)
    pad_first = [(0, 0)] * 2
    pad_first[axis] = (1, 0)
    pad_last = [(0, 0)] * 2
    pad_last[axis] = (0, 1)
    back, fore = (np.pad(step, [*pad, (0, 0)]) for pad in (pad_first, pad_last))
    jump_back, jump_fore = (np.pad(jump, pad, constant_values=np.inf) for pad in (pad_first, pad_last))
    out = np.where((jump_fore <= jump_back)[..., None], fore, back)
    return np.where(np.isfinite(np.minimum(jump_back, jump_fore))[..., None], out, np.nan)


def quaternion_from_rotation(R: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,), scalar first and not negative, of a rotation (3, 3)."""
    squared = np.array([1 + np.trace(R), *(1 - np.trace(R) + 2 * np.diag(R))]) / 4
    k = int(np.argmax(squared))
    antisymmetric = [R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]
    products = np.zeros((4, 4))
    products[0, 1:] = products[1:, 0] = antisymmetric
    products[1:, 1:] = R + R.T
    q = products[k] / (4 * np.sqrt(squared[k]))
    q[k] = np.sqrt(squared[k])
    return q if q[0] >= 0 else -q
