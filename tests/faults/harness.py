"""The rows of the fault table: a sound input, how it is damaged, the command, and what must come of it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ingest.worlds import write_mvsnet
from PIL import Image
from plane_world import write_scene

from nasrecon.types import Scene

Edit = Callable[[Path], object]

CAMERAS = "--poses poses --intrinsics K.txt --convention cam-from-world"
QUICK = "--no-check --keep-poses --min-depth 1.5 --size 64x32"
INFER = f"infer photos {CAMERAS} {QUICK} --out out"
COLMAP = f"infer photos --poses model {QUICK} --out out"
JSON = f"infer photos --poses nerf.json {QUICK} --out out"
MVSNET = f"infer mvs --format mvsnet {QUICK} --out out"
RERUN = f"infer photos {CAMERAS} {QUICK} --out results"

# Texts of the interpreter, the system and the libraries that tell a user nothing.
FORBIDDEN = (
    r"Traceback|\[Errno|errno|Broken pipe|weights_only|torch\.|numpy|np\.|RuntimeWarning|DecompressionBomb|PIL\.|"
    r"pickle|RecursionError|OverflowError|codec can't|TypeError|ValueError|KeyError|IndexError|Permission denied|"
    r"has no attribute|Check failed|unknown error occurred"
)


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        name: what is bad, for people.
        edits: damage the sound input, in its folder.
        command: the command line, run in that folder.
        code: the exit code.
        says: words that the output must contain.
        makes: names of files and folders that may be new; nothing else may be, and nothing may change or go.
        changes: files that may have changed.
    """

    name: str
    edits: tuple[Edit, ...]
    command: str
    code: int
    says: tuple[str, ...]
    makes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def write_inputs(folder: Path) -> None:
    """Write one sound set of four views, 64x48, as plain matrices, COLMAP model, transforms.json and MVSNet's cams."""
    images, _, _, views = write_scene(folder, count=4, width=64, height=48)
    images.rename(folder / "photos")
    K = views[0].camera.K
    (folder / "model").mkdir()
    camera = f"1 PINHOLE 64 48 {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}\n"
    (folder / "model" / "cameras.txt").write_text(camera)
    (folder / "model" / "points3D.txt").write_text("1 0 0 3 200 200 200 0.1 1 0 2 0\n")
    lines = []
    for i, view in enumerate(views):
        values = [*_quaternion(view.cam_from_world[:3, :3]), *view.cam_from_world[:3, 3]]
        lines.append(f"{i + 1} {' '.join(map(str, values))} 1 {view.name}\n30.0 20.0 {1 if i < 2 else -1}\n")
    (folder / "model" / "images.txt").write_text("".join(lines))
    axes = np.diag([1.0, -1, -1, 1])
    frames = [{"file_path": f"photos/{v.name}", "transform_matrix": (v.world_from_cam @ axes).tolist()} for v in views]
    shared = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2], "w": 64, "h": 48}
    (folder / "nerf.json").write_text(json.dumps(shared | {"frames": frames}))
    write_mvsnet(Scene(root=folder, views=views), folder / "mvs")
    ids = [" ".join(f"{j} 1.0" for j in range(4) if j != i) for i in range(4)]
    (folder / "mvs" / "pair.txt").write_text("4\n" + "".join(f"{i}\n3 {ids[i]}\n" for i in range(4)))
    (folder / "masks").mkdir()
    for view in views:
        Image.new("L", (64, 48), 255).save(folder / "masks" / view.name)


def _quaternion(R: np.ndarray) -> np.ndarray:
    w = np.sqrt(1 + np.trace(R)) / 2
    return np.array([w, *(np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (4 * w))])


def snapshot(folder: Path) -> dict[str, str]:
    """Return a hash of every file below a folder, and "" for every folder, by relative name."""
    out = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        out[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
    return out


def arguments(command: str) -> list[str]:
    return shlex.split(command)


def plain(text: str) -> str:
    """Return the text of an output without the frames of boxes and line breaks."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


# How to damage: each returns an edit.


def write(name: str, content: str | bytes) -> Edit:
    data = content.encode() if isinstance(content, str) else content
    return lambda w: _place(w / name).write_bytes(data)


def _place(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def cut(name: str, share: float = 0.5) -> Edit:
    def edit(w: Path) -> None:
        data = (w / name).read_bytes()
        (w / name).write_bytes(data[: int(len(data) * share)])

    return edit


def flip(name: str, place: float = 0.5, count: int = 8) -> Edit:
    """Turn some bytes of a file over."""

    def edit(w: Path) -> None:
        data = bytearray((w / name).read_bytes())
        at = int(len(data) * place)
        data[at : at + count] = bytes(255 - value for value in data[at : at + count])
        (w / name).write_bytes(data)

    return edit


def sub(name: str, old: str, new: str, count: int = -1) -> Edit:
    def edit(w: Path) -> None:
        text = (w / name).read_text()
        assert old in text, (name, old)
        (w / name).write_text(text.replace(old, new, count))

    return edit


def line(name: str, number: int, new: str) -> Edit:
    """Replace one line of a text file."""

    def edit(w: Path) -> None:
        lines = (w / name).read_text().splitlines()
        lines[number] = new
        (w / name).write_text("\n".join(lines) + "\n")

    return edit


def fields(name: str, **new: object) -> Edit:
    """Set fields of a JSON object; None takes one out."""

    def edit(w: Path) -> None:
        content = json.loads((w / name).read_text()) | new
        (w / name).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return edit


def frame(name: str, number: int, **new: object) -> Edit:
    """Set fields of one frame of a transforms.json; None takes one out."""

    def edit(w: Path) -> None:
        content = json.loads((w / name).read_text())
        changed = content["frames"][number] | new
        content["frames"][number] = {key: value for key, value in changed.items() if value is not None}
        (w / name).write_text(json.dumps(content))

    return edit


def remove(*names: str) -> Edit:
    def edit(w: Path) -> None:
        for name in names:
            shutil.rmtree(w / name) if (w / name).is_dir() else (w / name).unlink()

    return edit


def folder(name: str) -> Edit:
    return lambda w: (w / name).mkdir(parents=True)


def copy(source: str, target: str) -> Edit:
    def edit(w: Path) -> None:
        (shutil.copytree if (w / source).is_dir() else shutil.copy)(w / source, w / target)

    return edit


def image(name: str, size: tuple[int, int] = (64, 48), value: int = 0, mode: str = "RGB", **options: object) -> Edit:
    """Write an image of one value."""

    def edit(w: Path) -> None:
        color = value if mode in ("L", "1", "I;16", "F", "I") else (value,) * len(Image.new(mode, (1, 1)).getbands())
        Image.new(mode, size, color).save(_place(w / name), **options)

    return edit


def every(names: str, edit: Callable[[str], Edit]) -> Edit:
    """Apply an edit to every file that matches a pattern."""

    def edits(w: Path) -> None:
        found = sorted(path.relative_to(w).as_posix() for path in w.glob(names))
        assert found, names
        for name in found:
            edit(name)(w)

    return edits
