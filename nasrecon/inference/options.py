"""Options of the estimation; without numpy and torch, so that the command line reads the defaults at no cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from nasrecon.errors import InputError

SIDE_MULTIPLE = 32


@dataclass(frozen=True, kw_only=True)
class EstimateOptions:
    """How to estimate.

    Attributes:
        max_side: the longer side of the maps [px]; 0: that of the images. Images are resized to it (never enlarged),
            both sides rounded to multiples of 32.
        size: (width, height) of the maps [px], for all views, instead of ``max_side``.
        passes: "auto": a reference with one source, or of a scene of three views, may pass the network several times
            (``inference.passes``); "single": never.
        batch: references at once; None: 1 on a CPU, 4 on a GPU. Halved when memory runs out.
        cached_images: how many decoded images are kept for the views that share them, at most.
        max_memory: bytes that the estimation may take, on a GPU those of the GPU; a view that needs more is estimated
            in tiles (``inference.tiles``). None: 70 % of what is free.

    Raises:
        InputError: if a value is out of its range.
    """

    max_side: int = 640
    size: tuple[int, int] | None = None
    passes: Literal["auto", "single"] = "auto"
    batch: int | None = None
    cached_images: int = 64
    max_memory: int | None = None

    def __post_init__(self) -> None:
        for name, value, least in [
            ("max_side", self.max_side or None, SIDE_MULTIPLE),
            ("size", min(self.size) if self.size else None, SIDE_MULTIPLE),
            ("batch", self.batch, 1),
            ("cached_images", self.cached_images, 1),
            ("max_memory", self.max_memory, 1),
        ]:
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, found {value}")
        if self.passes not in ("auto", "single"):
            raise InputError(f"passes must be auto or single, found {self.passes!r}")

    def settings(self) -> dict[str, object]:
        """Return the options that change the numbers of an estimate, and not only its speed."""
        left_out = ["batch", "cached_images"]
        left_out += ["max_side"] if self.size is not None else []
        left_out += ["max_memory"] if self.max_memory is None else []  # results of older versions do not have it
        return {name: value for name, value in asdict(self).items() if name not in left_out}
