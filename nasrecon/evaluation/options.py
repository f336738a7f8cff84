"""Options of the evaluation; without numpy and torch, so that the command line reads the defaults at no cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nasrecon.errors import InputError

DEMON_MAX_DEPTH = 32.0
"""Largest true depth that counts on pairs: 32 as in NAS; DPSNet takes 10."""

ProtocolName = Literal["demon-32m", "demon-10m", "frames-2src", "frames-4src", "scannet-nas", "sevenscenes"]
"""Keys of ``evaluation.protocols.PROTOCOLS``."""
Rule = Literal["every", "baseline"]


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """Which frames of a sequence are references and sources, and the range of depths; lengths in scene units.

    Attributes:
        rule: "every": frame k * ``every`` with the sources ``offset``, 2 * ``offset`` ... frames before and after.
            "baseline": every keyframe, with the nearest keyframes before and after (``keyframes``).
        every, offset: of the rule "every".
        sources: half of them before the reference, half after; 1: the one after it.
        min_depth, max_depth: the nearest plane, and the range that counts.
        max_side: larger images are shrunk to it [px], as by ``estimate``.
    """

    rule: Rule = "every"
    every: int = 20
    offset: int = 10
    sources: int = 2
    min_depth: float = 0.5
    max_depth: float = 6.0
    max_side: int = 640

    def __post_init__(self) -> None:
        if self.rule not in ("every", "baseline"):
            raise InputError(f"rule must be every or baseline, found {self.rule!r}")
        if min(self.every, self.offset) < 1:
            raise InputError(f"every and offset must be at least 1, found {self.every} and {self.offset}")
        if self.sources != 1 and (self.sources < 2 or self.sources % 2):
            raise InputError(
                f"sources must be 1 (the one after) or an even number (half before, half after), found {self.sources}"
            )
        if self.sources == 1 and self.rule == "baseline":
            raise InputError("sources must be an even number for the rule baseline, found 1")
        if not 0 < self.min_depth < self.max_depth:
            raise InputError(f"0 < min_depth < max_depth is needed, found {self.min_depth:g} and {self.max_depth:g}")
