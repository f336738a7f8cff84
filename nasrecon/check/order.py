"""Which transform belongs to which image, found from the images alone, where a list got out of order.

For every pair of images that show one place, and every two transforms, how well would these two explain the matches?
From that table an assignment is grown image by image, from several starts, and then improved by exchanges.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from nasrecon.errors import InputError
from nasrecon.matching.match_scene import match_scene
from nasrecon.matching.matches import Matches
from nasrecon.matching.residuals import WORST_PX, Cameras, MatchArrays
from nasrecon.matching.sampling import MatchOptions
from nasrecon.types import Scene

# The table grows with the square of the number of views.
MAX_VIEWS = 48
# Of each image its strongest pairs go into the table, with so many matches each.
PAIRS_A_VIEW = 5
MATCHES_A_PAIR = 12
# Growths are started from the best explanations of a few strong pairs.
START_PAIRS, STARTS_A_PAIR = 3, 40


def matched_order(scene: Scene, matches: Matches | None = None) -> list[int]:
    """Return, for each view, the position of the view that has its transform now (``fixes.with_order`` applies it).

    Args:
        scene: of at most ``MAX_VIEWS`` views.
        matches: of all its views; found anew by default.

    Raises:
        InputError: if there are too many views, or too few images overlap.
    """
    count = len(scene.views)
    if count > MAX_VIEWS:
        raise InputError(f"order=matched: found for up to {MAX_VIEWS} views, there are {count}; put the list in order")
    matches = matches or match_scene(scene, MatchOptions(views=MAX_VIEWS))
    if not matches.pairs:
        raise InputError("order=matched: no two images overlap, so nothing shows which transform is whose")
    return assign(Cameras.of(scene), _strong_pairs(matches))


def _strong_pairs(matches: Matches) -> MatchArrays:
    """Return the observations of the strongest pairs of each view, a few matches of each."""
    chosen: set[int] = set()
    for view in matches.views:
        pairs = [p for p, pair in enumerate(matches.pairs) if view in (pair.first, pair.second)]
        # Much parallax tells more; a pair that hardly moved fits everything.
        pairs.sort(key=lambda p: -min(matches.pairs[p].count, 100) * min(matches.pairs[p].median_flow_px, 60.0))
        chosen |= set(pairs[:PAIRS_A_VIEW])
    return MatchArrays(matches, sorted(chosen), most=MATCHES_A_PAIR)


def assign(cameras: Cameras, arrays: MatchArrays) -> list[int]:
    """Return the transform of each image that explains the observations best."""
    table = _table(cameras, arrays)
    count = len(cameras.K)
    links: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    for p, (i, j) in enumerate(zip(arrays.first.tolist(), arrays.second.tolist(), strict=True)):
        links[i].append((p, j))
        links[j].append((p, i))
    identity = list(range(count))
    best = _exchanged(identity, table, arrays)
    for start in _starts(table, arrays):
        grown = _grown(start, table, arrays, links)
        if _total(grown, table, arrays) < 1.5 * _total(best, table, arrays) + 1:
            best = min(best, _exchanged(grown, table, arrays), key=lambda order: _total(order, table, arrays))
    return best


def _table(cameras: Cameras, arrays: MatchArrays) -> np.ndarray:
    """Return (P, N, N): the cost of giving transform a to the first and b to the second image of each pair."""
    count = len(cameras.K)
    a, b = (index.ravel() for index in np.meshgrid(np.arange(count), np.arange(count), indexing="ij"))
    table = np.empty((len(arrays), count, count), dtype=np.float32)
    for p in range(len(arrays)):
        error = arrays.errors_of_pair(p, cameras, a, b)
        table[p] = np.log1p(np.minimum(np.median(error, axis=1), WORST_PX) / 2).reshape(count, count)
        np.fill_diagonal(table[p], np.log1p(WORST_PX))
    return table


def _starts(table: np.ndarray, arrays: MatchArrays) -> list[dict[int, int]]:
    strongest = np.argsort(-np.median(table.reshape(len(table), -1), axis=1))[:START_PAIRS]
    starts = []
    for p in strongest.tolist():
        for flat in np.argsort(table[p].ravel())[:STARTS_A_PAIR].tolist():
            a, b = divmod(flat, table.shape[1])
            if a != b:
                starts.append({int(arrays.first[p]): a, int(arrays.second[p]): b})
    return starts


def _grown(
    start: dict[int, int], table: np.ndarray, arrays: MatchArrays, links: Sequence[Sequence[tuple[int, int]]]
) -> list[int]:
    """Give transforms to the other images one by one: next the one with most pairs to those that have one."""
    order = dict(start)
    count = table.shape[1]
    free = [k for k in range(count) if k not in order.values()]
    while free:
        known = [(sum(j in order for _, j in links[i]), -i) for i in range(count) if i not in order]
        ties, i = max(known)
        i = -i
        if ties == 0:
            break
        costs = [
            table[p][:, order[j]] if arrays.first[p] == i else table[p][order[j]] for p, j in links[i] if j in order
        ]
        chosen = min(free, key=lambda k: float(np.mean([cost[k] for cost in costs])))
        order[i] = chosen
        free.remove(chosen)
    rest = [i for i in range(count) if i not in order]
    unassigned = [i for i in rest if i in free]  # images that nothing is known of keep their transform where it is free
    order |= {i: i for i in unassigned}
    free = [k for k in free if k not in unassigned]
    order |= dict(zip([i for i in rest if i not in unassigned], free, strict=True))
    return [order[i] for i in range(count)]


def _total(order: Sequence[int], table: np.ndarray, arrays: MatchArrays) -> float:
    chosen = np.asarray(order)
    return float(table[np.arange(len(table)), chosen[arrays.first], chosen[arrays.second]].sum())


def _exchanged(order: Sequence[int], table: np.ndarray, arrays: MatchArrays) -> list[int]:
    """Exchange two transforms as long as that lowers the total."""
    order = list(order)
    total, better = _total(order, table, arrays), True
    while better:
        better = False
        for i, j in itertools.combinations(range(len(order)), 2):
            order[i], order[j] = order[j], order[i]
            tried = _total(order, table, arrays)
            if tried < total - 1e-6:
                total, better = tried, True
            else:
                order[i], order[j] = order[j], order[i]
    return order
