"""Freeze what the commands write, to compare two checkouts on one machine bit by bit.

Run it in each checkout, then compare::

    python tests/golden/freeze.py --out before.json          # in one checkout
    python tests/golden/freeze.py --out after.json           # in the other
    python tests/golden/freeze.py --compare before.json after.json

Every case is a command line, so the script runs with any layout of the package. Values that depend on the machine or
the moment (seconds, versions, paths) are left out. Exit code 1: something differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import trimesh

TOP = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("NASRECON_DATA", TOP / "../shared/data"))
ROOM = ["examples/room/images", "--poses", "examples/room/sparse/0"]
VOLATILE = {"seconds", "seconds_per_view", "versions", "root", "results", "mesh", "cloud", "nasrecon", "file"}


def cases() -> dict[str, list[list[str]]]:
    """Return the command lines of each case; OUT stands for the folder of the case."""
    kitchen, fountain = str(DATA / "redkitchen_sample"), str(DATA / "fountain")
    demon, tum = str(DATA / "demon_sample"), str(DATA / "tum_sample")
    small = ["--max-side", "320", "--out", "OUT"]
    out = {
        "room zncc": [["infer", *ROOM, "--every", "4", "--network", "zncc", *small], ["fuse", "OUT"]],
        "room lite": [["infer", *ROOM, "--every", "3", *small], ["fuse", "OUT"]],
        "room check": [["check", *ROOM, "--json"]],
        "kitchen lite": [["infer", kitchen, "--every", "8", *small], ["fuse", "OUT"]],
        "kitchen check": [["check", kitchen, "--json"]],
        "tum check": [["check", tum, "--json"]],
        "fountain zncc": [["infer", fountain, "--every", "4", "--network", "zncc", *small]],
        "fountain 960": [["infer", fountain, "--every", "10", "--max-side", "960", "--out", "OUT"]],
        "demon eval": [["eval", "--protocol", "demon-32m", demon, "--network", "zncc", "--json", "OUT.json"]],
        "kitchen eval": [["eval", "frames", kitchen, "--every", "20", "--offset", "1", "--json", "OUT.json"]],
    }
    pairs = sorted(path for path in Path(demon).glob("*") if path.is_dir())[:2]
    out |= {f"pair {path.name}": [["infer", str(path), "--format", "demon", *small]] for path in pairs}
    return out


def digest(data: bytes) -> str:
    """Return the first 16 hex digits of the sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def stable(value: object) -> object:
    """Return JSON values without what depends on the machine or the moment."""
    if isinstance(value, dict):
        return {key: stable(each) for key, each in value.items() if key not in VOLATILE}
    return [stable(each) for each in value] if isinstance(value, list) else value


def frozen(folder: Path) -> dict[str, object]:
    """Return digests of the maps, the cloud and the mesh in a results folder, and each view's range and sources."""
    out: dict[str, object] = {}
    for path in sorted((folder / "views").glob("*.npz")):
        with np.load(path, allow_pickle=False) as maps:
            for name in sorted(set(maps.files) - {"record"}):
                values = maps[name]
                out[f"{path.stem} {name}"] = digest(values.tobytes()), float(np.nanmean(values, dtype=np.float64))
    if (folder / "manifest.json").is_file():
        for view in json.loads((folder / "manifest.json").read_text())["views"]:
            out[f"{view['name']} range and sources"] = view["depth_range"], view["sources"], view["cam_from_world"]
    if (folder / "cloud.ply").is_file():
        out["cloud.ply"] = digest((folder / "cloud.ply").read_bytes())
    if (folder / "mesh.ply").is_file():  # Open3D's threads leave the order of the vertices open
        mesh = trimesh.load(folder / "mesh.ply", process=False)
        vertices = np.asarray(mesh.vertices).round(4)
        out["mesh.ply"] = len(mesh.faces), digest(vertices[np.lexsort(vertices.T)].tobytes())
    return out


def freeze(only: str) -> dict[str, object]:
    """Run the cases whose name contains ``only``; return what they wrote."""
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
    out: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, commands) in enumerate(cases().items()):
            if only not in name:
                continue
            place = Path(folder, str(number))
            for command in commands:
                words = [word.replace("OUT", str(place)) if word.startswith("OUT") else word for word in command]
                done = subprocess.run(
                    [sys.executable, "-m", "nasrecon", *words], cwd=TOP, env=environment, capture_output=True, text=True
                )
                if done.returncode not in (0, 1) or "Traceback" in done.stderr:
                    raise SystemExit(f"{name}: {done.stderr}")
                print(f"{name}: {words[0]} done", file=sys.stderr, flush=True)
            out[name] = frozen(place)
            if command[0] == "check":
                out[name] = stable(json.loads(done.stdout))
            elif Path(f"{place}.json").is_file():
                out[name] = stable(json.loads(Path(f"{place}.json").read_text()))
    return json.loads(json.dumps(out))


def differences(before: object, after: object, where: str = "") -> list[str]:
    """Return the places at which two frozen values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted(before.keys() | after.keys())
        return [line for key in keys for line in differences(before.get(key), after.get(key), f"{where}/{key}")]
    return [] if before == after else [f"{where}: {str(before)[:90]} -> {str(after)[:90]}"]


def main() -> None:
    """Freeze, or compare what was frozen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="run the cases whose name contains this")
    parser.add_argument("--compare", type=Path, nargs=2)
    given = parser.parse_args()
    if given.compare:
        before, after = (json.loads(path.read_text()) for path in given.compare)
        found = differences(before, after)
        print("\n".join(found) or f"equal: {len(before)} cases")
        raise SystemExit(bool(found))
    text = json.dumps(freeze(given.only), indent=1)
    given.out.write_text(text) if given.out else print(text)


if __name__ == "__main__":
    main()
