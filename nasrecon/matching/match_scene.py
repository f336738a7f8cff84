"""Match the images of a scene, or given pairs of them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nasrecon.errors import InputError
from nasrecon.matching.features import FeatureStore
from nasrecon.matching.matches import Matches
from nasrecon.matching.sampling import Collector, MatchOptions
from nasrecon.progress import LogProgress, Progress
from nasrecon.types import Scene, View


def match_scene(
    scene: Scene,
    options: MatchOptions | None = None,
    progress: Progress | None = None,
    store: FeatureStore | None = None,
) -> Matches:
    """Find and verify matches between the images of a scene; its cameras are not used (but lens distortion is removed).

    Args:
        scene: as ``open_scene`` made it.
        options: see ``MatchOptions``.
        progress: receives the reports.
        store: features and matches that are known already; new ones are added.

    Raises:
        InputError: if fewer than two images can be read.
    """
    collector = Collector(scene, options or MatchOptions(), progress or LogProgress(), store or FeatureStore())
    collector.spread()
    collector.close_gaps()
    collector.rest()
    if len(collector.features) < 2:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in collector.problems[:3])
        raise InputError(f"{scene.root}: fewer than two images can be read ({reasons or 'the scene has one view'})")
    return replace(collector.matches(), same_file=_same_files(scene.views))


def match_pairs(
    scene: Scene,
    pairs: Iterable[tuple[int, int]],
    progress: Progress | None = None,
    store: FeatureStore | None = None,
) -> Matches:
    """Find and verify the matches of given pairs of views (positions in the scene); otherwise as ``match_scene``.

    Images that cannot be read are in ``problems``.
    """
    collector = Collector(
        scene, MatchOptions(views=len(scene.views)), progress or LogProgress(), store or FeatureStore()
    )
    wanted = sorted({(min(pair), max(pair)) for pair in pairs})
    for i, j in wanted:
        collector.match(i, j)
        collector.progress.update("matches", len(collector.tried), len(wanted))
    return collector.matches()


def _same_files(views: Iterable[View]) -> tuple[tuple[int, ...], ...]:
    """Group the positions of image files with the same bytes (only files of one size are read; no frames of videos)."""
    by_size: dict[int, list[tuple[int, Path]]] = {}
    for i, view in enumerate(views):
        path = view.image.path
        if view.image.video_frame is None and path.is_file():
            by_size.setdefault(path.stat().st_size, []).append((i, path))
    by_bytes: dict[bytes, list[int]] = {}
    for i, path in itertools.chain.from_iterable(group for group in by_size.values() if len(group) > 1):
        by_bytes.setdefault(hashlib.sha256(path.read_bytes()).digest(), []).append(i)
    return tuple(sorted(tuple(group) for group in by_bytes.values() if len(group) > 1))
