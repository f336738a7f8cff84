"""Which points of which images are the same: feature matches, verified without the given cameras.

SIFT features of images shrunk to ``SIDE_PX``, mutual nearest neighbours that pass the ratio test, and of these what one
fundamental matrix (or, for a flat scene or a camera that only turned, one homography) explains. Neither uses the given
cameras. Pairs are chosen by the order of the images and by trying, never by the poses, for these may be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from nasrecon.matching.features import Features
from nasrecon.types import Scene


@dataclass(frozen=True, kw_only=True, eq=False)
class PairMatches:
    """The verified matches of images ``first`` and ``second`` (positions in the scene's views).

    Attributes:
        first, second: the two views.
        ids: (m, 2) which feature of either.
        x, y: (m, 2) their pixels in first and second [px, as ``Features.pixels``].
        count: how many were verified before thinning to ``MAX_KEPT``.
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
    median_flow_px: float
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

    def image_px_per_feature_px(self, i: int) -> float:
        """Return how many full-size pixels of view ``i`` make one searched pixel."""
        return self.features[i].image_px_per_feature_px

    def reindexed(self, old: Scene, new: Scene) -> Matches:
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
            features={at[i]: features for i, features in self.features.items() if i in at},
            pairs=tuple(pairs),
            same_file=(),
        )
