"""Clouds and meshes on disk. Every file is written beside its place and then renamed: what is there is complete.

PLY is written and, where a cloud needs its support back, read here: binary, little-endian, ``x y z nx ny nz red green
blue`` and for clouds ``support``; positions are float32, but float64 where that would round away more than a millionth
of the extent (scenes far from their origin). OBJ, GLB and STL go through trimesh. The coordinates are those of the
world in every format, none is turned: glTF calls +y up, so a viewer may show a GLB lying on its side. STL has neither
colours nor shared vertices.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.atomic import make_folder, write_atomically
from nasrecon.errors import InputError
from nasrecon.fuse.o3d import vertex_normals
from nasrecon.types import Mesh, PointCloud, TexturedMesh, Unit

CLOUD_ENDINGS = (".ply", ".xyz", ".las", ".laz")
MESH_ENDINGS = (".ply", ".obj", ".glb", ".stl")


def check_ending(path: Path, endings: tuple[str, ...], what: str) -> str:
    """Return the path's ending in lower case.

    Raises:
        InputError: if it is not among the endings; names them. Meant to be asked before the work is done, too.
    """
    ending = path.suffix.lower()
    if ending not in endings:
        raise InputError(
            f"{path}: a {what} is written as {', '.join(endings)}, found the ending {ending or '(none)'!r}"
        )
    return ending


def save_cloud(cloud: PointCloud, path: str | Path) -> Path:
    """Write a cloud as .ply, .xyz, .las or .laz, by the ending, and return its path; missing folders are made.

    A .ply holds all of it and comes back by ``load_cloud``. A .xyz is text, a point a line: x y z red green blue nx ny
    nz. LAS and LAZ (``pip install "nasrecon[las]"``) have positions to a 16th of a millimetre, or of the unit's
    thousandth, colours in 16 bits, and normals, sigma and support as extra dimensions.

    Raises:
        InputError: if the ending is another.
        NasReconError: if laspy is missing for .las or .laz.
    """
    path = Path(path)
    ending = check_ending(path, CLOUD_ENDINGS, "cloud")
    if ending == ".xyz":
        return _write(path, _xyz_lines(cloud))
    if ending != ".ply":
        from nasrecon.fuse.las import las_bytes

        return _write(path, las_bytes(cloud, compressed=ending == ".laz"))
    more = {"support": cloud.support.astype("<i4")}
    if cloud.sigma is not None:
        more["sigma"] = cloud.sigma.astype("<f4")
    rows = _rows(cloud.xyz, cloud.normal, cloud.rgb, **more)
    return _write(path, _header(cloud.unit, rows) + rows.tobytes())


def _xyz_lines(cloud: PointCloud) -> bytes:
    """Return the points as text, with digits for a millionth of the cloud's extent."""
    extent = float(np.ptp(cloud.xyz, axis=0).max()) if len(cloud) else 1.0
    digits = max(0, 6 - int(np.floor(np.log10(extent or 1.0))))
    line = f"%.{digits}f %.{digits}f %.{digits}f %d %d %d %.4f %.4f %.4f\n"
    columns = np.concatenate([cloud.xyz, cloud.rgb, cloud.normal], axis=1)
    return "".join(line % tuple(row) for row in columns.tolist()).encode()


TEXTURE_ENDINGS = (".glb", ".obj")


def save_mesh(mesh: Mesh | TexturedMesh, path: str | Path) -> Path:
    """Write a mesh as .ply, .obj, .glb or .stl, by the ending, and return its path; missing folders are made.

    A textured mesh is written as .glb, or as .obj with an .mtl and a .png beside it.

    Raises:
        InputError: if the ending is another.
    """
    path = Path(path)
    if isinstance(mesh, TexturedMesh):
        return _save_textured(mesh, path)
    ending = check_ending(path, MESH_ENDINGS, "mesh")
    if ending == ".ply":
        rows = _rows(mesh.vertices, mesh.normal, mesh.rgb)
        faces = np.empty(len(mesh.faces), dtype=_FACE)
        faces["count"], faces["index"] = 3, mesh.faces
        return _write(path, _header(mesh.unit, rows, len(faces)) + rows.tobytes() + faces.tobytes())
    import trimesh

    out: Any = trimesh.Trimesh(
        vertices=mesh.vertices, faces=mesh.faces, vertex_normals=mesh.normal, vertex_colors=mesh.rgb, process=False
    )
    # trimesh leaves normals out unless asked, and STL has no place for them.
    data = out.export(file_type=ending[1:], **({} if ending == ".stl" else {"include_normals": True}))
    return _write(path, data.encode() if isinstance(data, str) else data)


def _save_textured(textured: TexturedMesh, path: Path) -> Path:
    """Write a .glb with the atlas in it, or an .obj with an .mtl and a .png beside it."""
    import trimesh.exchange.obj
    import trimesh.visual.material
    from PIL import Image

    ending = check_ending(path, TEXTURE_ENDINGS, "textured mesh")
    mesh, image = textured.mesh, Image.fromarray(textured.image)
    if ending == ".glb":
        material = trimesh.visual.material.PBRMaterial(
            name="atlas", baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
        )
    else:
        material = trimesh.visual.material.SimpleMaterial(image=image, name=path.stem)
    out: Any = trimesh.Trimesh(
        vertices=mesh.vertices,
        faces=mesh.faces,
        vertex_normals=mesh.normal,
        visual=trimesh.visual.TextureVisuals(uv=textured.uv, material=material),
        process=False,
    )
    if ending == ".glb":
        return _write(path, out.export(file_type="glb", include_normals=True))
    text, others = trimesh.exchange.obj.export_obj(
        out, include_normals=True, return_texture=True, mtl_name=f"{path.stem}.mtl"
    )
    for name, data in others.items():
        _write(path.parent / name, data)
    return _write(path, text.encode())


def load_cloud(path: str | Path) -> PointCloud:
    """Read a cloud that ``save_cloud`` wrote as .ply.

    Raises:
        InputError: if there is no such file, or it is not one of ours.
    """
    path = Path(path)
    rows, unit = _read_vertices(path)
    missing = [name for name in (*_FIELDS, "support") if name not in (rows.dtype.names or ())]
    if missing:
        raise InputError(f"{path}: not a cloud that nasrecon wrote, its vertices lack {', '.join(missing)}")
    return PointCloud(
        xyz=_columns(rows, _FIELDS[:3], np.float64),
        normal=_columns(rows, _FIELDS[3:6], np.float32),
        rgb=_columns(rows, _FIELDS[6:], np.uint8),
        support=rows["support"].astype(np.int32),
        sigma=rows["sigma"].astype(np.float32) if "sigma" in (rows.dtype.names or ()) else None,
        unit=unit,
    )


def load_mesh(path: str | Path) -> Mesh:
    """Read a mesh from .ply, .obj, .glb or .stl: grey where the file has no colours, with normals from the faces.

    A .ply that ``save_mesh`` wrote is read as it is, normals too, and about ten times faster than another.

    Raises:
        InputError: if there is no such file, it cannot be read, or it holds no triangle.
    """
    path = Path(path)
    check_ending(path, MESH_ENDINGS, "mesh")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if _is_our_mesh(path):
        return _load_our_mesh(path)
    import trimesh

    try:
        loaded: Any = trimesh.load(path, force="mesh", process=False)
    except Exception as error:
        raise InputError(f"{path}: cannot be read as a mesh: {error}") from error
    if not isinstance(loaded, trimesh.Trimesh) or not len(loaded.faces):
        raise InputError(f"{path}: expected a mesh, found no triangle in it")
    rgb = np.full((len(loaded.vertices), 3), 180, np.uint8)
    visual: Any = loaded.visual
    if visual.kind == "vertex":
        rgb = np.asarray(visual.vertex_colors)[:, :3].astype(np.uint8)
    elif visual.kind == "texture":
        rgb = np.asarray(visual.to_color().vertex_colors)[:, :3].astype(np.uint8)
    vertices, faces = np.asarray(loaded.vertices, dtype=np.float64), np.asarray(loaded.faces, dtype=np.int32)
    with path.open("rb") as file:
        unit = _unit(file.read(1000).split(b"end_header")[0].decode("ascii", "replace").split("\n"))
    return Mesh(vertices=vertices, faces=faces, normal=vertex_normals(vertices, faces), rgb=rgb, unit=unit)


def load_surface(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, Unit]:
    """Read a cloud or a mesh of any origin.

    Returns:
        points (N, 3) float64, their normals (N, 3) float32 (0 where unknown), faces (F, 3) int32 or None for a cloud,
        and the unit ("unknown" where the file does not state it).

    Raises:
        InputError: if there is no such file, it cannot be read, or it holds no point.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        head = file.read(4000).split(b"end_header")[0].decode("ascii", "replace")
    faces = int(head.partition("\nelement face ")[2].split()[0]) if "\nelement face " in head else 0
    if path.suffix.lower() in MESH_ENDINGS and (path.suffix.lower() != ".ply" or faces):
        mesh = load_mesh(path)
        return mesh.vertices, mesh.normal, mesh.faces, mesh.unit
    from nasrecon.fuse.o3d import read_points

    try:
        xyz, normal = read_points(str(path))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a cloud: {error}") from error
    if not len(xyz):
        raise InputError(f"{path}: expected a cloud or a mesh, found no point in it")
    return xyz, normal, None, _unit(head.split("\n"))


def _is_our_mesh(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(1000)
    return b"\ncomment nasrecon\n" in head and b"\nelement face " in head


def _load_our_mesh(path: Path) -> Mesh:
    """Read what ``save_mesh`` wrote as .ply.

    Raises:
        InputError: if it is cut off, or holds no triangle.
    """
    rows, unit = _read_vertices(path)
    with path.open("rb") as file:
        head = file.read(1000).partition(b"end_header\n")[0]
        count = int(head.partition(b"element face ")[2].split()[0])
        file.seek(len(head) + len(b"end_header\n") + rows.nbytes)
        faces = np.fromfile(file, dtype=_FACE, count=count)
    if len(faces) < count or not count:
        raise InputError(f"{path}: expected a mesh, found {len(faces)} of {count} triangles in it; run fuse again")
    return Mesh(
        vertices=_columns(rows, _FIELDS[:3], np.float64),
        faces=np.ascontiguousarray(faces["index"]),
        normal=_columns(rows, _FIELDS[3:6], np.float32),
        rgb=_columns(rows, _FIELDS[6:], np.uint8),
        unit=unit,
    )


_FACE = np.dtype([("count", "u1"), ("index", "<i4", (3,))])
_FIELDS = ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue")
_PLY_TYPES = {"f4": "float", "f8": "double", "u1": "uchar", "i4": "int"}
_NUMPY_TYPES = {
    **{ply: f"<{numpy}" for numpy, ply in _PLY_TYPES.items()},
    **{"float32": "<f4", "float64": "<f8", "uint8": "u1", "int32": "<i4"},
    **{"char": "i1", "short": "<i2", "ushort": "<u2", "uint": "<u4"},
    **{"int8": "i1", "int16": "<i2", "uint16": "<u2", "uint32": "<u4"},
}


def _rows(xyz: np.ndarray, normal: np.ndarray, rgb: np.ndarray, **more: np.ndarray) -> np.ndarray:
    """Return vertices as one structured array, positions in double precision only where single would spoil them."""
    extent = np.ptp(xyz, axis=0).max() if len(xyz) else 0.0
    far = len(xyz) > 0 and np.abs(xyz).max() > 16 * extent
    columns = [*np.asarray(xyz, "<f8" if far else "<f4").T, *np.asarray(normal, "<f4").T, *np.asarray(rgb, "u1").T]
    named = dict(zip(_FIELDS, columns, strict=True)) | more
    rows = np.empty(len(xyz), dtype=[(name, column.dtype) for name, column in named.items()])
    for name, column in named.items():
        rows[name] = column
    return rows


def _header(unit: Unit, rows: np.ndarray, faces: int | None = None) -> bytes:
    names = rows.dtype.names or ()
    lines = ["ply", "format binary_little_endian 1.0", "comment nasrecon", f"comment unit {unit}"]
    lines.append(f"element vertex {len(rows)}")
    lines += [f"property {_PLY_TYPES[rows.dtype[name].str[1:]]} {name}" for name in names]
    if faces is not None:
        lines += [f"element face {faces}", "property list uchar int vertex_indices"]
    return ("\n".join([*lines, "end_header"]) + "\n").encode("ascii")


def _read_vertices(path: Path) -> tuple[np.ndarray, Unit]:
    """Read the vertices of a binary PLY as a structured array, and the unit from its comment ("unknown" without).

    Raises:
        InputError: if there is no such file, or it is not a binary little-endian PLY that begins with its vertices.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with path.open("rb") as file:
        lines = [file.readline().strip().decode("ascii", "replace")]
        while lines[0] == "ply" and lines[-1] != "end_header" and len(lines) < 200:
            lines.append(file.readline().strip().decode("ascii", "replace"))
        words = [line.split() for line in lines]
        elements = [i for i, word in enumerate(words) if word[:1] == ["element"]]
        if lines[-1] != "end_header" or words[1][1:2] != ["binary_little_endian"] or words[elements[0]][1] != "vertex":
            raise InputError(f"{path}: expected a binary little-endian PLY that begins with its vertices")
        end = elements[1] if len(elements) > 1 else len(lines)
        fields = [(word[2], _NUMPY_TYPES[word[1]]) for word in words[elements[0] : end] if word[0] == "property"]
        count = int(words[elements[0]][2])
        rows = np.fromfile(file, dtype=np.dtype(fields), count=count)
    if len(rows) < count:
        raise InputError(f"{path}: cut off, {len(rows)} of {count} vertices are there")
    return rows, _unit(lines)


def _unit(lines: list[str]) -> Unit:
    """Return the unit that a PLY's header states in a comment of ours."""
    if "comment unit m" in lines:
        return "m"
    return "mm" if "comment unit mm" in lines else "unknown"


def _columns(rows: np.ndarray, names: tuple[str, ...], dtype: type) -> np.ndarray:
    return np.stack([rows[name] for name in names], axis=-1).astype(dtype)


def _write(path: Path, data: bytes) -> Path:
    make_folder(path.parent)
    write_atomically(path, data)
    return path
