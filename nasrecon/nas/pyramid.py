"""Seeing an image at several sizes: shrunk batches, what a coarser pass tells the next, what all of them say together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, eq=False)
class Hint:
    """What a coarser pass says, at the feature resolution h x w of the pass that it is for.

    Attributes:
        belief: (B, 2, D, h, w), log of the odds against knowing nothing, over 8 and the number of sources, in
            [-0.5, 0.5]: of the planes by the cost, and of the planes around the refined label by its spread. 0 where
            nothing is known.
        label: (B, h, w), refined. normal: (B, 3, h, w), unit.
    """

    belief: torch.Tensor
    label: torch.Tensor
    normal: torch.Tensor

    def cut(self, top: int, left: int, h: int, w: int) -> Hint:
        """Return a window of it, in feature pixels."""
        window = (..., slice(top, top + h), slice(left, left + w))
        return Hint(self.belief[window], self.label[window], self.normal[window])


def agreed(looks: Sequence[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Average what looks (``stages``) of different sizes say, each as much as it is sure of itself.

    Returns:
        label_initial, label, refined_label (B, 1, H, W), normal, refined_normal (B, 3, H, W), not unit, and spread
        (B, 1, H, W), the relative one of the refined depth; at the size of the last look. The weights are one over the
        square of the spread; the spread of the average is the average of theirs, as they err together.
    """
    size = looks[-1]["refined_label"].shape[-2:]

    def full(look: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        x = look[name].float()
        return F.interpolate(x if x.dim() == 4 else x[:, None], size=size, mode="bilinear", align_corners=False)

    spreads = torch.stack([full(look, "log_spread") for look in looks]).exp()
    weights = spreads**-2 / (spreads**-2).sum(dim=0)
    names = ("label_initial", "label", "refined_label", "normal", "refined_normal")
    average = lambda parts: sum(w * part for w, part in zip(weights, parts, strict=True))  # noqa: E731
    return {name: average([full(look, name) for look in looks]) for name in names} | {"spread": average(spreads)}
