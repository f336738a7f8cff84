"""Protocols by name: which images, sources, depths, mask and mean a score stands for, fixed and in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nasrecon.errors import EmptyResultError, InputError
from nasrecon.evaluation.demon import evaluate_demon
from nasrecon.evaluation.frames import evaluate_frames
from nasrecon.evaluation.options import DEMON_MAX_DEPTH, FrameOptions
from nasrecon.evaluation.scoring import Evaluation, ViewScores
from nasrecon.ingest.open_scene import open_scene
from nasrecon.nas.network import Network
from nasrecon.progress import LogProgress, Progress

Evaluate = Callable[..., Evaluation]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A protocol.

    Attributes:
        words: one paragraph: views, size, mask, mean; where the protocol is from.
        max_depth: of pairs in DeMoN's layout; None for sequences.
        frames: the frames of a sequence; None for pairs.
    """

    words: str
    max_depth: float | None = None
    frames: FrameOptions | None = None


_PAIRS = (
    "Two-view pairs of the DeMoN test set in the folder layout of DPSNet (one folder a pair). The first view is the "
    "reference, the second its source, both at 640x480; planes from 0.5. Pixels with a true depth of 0.5 to {0} count, "
    "found depths are clamped to the planes. Each pair is scored by itself, then the mean over the pairs of a subset "
    "(MVS, SUN3D, RGBD, Scenes11) and over all is taken. {1}"
)
_SEQUENCE = (
    "An RGB-D sequence, or a folder of some. References are every {0} frames, sources {1}; the longer side is at most "
    "640 px. Planes from {2}. Pixels with a true depth of {2} to {3} (in the unit of the set) count, found depths are "
    "clamped to this range. Each frame is scored by itself, then the mean over the frames of a sequence and over all "
    "is taken. {4}"
)

PROTOCOLS: dict[str, Protocol] = {
    "demon-32m": Protocol(
        max_depth=DEMON_MAX_DEPTH, words=_PAIRS.format("32", "The range is that of the NAS benchmark.")
    ),
    "demon-10m": Protocol(max_depth=10.0, words=_PAIRS.format("10", "The range is that of the DPSNet benchmark.")),
    "frames-2src": Protocol(
        frames=FrameOptions(),
        words=_SEQUENCE.format(20, "10 frames before and after", 0.5, 6, "A protocol of this project."),
    ),
    "frames-4src": Protocol(
        frames=FrameOptions(sources=4),
        words=_SEQUENCE.format(20, "10 and 20 frames before and after", 0.5, 6, "A protocol of this project."),
    ),
    "scannet-nas": Protocol(
        frames=FrameOptions(sources=1, min_depth=0.25, max_depth=16.0),
        words=_SEQUENCE.format(
            20,
            "one, 10 frames after",
            0.25,
            16,
            "Two views, nearest plane and 64 planes as NAS has them on ScanNet; the published list of pairs is not "
            "read, pairs go by the frames' numbers.",
        ),
    ),
    "sevenscenes": Protocol(
        frames=FrameOptions(every=10, min_depth=0.5, max_depth=10.0),
        words=_SEQUENCE.format(
            10,
            "10 frames before and after",
            0.5,
            10,
            "For the test sequences of 7-Scenes; 0 and 65535 are no depth, the depth camera's pixels are moved into "
            "the colour camera by their focal lengths.",
        ),
    ),
}


def evaluate_protocol(
    name: str,
    folder: Path | str,
    network: Network,
    *,
    keep_poses: bool = False,
    device: Any = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a network by a named protocol; its paragraph is the first of ``Evaluation.rules``.

    Args:
        name: a key of ``PROTOCOLS``.
        folder: of pairs (demon-...), or a sequence or a folder of sequences (all others).
        network, keep_poses, device: as in ``evaluate_demon``.

    Raises:
        InputError: if the name is not known, or the folder does not hold what the protocol scores.
        EmptyResultError: if nothing could be scored.
    """
    protocol = PROTOCOLS.get(name)
    if protocol is None:
        raise InputError(f"protocol must be one of {', '.join(PROTOCOLS)}, found {name!r}")
    options = {"keep_poses": keep_poses, "device": device, "progress": progress or LogProgress()}
    if protocol.max_depth is not None:
        evaluation = evaluate_demon(folder, network, max_depth=protocol.max_depth, **options)
    else:
        evaluation = _sequences_scored(Path(folder), network, protocol, options)
    return replace(evaluation, protocol=name, rules=(protocol.words, *evaluation.rules))


def _sequences_scored(folder: Path, network: Network, protocol: Protocol, options: dict[str, Any]) -> Evaluation:
    """Score a sequence, or each of a folder, whose names are then the subsets."""
    sequences = _sequences(folder)
    if sequences == [folder]:
        return evaluate_frames(folder, network, protocol.frames, **options)
    parts, left_out = [], []
    for sequence in sequences:
        try:
            parts.append((sequence.name, evaluate_frames(sequence, network, protocol.frames, **options)))
        except (InputError, EmptyResultError) as error:
            left_out.append((sequence.name, str(error)))
    if not parts:
        raise InputError(f"{folder}: no sequence of it can be scored: {'; '.join(why for _, why in left_out[:3])}")
    views = tuple(_of_subset(view, name) for name, part in parts for view in part.views)
    lost = tuple((f"{name}/{view}", why) for name, part in parts for view, why in part.left_out)
    refined = [name for name, part in parts if "poses as given" not in part.rules]
    poses = f"poses refined by the matches of the images: {', '.join(refined) or 'nowhere'}"
    rules = tuple(rule for rule in parts[0][1].rules if not rule.startswith("poses "))
    return replace(
        parts[0][1],
        rules=(*rules, poses),
        data=f"{folder}: {len(parts)} sequences",
        views=views,
        left_out=(*lost, *left_out),
    )


def _of_subset(view: ViewScores, name: str) -> ViewScores:
    return replace(view, name=f"{name}/{view.name}", subset=name)


def _sequences(folder: Path) -> list[Path]:
    """Return the folder if it is a sequence, else its subfolders.

    Raises:
        InputError: if it is neither.
    """
    try:
        open_scene(folder)
    except InputError:
        below = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if not below:
            raise
        return below
    return [folder]
