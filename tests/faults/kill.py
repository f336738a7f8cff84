"""SIGKILL of infer, fuse and train; a rerun must end as if nothing had happened.

Every other kill falls at a random moment. The others are aimed at writing: at the moment when a temporary file is
complete and gets its name, or shortly after one is opened.

By hand: ``python tests/faults/kill.py --kills 30`` prints a line for each command. ``test_kill.py`` runs a few kills.
Children are forks of a process that has loaded the libraries, so that the moments fall into the work.
"""

from __future__ import annotations

import argparse
import hashlib
import mmap
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a fork has none of the threads of OpenMP and would wait for them
sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from plane_world import SweepNetwork, write_scene

from nasrecon import cli
from nasrecon.fuse.save import load_mesh
from nasrecon.inference.run import estimate_to_folder
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene
from nasrecon.progress import Quiet
from nasrecon.results.reader import view_files
from nasrecon.results.view_file import read_record
from nasrecon.train.datasets import BatchOptions, WorldFiles
from nasrecon.train.loop import train
from nasrecon.train.state import TrainOptions
from nasrecon.train.world_files import WorldOptions, render_worlds

Command = Callable[[Path], None]
Facts = dict[str, str]
NAMED, OPENED = "os.rename", "open"
"""Events of Python's audit: a temporary file gets its name; a file is opened."""
events = {NAMED: mmap.mmap(-1, 8), OPENED: mmap.mmap(-1, 8)}
"""How many of each, of temporary files, the last fork has come to; forks share this memory."""


class _Network(SweepNetwork):
    sha256 = "ab" * 32


def infer(world: Path) -> None:
    images, poses, K = world / "images", world / "poses", world / "K.txt"
    options = PrepareOptions(check=False, refine=False, min_depth=1.5)
    scene = prepare_scene(images, poses, options, intrinsics=K, convention="cam-from-world", progress=Quiet())
    estimate_to_folder(scene, _Network(), world / "out", progress=Quiet())


def fuse(world: Path) -> None:
    out = str(world / "out")
    cli.main(["fuse", out, "--min-views", "1", "--min-component-faces", "0", "--min-confidence", "0"])


def training(world: Path) -> None:
    run = world / "run"
    data = WorldFiles(world / "worlds", BatchOptions(pixels=64 * 64, sources=1))
    options = TrainOptions(steps=4, warmup=2, save_every=1, pretrained=False)
    train(run, data, None, options, torch.device("cpu"), resume=(run / "checkpoint.pt").exists())


def maps(world: Path) -> Facts:
    """The digest of the maps of each view."""
    records = [read_record(path) for path in view_files(world / "out")]
    return {record["name"]: record["maps_sha256"] for record in records}


def surfaces(world: Path) -> Facts:
    """The cloud's file, and the mesh whatever the order of its vertices: Open3D's threads do not fix it."""
    mesh = load_mesh(world / "out" / "mesh.ply")
    order = np.lexsort(mesh.vertices.T)
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    faces = np.sort(ranks[mesh.faces], axis=1)
    faces = faces[np.lexsort(faces.T)]
    parts = {
        "cloud": (world / "out" / "cloud.ply").read_bytes(),
        "vertices": mesh.vertices[order].tobytes(),
        "faces": faces.tobytes(),
    }
    return {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}


def tensors(world: Path) -> Facts:
    """The weights and their average after the last step."""
    stored = torch.load(world / "run" / "checkpoint.pt", weights_only=True)
    parts = {f"{part} {name}": t for part in ("network", "average") for name, t in stored[part].items()}
    return {name: hashlib.sha256(t.contiguous().numpy().tobytes()).hexdigest() for name, t in parts.items()}


def prepared(world: Path, name: str) -> None:
    """Write what a command reads."""
    if name == "train":
        options = WorldOptions(width=80, height=64, views=2, worlds_per_file=2, drawn_textures=4)
        render_worlds(world / "worlds", 1, 3, options)
        return
    write_scene(world, count=6)
    if name == "fuse":
        infer(world)


COMMANDS: dict[str, tuple[Command, Callable[[Path], Facts]]] = {
    "infer": (infer, maps),
    "fuse": (fuse, surfaces),
    "train": (training, tensors),
}


def count_of(event: str) -> int:
    return int.from_bytes(events[event][:8], "little")


def watch(aim: tuple[str, int, float] | None) -> None:
    """Count the events of temporary files in this process; kill it at the one that is aimed at (event, number, delay
    [s])."""

    def seen(event: str, arguments: tuple) -> None:
        if event not in events or ".part" not in str(arguments[0]):
            return
        number = count_of(event)
        events[event][:8] = (number + 1).to_bytes(8, "little")
        if aim is None or aim[:2] != (event, number):
            return
        if aim[2]:
            threading.Timer(aim[2], os.kill, (os.getpid(), signal.SIGKILL)).start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(seen)


def started(command: Command, world: Path, aim: tuple[str, int, float] | None = None) -> int:
    """Run a command in a fork, which dies at the event that is aimed at; returns its process id."""
    for count in events.values():
        count[:8] = bytes(8)
    process = os.fork()
    if process:
        return process
    try:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        watch(aim)
        command(world)
        os._exit(0)
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        os._exit(99)


def finished(command: Command, world: Path) -> float:
    """Run a command to its end; returns the seconds it took."""
    since = time.monotonic()
    _, status = os.waitpid(started(command, world), 0)
    assert os.waitstatus_to_exitcode(status) == 0, (command.__name__, os.waitstatus_to_exitcode(status))
    return time.monotonic() - since


def left_behind(world: Path) -> list[str]:
    """Names of temporary files and locks."""
    return [path.name for path in world.rglob("*") if ".part" in path.name or path.name == ".lock"]


def aimed(moments: random.Random, writes: dict[str, int], kills: int) -> tuple[str, int, float]:
    """Choose a moment of writing: where a file gets its name, or, every other time, up to 2 ms after one is opened."""
    if kills % 4 == 3 and writes[OPENED]:
        return OPENED, moments.randrange(writes[OPENED]), moments.uniform(1e-5, 2e-3)
    return NAMED, moments.randrange(writes[NAMED]), 0.0


def run_kills(name: str, kills: int, seed: int = 0) -> dict[str, int]:
    """Kill a command at random moments and while it writes, by turns, and rerun it each time; returns counts.

    Raises:
        AssertionError: if a rerun fails, ends with other results, or leaves temporary files.
    """
    command, facts_of = COMMANDS[name]
    moments = random.Random(seed)
    counts = {"kills": 0, "aimed at writing": 0, "with temporary files": 0, "with finished views": 0}
    with tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "sound"
        sound.mkdir()
        finished(lambda folder: prepared(folder, name), sound)
        world = Path(folder) / "world"
        shutil.copytree(sound, world)
        seconds = finished(command, world)
        expected = facts_of(world)
        assert expected and not left_behind(world)
        writes = {event: count_of(event) for event in events}
        assert writes[NAMED], f"{name} gives no temporary file its name"
        while counts["kills"] < kills:
            shutil.rmtree(world)
            shutil.copytree(sound, world)
            is_aimed = counts["kills"] % 2 == 1
            process = started(command, world, aimed(moments, writes, counts["kills"]) if is_aimed else None)
            if not is_aimed:
                time.sleep(moments.uniform(0, seconds))
                os.kill(process, signal.SIGKILL)
            _, status = os.waitpid(process, 0)
            if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
                seconds *= 1 if is_aimed else 0.9  # it was faster than the moment
                continue
            counts["kills"] += 1
            counts["aimed at writing"] += is_aimed
            counts["with temporary files"] += bool(left_behind(world))
            counts["with finished views"] += name == "infer" and (world / "out" / "views").is_dir()
            finished(command, world)
            assert facts_of(world) == expected, name
            assert not left_behind(world), left_behind(world)
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("commands", nargs="*", default=list(COMMANDS))
    arguments = parser.parse_args()
    for command_name in arguments.commands:
        print(command_name, run_kills(command_name, arguments.kills, arguments.seed), flush=True)
