"""Bad options, places, weights and devices."""

from __future__ import annotations

import json
from pathlib import Path

from faults.harness import CAMERAS, INFER, QUICK, Edit, Row, write

SMALL = f"infer photos {CAMERAS} {QUICK} --out out"


def _refused(name: str, command: str, *edits, says: tuple[str, ...], makes: tuple[str, ...] = ()) -> Row:
    return Row(name, edits, command, 2, says, makes)


OPTIONS = [
    _refused("option: unknown", f"{INFER} --bogus", says=("--bogus",)),
    _refused("option: no command", "nonsense", says=("nonsense",)),
    _refused("option: refine to no folder", "refine photos --depths photos --out ''", says=("--out is empty",)),
    _refused("option: reconstruct to no folder", "reconstruct photos --out ''", says=("--out is empty",)),
    _refused("option: no images", "infer", says=("IMAGES",)),
    _refused("option: a size of one number", INFER.replace("64x32", "640"), says=("WIDTHxHEIGHT",)),
    _refused("option: a size of words", INFER.replace("64x32", "axb"), says=("WIDTHxHEIGHT",)),
    _refused("option: a negative size", INFER.replace("64x32", "-64x32"), says=("WIDTHxHEIGHT",)),
    _refused("option: a size of zero", INFER.replace("64x32", "0x0"), says=("at least 32",)),
    _refused("option: a size of other digits", INFER.replace("64x32", "\u00b2\u00b2x32"), says=("WIDTHxHEIGHT",)),
    _refused("option: a huge size", INFER.replace("64x32", "99968x99968"), says=("99968x99968", "GB", "free")),
    _refused("option: a size beyond all", INFER.replace("64x32", f"{10**30}x64"), says=("GB", "free")),
    _refused("option: two sizes", f"{INFER} --max-side 64", says=("two sizes",)),
    _refused("option: a side of 16", f"infer photos {CAMERAS} --max-side 16 --out out", says=("max_side",)),
    _refused("option: a side of words", f"infer photos {CAMERAS} --max-side big --out out", says=("--max-side",)),
    _refused("option: no sources", f"{INFER} --sources 0", says=("sources must be at least 1",)),
    _refused("option: every zeroth", f"{INFER} --every 0", says=("--every",)),
    _refused("option: a batch of zero", f"{INFER} --batch 0", says=("batch must be at least 1",)),
    _refused("option: a nearest plane of zero", INFER.replace("1.5", "0"), says=("min_depth must be positive",)),
    _refused("option: a negative nearest plane", INFER.replace("1.5", "-1"), says=("min_depth must be positive",)),
    _refused("option: a nearest plane that is not a number", INFER.replace("1.5", "nan"), says=("min_depth must be positive",)),
    _refused("option: an infinite nearest plane", INFER.replace("1.5", "inf"), says=("min_depth must be positive",)),
    _refused("option: a nearest plane of 1e30", INFER.replace("1.5", "1e30"), says=("none of 4 views", "min_depth"), makes=("out",)),
    _refused("option: a nearest plane of 1e-30", INFER.replace("1.5", "1e-30"), says=("min_depth",), makes=("out",)),
    _refused("option: a nearest plane of words", INFER.replace("1.5", "near"), says=("--min-depth",)),
    _refused("option: an unknown device", f"{INFER} --device tpu --network zncc", says=("tpu", "auto, cpu, cuda")),
    _refused("option: a device that is not there", f"{INFER} --device cuda:99 --network zncc", says=("cuda:99", "--device auto or cpu")),
    _refused("option: no threads", f"{INFER} --threads 0", says=("--threads",)),
    _refused("option: an unknown format", f"{INFER} --format obj", says=("obj", "colmap")),
    _refused("option: another format", f"{INFER} --format kitti", says=("poses: --format kitti reads KITTI sequence, but there is no calib.txt",)),
    _refused("option: confidence of 2", "fuse results --min-confidence 2", says=("min_confidence",)),
    _refused("option: a confidence that is not a number", "fuse results --min-confidence nan", says=("min_confidence",)),
    _refused("option: a voxel of zero", "fuse results --voxel 0", says=("voxel must be above 0",)),
    _refused("option: a voxel of 1e-12", "fuse results --min-views 1 --voxel 1e-12", says=("1e-12 needs about", "GB", "ask for")),
    _refused("option: more views than can agree", "fuse results --min-views 99", says=("never be reached",)),
    _refused("option: negative faces", "fuse results --min-component-faces -1", says=("min_component_faces",)),
    _refused("option: no neighbours", "fuse results --max-neighbors 0", says=("max_neighbors",)),
    _refused("option: a port of zero", "viz results --port 0", says=("--port",)),
    _refused("option: train on nothing", "train --worlds nowhere --run run", says=("nowhere",)),
    _refused("option: train both anew and on", "train --resume --init lite --run run", says=("--resume", "--init")),
    _refused("option: an unknown network to train", "train --worlds nowhere --network big --run run", says=("nowhere",)),
    _refused("option: evaluate nothing", "eval frames nowhere --network zncc", says=("nowhere",)),
    _refused("option: preview with nothing", "train preview --count 0", says=("--count",)),
    _refused("option: unknown worlds", "train render --kind moon --files 1 --worlds w", says=("moon",)),
]  # fmt: skip

OUT = [
    _refused("out: the photos", INFER.replace("--out out", "--out photos"), says=("photos", "photographs", "--out")),
    _refused("out: the photos by another name", INFER.replace("--out out", "--out masks/../photos"), says=("photographs", "--out")),
    _refused("out: nothing", INFER.replace("--out out", "--out ''"), says=("--out", "empty")),
    _refused("out: a folder of other photos", INFER.replace("--out out", "--out masks"), says=("masks", "--out")),
    _refused("out: a file", INFER.replace("--out out", "--out K.txt"), says=("K.txt", "--out")),
    _refused("out: below a file", INFER.replace("--out out", "--out K.txt/out"), says=("K.txt",)),
    _refused("out: a name of 300 letters", INFER.replace("--out out", f"--out {'a' * 300}"), says=("aaaa", "too long")),
    _refused("out: somebody else's views", INFER, write("out/views/a.txt", "x"), says=("out", "not ours")),
    _refused("out: somebody else's depth", INFER, write("out/depth/a.png", "x"), says=("out", "not ours")),
]  # fmt: skip


def _weights(damage) -> Edit:
    """Write weights whose tensors were changed, without a manifest beside them."""

    def edit(w: Path) -> None:
        from safetensors.torch import load_file, save_file

        from nasrecon.nas.manifest import METADATA_KEY, list_weights

        entry = next(entry for entry in list_weights() if entry.name == "lite")
        tensors = load_file(entry.path)
        damage(tensors)
        about = json.dumps(entry.as_json())
        save_file(tensors, w / "w.safetensors", metadata={"format": "pt", METADATA_KEY: about})

    return edit


def _first_float(value: float):
    def damage(tensors) -> None:
        name = next(name for name, tensor in tensors.items() if tensor.is_floating_point() and tensor.numel() > 1)
        tensors[name].view(-1)[0] = value

    return damage


def _one_missing(tensors) -> None:
    del tensors[next(iter(tensors))]


W = f"{SMALL} --network w.safetensors"
ENTRY = {"name": "mine", "network": "lite", "file": "mine.safetensors", "sha256": "00" * 32, "bytes": 3}
MINE = f"{SMALL} --network mine"


def _listed(*rows: object) -> Edit:
    return write("weights/manifest.json", json.dumps({"weights": list(rows)}))


WEIGHTS = [
    _refused("weights: unknown name", f"{SMALL} --network huge", says=("huge", "lite")),
    _refused("weights: no such file", f"{SMALL} --network nowhere.safetensors", says=("nowhere.safetensors: no such",)),
    _refused("weights: empty file", W, write("w.safetensors", b""), says=("w.safetensors", "safetensors file")),
    _refused("weights: bytes", W, write("w.safetensors", b"\xff" * 99), says=("w.safetensors", "safetensors file")),
    _refused("weights: a pickle", W, write("w.safetensors", b"\x80\x04cos\nsystem\n."), says=("w.safetensors", "safetensors file")),
    _refused("weights: not a number", W, _weights(_first_float(float("nan"))), says=("w.safetensors", "not finite")),
    _refused("weights: infinite", W, _weights(_first_float(float("inf"))), says=("w.safetensors", "not finite")),
    _refused("weights: a tensor is missing", W, _weights(_one_missing), says=("w.safetensors", "1 missing")),
    _refused("weights: of another network", W, _weights(lambda t: t.clear()), says=("w.safetensors", "missing")),
    _refused("weights: a damaged manifest", MINE, write("weights/manifest.json", "{"), says=("manifest.json",)),
    _refused("weights: a manifest nested deeply", MINE, write("weights/manifest.json", "[" * 200_000), says=("manifest.json", "nested")),
    _refused("weights: an entry of words", MINE, _listed("x"), says=("manifest.json", "an entry has name")),
    _refused("weights: an unknown field", MINE, _listed({**ENTRY, "run": "rm"}), says=("manifest.json", "an entry has name")),
    _refused("weights: a file elsewhere", MINE, _listed({**ENTRY, "file": "../w"}), says=("manifest.json", "beside the manifest")),
    _refused("weights: the file is missing", MINE, _listed(ENTRY), says=("mine.safetensors", "missing")),
    _refused("weights: another sha256", MINE, _listed(ENTRY), write("weights/mine.safetensors", "abc"), says=("mine.safetensors", "damaged or exchanged", "sha256")),
    _refused("weights: two of one name", f"{SMALL} --network lite", _listed({**ENTRY, "name": "lite"}), says=("two different weights",)),
    _refused("weights: import of nothing", "weights import a b --name x", says=("a",)),
    _refused("weights: import of bytes", "weights import a b --name x", write("a", b"\0" * 9), write("b", b"\0" * 9), says=("a",)),
    _refused("weights: import of a pickle that runs", "weights import a b --name x", write("a", b"cos\nsystem\n(S'touch pwned'\ntR."), write("b", b""), says=("a",)),
]  # fmt: skip

ROWS = [*OPTIONS, *OUT, *WEIGHTS]
