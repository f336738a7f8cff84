"""The example set is what it says it is, and the README shows nothing that does not exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest

from nasrecon.geometry import transform
from nasrecon.ingest.images import read_view
from nasrecon.ingest.open_scene import open_scene

TOP = Path(__file__).parents[1]
ROOM = TOP / "examples" / "room"


def true_depth(name: str) -> np.ndarray:
    return iio.imread(ROOM / "depth" / f"{Path(name).stem}.png").astype(np.float64) / 1000


def test_the_room_is_small_and_complete() -> None:
    scene = open_scene(ROOM / "images", ROOM / "sparse" / "0")
    assert len(scene.views) == 12 and not scene.dropped
    assert sum(f.stat().st_size for f in ROOM.rglob("*") if f.is_file()) < 5e6
    rgb, view = read_view(scene.views[0])
    assert rgb.shape == (480, 640, 3) == (*true_depth(view.name).shape, 3)


def test_the_rooms_points_lie_on_its_depths() -> None:
    """Cameras, points and depth maps were written by different code; all must say the same."""
    scene = open_scene(ROOM / "images", ROOM / "sparse" / "0")
    assert scene.points_in_world is not None and scene.visible is not None
    for view, visible in zip(scene.views, scene.visible, strict=True):
        in_cam = transform(view.cam_from_world, scene.points_in_world[visible])
        x, y = np.floor(view.camera.project(in_cam)).astype(int).T
        error = np.abs(true_depth(view.name)[y, x] / in_cam[:, 2] - 1)
        assert len(error) > 300
        assert np.quantile(error, 0.95) < 0.01  # within a pixel of where the point was taken; edges are the rest


def test_the_rooms_images_show_what_its_depths_say() -> None:
    """Warped by the true depth, one photograph looks like its neighbour; half a pixel off would not matter, a wrong
    axis would."""
    scene = open_scene(ROOM / "images", ROOM / "sparse" / "0")
    (one, a), (two, b) = read_view(scene.views[4]), read_view(scene.views[6])
    in_b = transform(b.cam_from_world @ np.linalg.inv(a.cam_from_world), a.camera.unproject_depth(true_depth(a.name)))
    x, y = np.moveaxis(b.camera.project(in_b), -1, 0)
    seen = (x > 0) & (x < 640) & (y > 0) & (y < 480)
    xi, yi = x[seen].astype(int), y[seen].astype(int)
    # Correlation, because every photograph has its own exposure.
    similarity = np.corrcoef(one[seen].mean(axis=-1), two[yi, xi].mean(axis=-1))[0, 1]
    unwarped = np.corrcoef(one[seen].mean(axis=-1), two[seen].mean(axis=-1))[0, 1]
    assert similarity > 0.85 > unwarped + 0.2


def shown_commands() -> list[str]:
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", (TOP / "README.md").read_text(), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [
        part.strip()
        for line in lines
        for part in line.split("#")[0].split("&&")
        if part.strip().startswith("nasrecon ")
    ]


def test_commands_of_the_readme_exist_with_their_options() -> None:
    import typer.main

    from nasrecon.cli import app

    commands = shown_commands()
    assert commands, "the README shows no command"
    for line in commands:
        words = line.split()[1:]
        command = typer.main.get_command(app)
        while words and hasattr(command, "commands") and not words[0].startswith("--"):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{word} in: {line}"


def test_paths_of_the_readme_exist() -> None:
    text = (TOP / "README.md").read_text()
    for path in re.findall(r"\b((?:examples|tests|weights|nasrecon)/[\w./-]+\w)", text):
        if not re.search(r"[A-Z]{3}", path):
            assert (TOP / path).exists(), path
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (TOP / link).exists(), link


@pytest.mark.parametrize(
    ("script", "arguments", "made"),
    [
        ("01_quickstart.py", ["zncc"], ["cloud.ply", "mesh.ply"]),
        ("02_own_network.py", [], ["manifest.json", "views/room_00.jpg.npz"]),
        ("03_refine_depth.py", [], ["manifest.json", "views/room_00.jpg.npz"]),
    ],
)
def test_the_scripts_run(script: str, arguments: list[str], made: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(TOP / "examples" / script), str(tmp_path), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "room_00.jpg: depth" in done.stdout
    assert all((tmp_path / name).is_file() for name in made), sorted(tmp_path.rglob("*"))


def test_the_slurm_script_starts_torchrun_on_the_nodes_of_its_job(tmp_path):
    """Run with stand-ins for Slurm's commands: what it starts is a command that torchrun understands."""
    from torch.distributed.run import get_args_parser

    for name, body in (("scontrol", "printf 'one\\ntwo\\n'"), ("srun", 'printf "%s\\n" "$@"')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    job = {"JOB_NODELIST": "[one-two]", "NNODES": "2", "JOB_ID": "7", "CPUS_PER_TASK": "16"}
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | {f"SLURM_{name}": text for name, text in job.items()}
    script = ["bash", str(TOP / "examples" / "slurm.sh"), "my photos", "out"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    ours = done.stdout.splitlines()
    assert ours[:3] == ["--cpus-per-task", "16", "torchrun"]
    started = get_args_parser().parse_args(ours[3:])
    assert (started.nnodes, started.nproc_per_node, started.max_restarts) == ("2", "4", 3)
    assert (started.rdzv_id, started.rdzv_backend, started.rdzv_endpoint) == ("7", "c10d", "one:29500")
    assert [started.training_script, *started.training_script_args] == [
        "nasrecon",
        "infer",
        "my photos",
        "--out",
        "out",
    ]


def test_torchrun_leaves_our_options_to_us():
    """``--run`` of ``train`` is also how torchrun's ``--run-path`` begins."""
    from torch.distributed.run import get_args_parser

    words = (TOP / "examples" / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(command) for command in re.findall(r"torchrun (--[^`\n]*)", words)]
    assert len(commands) == 3
    for command in commands:
        started = get_args_parser().parse_args(command)
        assert started.module and started.training_script == "nasrecon"
        assert started.training_script_args[0] in ("train", "infer", "fuse")
    assert any("--run" in command for command in commands)
