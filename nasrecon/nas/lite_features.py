"""What ``lite`` computes of an image alone, and the memory of it: an image is a view's reference and others' source."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch

from nasrecon.nas.int8 import in_use

CACHED_IMAGES = 16
"""Number of images whose features stay in memory between calls."""


@dataclass(frozen=True, eq=False)
class Features:
    """What is computed of an image alone: context and matching features at 1/8 and 1/4, the encoder's at 1/2."""

    context8: torch.Tensor
    context4: torch.Tensor
    matching8: torch.Tensor
    matching4: torch.Tensor
    half: torch.Tensor

    def select(self, index: slice) -> Features:
        """Return the features of some images."""
        return Features(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def join(cls, parts: Sequence[Features]) -> Features:
        """Return the features of several images as those of a batch."""
        return cls(*(torch.cat([getattr(part, name) for part in parts]) for name in cls.__dataclass_fields__))


class FeatureCache:
    """The features of the images seen last, by the digest of their pixels; several threads may use it."""

    def __init__(self) -> None:
        self.known: OrderedDict[bytes, Future[Features]] = OrderedDict()
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> FeatureCache:
        return FeatureCache()

    def get(self, images: torch.Tensor, encode: Callable[[torch.Tensor], Features]) -> list[Features]:
        """Return the features of each of (N, 3, H, W) images; ``encode`` is called for those that are not known.

        On a CPU it is called with one image at a time: what a layer gives stays in the processor's cache, and the
        peak of memory is lower. What another thread computes now is waited for.
        """
        keys = [_digest(image) for image in images]
        with self._lock:
            missing = {key: i for i, key in enumerate(keys) if key not in self.known}
            self.known |= {key: Future() for key in missing}
            all_features = [self.known[key] for key in keys]
            for key in keys:
                self.known.move_to_end(key)
            while len(self.known) > CACHED_IMAGES:
                self.known.popitem(last=False)
        at_once = 1 if images.device.type == "cpu" else len(images)
        try:
            for first in range(0, len(missing), at_once):
                indices = list(missing.values())[first : first + at_once]
                new = encode(images[indices])
                for i, index in enumerate(indices):
                    all_features[index].set_result(new.select(slice(i, i + 1)))
        except BaseException as error:
            self._forget({key: all_features[i] for key, i in missing.items() if not all_features[i].done()}, error)
            raise
        return [features.result() for features in all_features]

    def _forget(self, failed: dict[bytes, Future[Features]], error: BaseException) -> None:
        """Let the threads that wait for features fail with the error, and forget these."""
        with self._lock:
            for key, future in failed.items():
                future.set_exception(error)
                self.known.pop(key, None)


def _digest(image: torch.Tensor) -> bytes:
    """Return a digest of an image (3, H, W) and of its size, the device and the precision that it is computed with."""
    bits = image.detach().cpu().contiguous().numpy()
    setting = f"{bits.shape} {image.device} {torch.is_autocast_enabled(image.device.type)} {in_use()}"
    return hashlib.sha1(bits.data, usedforsecurity=False).digest() + setting.encode()
