"""A COLMAP dense workspace: images, sparse model, depth and normal maps; ``stereo_fusion`` takes it as it is.

::

    images/    sparse/cameras.bin images.bin points3D.bin ...    stereo/patch-match.cfg fusion.cfg
    stereo/depth_maps/<image>.geometric.bin    stereo/normal_maps/<image>.geometric.bin

Pixel centres: the cameras are COLMAP's, for half-pixel centres. Its dense stereo, though, takes the value of a map at
[row, column] for the ray through the point (column, row), which is the pixel's corner there (a plane that is fused
from values of the centres lies 0.04 pixels off). So each depth is moved to that corner along the plane of its normal.

The model's points are taken from the depth maps, with the views whose depths agree: the fusion compares images that
share points, and without points it compares none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError, plural
from nasrecon.export.files import image_name, write_image
from nasrecon.fuse.overlap import CoarseDepth
from nasrecon.geometry import in_image, transform
from nasrecon.progress import Progress
from nasrecon.types import Camera, Estimate, View

POINTS_A_VIEW = 400
SAME_DEPTH = 0.05
# Half a pixel on a surface that is seen at a steep angle, or with a wrong normal, may change the depth by any factor:
# beyond this one the depth stays as it is.
MAX_CHANGE = 0.1


def write(estimates: Sequence[Estimate], out: Path, progress: Progress) -> tuple[str, ...]:
    """Write all views; returns the remarks for the user.

    Raises:
        InputError: if a camera has skew, which COLMAP's pinhole has not.
    """
    for folder in ("sparse", "stereo/consistency_graphs"):
        (out / folder).mkdir(parents=True)
    names, sources, sketches = [], [], []
    for i, estimate in enumerate(estimates):
        progress.update("views", i, len(estimates))
        names.append(image_name(estimate.view.name))
        sources.append(estimate.sources)
        sketches.append(CoarseDepth.of(estimate.view, estimate.depth))
        write_image(out / "images" / names[-1], estimate.rgb)
        _write_maps(out / "stereo", names[-1], estimate)
    progress.update("views", len(estimates), len(estimates))
    points, tracks = shared_points(sketches)
    _model([sketch.view for sketch in sketches], names, points, tracks).write(out / "sparse")
    exported = {sketch.view.name: name for sketch, name in zip(sketches, names, strict=True)}
    (out / "stereo" / "fusion.cfg").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    blocks = (
        f"{name}\n{', '.join(exported[source] for source in its_sources if source in exported) or '__auto__, 20'}\n"
        for name, its_sources in zip(names, sources, strict=True)
    )
    (out / "stereo" / "patch-match.cfg").write_text("".join(blocks), encoding="utf-8")
    return (
        f"COLMAP workspace of {plural(len(names), 'image')}; {plural(len(points), 'point')} of "
        "the depth maps in its sparse model",
        "COLMAP's stereo_fusion, or pycolmap.stereo_fusion, fuses it with input_type geometric",
    )


def _write_maps(stereo: Path, name: str, estimate: Estimate) -> None:
    maps = {"depth_maps": depth_at_corners(estimate)[..., None], "normal_maps": estimate.normal}
    for folder, values in maps.items():
        path = stereo / folder / f"{name}.geometric.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_array(path, values)


def write_array(path: Path, values: np.ndarray) -> None:
    """Write (H, W, C) in COLMAP's binary array format: "W&H&C&", then float32, channel by channel, row by row.

    Not through pycolmap (4.2): its ``NormalMap.from_array`` mixes the channels up.
    """
    height, width, channels = values.shape
    planes = np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype="<f4")
    path.write_bytes(f"{width}&{height}&{channels}&".encode() + planes.tobytes())


def depth_at_corners(estimate: Estimate) -> np.ndarray:
    """Return the depth (H, W) float32 at each pixel's top-left corner, on the plane of the pixel's depth and normal."""
    camera = estimate.view.camera
    centers = camera.pixel_centers()
    along = [
        np.sum(estimate.normal * camera.unproject(pixels, np.ones(estimate.depth.shape)), axis=-1)
        for pixels in (centers, centers - 0.5)
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = along[0] / along[1]
    factor = np.where(np.abs(factor - 1) <= MAX_CHANGE, factor, 1)  # NaN too: there is no normal
    return (estimate.depth * factor).astype(np.float32)


def shared_points(sketches: Sequence[CoarseDepth]) -> tuple[np.ndarray, list[list[int]]]:
    """Return points (P, 3) in the world of all depth maps, and for each the views (two or more) whose depths agree."""
    points, tracks = [], []
    for ref, sketch in enumerate(sketches):
        candidates = sketch.points_in_world
        candidates = candidates[:: max(1, len(candidates) // POINTS_A_VIEW)]
        sees_point = np.array(
            [
                _agrees(other, candidates) if i != ref else np.ones(len(candidates), bool)
                for i, other in enumerate(sketches)
            ]
        )
        for point, views in zip(candidates, sees_point.T, strict=True):
            if views.sum() >= 2:
                points.append(point)
                tracks.append(np.flatnonzero(views).tolist())
    return np.array(points).reshape(-1, 3), tracks


def _agrees(sketch: CoarseDepth, points_in_world: np.ndarray) -> np.ndarray:
    """Say at which points (N, 3) a view has about their depth."""
    camera = sketch.view.camera
    in_cam = transform(sketch.view.cam_from_world, points_in_world)
    pixels = camera.project(in_cam)
    inside = in_image(pixels, camera.width, camera.height)
    height, width = sketch.depth.shape
    at = (np.where(inside[..., None], pixels, 0) * (width / camera.width, height / camera.height)).astype(int)
    sampled_depth = sketch.depth[at[:, 1], at[:, 0]]
    return inside & (sampled_depth > 0) & (np.abs(sampled_depth - in_cam[:, 2]) <= SAME_DEPTH * in_cam[:, 2])


def _model(views: Sequence[View], names: Sequence[str], points: np.ndarray, tracks: Sequence[Sequence[int]]) -> Any:
    import pycolmap

    track_of_view: list[list[int]] = [[] for _ in views]
    for k, track in enumerate(tracks):
        for i in track:
            track_of_view[i].append(k)
    model = pycolmap.Reconstruction()
    elements = [pycolmap.Track() for _ in points]
    for i, (view, name) in enumerate(zip(views, names, strict=True)):
        camera = pycolmap.Camera(
            model="PINHOLE",
            width=view.camera.width,
            height=view.camera.height,
            params=_pinhole_params(view.camera, view.name),
            camera_id=i + 1,
        )
        model.add_camera_with_trivial_rig(camera)
        pixels = view.camera.project(transform(view.cam_from_world, points[track_of_view[i]]))
        image = pycolmap.Image(name=name, keypoints=pixels.reshape(-1, 2), camera_id=i + 1, image_id=i + 1)
        model.add_image_with_trivial_frame(image, pycolmap.Rigid3d(view.cam_from_world[:3]))
        for k, point in enumerate(track_of_view[i]):
            elements[point].add_element(i + 1, k)
    for point, element in zip(points, elements, strict=True):
        model.add_point3D(point, element)
    return model


def _pinhole_params(camera: Camera, name: str) -> list[float]:
    K = camera.K
    if K[0, 1] != 0:
        raise InputError(f"{name}: K has skew ({K[0, 1]:g}), which COLMAP's cameras do not; nothing was written")
    return [K[0, 0], K[1, 1], K[0, 2], K[1, 2]]
