"""Options of the preparation; without numpy, so that the command line reads the defaults at no cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nasrecon.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How a scene is prepared.

    Attributes:
        every: take every Nth view.
        fixes: repairs of the cameras, by name (``check.fixes``), in this order.
        check: report the faults that a quick check of the cameras finds.
        refine: refine the poses by the matches of all images where the quick check finds that they are off.
        triangulate: triangulate sparse points for cameras that come without.
        sources: source views per reference, at most.
        min_depth: depth of the nearest plane for all views [scene units]; None: each view's own.

    Raises:
        InputError: if a value is out of its range.
    """

    every: int = 1
    fixes: tuple[str, ...] = ()
    check: bool = True
    refine: bool = True
    triangulate: bool = False
    sources: int = 4
    min_depth: float | None = None

    def __post_init__(self) -> None:
        for name in ("every", "sources"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, found {getattr(self, name)}")
        if self.min_depth is not None and not 0 < self.min_depth < math.inf:
            raise InputError(f"min_depth must be positive (in scene units), found {self.min_depth}")

    def settings(self) -> dict[str, object]:
        """Return the options that change the numbers of an estimate beside the cameras, for the manifest."""
        return {"sources": self.sources, "min_depth": self.min_depth}
