"""Which views of a large set are matched."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from nasrecon.errors import InputError
from nasrecon.matching.features import Features, FeatureStore
from nasrecon.matching.matches import Matches, PairMatches
from nasrecon.matching.verify import matched
from nasrecon.progress import Progress
from nasrecon.types import Scene


@dataclass(frozen=True, kw_only=True)
class MatchOptions:
    """How much to look at.

    Attributes:
        views: images looked at, at most: evenly through the set, then between neighbours that do not overlap.
        pairs: pairs of images that are matched, at most.
    """

    views: int = 48
    pairs: int = 600


class Collector:
    """Features and pairs as far as they are known."""

    def __init__(self, scene: Scene, options: MatchOptions, progress: Progress, store: FeatureStore) -> None:
        self.scene, self.options, self.progress = scene, options, progress
        self.store = store
        self.features: dict[int, Features] = {}
        self.pairs: dict[tuple[int, int], PairMatches] = {}
        self.tried: set[tuple[int, int]] = set()
        self.problems: list[tuple[str, str]] = []
        self.unreadable: set[int] = set()

    def look(self, i: int) -> bool:
        """Extract the features of a view; False if its image cannot be read."""
        if i not in self.features and i not in self.unreadable:
            try:
                self.features[i] = self.store.features(self.scene.views[i])
            except InputError as error:
                self.problems.append((self.scene.views[i].name, str(error)))
                self.unreadable.add(i)
            self.progress.update("features", len(self.features), min(self.options.views, len(self.scene.views)))
        return i in self.features

    def match(self, i: int, j: int) -> bool:
        """Match two views; True if they show one place."""
        key = (min(i, j), max(i, j))
        if key not in self.tried and self.look(i) and self.look(j):
            self.tried.add(key)
            pair = matched(self.store, self.scene, *key)
            if pair is not None:
                self.pairs[key] = pair
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
        """Bisect gaps: where consecutive views do not match, add the view between them, within the budget."""
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
            self.progress.update("matches", step, len(order) - 1)
