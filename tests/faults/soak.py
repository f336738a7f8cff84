"""Many small views in one process: memory and handles must not grow.

By hand: ``python tests/faults/soak.py --views 1000`` prints memory, threads and open files as the run goes, then the
medians of the second and the last quarter; exit code 1 where the last is 5 % above the second, or handles grow.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from plane_world import SweepNetwork, make_view, photograph

from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.run import estimate_to_folder
from nasrecon.nas.weights import load_network
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene
from nasrecon.types import ImageSource, Scene, View

GROWTH = 1.05


def memory_mb(line: str = "VmRSS") -> float:
    """Return this process's memory; ``line``: VmRSS now, VmHWM at most since the start."""
    return int(re.search(rf"{line}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024


def handles() -> int:
    return len(os.listdir("/proc/self/fd"))


class Samples:
    """A ``Progress`` that samples the process at every view."""

    def __init__(self, shown: int) -> None:
        self.memory: list[float] = []
        self.handles: list[int] = []
        self.shown = shown

    def update(self, task: str, done: int, total: int) -> None:
        if task != "infer" or not done:
            return
        self.memory.append(memory_mb())
        self.handles.append(handles())
        if done % max(1, total // self.shown) == 0:
            threads = threading.active_count()
            print(f"{done:5d}  {self.memory[-1]:7.1f} MB  {self.handles[-1]} files  {threads} threads", flush=True)

    def note(self, text: str) -> None:
        pass

    def skipped(self, name: str, reason: str) -> None:
        raise AssertionError(f"{name}: {reason}")


def write_images(folder: Path, count: int, size: tuple[int, int]) -> Scene:
    """Write ``count`` images along a line; every one is a file of its own."""
    from PIL import Image

    views: list[View] = []
    for i in range(count):
        one = make_view(f"{i:05d}.png", *size, size[0], (1, 0, 0), (0.02 * (i % 50), 0.02 * (i // 50), 0))
        path = folder / one.name
        Image.fromarray(photograph(one)).save(path)
        K = one.camera.K * np.array([[1, 0, 1], [0, 1, 1], [0, 0, 1]])
        camera = type(one.camera)(width=size[0], height=size[1], K=K)
        views.append(
            View(name=one.name, image=ImageSource(path=path), camera=camera, cam_from_world=one.cam_from_world)
        )
    return Scene(root=folder, views=tuple(views))


def soak(count: int, size: tuple[int, int], network: str, out: Path | None = None, shown: int = 20) -> Samples:
    samples = Samples(shown)
    with tempfile.TemporaryDirectory() as folder:
        scene = write_images(Path(folder), count, size)
        options = PrepareOptions(check=False, refine=False, min_depth=1.5, sources=2)
        prepared = prepare_scene(scene, options=options, progress=samples)
        loaded = SweepNetwork() if network == "sweep" else load_network(network)
        out = out or Path(folder) / "out"
        estimate_to_folder(prepared, loaded, out, EstimateOptions(size=size), progress=samples)
    return samples


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=1000)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--network", default="sweep")
    parser.add_argument("--out", type=Path, help="a folder for the results, which stay")
    asked = parser.parse_args()
    found = soak(asked.views, (asked.width, asked.height), asked.network, asked.out)
    quarter = len(found.memory) // 4
    second, last = found.memory[quarter : 2 * quarter], found.memory[-quarter:]
    ratio = statistics.median(last) / statistics.median(second)
    grown = max(found.handles[-quarter:]) - max(found.handles[quarter : 2 * quarter])
    print(f"memory: last quarter over second {ratio:.4f}, peak {memory_mb('VmHWM'):.0f} MB; files: {grown:+d}")
    sys.exit(ratio > GROWTH or grown > 0)
