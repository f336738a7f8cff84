"""Which points of which images are the same: what the doctor knows of a set without believing its cameras.

SIFT features of images shrunk to ``SIDE_PX``, mutual nearest neighbours that pass the ratio test, and of these what one
fundamental matrix (or, for a flat scene or a camera that only turned, one homography) explains. Neither uses the given
cameras. Pairs are chosen by the order of the images and by trying, never by the poses, for these may be wrong.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nasrecon.errors import InputError
from nasrecon.ingest.images import read_view
from nasrecon.types import Scene, View

SIDE_PX = 640
MOST_FEATURES = 1500
DESCRIPTOR = 128
# Lowe's ratio test, on the distance of unit descriptors.
RATIO = 0.8
# A pair is two images of one place if so many matches, and this share of all, obey one fundamental matrix to within
# MATCH_ERROR_PX. Fewer happen by chance.
LEAST_MATCHES = 24
LEAST_SHARE = 0.4
MATCH_ERROR_PX = 2.0
# So many matches of a pair are kept; more say nothing new.
MOST_KEPT = 120


@dataclass(frozen=True, kw_only=True)
class MatchOptions:
    """How much to look at.

    Attributes:
        views: images looked at, at most: evenly through the set, then between neighbours that do not overlap.
        pairs: pairs of images that are matched, at most.
    """

    views: int = 48
    pairs: int = 600


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The features of one image.

    Attributes:
        pixels: (n, 2) in the image as its ``View.camera`` sees it (undistorted, full size), half-pixel centres [px].
        descriptors: (n, 128) float32, unit length.
        px: how many of these pixels make one of the image that was searched (full width / searched width).
    """

    pixels: np.ndarray
    descriptors: np.ndarray
    px: float


@dataclass(frozen=True, kw_only=True, eq=False)
class PairMatches:
    """The verified matches of images ``first`` and ``second`` (positions in the scene's views).

    Attributes:
        first, second: the two views.
        ids: (m, 2) which feature of either.
        x, y: (m, 2) their pixels in first and second [px, as ``Features.pixels``].
        count: how many were verified before thinning to ``MOST_KEPT``.
        residual_px: median distance to the epipolar lines of the fundamental matrix fitted to them, in searched pixels:
            how good matches themselves are.
        moved_px: median displacement between the images, in searched pixels.
        homography: (3, 3), of pixels in first to pixels in second; or None.
    """

    first: int
    second: int
    ids: np.ndarray
    x: np.ndarray
    y: np.ndarray
    count: int
    residual_px: float
    moved_px: float
    homography: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Matches:
    """What was seen in the images of a scene.

    Attributes:
        views: positions of the views that were looked at, ascending.
        features: of each of these.
        pairs: pairs with verified matches.
        tried: how many pairs were matched.
        same_file: groups of positions whose image files are byte for byte the same (of all views of the scene).
        problems: (name, reason) of images that could not be read.
    """

    views: tuple[int, ...]
    features: dict[int, Features]
    pairs: tuple[PairMatches, ...]
    tried: int
    same_file: tuple[tuple[int, ...], ...] = ()
    problems: tuple[tuple[str, str], ...] = ()

    def px(self, i: int) -> float:
        """Return how many full-size pixels of view ``i`` make one searched pixel."""
        return self.features[i].px

    def moved_to(self, old: Scene, new: Scene) -> Matches:
        """Return the matches for a scene with fewer views (found by their names); those of the others are left out."""
        if len(old.views) == len(new.views):
            return self
        names = {view.name: i for i, view in enumerate(new.views)}
        at = {i: names[view.name] for i, view in enumerate(old.views) if view.name in names}
        pairs = [
            replace(pair, first=at[pair.first], second=at[pair.second])
            for pair in self.pairs
            if pair.first in at and pair.second in at
        ]
        return replace(
            self,
            views=tuple(at[i] for i in self.views if i in at),
            features={at[i]: found for i, found in self.features.items() if i in at},
            pairs=tuple(pairs),
            same_file=(),
        )


Progress = Callable[[str, int, int], None]


def match_scene(scene: Scene, options: MatchOptions | None = None, progress: Progress | None = None) -> Matches:
    """Find and verify matches between the images of a scene; its cameras are not used (but lens distortion is removed).

    Args:
        scene: as ``open_scene`` made it.
        options: see ``MatchOptions``.
        progress: called with what is done, and how many of how many.

    Raises:
        InputError: if fewer than two images can be read.
    """
    collector = _Collector(scene, options or MatchOptions(), progress or (lambda *_: None))
    collector.spread()
    collector.close_gaps()
    collector.rest()
    if len(collector.features) < 2:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in collector.problems[:3])
        raise InputError(f"{scene.root}: fewer than two images can be read ({reasons or 'the scene has one view'})")
    return replace(collector.matches(), same_file=_same_files(scene.views))


def match_pairs(scene: Scene, pairs: Iterable[tuple[int, int]], progress: Progress | None = None) -> Matches:
    """Find and verify the matches of given pairs of views (positions in the scene); otherwise as ``match_scene``.

    Images that cannot be read are in ``problems``.
    """
    collector = _Collector(scene, MatchOptions(views=len(scene.views)), progress or (lambda *_: None))
    wanted = sorted({(min(pair), max(pair)) for pair in pairs})
    for i, j in wanted:
        collector.match(i, j)
        collector.progress("matches", len(collector.tried), len(wanted))
    return collector.matches()


class _Collector:
    """Features and pairs as far as they are known."""

    def __init__(self, scene: Scene, options: MatchOptions, progress: Progress) -> None:
        self.scene, self.options, self.progress = scene, options, progress
        self.extractor = _extractor()
        self.features: dict[int, Features] = {}
        self.pairs: dict[tuple[int, int], PairMatches] = {}
        self.tried: set[tuple[int, int]] = set()
        self.problems: list[tuple[str, str]] = []
        self.unreadable: set[int] = set()

    def look(self, i: int) -> bool:
        """Extract the features of a view; False if its image cannot be read."""
        if i not in self.features and i not in self.unreadable:
            try:
                self.features[i] = _features(self.scene.views[i], self.extractor)
            except InputError as error:
                self.problems.append((self.scene.views[i].name, str(error)))
                self.unreadable.add(i)
            self.progress("features", len(self.features), min(self.options.views, len(self.scene.views)))
        return i in self.features

    def match(self, i: int, j: int) -> bool:
        """Match two views; True if they show one place."""
        key = (min(i, j), max(i, j))
        if key not in self.tried and self.look(i) and self.look(j):
            self.tried.add(key)
            found = _match_pair(*key, self.features[key[0]], self.features[key[1]])
            if found is not None:
                self.pairs[key] = found
        return key in self.pairs

    def matches(self) -> Matches:
        """Return what is known so far."""
        return Matches(
            views=tuple(sorted(self.features)),
            features=self.features,
            pairs=tuple(self.pairs[key] for key in sorted(self.pairs)),
            tried=len(self.tried),
            problems=tuple(self.problems),
        )

    def spread(self) -> None:
        """Look at views evenly through the set; of a large set this leaves some for ``close_gaps``."""
        count, most = len(self.scene.views), self.options.views
        first = count if count <= most else max(2, round(0.6 * most))
        for i in np.linspace(0, count - 1, first).round().astype(int).tolist():
            self.look(i)
        order = sorted(self.features)
        for i, j in itertools.pairwise(order):
            self.match(i, j)

    def close_gaps(self) -> None:
        """Between neighbours that show nothing common look at views half-way, and so on, while some are left."""
        waiting = [pair for pair in itertools.pairwise(sorted(self.features)) if not self.match(*pair)]
        while waiting and len(self.features) < self.options.views:
            i, j = waiting.pop(0)
            middle = (i + j) // 2
            if middle in (i, j) or not self.look(middle):
                continue
            waiting = [half for half in ((i, middle), (middle, j)) if not self.match(*half)] + waiting

    def rest(self) -> None:
        """Fill up with views evenly through the set, and match all other pairs, near ones in the order first."""
        left = [i for i in range(len(self.scene.views)) if i not in self.features]
        room = min(len(left), self.options.views - len(self.features))
        for k in np.linspace(0, len(left) - 1, room).round().astype(int).tolist() if room > 0 else []:
            self.look(left[k])
        order = sorted(self.features)
        for step in range(1, len(order)):
            for i, j in zip(order, order[step:], strict=False):
                if len(self.tried) < self.options.pairs:
                    self.match(i, j)
            self.progress("matches", step, len(order) - 1)


def _extractor() -> Any:
    import pycolmap

    pycolmap.logging.minloglevel = 1  # its informational lines on stderr are not for our users
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.sift.max_num_features, options.sift.first_octave = MOST_FEATURES, 0
    options.sift.max_num_orientations = 1
    return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)


def _features(view: View, extractor: Any) -> Features:
    scale = min(1.0, SIDE_PX / max(view.camera.width, view.camera.height))
    width, height = (max(16, round(side * scale)) for side in (view.camera.width, view.camera.height))
    rgb, _ = read_view(view, width, height)
    grey = np.round(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    keypoints, descriptors = extractor.extract_from_uint8_array(grey)
    pixels = np.array([(point.x, point.y) for point in keypoints], dtype=np.float64).reshape(-1, 2)
    values = np.array(descriptors.data, dtype=np.float32).reshape(len(pixels), DESCRIPTOR)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    px = np.array([view.camera.width / width, view.camera.height / height])
    return Features(pixels=pixels * px, descriptors=values, px=float(px.mean()))


def _match_pair(i: int, j: int, first: Features, second: Features) -> PairMatches | None:
    """Match two images; None if what they have in common may be chance."""
    ids = _mutual(first.descriptors, second.descriptors)
    if len(ids) < LEAST_MATCHES:
        return None
    x, y = first.pixels[ids[:, 0]] / first.px, second.pixels[ids[:, 1]] / second.px
    F, obey = _robust("fundamental", x, y)
    H, flat = _robust("homography", x, y)
    if flat.sum() >= 0.9 * obey.sum():  # a flat scene or a turn: F is not determined, H is
        obey = obey | flat
    count = int(obey.sum())
    if count < max(LEAST_MATCHES, LEAST_SHARE * len(ids)):
        return None
    residual = np.abs(epipolar_error(F, x, y)) if F is not None else np.zeros(len(x))
    chosen = np.flatnonzero(obey)
    if count > MOST_KEPT:
        chosen = chosen[np.linspace(0, count - 1, MOST_KEPT).round().astype(int)]
    scale = lambda px: np.diag([px, px, 1.0])
    return PairMatches(
        first=i,
        second=j,
        ids=ids[chosen],
        x=first.pixels[ids[chosen, 0]],
        y=second.pixels[ids[chosen, 1]],
        count=count,
        residual_px=float(np.median(residual[obey])),
        moved_px=float(np.median(np.linalg.norm(y[obey] - x[obey], axis=1))),
        homography=None if H is None else scale(second.px) @ H @ np.linalg.inv(scale(first.px)),
    )


def _mutual(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return (m, 2) which unit descriptors (n, 128) are each other's nearest, and clearly nearer than the next."""
    if min(len(first), len(second)) < 2:
        return np.empty((0, 2), dtype=int)
    likeness = first @ second.T
    best = likeness.argmax(axis=1)
    rows = np.arange(len(first))
    top = likeness[rows, best]
    likeness[rows, best] = -1
    distance, next_distance = (np.sqrt(np.maximum(2 - 2 * value, 0)) for value in (top, likeness.max(axis=1)))
    likeness[rows, best] = top
    keep = (likeness.argmax(axis=0)[best] == rows) & (distance < RATIO * next_distance)
    return np.stack([rows[keep], best[keep]], axis=1)


def _robust(kind: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Fit a fundamental matrix or a homography to matches (m, 2); returns it (or None) and which matches obey it."""
    import pycolmap

    options = pycolmap.RANSACOptions(max_error=MATCH_ERROR_PX, min_num_trials=50, max_num_trials=2000, random_seed=0)
    fit = {"fundamental": pycolmap.estimate_fundamental_matrix, "homography": pycolmap.estimate_homography_matrix}[kind]
    found = fit(x, y, options)
    if found is None:
        return None, np.zeros(len(x), dtype=bool)
    return found["F" if kind == "fundamental" else "H"], np.asarray(found["inlier_mask"], dtype=bool)


def epipolar_error(F: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the Sampson distance (m,) [px] of matches x, y (m, 2) to fundamental matrices (3, 3) or (m, 3, 3)."""
    return np.abs(signed_epipolar_error(F, x, y))


def signed_epipolar_error(F: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return it with its sign; written out, which is much faster than matmul for many small matrices."""
    (a, b), (c, d) = np.moveaxis(x, -1, 0), np.moveaxis(y, -1, 0)
    Fx = [F[..., i, 0] * a + F[..., i, 1] * b + F[..., i, 2] for i in range(3)]
    Fty = [F[..., 0, i] * c + F[..., 1, i] * d + F[..., 2, i] for i in range(2)]
    slope = Fx[0] ** 2 + Fx[1] ** 2 + Fty[0] ** 2 + Fty[1] ** 2
    return (c * Fx[0] + d * Fx[1] + Fx[2]) / np.sqrt(np.maximum(slope, 1e-30))


def _same_files(views: Iterable[View]) -> tuple[tuple[int, ...], ...]:
    """Group the positions of image files with the same bytes (only files of one size are read; no frames of videos)."""
    by_size: dict[int, list[tuple[int, Path]]] = {}
    for i, view in enumerate(views):
        path = view.image_path
        if view.video_frame is None and path.is_file():
            by_size.setdefault(path.stat().st_size, []).append((i, path))
    by_bytes: dict[bytes, list[int]] = {}
    for i, path in itertools.chain.from_iterable(group for group in by_size.values() if len(group) > 1):
        by_bytes.setdefault(hashlib.sha256(path.read_bytes()).digest(), []).append(i)
    return tuple(sorted(tuple(group) for group in by_bytes.values() if len(group) > 1))
