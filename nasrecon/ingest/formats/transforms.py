"""transforms.json, as nerfstudio, instant-ngp and Blender's NeRF scenes write it.

``transform_matrix`` is world_from_cam of a camera in OpenGL's axes (x right, y up, z backward); here they are turned to
ours. Pixel centres: half-pixel (nerfstudio and instant-ngp copy cx and cy from COLMAP, Blender's are the middle of the
image). Intrinsics stand at the top, or in a frame, where they win; a focal length wins over an angle of view in the
same place. What nerfstudio did to the world of its source is undone: positions are divided by ``applied_scale``, then
``applied_transform`` is taken back, so the world is that of the source (COLMAP's, as a rule). instant-ngp's ``scale``,
``offset`` and ``aabb_scale`` are what its viewer does later to what the file says, and not for us. A rotation whose
columns are not of length 1 (a Blender camera that was scaled) is normalised: it says nothing of the camera.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError
from nasrecon.geometry import inverse
from nasrecon.ingest.formats.base import (
    Format,
    Frame,
    NoCameraError,
    OtherImagesError,
    Request,
    check_size,
    image_root,
    posed_views,
    rigid,
)
from nasrecon.ingest.images import ENDINGS, direct_images, image_size
from nasrecon.ingest.text import json_number, read_json
from nasrecon.types import Camera, ImageSource, Lens, Scene, SceneOrigin

OURS_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
# Camera models by what their distortion numbers mean. Names are nerfstudio's and COLMAP's.
BROWN = ("PERSPECTIVE", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV")
FISHEYE = ("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
SAME_COLUMN = 1e-3
MAX_PATH = 1000
MAX_SIDE = 1e6


def _find(request: Request) -> Path | None:
    if request.place.is_file():
        if request.place.suffix.lower() != ".json":
            return None
        is_named = request.place.name.startswith("transforms")
        return request.place if is_named or "frames" in read_json(request.place) else None
    named = request.place / "transforms.json"
    if named.is_file():
        return named
    files = sorted(path for path in request.place.glob("transforms*.json") if _is_transforms(path))
    return files[0] if files else None


def _is_transforms(path: Path) -> bool:
    if path.suffix.lower() != ".json":
        return False
    if path.name.startswith("transforms"):
        return True
    try:
        return "frames" in read_json(path)
    except InputError:
        return False


def _read(request: Request, path: Path) -> Scene:
    _only_one(request)
    if request.intrinsics is not None:
        raise InputError(f"{path}: a transforms.json has its own intrinsics; leave {request.intrinsics} out")
    if request.convention == "cam-from-world":
        raise InputError(f"{path}: transforms.json is world_from_cam by definition; leave the convention out")
    fields = read_json(path)
    listed = fields.get("frames")
    if not isinstance(listed, list) or not all(isinstance(frame, dict) for frame in listed):
        what = "a list of other things" if isinstance(listed, list) else repr(listed)[:80]
        raise InputError(f"{path}: expected a list of frames, each with its fields, found {what}")
    if not listed:
        raise InputError(f"{path}: its list of frames is empty")
    undo, notes = _undo(fields, path)
    files, dropped = _files(listed, request, path)
    root = _root(request, list(files.values()))
    frames, shared = [], {}
    for i, file in files.items():
        name = file.relative_to(root).as_posix()
        matrix, scaled = _world_from_cam(listed[i], undo, f"{path}, frame {i + 1} ({name})")
        if scaled and scaled not in notes:
            notes.append(scaled)
        source = ImageSource(path=file, mask_path=_mask(listed[i], path))
        frames.append(Frame(name=name, image=source, matrix=matrix, origin=f"{path}, frame {i + 1}"))
        shared[name] = {**fields, **listed[i]}, listed[i]
    frames.sort(key=lambda frame: frame.name)
    views, lost = posed_views(
        frames, lambda frame: _camera(shared[frame.name][0], shared[frame.name][1], frame, path), "world-from-cam"
    )
    dropped += [(name, f"not named by {path.name}") for name in _unnamed(frames, root)]
    lenses = sorted({view.image.lens.model for view in views if view.image.lens}) or ["no distortion"]
    masked = sum(frame.image.mask_path is not None for frame in frames)
    notes += [f"masks of {masked} frames"] if masked else []
    origin = SceneOrigin(
        format="transforms.json",
        images=f"{len(views)} of {len(listed)} frames",
        poses=path.name,
        pose_convention="world-from-cam",
        axes="OpenGL",
        intrinsics=path.name,
        notes=(", ".join(lenses), *notes),
    )
    return Scene(root=root, views=views, origin=origin, dropped=(*dropped, *lost))


def _only_one(request: Request) -> None:
    """Refuse a folder with several files (the splits of a NeRF scene)."""
    files = [] if request.place.is_file() else sorted(path.name for path in request.place.glob("transforms*.json"))
    if len(files) > 1:
        raise InputError(f"{request.place}: there are {', '.join(files)}; pass the one to read as the poses")


def _unnamed(frames: list[Frame], root: Path) -> list[str]:
    """Return the images that lie beside those of the frames and belong to none, neither as image nor as mask."""
    known = {frame.image.path for frame in frames} | {frame.image.mask_path for frame in frames}
    folders = sorted({frame.image.path.parent for frame in frames})
    beside = [folder / name for folder in folders for name in direct_images(folder)]
    return [path.relative_to(root).as_posix() for path in beside if path not in known]


def _undo(fields: Mapping[str, Any], path: Path) -> tuple[tuple[np.ndarray, float], list[str]]:
    """Return (source_from_world (4, 4), scale to divide positions by before it), and the words for what that undoes."""
    notes = []
    matrix, scale = np.eye(4), 1.0
    if "applied_transform" in fields:
        applied = _matrix(fields["applied_transform"], f"{path}, applied_transform")
        matrix = inverse(rigid(applied, f"{path}, applied_transform"))
        notes.append("applied_transform undone")
    if "applied_scale" in fields:
        scale = json_number(fields, "applied_scale", path)
        if scale <= 0:
            raise InputError(f"{path}: applied_scale must be positive, found {scale:g}")
        notes.append(f"applied_scale {scale:g} undone")
    return (matrix, scale), notes


def _matrix(value: Any, origin: str) -> np.ndarray:
    """Return a 3x4 or 4x4 of a JSON file as (4, 4)."""
    try:
        matrix = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{origin}: expected a 4x4 or 3x4 matrix of numbers") from error
    if matrix.shape not in ((3, 4), (4, 4)):
        raise InputError(f"{origin}: expected a 4x4 or 3x4 matrix, found shape {matrix.shape}")
    return matrix if len(matrix) == 4 else np.vstack([matrix, (0, 0, 0, 1)])


def _world_from_cam(frame: Mapping[str, Any], undo: tuple[np.ndarray, float], origin: str) -> tuple[np.ndarray, str]:
    """Return world_from_cam (4, 4) in our axes, in the world of the source, and words where its columns were scaled."""
    if "transform_matrix" not in frame:
        raise InputError(f"{origin}: there is no transform_matrix")
    matrix = _matrix(frame["transform_matrix"], origin)
    if not np.isfinite(matrix).all():
        return matrix, ""
    source_from_world, scale = undo
    check_size(matrix, origin)
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    note = ""
    if np.abs(lengths - 1).max() > SAME_COLUMN and lengths.min() > 0:
        matrix[:3, :3] /= lengths
        note = "scaled rotations normalised"
    matrix[:3, 3] /= scale
    return source_from_world @ rigid(matrix, origin) @ OURS_FROM_OPENGL, note


def _files(listed: list[dict[str, Any]], request: Request, path: Path) -> tuple[dict[int, Path], list[tuple[str, str]]]:
    """Return the image file of each frame, by the frame's place in the list, and (name, reason) of those without."""
    files: dict[int, Path] = {}
    dropped = []
    for i, frame in enumerate(listed):
        written = frame.get("file_path")
        if not isinstance(written, str) or not written:
            raise InputError(f"{path}, frame {i + 1}: there is no file_path")
        if "\0" in written or len(written) > MAX_PATH:
            raise InputError(f"{path}, frame {i + 1}: file_path {written[:40]!r} is not the name of a file")
        file = _file(written.replace("\\", "/"), request, path)
        if file is None:
            dropped.append((written, f"named by {path.name}, but no such image file"))
        elif file in files.values():
            raise InputError(f"{path}, frame {i + 1}: {written} is there twice")
        else:
            files[i] = file
    if not files:
        names = ", ".join(name for name, _ in dropped[:3])
        raise OtherImagesError(
            f"{path}: none of its {len(listed)} images is there ({names} ...), neither from {path.parent} nor from "
            f"{request.images}. Pass the folder that the file_paths start from, or put the images there."
        )
    return files, dropped


def _file(written: str, request: Request, path: Path) -> Path | None:
    """Return the image that a file_path means, with or without its ending; None if there is none.

    It is looked for from the folder of the JSON file, then from the folder of the images, and there also by what
    follows its first folder ("images/left/1" in images/ is left/1).
    """
    starts = [path.parent / written, request.images / written]
    first, _, rest = written.removeprefix("./").partition("/")
    if rest and first == request.images.name:
        starts.append(request.images / rest)
    for start in starts:
        if start.suffix.lower() in ENDINGS and start.is_file():
            return _clean(start)
        endings = (*ENDINGS, *(ending.upper() for ending in ENDINGS))
        with_ending = {_clean(p) for ending in endings if (p := start.with_name(start.name + ending)).is_file()}
        if len(with_ending) > 1:
            names = ", ".join(sorted(p.name for p in with_ending))
            raise InputError(f"{path}: {written} may mean {names}; keep one of them, or write the ending")
        if with_ending:
            return with_ending.pop()
    return None


def _clean(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _root(request: Request, files: list[Path]) -> Path:
    """Return the folder that names start from: that of IMAGES (or its images/) if all are in it, else the common
    one."""
    for folder in (image_root(request.images), request.images):
        if all(file.is_relative_to(_clean(folder)) for file in files):
            return _clean(folder)
    return Path(os.path.commonpath([file.parent for file in files]))


def _mask(frame: Mapping[str, Any], path: Path) -> Path | None:
    """Return the mask that a frame names.

    Raises:
        InputError: if there is no such file.
    """
    written = frame.get("mask_path")
    if not written:
        return None
    mask = _clean(path.parent / str(written).replace("\\", "/"))
    if not mask.is_file():
        raise InputError(
            f"{path}: mask_path {written}: no such file. Take it out of the JSON file, or put the mask there."
        )
    return mask


def _side(value: float, key: str, size: tuple[int, int], frame: Frame, path: Path) -> float:
    """Return a side of an image [px] as it is written, if an image can have it."""
    if not 0 < value <= MAX_SIDE:
        raise InputError(
            f"{path}: {key} must be a side of the images in pixels, found {value:g}; {frame.name} is "
            f"{size[0]}x{size[1]} (width x height)"
        )
    return value


def _camera(
    fields: Mapping[str, Any], of_frame: Mapping[str, Any], frame: Frame, path: Path
) -> tuple[Camera, Lens | None]:
    """Return the camera of a frame, and its lens if it has one.

    Args:
        fields: the frame's entries over those of the file's top.
        of_frame: the frame's own fields.
        frame, path: for the image's size, and for messages.
    """
    from nasrecon.ingest.undistort import pinhole_camera

    model = str(fields.get("camera_model") or ("OPENCV_FISHEYE" if fields.get("is_fisheye") else "OPENCV")).upper()
    if model not in BROWN + FISHEYE or any(key.startswith("ftheta_") for key in fields):
        raise NoCameraError(
            f"{path.name}: camera model {fields.get('camera_model') or 'f-theta'} is not one that is read"
        )

    def number(key, default):
        return json_number(fields, key, path) if fields.get(key) is not None else default

    size = image_size(frame.image.path)
    width, height = (
        int(_side(number(key, side), key, size, frame, path)) for key, side in zip("wh", size, strict=True)
    )
    fx, fy = _focal_lengths(fields, of_frame, width, height, path)
    cx, cy = number("cx", width / 2), number("cy", height / 2)
    distortion = {key: number(key, 0.0) for key in ("k1", "k2", "k3", "k4", "p1", "p2")}
    k1, k2, k3, k4, p1, p2 = distortion.values()
    is_fisheye = model in FISHEYE or bool(fields.get("is_fisheye"))
    meaningless = {key: distortion[key] for key in (("p1", "p2") if is_fisheye else ("k4",)) if distortion[key]}
    if meaningless:
        stray = " and ".join(f"{key} = {value:g}" for key, value in meaningless.items())
        why = "a fisheye has no p1 and p2" if is_fisheye else "k4 belongs to OPENCV_FISHEYE"
        raise InputError(
            f"{path}: {frame.name}: expected the distortion of camera model {model}, found {stray}: {why}. "
            "Take it out, or correct camera_model."
        )
    if is_fisheye:
        lens = Lens(model="OPENCV_FISHEYE", width=width, height=height, params=(fx, fy, cx, cy, k1, k2, k3, k4))
    elif k3:
        lens = Lens(
            model="FULL_OPENCV", width=width, height=height, params=(fx, fy, cx, cy, k1, k2, p1, p2, k3, 0.0, 0.0, 0.0)
        )
    elif any((k1, k2, p1, p2)):
        lens = Lens(model="OPENCV", width=width, height=height, params=(fx, fy, cx, cy, k1, k2, p1, p2))
    else:
        return Camera(width=width, height=height, K=np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])), None
    return pinhole_camera(lens), lens


def _focal_lengths(
    fields: Mapping[str, Any], of_frame: Mapping[str, Any], width: int, height: int, path: Path
) -> tuple[float, float]:
    """Return fx and fy [px]: the frame's own words first, then those of the file's top; fy is fx where none is
    stated."""

    def stated(place: Mapping[str, Any], axis: str, side: int) -> float | None:
        if place.get(f"fl_{axis}") is not None:
            return json_number(place, f"fl_{axis}", path)
        if place.get(f"camera_angle_{axis}") is not None:
            angle = json_number(place, f"camera_angle_{axis}", path)
            if not 0 < angle < np.pi:
                raise InputError(f"{path}: camera_angle_{axis} must lie in (0, pi) [radians], found {angle:g}")
            return side / (2 * np.tan(angle / 2))
        return None

    for place in (of_frame, fields):
        fx, fy = stated(place, "x", width), stated(place, "y", height)
        if fx is not None or fy is not None:
            both = tuple(one for one in (fx, fy) if one is not None)
            if min(both) <= 0:
                raise InputError(f"{path}: focal lengths must be positive, found {', '.join(f'{f:g}' for f in both)}")
            return both[0], both[-1]
    raise InputError(f"{path}: no focal length: neither fl_x nor camera_angle_x, at its top or in its frames")


FORMAT = Format(
    key="transforms",
    name="transforms.json",
    looks_for="transforms.json (nerfstudio, instant-ngp, Blender), or another .json with frames",
    find=_find,
    read=_read,
)
