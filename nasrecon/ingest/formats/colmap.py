"""COLMAP models, binary and text, through pycolmap: any camera model, several cameras, images in subfolders.

COLMAP stores cam_from_world and half-pixel centres, as we do. Distorted images get a ``Lens`` and the pinhole camera
of the undistorted image.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError, plural
from nasrecon.ingest.formats.base import Format, OtherImagesError, Request, image_root, rigid
from nasrecon.ingest.formats.colmap_integrity import check_whole
from nasrecon.ingest.images import image_files
from nasrecon.types import ImageSource, Scene, SceneOrigin, View

PLACES = ("", "sparse/0", "sparse", "0", "colmap/sparse/0", "dense/sparse")
PARTS = ("cameras", "images", "points3D")
RIGS = ("rigs", "frames")
"""Written together since COLMAP 3.12; older models have neither."""


def model_folder(folder: Path) -> Path | None:
    """Return the folder of the COLMAP model in a folder, or None: itself, else one of its usual subfolders."""
    for place in PLACES:
        if _ending(folder / place) is not None:
            return folder / place
    return None


def _ending(folder: Path) -> str | None:
    """Say whether a folder holds a model in ".bin" or ".txt" (cameras and images decide); None if neither."""
    for ending in (".bin", ".txt"):
        if all((folder / f"{part}{ending}").is_file() for part in PARTS[:2]):
            return ending
    return None


def _find(request: Request) -> Path | None:
    if request.place.is_file():
        is_part = request.place.name in {f"{part}{ending}" for part in PARTS for ending in (".bin", ".txt")}
        return model_folder(request.place.parent) if is_part else None
    return model_folder(request.place)


def _read(request: Request, model: Path) -> Scene:
    if request.convention == "world-from-cam":
        raise InputError(f"{model}: COLMAP models are cam_from_world by definition; leave the convention out")
    if request.intrinsics is not None:
        raise InputError(f"{model}: a COLMAP model has its own intrinsics; leave {request.intrinsics} out")
    reconstruction = read_model(model)
    root = image_root(request.images)
    images = sorted(reconstruction.images.values(), key=lambda image: image.name)
    kept, dropped = [], []
    for image in images:
        if not image.has_pose:
            dropped.append((image.name, "in the COLMAP model, but not registered (no pose)"))
        elif image.camera.is_spherical():
            dropped.append(
                (image.name, f"camera model {image.camera.model_name} has no pinhole; cut it to perspective views")
            )
        elif not (root / image.name).is_file():
            dropped.append((image.name, "in the COLMAP model, but no such image file"))
        else:
            kept.append(image)
    if not kept:
        raise OtherImagesError(_nothing_kept(model, root, dropped))
    known = {image.name for image in images}
    dropped += [(name, "not in the COLMAP model") for name in image_files(root) if name not in known]
    dropped += [
        (str(other.relative_to(model.parent)), f"another model; {model.name} was read") for other in _siblings(model)
    ]
    points_in_world, visible = sparse_points(reconstruction, kept)
    cameras = Counter(image.camera.model_name for image in kept)
    ending = _ending(model) or ""
    return Scene(
        root=root,
        views=_views(kept, root, model),
        points_in_world=points_in_world,
        visible=visible,
        origin=SceneOrigin(
            format="COLMAP model",
            images=f"{len(kept)} of {len(images)} images",
            poses=f"images{ending}",
            intrinsics=f"cameras{ending}",
            notes=(
                f"{len(points_in_world)} sparse points",
                f"{plural(len({image.camera_id for image in kept}), 'camera')} ({', '.join(sorted(cameras))})",
            ),
        ),
        dropped=tuple(dropped),
    )


def read_model(folder: Path) -> Any:
    """Read a COLMAP model (``pycolmap.Reconstruction``).

    Raises:
        InputError: if a part of it is missing or damaged.
    """
    import pycolmap

    ending = _ending(folder)
    rigs = [part for part in RIGS if (folder / f"{part}{ending}").is_file()]
    parts = (*PARTS, *(RIGS if rigs else ()))
    missing = [f"{part}{ending}" for part in parts if not (folder / f"{part}{ending}").is_file()]
    if missing:
        raise InputError(f"{folder}: the COLMAP model lacks {', '.join(missing)}. Export it again with all its files.")
    if ending == ".bin":
        check_whole(folder)
    try:
        return pycolmap.Reconstruction(folder)
    except (ValueError, IndexError, KeyError, RuntimeError) as error:
        raise InputError(
            f"{folder}: pycolmap cannot read this COLMAP model ({_reason(str(error), ending or '', bool(rigs))}). "
            "Is a file cut short, or written by a version newer than pycolmap? Export or copy it again."
        ) from error


ID_FILES = {
    "rig": ("frames", "rigs"),
    "camera": ("images", "cameras"),
    "image": ("points3D", "images"),
    "frame": ("images", "frames"),
}
"""The file that names a number, and the one that must have it."""


def _reason(text: str, ending: str, has_rigs: bool) -> str:
    """Return what pycolmap refuses; of a failed check in its code, the file whose line it is.

    Args:
        text: what pycolmap says.
        ending: of the model's files.
        has_rigs: whether the model has rigs and frames; without, each camera is a rig with the camera's number.
    """
    if unknown := re.search(r"(Rig|Image|Camera|Frame) with ID (\d+) does not exist", text):
        kind, number = unknown[1].lower(), unknown[2]
        if kind == "rig" and not has_rigs:
            kind = "camera"
        user, owner = ID_FILES[kind]
        return f"{user}{ending} names {kind} {number}, which is not in {owner}{ending}"
    if text.startswith("Camera model does not exist"):
        return f"cameras{ending} names a camera model that pycolmap does not know"
    if text == "unordered_map::at":
        return "one of its files names a number that is in no other"
    if "Check failed" not in text:
        return text
    if "VerifyParams" in text:
        return "a camera has another number of parameters than its model, or one that is no number"
    words = {"point3D": "points3D.txt", "image_id": "images.txt", "camera": "cameras.txt"}
    name = next((name for word, name in words.items() if word in text), "one of its files")
    return f"a line of {name} has other fields than expected"


def _siblings(model: Path) -> list[Path]:
    """Return the other models of a ``sparse`` folder (COLMAP's mapper leaves 0, 1, 2 ... where a set falls apart)."""
    if not model.name.isdigit():
        return []
    return sorted(p for p in model.parent.iterdir() if p.name.isdigit() and p.name != model.name and _ending(p))


def _nothing_kept(model: Path, root: Path, dropped: list[tuple[str, str]]) -> str:
    reasons = Counter(reason for _, reason in dropped)
    names = ", ".join(name for name, _ in dropped[:3])
    present = ", ".join(image_files(root)[:3]) or "no images"
    return (
        f"{model}: none of its {len(dropped)} images can be used: "
        + "; ".join(f"{count} {reason}" for reason, count in reasons.items())
        + f". The model names {names} ...; {root} holds {present} ... Pass the folder that its names start from."
    )


def _views(images: list[Any], root: Path, model: Path) -> tuple[View, ...]:
    from nasrecon.ingest.undistort import camera_from_colmap, lens_from_colmap, pinhole_camera

    cameras = {}
    for image in images:
        if image.camera_id not in cameras:
            try:
                lens = lens_from_colmap(image.camera)
                cameras[image.camera_id] = (pinhole_camera(lens) if lens else camera_from_colmap(image.camera), lens)
            except InputError as error:
                raise InputError(f"{model}: camera {image.camera_id}, of {image.name}: {error}") from error
    views = []
    for image in images:
        camera, lens = cameras[image.camera_id]
        cam_from_world = _cam_from_world(image, model)
        source = ImageSource(path=root / image.name, lens=lens)
        views.append(View(name=image.name, image=source, camera=camera, cam_from_world=cam_from_world))
    return tuple(views)


def _cam_from_world(image: Any, model: Path) -> np.ndarray:
    """Return the pose (4, 4) of an image. pycolmap takes a quaternion of zeros for no rotation; it is refused."""
    pose = image.cam_from_world()
    origin = f"{model}: {image.name}"
    if not np.linalg.norm(pose.rotation.quat) > 0:
        raise InputError(f"{origin}: expected a quaternion of unit length, found zeros; its pose was lost on export")
    return rigid(pose.matrix(), origin)


def sparse_points(reconstruction: Any, images: list[Any]) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Return points (P, 3) in the world and, for each image, the indices of those that it sees."""
    ids = sorted(reconstruction.points3D)
    index = {point_id: i for i, point_id in enumerate(ids)}
    points = np.array([reconstruction.points3D[i].xyz for i in ids], dtype=np.float64).reshape(-1, 3)
    visible = []
    for image in images:
        observed = {index[point.point3D_id] for point in image.get_observation_points2D()}
        visible.append(np.array(sorted(observed), dtype=np.int64))
    return points, tuple(visible)


FORMAT = Format(
    key="colmap",
    name="COLMAP model",
    looks_for="cameras, images and points3D as .bin or .txt, in the folder or in its sparse/0",
    find=_find,
    read=_read,
)
