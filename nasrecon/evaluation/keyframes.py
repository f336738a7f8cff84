"""Which frames of a sequence are scored, and with which sources: the rules of the protocol "frames"."""

from __future__ import annotations

import numpy as np

from nasrecon.errors import plural
from nasrecon.evaluation.options import FrameOptions
from nasrecon.geometry import relative_pose, rotation_angle_deg
from nasrecon.types import Scene, View

MOVED_IN_MIN_DEPTHS, TURNED_DEG, MAX_TURNED_DEG = 0.2, 15.0, 30.0
"""Rule "baseline": what makes a keyframe, and how far a source may be turned against its reference."""


def frame_plan(scene: Scene, options: FrameOptions) -> list[tuple[int, tuple[int, ...]]]:
    """Return (reference, sources, the nearest first) as positions in the scene's views, by the options' rule.

    A reference that lacks one of the sources that it is due is none.
    """
    half = options.sources // 2
    if options.rule == "baseline":
        return _baseline_plan(scene, options, half)
    if options.sources == 1:
        last = len(scene.views) - options.offset
        return [(i, (i + options.offset,)) for i in range(0, last, options.every)]
    reach = half * options.offset
    refs = range(0, len(scene.views), options.every)
    steps = [sign * k * options.offset for k in range(1, half + 1) for sign in (-1, 1)]
    return [(i, tuple(i + step for step in steps)) for i in refs if reach <= i < len(scene.views) - reach]


def keyframes(scene: Scene, moved: float) -> list[int]:
    """Return the first frame and each that moved that far [scene units], or turned 15 degrees, since the last one."""
    chosen = [0]
    for i, view in enumerate(scene.views):
        baseline, turn = _motion(view, scene.views[chosen[-1]])
        if baseline >= moved or turn >= TURNED_DEG:
            chosen.append(i)
    return chosen


def _baseline_plan(scene: Scene, options: FrameOptions, half: int) -> list[tuple[int, tuple[int, ...]]]:
    moved = MOVED_IN_MIN_DEPTHS * options.min_depth
    chosen = keyframes(scene, moved)

    def serves(source: int, ref: int) -> bool:
        baseline, turn = _motion(scene.views[source], scene.views[ref])
        return baseline >= moved and turn <= MAX_TURNED_DEG

    plan = []
    for k, ref in enumerate(chosen):
        before = [i for i in reversed(chosen[:k]) if serves(i, ref)][:half]
        after = [i for i in chosen[k + 1 :] if serves(i, ref)][:half]
        if len(before) == len(after) == half:
            plan.append((ref, tuple(i for pair in zip(before, after, strict=True) for i in pair)))
    return plan


def _motion(a: View, b: View) -> tuple[float, float]:
    """Return the distance [scene units] and the angle [degrees] between two views."""
    relative = relative_pose(a.cam_from_world, b.cam_from_world)
    return float(np.linalg.norm(a.center_in_world - b.center_in_world)), float(rotation_angle_deg(relative[:3, :3]))


def rule_words(options: FrameOptions) -> str:
    """Say the rule in words."""
    half = options.sources // 2
    if options.sources == 1:
        return f"references: every {options.every} frames; source: {plural(options.offset, 'frame')} after"
    if options.rule == "every":
        steps = ", ".join(str(k * options.offset) for k in range(1, half + 1))
        frames = "frame" if steps == "1" else "frames"
        return f"references: every {options.every} frames; sources: {steps} {frames} before and after"
    moved = MOVED_IN_MIN_DEPTHS * options.min_depth
    return (
        f"references: keyframes, which moved {moved:g} or turned {TURNED_DEG:g} degrees since the last; sources: the "
        f"nearest {half} keyframes before and after that are {moved:g} away or more and turned {MAX_TURNED_DEG:g} "
        "degrees or less"
    )
