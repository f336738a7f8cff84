"""Do the images themselves agree under these cameras? A coarse plane sweep of one view, independent of features.

It knows nothing of features: where cameras are right, thumbnails warped by some plane look alike, and one depth wins.
Under wrong cameras it wins by chance, for a few pixels in a hundred.
"""

from __future__ import annotations

from collections import Counter

from nasrecon.errors import InputError
from nasrecon.matching.matches import Matches
from nasrecon.scene.sweep import sweep, thumbnail
from nasrecon.types import Scene

NEIGHBORS = 4


def photometric_share(scene: Scene, matches: Matches) -> float | None:
    """Return the share of pixels of the best connected view for which one depth clearly wins; None without images."""
    counts = Counter(i for pair in matches.pairs for i in (pair.first, pair.second))
    if not counts:
        return None
    ref = counts.most_common(1)[0][0]
    shared = {
        pair.second if pair.first == ref else pair.first: pair.count
        for pair in matches.pairs
        if ref in (pair.first, pair.second)
    }
    near = sorted(shared, key=lambda i: -shared[i])[:NEIGHBORS]
    try:
        first, *others = (thumbnail(scene.views[i]) for i in (ref, *near))
    except InputError:
        return None
    return float((sweep(first, others) > 0).mean())
