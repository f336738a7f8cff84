"""How many injected faults the check finds, and how often it raises the alarm over nothing."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nasrecon.bench.faults import FAULTS, Fault
from nasrecon.check.diagnose import check_scene, diagnose
from nasrecon.check.findings import Diagnosis
from nasrecon.check.fixes import apply_fixes
from nasrecon.errors import LINE_WIDTH, InputError, plural
from nasrecon.matching.match_scene import match_scene
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import Cameras, MatchArrays
from nasrecon.progress import LogProgress, Progress
from nasrecon.types import Scene

# A repair is good if it brings the median epipolar error to within this factor of the sound set's, and so many pixels.
REPAIRED_TIMES, REPAIRED_PX = 1.5, 0.3
MIN_RIGHT = 0.95
_FIXES_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set with one fault ("" for none).

    Attributes:
        set_name, fault: which.
        expected: names of faults, any of which is right; none for a sound set.
        named_faults: names of the faults in the diagnosis.
        fixes: what would repair them.
        repaired: whether the fixes bring the sound cameras back; None where no fix is to be had.
        right: one fault, of the right name, and a repair that works.
        seconds: processor time of the diagnosis (with matching, where the images were changed, and for the sound set).
    """

    set_name: str
    fault: str
    expected: tuple[str, ...]
    named_faults: tuple[str, ...]
    fixes: tuple[str, ...]
    repaired: bool | None
    correct: bool
    seconds: float


def run_trials(
    name: str,
    scene: Scene,
    faults: Sequence[Fault] = FAULTS,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Trial]:
    """Inject faults into a sound set, one at a time, and diagnose each; the first trial is the set as it is.

    The images of most faults are those of the sound set, so their matches are found once.

    Args:
        name: of the set, for the table.
        scene: the sound set.
        faults: which; those that change nothing in this set, or that it cannot show, are left out.
        seed: of what is drawn at random.
        progress: receives a line for every trial.
    """
    since = time.process_time()
    matches = match_scene(scene)
    sound = diagnose(scene, matches)
    names = tuple(finding.name for finding in sound.faults)
    trials = [_trial(name, None, names, sound.fixes, None, time.process_time() - since)]
    notes = {finding.name for finding in sound.findings}
    progress = progress or LogProgress()
    progress.note(trial_line(trials[0]))
    for fault in faults:
        if fault.unless_noted in notes:
            continue
        with tempfile.TemporaryDirectory(prefix="nasrecon_check_") as folder:
            broken = fault.inject(scene, np.random.default_rng(seed), Path(folder))
            if broken is None:
                continue
            since = time.process_time()
            fresh = fault.changes_images or _sizes_differ(scene, broken)
            diagnosis = check_scene(broken) if fresh else diagnose(broken, matches)
            seconds = time.process_time() - since
            repaired = _repaired(broken, matches, scene, diagnosis, sound) if fault.whole else None
        names = tuple(finding.name for finding in diagnosis.faults)
        trials.append(_trial(name, fault, names, diagnosis.fixes, repaired, seconds))
        progress.note(trial_line(trials[-1]))
    return trials


def _trial(
    name: str,
    fault: Fault | None,
    diagnosis: tuple[str, ...],
    fixes: tuple[str, ...],
    repaired: bool | None,
    seconds: float,
) -> Trial:
    expected = () if fault is None else fault.expected
    named = not diagnosis if fault is None else len(diagnosis) == 1 and diagnosis[0] in expected
    return Trial(
        set_name=name,
        fault="" if fault is None else fault.name,
        expected=expected,
        named_faults=diagnosis,
        fixes=fixes,
        repaired=repaired,
        correct=named and repaired is not False,
        seconds=seconds,
    )


def _sizes_differ(scene: Scene, broken: Scene) -> bool:
    pairs = zip(scene.views, broken.views, strict=True)
    return any((a.camera.width, a.camera.height) != (b.camera.width, b.camera.height) for a, b in pairs)


def _repaired(broken: Scene, matches: Matches, scene: Scene, diagnosis: Diagnosis, sound: Diagnosis) -> bool:
    """Say whether the fixes of the faults bring the cameras of a broken set to where they fit as those of the sound
    one.

    What the notes offer (poses refined) is left out: it must not make up for a repair that is not quite right.
    """
    try:
        fixed = apply_fixes(broken, [fix for fault in diagnosis.faults for fix in fault.fixes])
    except InputError:
        return False
    moved = matches.reindexed(scene, fixed)
    if not moved.pairs or sound.given is None:
        return False
    return (
        MatchArrays(moved).evaluate(Cameras.of(fixed)).median_px <= REPAIRED_TIMES * sound.given.median_px + REPAIRED_PX
    )


def passed(trials: Sequence[Trial]) -> bool:
    """Say whether ``MIN_RIGHT`` of the faults were named and repaired, and no sound set raised an alarm."""
    faulty = [trial.correct for trial in trials if trial.fault]
    return sum(faulty) >= MIN_RIGHT * len(faulty) and all(trial.correct for trial in trials if not trial.fault)


def trial_line(trial: Trial) -> str:
    """Write a trial in one line: verdict, set, fault, processor time, and the repair; a wrong one has a second line."""
    faults = ", ".join(trial.named_faults) or "no fault"
    verdict = "ok   " if trial.correct else "WRONG"
    line = f"{verdict} {trial.set_name:<12.12} {trial.fault or 'as it is':<41} {trial.seconds:4.1f} s"
    if not trial.correct:
        return f"{line}\n      named: {faults}; repair: {_fixes(trial, LINE_WIDTH) or 'none'}"
    return f"{line}  {_fixes(trial, LINE_WIDTH - len(line) - 2) or faults}"


def _fixes(trial: Trial, room: int) -> str:
    """Write as many fixes of a trial as have room, one at least."""
    for count in range(min(len(trial.fixes), _FIXES_SHOWN), 0, -1):
        text = ", ".join(trial.fixes[:count]) + (" ..." if len(trial.fixes) > count else "")
        if len(text) <= room or count == 1:
            return text
    return ""


def summary(trials: Sequence[Trial]) -> str:
    """Count what was right, set by set and in all."""
    lines = []
    for name in dict.fromkeys(trial.set_name for trial in trials):
        lines.append(_counted(name, [trial for trial in trials if trial.set_name == name]))
    return "\n".join([*lines, _counted("all", trials)])


def _counted(name: str, trials: Sequence[Trial]) -> str:
    faulty = [trial for trial in trials if trial.fault]
    correct = sum(trial.correct for trial in faulty)
    alarms = sum(not trial.correct for trial in trials if not trial.fault)
    slowest = max(trial.seconds for trial in trials)
    share = 100 * correct / max(len(faulty), 1)
    return (
        f"{name:<12.12} {correct} of {plural(len(faulty), 'fault')} named and repaired ({share:.1f} %), "
        f"{plural(alarms, 'false alarm')}, longest check {slowest:.1f} s"
    )
