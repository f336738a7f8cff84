"""Are COLMAP's binary files whole? From one that is cut short pycolmap (4.2) reads zeros, or never returns."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from nasrecon.errors import InputError

COUNT = struct.Struct("<Q")


def check_whole(folder: Path) -> None:
    """Walk the records of cameras.bin, images.bin, points3D.bin, and of rigs.bin and frames.bin where they are there.

    Raises:
        InputError: naming the file whose bytes are not exactly the records that it promises.
    """
    parts = {"cameras": _skip_camera, "images": _skip_image, "points3D": _skip_point}
    parts |= {"rigs": _skip_rig, "frames": _skip_frame}
    for name, skip in parts.items():
        path = folder / f"{name}.bin"
        if name in ("rigs", "frames") and not path.is_file():
            continue  # before COLMAP 3.12 there were none
        data = path.read_bytes()
        if not _is_whole(data, skip):
            raise InputError(
                f"{path}: the file is cut short or damaged (its {len(data)} bytes are not the records it promises). "
                "Copy or export it again."
            )


def _is_whole(data: bytes, skip: Callable[[bytes, int], int]) -> bool:
    try:
        (count,) = COUNT.unpack_from(data, 0)
        at = COUNT.size
        for _ in range(count):
            at = skip(data, at)
            if at > len(data):
                return False
    except (struct.error, ValueError):
        return False
    return at == len(data)


def _skip_camera(data: bytes, at: int) -> int:
    """Return where the camera that begins at a byte ends: id, model, width, height, parameters."""
    import pycolmap

    record = struct.Struct("<IiQQ")
    model = pycolmap.CameraModelId(record.unpack_from(data, at)[1])  # ValueError if there is no such model
    params = pycolmap.Camera.create_from_model_id(1, model, 1.0, 1, 1).params
    return at + record.size + 8 * len(params)


def _skip_image(data: bytes, at: int) -> int:
    """Return where an image ends: id, quaternion, translation, camera, name, count, (x, y, point) each."""
    name_ends = data.index(b"\0", at + struct.calcsize("<I7dI"))
    (count,) = COUNT.unpack_from(data, name_ends + 1)
    return name_ends + 1 + COUNT.size + count * struct.calcsize("<ddq")


def _skip_point(data: bytes, at: int) -> int:
    """Return where a point ends: id, position, colour, error, count, (image, keypoint) each."""
    head = struct.calcsize("<QdddBBBd")
    (count,) = COUNT.unpack_from(data, at + head)
    return at + head + COUNT.size + count * struct.calcsize("<II")


def _skip_rig(data: bytes, at: int) -> int:
    """Return where a rig ends: id, count, the reference sensor; for each other sensor its pose, if it has one."""
    _, count = struct.unpack_from("<II", data, at)
    at += 8 + (8 if count else 0)
    for _ in range(count - 1):
        has_pose = data[at + 8] if at + 8 < len(data) else 0
        at += 9 + (struct.calcsize("<7d") if has_pose else 0)
        if at > len(data):
            return at
    return at


def _skip_frame(data: bytes, at: int) -> int:
    """Return where a frame ends: id, rig, quaternion, translation, count, (sensor type, sensor, image) each."""
    head = struct.calcsize("<II7d")
    (count,) = struct.unpack_from("<I", data, at + head)
    return at + head + 4 + count * struct.calcsize("<iIQ")
