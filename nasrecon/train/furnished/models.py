"""CAD models of furniture, plants and people from Sweet Home 3D archives: metres, textures, licences.

Archives are the ``*.sh3f`` files of Debian's sweethome3d-furniture (/usr/share/sweethome3d/furniture), zipped or
unzipped: a catalogue (PluginFurnitureCatalog.properties) and OBJ files. A model's frame is y down, the front at -z, the
origin in the middle of its footprint.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from nasrecon.errors import InputError

CATALOGUE = "PluginFurnitureCatalog.properties"
TEXTURE_SIDE = 256
_CREASE = np.cos(np.radians(40))
_VERSION = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One catalogue entry.

    Attributes:
        file: of the OBJ. size: width, height, depth [m]. elevation: of its underside over the floor [m].
        top: height over its underside of the surface that carries things [m], negative if it carries none.
        opening: whether it is a door or a window. rotation: (3, 3), which turns the file's axes upright (y up).
    """

    name: str
    category: str
    creator: str
    archive: str
    file: Path
    size: tuple[float, float, float]
    elevation: float = 0.0
    top: float = -1.0
    opening: bool = False
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))


@dataclass(frozen=True, kw_only=True)
class Model:
    """Triangles of one model.

    Attributes:
        vertices: (V, 3) float32 [m]. faces: (F, 3) int32.
        normals: (F, 3, 3) float16, of each corner, smooth up to creases of 40 degrees.
        uv: (F, 3, 2) float32, in repeats of the texture. material: (F,) int32.
        color: (M, 3) float32, linear. texture: (M,) int32 into ``textures``, -1 for none. gloss: (M,) float32.
        textures: (T, 256, 256, 3) uint8.
        size: width, height, depth [m].
    """

    vertices: np.ndarray
    faces: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    material: np.ndarray
    color: np.ndarray
    texture: np.ndarray
    gloss: np.ndarray
    textures: np.ndarray

    @cached_property
    def size(self) -> tuple[float, float, float]:
        return tuple((self.vertices.max(0) - self.vertices.min(0)).tolist())


def read_catalogue(folder: Path) -> list[Entry]:
    """Read the catalogue of one unzipped archive.

    Raises:
        InputError: if the folder holds no catalogue, or an entry lacks its model's name or size.
    """
    rows: dict[int, dict[str, str]] = {}
    for key, value in _properties(folder):
        name, numbered, number = key.partition("#")
        if numbered and number.isdigit():
            rows.setdefault(int(number), {})[name] = value
    return [_entry(folder, number, row) for number, row in sorted(rows.items())]


def read_licence(folder: Path) -> str:
    """Return the licence that the catalogue of one unzipped archive states, with its copyright."""
    stated = [value for key, value in _properties(folder) if key == "license"]
    return " ".join(stated[0].split()) if stated else "licence not stated"


def _properties(folder: Path) -> list[tuple[str, str]]:
    """Read the keys and values of a catalogue: a Java properties file, Latin-1 with escapes."""
    path = folder / CATALOGUE
    if not path.is_file():
        raise InputError(f"{folder}: expected a furniture archive with {CATALOGUE}, found none")
    out = []
    for line in path.read_text(encoding="latin-1").splitlines():
        key, result, value = line.partition("=")
        if result and not line.startswith(("#", "!")):
            out.append((key.strip(), _unescaped(value.strip())))
    return out


def _unescaped(value: str) -> str:
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda result: chr(int(result[1], 16)), value)


def _entry(folder: Path, number: int, row: dict[str, str]) -> Entry:
    try:
        size = tuple(float(row[side]) / 100 for side in ("width", "height", "depth"))
        rotation = np.array(row.get("modelRotation", "1 0 0 0 1 0 0 0 1").split(), float).reshape(3, 3)
        return Entry(
            name=row["name"], category=row.get("category", ""), creator=row.get("creator", folder.name),
            archive=folder.name, file=folder / row["model"].lstrip("/"), size=size,
            elevation=float(row.get("elevation", 0)) / 100, top=float(row.get("dropOnTopElevation", -100)) / 100,
            opening=row.get("doorOrWindow") == "true", rotation=rotation,
        )  # fmt: skip
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{folder / CATALOGUE}: entry {number} needs name, model, width, depth, height; found {error}"
        ) from error


def load_model(entry: Entry) -> Model:
    """Load an OBJ in the catalogue's size. Faces of glass are left out.

    Raises:
        ValueError: if the file holds no faces, broken numbers or textures with holes.
    """
    import trimesh

    loaded = trimesh.load(entry.file, process=False)
    parts = list(loaded.geometry.values()) if hasattr(loaded, "geometry") else [loaded]
    vertices, faces, uv, of_face, materials, textures = [], [], [], [], [], []
    count = 0
    for part in parts:
        corner = np.asarray(part.faces, np.int32)
        at = getattr(part.visual, "uv", None)
        fits = at is not None and len(at) == len(part.vertices)
        at = np.asarray(at, np.float32)[corner] if fits else np.zeros((len(corner), 3, 2), np.float32)
        material = _material(part, at, textures) if len(corner) else None
        if material is None:
            continue
        uv.append(at)
        vertices.append(np.asarray(part.vertices, np.float64) @ entry.rotation.T)
        faces.append(corner + count)
        of_face.append(np.full(len(corner), len(materials), np.int32))
        materials.append(material)
        count += len(vertices[-1])
    if not faces:
        raise ValueError("no opaque faces")
    v, f, t, m = (np.concatenate(x) for x in (vertices, faces, uv, of_face))
    low, high = v[f].min((0, 1)), v[f].max((0, 1))
    if not (np.isfinite(v).all() and np.isfinite(t).all()) or (high - low).max() <= 0:
        raise ValueError("broken coordinates")
    v = (v - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]) * (entry.size / np.maximum(high - low, 1e-9))
    v = (v * [1, -1, -1]).astype(np.float32)
    area = np.linalg.norm(np.cross(v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]]), axis=1)
    solid = area > 1e-12
    f, t, m = f[solid], t[solid], m[solid]
    color, texture, gloss = (np.array(x) for x in zip(*materials, strict=True))
    return Model(
        vertices=v, faces=f.astype(np.int32), uv=t, material=m, normals=corner_normals(v, f),
        color=color.astype(np.float32), texture=texture.astype(np.int32), gloss=gloss.astype(np.float32),
        textures=np.array(textures, np.uint8).reshape(-1, TEXTURE_SIDE, TEXTURE_SIDE, 3),
    )  # fmt: skip


def _material(part: object, uv: np.ndarray, textures: list[np.ndarray]) -> tuple[np.ndarray, int, float] | None:
    """Return (linear colour, texture, gloss) of a part and append its texture; None for glass.

    Raises:
        ValueError: if the texture has holes where the faces are.
    """
    material = getattr(part.visual, "material", None)
    if material is None:
        return np.full(3, 0.4), -1, 0.0
    more = getattr(material, "kwargs", {})
    opacity = float((more.get("d") or more.get("tr") or [1])[0])
    if opacity < 0.6:
        return None
    image = getattr(material, "image", None)
    shine = float(np.mean((more.get("ks") or [0])[:3])) if (more.get("ks") or [0]) else 0.0
    gloss = min(shine, 1.0) if getattr(material, "_glossiness", 0) else 0.0
    color = (np.asarray(getattr(material, "diffuse", [150, 150, 150]), float)[:3] / 255) ** 2.2
    if image is None:
        return color, -1, gloss
    if image.mode in ("RGBA", "LA", "PA"):
        opacity = np.asarray(image.convert("RGBA"))[..., 3]
        height, width = opacity.shape
        shares = np.random.default_rng(0).dirichlet(np.ones(3), size=(len(uv), 4))
        x, y = (shares @ uv).reshape(-1, 2).T
        if (opacity[(-y * height).astype(int) % height, (x * width).astype(int) % width] < 128).mean() > 0.02:
            raise ValueError("a texture with holes")
    image = image.convert("RGB").resize((TEXTURE_SIDE, TEXTURE_SIDE), reducing_gap=2.0)
    textures.append(np.asarray(image, np.uint8))
    return np.ones(3), len(textures) - 1, gloss


def corner_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return normals (F, 3, 3) float16 of the corners.

    They are the mean about the point, of faces within 40 degrees of it; the face's own where that is farther off.
    """
    flat = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-20)
    grid = np.round((vertices - vertices.min(0)) / max(float(np.ptp(vertices, axis=0).max()), 1e-9) * 1e5).astype(
        np.int64
    )
    _, point = np.unique(grid @ np.array([1, 200_003, 200_003**2]), return_inverse=True)
    corner = point[faces]
    mean = _mean_by_point(corner, flat[:, None].repeat(3, axis=1))
    # A second mean leaves out the faces beyond the crease: beside a large face, a small one hardly turns the first.
    agrees = np.einsum("fki,fi->fk", mean[corner], unit) > _CREASE
    mean = _mean_by_point(corner, flat[:, None] * agrees[..., None])
    smooth = mean[corner]
    cosine = np.einsum("fki,fi->fk", smooth, unit)[..., None]
    return np.where(cosine > _CREASE, smooth, unit[:, None]).astype(np.float16)


def _mean_by_point(corner: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Return unit means (P, 3) of the normals times areas (F, 3, 3) that the corners (F, 3) of faces bring."""
    total = np.stack([np.bincount(corner.ravel(), normals[..., i].ravel()) for i in range(3)], axis=1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-20)


class ModelLibrary:
    """The models of one folder of archives; each is loaded when it is first asked for.

    Args:
        folder: of ``*.sh3f`` files, or of folders with a catalogue each.
        cache: where zipped archives and read models go; by default ~/.cache/nasrecon/models.

    Attributes:
        archives: their folders. entries: all of the catalogues, in their order. skipped: name and reason of each model
            that could not be used.

    Raises:
        InputError: if the folder holds no archive.
    """

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        self._cache = Path.home() / ".cache" / "nasrecon" / "models" if cache is None else Path(cache)
        self.archives = find_archives(folder, self._cache)
        self.entries = [entry for archive in self.archives for entry in read_catalogue(archive)]
        self.skipped: dict[str, str] = {}
        self._loaded: dict[Entry, Model | None] = {}

    def get(self, entry: Entry) -> Model | None:
        """Return the model, None where its file cannot be used (see ``skipped``)."""
        if entry not in self._loaded:
            self._loaded[entry] = self._read(entry)
        return self._loaded[entry]

    def _read(self, entry: Entry) -> Model | None:
        stamp = entry.file.stat().st_mtime_ns if entry.file.exists() else 0
        key = hashlib.sha256(f"{_VERSION} {entry.file} {stamp} {entry.size}".encode()).hexdigest()[:24]
        path = self._cache / "read" / f"{key}.npz"
        if path.exists():
            with np.load(path) as stored:
                return Model(**{name: stored[name] for name in stored.files})
        try:
            model = load_model(entry)
        except Exception as error:  # trimesh raises whatever its parsers meet
            self.skipped[f"{entry.archive}: {entry.name}"] = str(error) or type(error).__name__
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez(part, **{name: getattr(model, name) for name in Model.__dataclass_fields__})
        part.replace(path)
        return model


def find_archives(folder: Path, cache: Path) -> list[Path]:
    """Return the folders of the unzipped archives in ``folder``, unzipping ``*.sh3f`` files into ``cache`` first."""
    folder = Path(folder)
    result = sorted(path.parent for path in folder.glob(f"*/{CATALOGUE}"))
    for archive in sorted(folder.glob("*.sh3f")):
        target = cache / archive.stem
        if not (target / CATALOGUE).exists():
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(target)
        result.append(target)
    if not result:
        raise InputError(
            f"{folder}: expected furniture archives (*.sh3f, or folders with {CATALOGUE}), found none; "
            "Debian's package sweethome3d-furniture has them in /usr/share/sweethome3d/furniture"
        )
    return result
