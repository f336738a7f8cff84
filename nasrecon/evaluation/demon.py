"""Protocol of two-view pairs in DeMoN's folder layout."""

from __future__ import annotations

from pathlib import Path

import torch

from nasrecon.errors import InputError
from nasrecon.evaluation.options import DEMON_MAX_DEPTH
from nasrecon.evaluation.scoring import Evaluation, Scorer
from nasrecon.ingest.open_scene import open_scene
from nasrecon.nas.network import Network
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene
from nasrecon.progress import LogProgress, Progress, Quiet

DEMON_SIZE = (640, 480)


DEMON_MIN_DEPTH = 0.5


def evaluate_demon(
    folder: Path | str,
    network: Network,
    *,
    max_depth: float = DEMON_MAX_DEPTH,
    keep_poses: bool = False,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network on two-view pairs in the folder layout of DeMoN, as the NAS and DPSNet benchmarks have them.

    The first view of a pair is the reference, the second its source; both 640x480, nearest plane 0.5, and pixels with
    0.5 <= true depth <= ``max_depth`` count (32 as in NAS, 10 as in DPSNet). Metrics are taken pair by pair, then
    averaged over the pairs of a subset (the folder's name up to the first ``_``) and over all.

    Args:
        folder: of pair folders.
        network: from ``load_network``.
        keep_poses: take the poses as given, also where the matches of the images ask for others (``prepare``).
        device: where to compute; default: where the network is.

    Raises:
        InputError: if there is no pair, or one cannot be read.
        EmptyResultError: if no pair has true depth in range.
    """
    folder, progress = Path(folder), progress or LogProgress()
    if not max_depth > DEMON_MIN_DEPTH:
        raise InputError(f"max_depth must be above the nearest plane, {DEMON_MIN_DEPTH:g}, found {max_depth:g}")
    pairs = _pair_folders(folder)
    planes = (DEMON_MIN_DEPTH, DEMON_MIN_DEPTH * network.planes)
    scorer = Scorer(network, device, counted=(DEMON_MIN_DEPTH, max_depth), clamp=planes)
    options = PrepareOptions(check=False, refine=not keep_poses, min_depth=DEMON_MIN_DEPTH)
    refined = 0
    for i, pair in enumerate(pairs):
        progress.update("pairs", i, len(pairs))
        scene = open_scene(pair)
        if len(scene.views) != 2 or scene.dropped:
            lost = "".join(f"; {name}: {reason}" for name, reason in scene.dropped[:3])
            raise InputError(f"{pair}: a pair has two views, found {len(scene.views)}{lost}")
        prepared = prepare_scene(scene, options=options, progress=Quiet())
        refined += not prepared.poses_exact
        scorer.score(prepared, 0, [1], DEMON_SIZE, pair.name, pair.name.partition("_")[0])
    progress.update("pairs", len(pairs), len(pairs))
    return scorer.evaluation(
        protocol=f"demon, max depth {max_depth:g}",
        rules=(
            "two views at 640x480: the first is the reference, the second its source",
            f"{network.planes} planes, the nearest at {DEMON_MIN_DEPTH:g}",
            "poses as given"
            if keep_poses
            else "poses as given; where the matches of a pair ask for others, seen under both and averaged: "
            f"{refined} of {len(pairs)} pairs",
            *scorer.rules("pair"),
        ),
        data=f"{folder}: {len(pairs)} pairs",
    )


def _pair_folders(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    below = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    strangers = [path.name for path in below if not (path / "poses.txt").is_file()]
    if not below or strangers:
        raise InputError(
            f"{folder}: expected folders of pairs (0000.jpg 0001.jpg 0000.npy cam.txt poses.txt), found "
            f"{'none' if not below else 'no poses.txt in ' + ', '.join(strangers[:3])}"
        )
    return below
