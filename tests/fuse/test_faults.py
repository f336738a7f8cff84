"""Faults put into estimates on purpose: a fusion names the view or the stage, and the cause."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from nasrecon.errors import EmptyResultError
from nasrecon.fuse.fusion import fuse_estimates
from nasrecon.fuse.options import FuseOptions
from nasrecon.types import Estimate

from .worlds import BALL, ROOM, render, ring, small_camera

VIEWS = 12
OPENGL = np.array([1, -1, -1], np.float32)


@dataclass(frozen=True)
class Case:
    """One fault: what is done to the estimates, and the words that name it; none may be named beside ``views``."""

    name: str
    spoil: Callable[[list[Estimate]], list[Estimate]]
    says: tuple[str, ...]
    views: tuple[int, ...] = ()


def at(index: int, change: Callable[[Estimate], Estimate]) -> Callable[[list[Estimate]], list[Estimate]]:
    return lambda estimates: [change(e) if i == index else e for i, e in enumerate(estimates)]


def every(change: Callable[[Estimate], Estimate]) -> Callable[[list[Estimate]], list[Estimate]]:
    return lambda estimates: [change(e) for e in estimates]


def moved(estimate: Estimate, shift: tuple[float, float, float]) -> Estimate:
    cam_from_world = estimate.view.cam_from_world.copy()
    cam_from_world[:3, 3] += shift
    return replace(estimate, view=replace(estimate.view, cam_from_world=cam_from_world))


def scaled(estimate: Estimate, factor: float) -> Estimate:
    return replace(estimate, depth=estimate.depth * np.float32(factor))


def confident(estimate: Estimate, value: float) -> Estimate:
    return replace(estimate, confidence=np.full_like(estimate.confidence, value))


def with_normals(estimate: Estimate, factor: np.ndarray | float) -> Estimate:
    return replace(estimate, normal=(estimate.normal * factor).astype(np.float32))


def in_world(estimate: Estimate) -> Estimate:
    return replace(estimate, normal=estimate.normal @ estimate.view.cam_from_world[:3, :3].astype(np.float32))


def cases() -> list[Case]:
    out = []
    for k, factor in ((1, 0.7), (4, 0.85), (7, 1.12), (10, 1.3)):
        out.append(Case(f"depths of {k} x {factor}", at(k, lambda e, f=factor: scaled(e, f)), ("depths",), (k,)))
    for k, shift in ((0, (0.5, 0, 0)), (3, (0, 0.4, 0.3)), (6, (0.3, -0.3, 0.3)), (9, (0, 0, 0.6))):
        out.append(Case(f"camera {k} moved", at(k, lambda e, s=shift: moved(e, s)), ("pose", "camera"), (k,)))
    for k in (2, 8):
        out.append(Case(f"normals of {k} turned round", at(k, lambda e: with_normals(e, -1)), ("point away",), (k,)))
        opengl = at(k, lambda e: with_normals(e, OPENGL))
        out.append(Case(f"normals of {k} in the axes of OpenGL", opengl, ("point away",), (k,)))
        out.append(Case(f"normals of {k} in the world frame", at(k, in_world), ("normals",), (k,)))
    turned_round = every(lambda e: with_normals(e, -1))
    out.append(Case("all normals turned round", turned_round, ("point away",), tuple(range(VIEWS))))
    out.append(Case("all confidences zero", every(lambda e: confident(e, 0)), ("Lower min_confidence",)))
    for k in (5, 11):
        zero = at(k, lambda e: confident(e, 0))
        out.append(Case(f"confidences of {k} zero", zero, ("lower min_confidence",), (k,)))
    out.append(Case("one view", lambda estimates: estimates[:1], ("there is one view",)))
    out.append(Case("two views apart", lambda e: [e[0], moved(e[1], (900, 0, 0))], ("No view sees what another sees",)))
    out.append(
        Case("two views, one in another unit", lambda e: [e[0], scaled(e[1], 2.5)], ("unit that of the depths",))
    )
    return out


def named(estimates: list[Estimate], case: Case) -> bool:
    """Tell whether a fusion names the fault, and no sound view."""
    try:
        notes = fuse_estimates(case.spoil(estimates), FuseOptions(), mesh=False).stats.notes()
    except EmptyResultError as error:
        notes = [str(error)]
    names = [e.view.name for e in estimates]
    right = {names[i] for i in case.views}
    blamed = {name for name in names for note in notes if note.startswith(name)}
    said = [note for note in notes if any(words in note for words in case.says)]
    return blamed == right and all(any(name in note for note in said) for name in right) and bool(said)


def test_nine_of_ten_faults_are_named_with_the_view_and_the_cause() -> None:
    wrong, total = [], 0
    for camera, radius in ((small_camera(120, 90, 100), 2.0), (small_camera(160, 120, 110), 1.8)):
        estimates = [render((BALL, *ROOM), view) for view in ring(VIEWS, camera, radius)]
        for case in cases():
            total += 1
            if not named(estimates, case):
                wrong.append(case.name)
    assert len(wrong) <= 0.1 * total, wrong
