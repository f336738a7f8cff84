"""Bad results folders, fused files, and places to write to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from faults.harness import RERUN, Edit, Row, copy, cut, every, fields, flip, folder, image, remove, sub, write

VIEW = "results/views/0000.png.npz"
FUSE = "fuse results --min-views 1 --min-component-faces 0"


def _refused(name: str, *edits, says: tuple[str, ...], command: str = FUSE, code: int = 2) -> Row:
    return Row(name, edits, command, code, says)


def _redone(name: str, *edits, says: tuple[str, ...] = ("1 view estimated", "3 finished before")) -> Row:
    """A rerun makes anew what is damaged, and nothing else."""
    return Row(name, edits, RERUN, 0, says, makes=("results",))


def _arrays(**new: object) -> Edit:
    """Change arrays of the first view; None takes one out."""

    def edit(w: Path) -> None:
        with np.load(w / VIEW) as found:
            arrays = dict(found)
        arrays |= new
        np.savez(w / VIEW, **{name: value for name, value in arrays.items() if value is not None})

    return edit


def _record(**new: object) -> Edit:
    """Change the record of the first view."""

    def edit(w: Path) -> None:
        with np.load(w / VIEW) as found:
            arrays = dict(found)
        record = json.loads(str(arrays["record"])) | new
        np.savez(w / VIEW, **{**arrays, "record": np.array(json.dumps(record))})

    return edit


def _pickle(w: Path) -> None:
    np.savez(w / VIEW, depth=np.array([{"a": 1}], dtype=object), allow_pickle=True)


DAMAGED = ("0000.png.npz", "damaged", "nasrecon infer")
VIEWS = [
    _refused("results: no such folder", says=("nowhere: no such folder", "nasrecon infer"), command="fuse nowhere"),
    _refused("results: an empty folder", folder("empty"), says=("holds no finished view",), command="fuse empty"),
    _refused("results: a file", write("file", "x"), says=("file",), command="fuse file"),
    _refused("results: a path with blanks", says=("--out 'my results'",), command="fuse 'my results'"),
    _refused("view: empty", write(VIEW, b""), says=DAMAGED),
    _refused("view: bytes", write(VIEW, bytes(range(256)) * 9), says=DAMAGED),
    _refused("view: cut short", cut(VIEW, 0.6), says=DAMAGED),
    _refused("view: bytes turned over", flip(VIEW, 0.3, 200), says=DAMAGED),
    _refused("view: gone", remove(VIEW), says=("0000.png.npz", "no such file")),
    _refused("view: an object in it", _pickle, says=DAMAGED),
    _refused("view: without depth", _arrays(depth=None), says=DAMAGED),
    _refused("view: without a record", _arrays(record=None), says=DAMAGED),
    _refused("view: a record of words", _arrays(record=np.array("words")), says=DAMAGED),
    _refused("view: a record nested deeply", _arrays(record=np.array("[" * 100_000)), says=DAMAGED),
    _refused("view: a depth of another size", _arrays(depth=np.ones((3, 3), np.float32)), says=DAMAGED),
    _refused("view: a depth of text", _arrays(depth=np.full((32, 64), "a")), says=DAMAGED),
    _refused("view: another format", _record(format="results 9"), says=("results 9",)),
    _refused("view: a camera of zeros", _record(K=[[0] * 3] * 3), says=("0000.png.npz", "positive fx")),
    _refused("view: a pose that is not a number", _record(cam_from_world=[[float("nan")] * 4] * 4), says=("0000.png.npz", "finite")),
    _refused("view: a pose of 1e300", _record(cam_from_world=[[1, 0, 0, 1e300], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), says=("0000.png.npz", "1e+300")),
    _refused("view: a name twice", _record(name="0001.png"), says=("0001.png",)),
    _refused("views: no depth anywhere", every("results/views/*.npz", lambda n: lambda w: _blank(w / n)), says=("none of the", "has a depth"), code=1),
    _refused("views: no confidence anywhere", every("results/views/*.npz", lambda n: lambda w: _blank(w / n, "confidence")), says=("confidence filter dropped everything",), code=1),
    _refused("export: a damaged view", cut(VIEW, 0.6), says=DAMAGED, command="export results --format exr --out e"),
    _refused("viz: a damaged view", cut(VIEW, 0.6), says=DAMAGED, command="viz results --png s.png"),
    _redone("rerun: a view is cut short", cut(VIEW, 0.6)),
    _redone("rerun: a view is empty", write(VIEW, b"")),
    _redone("rerun: a view is gone", remove(VIEW)),
    _redone("rerun: the manifest is gone", remove("results/manifest.json"), says=("0 views estimated", "4 finished before")),
    _redone("rerun: a preview is gone", remove("results/depth/0000.png.png"), says=("0 views estimated", "4 finished before")),
    _redone("rerun: a part of a former run", write("results/views/.0000.png.npz.123.part", "x"), says=("4 finished before",)),
    _refused("rerun: an image was replaced", image("photos/0002.png", value=200), says=("0002.png", "another", "--overwrite"), command=RERUN),
    _refused("rerun: an image of the same size was replaced", copy("photos/0001.png", "photos/0002.png"), says=("0002.png", "--overwrite"), command=RERUN),
    _refused("rerun: other options", says=("sources: 4 there, 1 now", "--overwrite"), command=f"{RERUN} --sources 1"),
    _refused("rerun: other cameras", copy("poses/0001.txt", "poses/0002.txt"), says=("other images, cameras",), command=RERUN),
]  # fmt: skip


def _blank(path: Path, name: str = "depth") -> None:
    with np.load(path) as found:
        arrays = dict(found)
    np.savez(path, **{**arrays, name: np.zeros_like(arrays[name])})


MANIFEST = "results/manifest.json"
MANIFESTS = [
    _refused("manifest: empty", write(MANIFEST, ""), says=(MANIFEST, "delete it")),
    _refused("manifest: cut short", cut(MANIFEST), says=(MANIFEST, "delete it")),
    _refused("manifest: bytes", write(MANIFEST, bytes(range(128, 256))), says=(MANIFEST, "delete it")),
    _refused("manifest: a list", write(MANIFEST, "[]"), says=(MANIFEST, "delete it")),
    _refused("manifest: nested deeply", write(MANIFEST, "[" * 200_000), says=(MANIFEST, "delete it")),
    _refused("manifest: another format", fields(MANIFEST, format="results 9"), says=("results 9",)),
    _refused("manifest: without views", fields(MANIFEST, views=None), says=(MANIFEST, "delete it")),
    _refused("manifest: views of numbers", fields(MANIFEST, views=[1, 2]), says=(MANIFEST, "delete it")),
    _refused("manifest: without a scene", fields(MANIFEST, scene=None), says=(MANIFEST, "delete it")),
    _refused("manifest: a file outside", sub(MANIFEST, "views/0000.png.npz", "../../x.npz"), says=("x.npz",)),
    _refused("manifest: cut short, on a rerun", cut(MANIFEST), says=(MANIFEST, "delete it"), command=RERUN),
    _refused("manifest: of something else", write(MANIFEST, '{"name": "app"}'), says=(MANIFEST,), command=RERUN),
    _refused("fusion.json: cut short", cut("results/fusion.json"), says=("fusion.json", "nasrecon fuse results"), command="viz results --png s.png"),
    _refused("fusion.json: nested deeply", write("results/fusion.json", "[" * 200_000), says=("fusion.json", "nasrecon fuse"), command="viz results --png s.png"),
    _refused("fusion.json: a list", write("results/fusion.json", "[1]"), says=("fusion.json", "nasrecon fuse"), command="viz results --png s.png"),
    _refused("mesh: cut short", cut("results/mesh.ply"), says=("mesh.ply",), command="viz results --png s.png"),
    _refused("mesh: bytes", write("results/mesh.ply", bytes(range(256))), says=("mesh.ply",), command="viz results --png s.png"),
]  # fmt: skip

PLACES = [
    _refused("fuse: mesh and cloud in one file", says=("x.ply", "--out and --cloud"), command="fuse results --out x.ply --cloud x.ply"),
    _refused("fuse: one file by two names", says=("--out and --cloud",), command="fuse results --out x.ply --cloud photos/../x.ply"),
    _refused("fuse: an ending for no mesh", says=("mesh.fbx", ".glb"), command="fuse results --out mesh.fbx"),
    _refused("fuse: a mesh without an ending", says=("mesh", "(none)"), command="fuse results --out mesh"),
    _refused("fuse: an ending for no cloud", says=("c.pcd", ".ply"), command="fuse results --cloud c.pcd"),
    _refused("fuse: into a folder", folder("x.ply"), says=("x.ply", "folder"), command="fuse results --min-views 1 --out x.ply"),
    _refused("fuse: below a file", write("file", "x"), says=("file",), command="fuse results --min-views 1 --out file/x.ply"),
    _refused("viz: a PNG that is none", says=("s.txt", ".png"), command="viz results --png s.txt"),
    _refused("viz: a page that is none", says=("r.pdf", ".html"), command="viz results --html r.pdf"),
    _refused("viz: no results", says=("nowhere", "nasrecon infer"), command="viz nowhere --png s.png"),
    _refused("viz: a report of 1 MB", says=("--max-mb",), command="viz results --html r.html --max-mb 1"),
    _refused("export: into a full folder", says=("photos", "not empty"), command="export results --format exr --out photos"),
    _refused("export: into a file", write("file", "x"), says=("file",), command="export results --format exr --out file"),
    _refused("export: no such format", says=("obj", "png16"), command="export results --format obj --out e"),
    _refused("export: a scale for float depth", says=("scale",), command="export results --format exr --out e --scale 1"),
    _refused("export: a scale of zero", says=("scale must be positive",), command="export results --format png16 --out e --scale 0"),
    _refused("export: a scale that is not a number", says=("scale must be positive",), command="export results --format png16 --out e --scale nan"),
    _refused("export: a scale of one step", says=("--scale", "first step"), command="export results --format png16 --out e --scale 1e30"),
    _refused("export: a scale that loses all depths", says=("--scale", "all"), command="export results --format png16 --out e --scale 1e-9"),
]  # fmt: skip

ROWS = [*VIEWS, *MANIFESTS, *PLACES]
