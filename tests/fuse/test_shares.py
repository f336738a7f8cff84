"""The processes of a job, here threads, fuse what one process fuses in as many blocks, each with its own views."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nasrecon.errors import EmptyResultError, InputError, NasReconError
from nasrecon.fuse import blocks, fusion, portion, survey
from nasrecon.fuse.blocks import Split
from nasrecon.fuse.fusion import Fusion, fuse_estimates
from nasrecon.fuse.options import FuseOptions
from nasrecon.fuse.portion import Portion, Reach
from nasrecon.ranks import Ranks
from nasrecon.types import Estimate

from .worlds import BALL, ROOM, Plane, Sphere, look_at, render, ring, small_camera

COARSE = FuseOptions(blocks=5, voxel=0.12, cell=0.12, min_component_faces=20)


class Link:
    """What torch.distributed is to processes, for threads."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=60)
        self.parts: list[Any] = [None] * size

    def of(self, rank: int) -> Any:
        def share(part: Any) -> list[Any]:
            self.barrier.wait()
            self.parts[rank] = part
            self.barrier.wait()
            return list(self.parts)

        class Distributed:
            @staticmethod
            def broadcast_object_list(parcel: list[Any], src: int) -> None:
                parcel[:] = share(list(parcel))[src]

            @staticmethod
            def gather_object(part: Any, parts: list[Any] | None, dst: int) -> None:
                given = share(part)
                if parts is not None:
                    parts[:] = given

            @staticmethod
            def all_gather_object(parts: list[Any], part: Any) -> None:
                parts[:] = share(part)

        return Distributed


def in_ranks(size: int, monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> list[Any]:
    """Call ``run`` in as many threads as there are ranks; what one raises is its result."""
    link, mine = Link(size), threading.local()

    class Threads(Ranks):
        def _talk(self, exchange: Callable[[Any], object]) -> None:
            exchange(link.of(self.rank))

    def work(rank: int) -> Any:
        mine.ranks = Threads(rank, size)
        try:
            return run()
        except NasReconError as error:
            return error

    for module in (blocks, fusion, survey):
        monkeypatch.setattr(module, "current", lambda: mine.ranks)
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(work, range(size)))


def room() -> list[Estimate]:
    return [render((BALL, *ROOM), view) for view in ring(6, small_camera(72, 54, 58))]


def street() -> list[Estimate]:
    """Noisy views along a street; the ends do not see each other."""
    world = (Plane((0, -1, 0), -1.5), Plane((0, 0, -1), -4.0), *[Sphere((3.0 * k, 0.7, 2.6), 0.7) for k in range(6)])
    camera = small_camera(64, 48, 90)
    places = [(1.2 * i, -0.3 + 0.3 * (i % 3), 0.0) for i in range(12)]
    exact = [render(world, look_at(f"{i:02d}", at, (at[0], 0.5, 4.0), camera)) for i, at in enumerate(places)]
    noise = np.random.default_rng(0)
    factors = [1 + 0.01 * noise.normal() + 0.005 * noise.normal(size=each.depth.shape) for each in exact]
    return [replace(e, depth=(e.depth * f).astype(np.float32)) for e, f in zip(exact, factors, strict=True)]


def assert_equal(ours: Fusion, theirs: Fusion) -> None:
    for what, names in (
        ("cloud", ("xyz", "normal", "rgb", "support", "sigma")),
        ("mesh", ("vertices", "faces", "rgb")),
    ):
        for name in names:
            a, b = (getattr(getattr(each, what), name) for each in (ours, theirs))
            np.testing.assert_array_equal(a, b, err_msg=f"{what}.{name}")
    assert ours.stats == theirs.stats and list(ours.stats.agreement) == list(theirs.stats.agreement)
    assert (ours.cell, ours.voxel) == (theirs.cell, theirs.voxel)


@pytest.mark.parametrize(("world", "size"), [(room, 2), (street, 3)])
def test_ranks_fuse_what_one_process_fuses(world: Callable, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    estimates, options = world(), COARSE
    alone = fuse_estimates(estimates, options)
    first, *others = in_ranks(size, monkeypatch, lambda: fuse_estimates(estimates, options))
    assert_equal(first, alone)
    assert all(other.cloud is None and other.mesh is None for other in others)


def test_a_rank_filters_the_views_of_its_blocks_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each view is counted once, and filtered by all whose blocks its surface lies in."""
    portions: list[Portion] = []
    whole = Portion.of

    def of(*arguments: Any, **named: Any) -> Portion:
        portions.append(whole(*arguments, **named))
        return portions[-1]

    monkeypatch.setattr(portion.Portion, "of", of)
    estimates = street()
    first, *_ = in_ranks(2, monkeypatch, lambda: fuse_estimates(estimates, FuseOptions(blocks=2, voxel=0.05, cell=0.1)))
    assert len(first.mesh.faces) > 500
    assert all(len(part.views) <= 9 and len(part.views) < len(part.averaged) for part in portions)
    assert sorted(i for part in portions for i in part.counted) == list(range(12))


def test_bounds_hold_what_the_filter_makes_of_a_view() -> None:
    """Every pixel, its depth changed by as much as the tolerances allow, lies in one of the boxes."""
    (estimate, *_), options = room(), FuseOptions()
    low, high = Reach.of(estimate.view, np.where(estimate.depth > 2, estimate.depth, 0)).boxes(1.1, options)
    y, x = np.nonzero(estimate.depth > 2)
    for factor in (0.965, 1.0, 1.035):
        depth = 1.1 * factor * estimate.depth[y, x]
        in_cam = estimate.view.camera.unproject(np.stack([x, y], axis=-1) + 0.5, depth)
        points = in_cam @ estimate.view.world_from_cam[:3, :3].T + estimate.view.world_from_cam[:3, 3]
        assert all(((low <= point) & (point <= high)).all(axis=1).any() for point in points[::7])
    assert np.median((high - low).max(axis=1)) < 0.4 * np.ptp(np.concatenate([low, high]), axis=0).max()


def test_ranks_have_runs_of_blocks_and_more_ranks_than_blocks_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Split.of(np.random.default_rng(0).uniform(0, (9, 1, 1), (2000, 3)), 5).on_grid(0.1, np.zeros(3))
    shares: Sequence[range] = [split.share(Ranks(rank, 3)) for rank in range(3)]
    assert [number for share in shares for number in share] == list(range(5)) and min(map(len, shares)) == 1
    estimates = room()
    options = FuseOptions(voxel=3.0, cell=0.5, min_component_faces=0)
    alone, several = fuse_estimates(estimates, FuseOptions(cell=0.5), mesh=False), None
    several, *_ = in_ranks(4, monkeypatch, lambda: fuse_estimates(estimates, options, mesh=False))
    assert len(several.cloud) == len(alone.cloud)


def test_errors_reach_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    estimates = room()
    for options, kind, says in (
        (FuseOptions(method="poisson"), InputError, "without torchrun"),
        (FuseOptions(voxel=50.0, min_views=1), EmptyResultError, "no surface"),
        (FuseOptions(voxel=1e-9), InputError, "this machine has"),
    ):
        found = in_ranks(2, monkeypatch, lambda options=options: fuse_estimates(estimates, options))
        assert all(isinstance(error, kind) and says in str(error) for error in found), found
