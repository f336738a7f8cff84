"""The memory that an estimation may take, and what follows from it: the pixels of one pass, the images that are cached.

A view takes memory for its images and maps, which stay in the machine's memory, and for the pass through the network,
on the device of the network. Where the pass does not fit, the view is estimated in tiles (``inference.tiles``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from nasrecon.errors import InputError
from nasrecon.inference.loader import Item
from nasrecon.inference.options import EstimateOptions
from nasrecon.inference.sizes import padded_side, working_size
from nasrecon.machine import free_memory
from nasrecon.nas.network import Network
from nasrecon.nas.precision import device_of
from nasrecon.ranks import current
from nasrecon.types import Scene

PASS_BYTES = {"zncc": 700, "lite": 2000, "paper": 5000}
OTHER_PASS_BYTES, SOURCE_BYTES = 2500, 60
"""Memory of a pass for each pixel of the reference, and in addition for each source; measured on a CPU were 630
(zncc), 920 (lite; 620 in bfloat16) and 5000 (paper) bytes in all with 4 sources. The features of 16 images that lite
keeps take up to 800 more (400 in bfloat16), and what is freed in pieces is not used again at once."""
MAP_BYTES = 45
"""Memory for each pixel of a view outside of the pass: its maps while they are put together, and its image."""
RUNTIME_BYTES = 600_000_000
"""Memory of the program without images and maps: libraries, weights, the scene."""
FREE_SHARE = 0.7
"""The part of the free memory that is used where no limit is given."""
MIN_TILE_SIDE = 192
"""Smaller tiles hold too little of the scene [px]."""
_CACHE_SHARE, _WRITES_SHARE = 0.1, 0.1


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the estimation by one network may take.

    Attributes:
        room: bytes for the images, the maps and the pass of a view; on a GPU for the pass alone; None: unlimited.
        on_cpu: whether the network computes on the CPU.
        pass_bytes: bytes of a pass for each pixel of the reference, without its sources.
        most_pixels: a pass over more pixels ran out of memory; None: none did.
    """

    room: int | None
    on_cpu: bool = True
    pass_bytes: int = OTHER_PASS_BYTES
    most_pixels: int | None = None

    @classmethod
    def of(cls, network: Network, options: EstimateOptions) -> Memory:
        """Return what ``options.max_memory`` leaves, or by default a share of what is free now."""
        device = device_of(network)
        on_cpu = device.type != "cuda"
        if options.max_memory is not None:
            room = options.max_memory - (RUNTIME_BYTES if on_cpu else 0)
        else:
            free = free_memory() if on_cpu else torch.cuda.mem_get_info(device)[0]
            # The job's processes on this machine share its memory; each has a GPU of its own.
            room = None if free is None else int(FREE_SHARE * free / (current().size_here if on_cpu else 1))
        return cls(room=room, on_cpu=on_cpu, pass_bytes=PASS_BYTES.get(network.name, OTHER_PASS_BYTES))

    def pass_pixels(self, width: int, height: int, sources: int) -> int | None:
        """Return how many pixels one pass of a view of width x height [px] may have; None: any number."""
        if self.room is None:
            return self.most_pixels
        left = self.room - (view_bytes(width, height, sources) if self.on_cpu else 0)
        pixels = max(0, left) // (self.pass_bytes + SOURCE_BYTES * sources)
        return pixels if self.most_pixels is None else min(pixels, self.most_pixels)

    def fitting(self, items: Sequence[Item], network: Network) -> Sequence[Item]:
        """Return the first items that pass the network at once within the limit; at least one."""
        pixels, count = 0, 0
        for ref, sources in items:
            pixels += pass_size(ref.view.camera.width, ref.view.camera.height, network)
            most = self.pass_pixels(ref.view.camera.width, ref.view.camera.height, len(sources))
            if most is not None and pixels > most:
                break
            count += 1
        return items[: max(1, count)]

    def at_most(self, pixels: int) -> Memory:
        """Return the memory with passes of at most so many pixels."""
        return replace(self, most_pixels=pixels)

    def cached_images(self, pixels: int, most: int) -> int:
        """Return how many images of so many pixels are cached."""
        return self._count(_CACHE_SHARE, 3 * pixels, 1, most)

    def waiting_writes(self, pixels: int, most: int) -> int:
        """Return how many estimates of so many pixels may wait to be written."""
        return self._count(_WRITES_SHARE, MAP_BYTES * pixels, 0, most)

    def _count(self, share: float, size: int, least: int, most: int) -> int:
        return most if self.room is None else max(least, min(most, int(share * self.room / size)))


def view_bytes(width: int, height: int, sources: int) -> int:
    """Return the bytes of a view's maps and of its sources' images."""
    return width * height * (MAP_BYTES + 3 * sources)


def pass_size(width: int, height: int, network: Network) -> int:
    """Return the pixels that pass the network for a reference of width x height [px]."""
    return padded_side(width, network) * padded_side(height, network)


def largest_size(scene: Scene, options: EstimateOptions) -> tuple[int, int]:
    """Return the size [px] of the largest maps of a scene with views."""
    return max((working_size(view.camera, options) for view in scene.views), key=lambda side: side[0] * side[1])


def refuse_too_large(scene: Scene, network: Network, options: EstimateOptions, sources: int) -> None:
    """Refuse sizes whose maps and smallest tiles do not fit into memory, before any work.

    Raises:
        InputError: with the memory that is needed and the memory that there is.
    """
    if not scene.views:
        return
    (width, height), memory = largest_size(scene, options), Memory.of(network, options)
    pixels = memory.pass_pixels(width, height, sources)
    least = min(MIN_TILE_SIDE**2, pass_size(width, height, network))
    if pixels is None or pixels >= least:
        return
    needed = least * (memory.pass_bytes + SOURCE_BYTES * sources)
    needed += view_bytes(width, height, sources) if memory.on_cpu else 0
    if options.max_memory is None:
        have, advice = f"{FREE_SHARE:.0%} of the free memory are {(memory.room or 0) / 1e9:.3g} GB", ""
    else:
        needed += RUNTIME_BYTES if memory.on_cpu else 0
        have, advice = f"--max-memory is {options.max_memory / 1e9:.3g} GB", ", or a larger --max-memory"
    raise InputError(
        f"maps of {width}x{height} need {needed / 1e9:.3g} GB of memory or more, {have}; use a smaller --size or "
        f"--max-side{advice}"
    )
