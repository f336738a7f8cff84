"""A mesh as binary glTF for the live page: its colours as they are, grey clay under light, or its normals' colours."""

from __future__ import annotations

import json
import struct
from typing import Any, Literal, get_args

import numpy as np

Surface = Literal["photo", "clay", "normals"]
SURFACES: tuple[Surface, ...] = get_args(Surface)

_FLOAT, _U16, _U32 = 5126, 5123, 5125
_VERTICES, _INDICES = 34962, 34963


def mesh_glb(points: np.ndarray, normal: np.ndarray, rgb: np.ndarray, faces: np.ndarray, surface: Surface) -> bytes:
    """Encode a mesh as GLB; its triangles are seen from their front only.

    Args:
        points: (V, 3) float32.
        normal: (V, 3) float32, unit.
        rgb: (V, 3) uint8, sRGB, the colours that are shown; clay has one of its own.
        faces: (F, 3) int32, counter-clockwise from the front.
        surface: how it looks. Clay is lit by the page, the others shine by themselves.
    """
    arrays = [
        ("POSITION", points.astype("<f4"), _FLOAT, "VEC3"),
        ("NORMAL", normal.astype("<f4"), _FLOAT, "VEC3"),
    ]
    if surface != "clay":
        arrays.append(("COLOR_0", _linear(rgb), _U16, "VEC4"))
    arrays.append(("", faces.astype("<u4").reshape(-1), _U32, "SCALAR"))
    views, accessors, blob, offset = [], [], [], 0
    for name, array, kind, shape in arrays:
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes})
        views[-1]["target"] = _VERTICES if name else _INDICES
        accessor: dict[str, Any] = {"bufferView": len(accessors), "componentType": kind, "type": shape}
        accessor |= {"count": len(array), "normalized": kind == _U16}
        if name == "POSITION":
            accessor |= {"min": array.min(axis=0).tolist(), "max": array.max(axis=0).tolist()}
        accessors.append(accessor)
        blob.append(array.tobytes())  # all are multiples of 4 bytes, as glTF asks
        offset += array.nbytes
    names = [name for name, *_ in arrays]
    primitive = {"attributes": {n: i for i, n in enumerate(names) if n}, "indices": names.index(""), "material": 0}
    material: dict[str, Any] = {"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}}
    if surface == "clay":
        material["pbrMetallicRoughness"]["baseColorFactor"] = [0.62, 0.62, 0.62, 1]
    else:
        material["extensions"] = {"KHR_materials_unlit": {}}
    document = {
        "asset": {"version": "2.0", "generator": "nasrecon"},
        "extensionsUsed": [] if surface == "clay" else ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    if surface == "clay":
        del document["extensionsUsed"]  # glTF allows no empty list
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + offset
    head = struct.pack("<4sII", b"glTF", 2, total) + struct.pack("<I4s", len(text), b"JSON")
    return b"".join([head, text, struct.pack("<I4s", offset, b"BIN\0"), *blob])


def _linear(rgb: np.ndarray) -> np.ndarray:
    """Turn sRGB (V, 3) uint8 into what glTF wants of vertices: linear light, here (V, 4) uint16 of full opacity."""
    c = np.arange(256) / 255
    table = np.rint(65535 * np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)).astype("<u2")
    out = np.full((len(rgb), 4), 65535, "<u2")
    out[:, :3] = table[rgb]
    return out
