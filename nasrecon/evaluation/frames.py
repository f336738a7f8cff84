"""Protocol of RGB-D sequences: frames of a sequence against their true depth."""

from __future__ import annotations

from pathlib import Path

import torch

from nasrecon.errors import InputError
from nasrecon.evaluation.keyframes import frame_plan, rule_words
from nasrecon.evaluation.options import FrameOptions
from nasrecon.evaluation.scoring import Evaluation, Scorer
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.sizes import working_size
from nasrecon.ingest.open_scene import open_scene
from nasrecon.nas.network import Network
from nasrecon.prepare.options import PrepareOptions
from nasrecon.prepare.prepare import prepare_scene
from nasrecon.progress import LogProgress, Progress


def evaluate_frames(
    folder: Path | str,
    network: Network,
    options: FrameOptions | None = None,
    *,
    keep_poses: bool = False,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network on an RGB-D sequence, in any layout that ``open_scene`` and ``read_true_depth`` know.

    Args:
        folder: of the sequence.
        network: from ``load_network``.
        options: see ``FrameOptions``.
        keep_poses: as in ``evaluate_demon``; the frames in use are refined together.
        device: where to compute; default: where the network is.

    Raises:
        InputError: if the sequence cannot be read or no frame has the sources that the rule asks for.
        EmptyResultError: if no reference has true depth in range.
    """
    options, progress = options or FrameOptions(), progress or LogProgress()
    scene = open_scene(folder)
    plan = frame_plan(scene, options)
    if not plan:
        raise InputError(
            f"{scene.root}: no frame of {len(scene.views)} has {options.sources} sources by the rule: "
            f"{rule_words(options)}; ask for fewer sources, or frames nearer to each other"
        )
    used = sorted({i for ref, sources in plan for i in (ref, *sources)})
    at = {i: position for position, i in enumerate(used)}
    prepare = PrepareOptions(check=False, refine=not keep_poses, min_depth=options.min_depth)
    prepared = prepare_scene(scene.subset(used), options=prepare, progress=progress)
    span = (options.min_depth, options.max_depth)
    scorer = Scorer(network, device, counted=span, clamp=span)
    for i, (ref, sources) in enumerate(plan):
        progress.update("frames", i, len(plan))
        view = scene.views[ref]
        size = working_size(view.camera, EstimateOptions(max_side=options.max_side))
        scorer.score(prepared, at[ref], [at[j] for j in sources], size, view.name, "all")
    progress.update("frames", len(plan), len(plan))
    numbers = f"{options.every}/{options.offset}" if options.rule == "every" else "baseline"
    return scorer.evaluation(
        protocol=f"frames, {numbers}, {options.sources} sources, depth {options.min_depth:g}-{options.max_depth:g}",
        rules=(
            rule_words(options),
            f"{network.planes} planes, the nearest at {options.min_depth:g}; longer side at most {options.max_side} px",
            "poses refined by the matches of the images" if not prepared.poses_exact else "poses as given",
            *scorer.rules("frame"),
        ),
        data=f"{scene.root}: {scene.origin.in_words()}",
    )
