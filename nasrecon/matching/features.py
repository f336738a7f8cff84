"""SIFT features of one image, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from nasrecon.ingest.images import read_view
from nasrecon.types import View

SIDE_PX = 640


MAX_FEATURES = 1500


DESCRIPTOR = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class Features:
    """The features of one image.

    Attributes:
        pixels: (n, 2) in the image as its ``View.camera`` sees it (undistorted, full size), half-pixel centres [px].
        descriptors: (n, 128) float32, unit length.
        image_px_per_feature_px: full width over the width of the image that was searched.
    """

    pixels: np.ndarray
    descriptors: np.ndarray
    image_px_per_feature_px: float


def make_extractor() -> Any:
    import pycolmap

    pycolmap.logging.minloglevel = 1  # its informational lines on stderr are not for our users
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.sift.max_num_features, options.sift.first_octave = MAX_FEATURES, 0
    options.sift.max_num_orientations = 1
    return pycolmap.FeatureExtractor.create(options, pycolmap.Device.cpu)


def extract_features(view: View, extractor: Any) -> Features:
    scale = min(1.0, SIDE_PX / max(view.camera.width, view.camera.height))
    width, height = (max(16, round(side * scale)) for side in (view.camera.width, view.camera.height))
    rgb, _ = read_view(view, width, height)
    grey = np.round(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    keypoints, descriptors = extractor.extract_from_uint8_array(grey)
    pixels = np.array([(point.x, point.y) for point in keypoints], dtype=np.float64).reshape(-1, 2)
    values = np.array(descriptors.data, dtype=np.float32).reshape(len(pixels), DESCRIPTOR)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)
    image_px_per_feature_px = np.array([view.camera.width / width, view.camera.height / height])
    return Features(
        pixels=pixels * image_px_per_feature_px,
        descriptors=values,
        image_px_per_feature_px=float(image_px_per_feature_px.mean()),
    )


class FeatureStore:
    """Features of views, and matches of pairs of them, that several steps share; each is computed once.

    A view is known by its name, image and camera without the pose, so a scene with other poses finds its features.
    """

    def __init__(self) -> None:
        self._extractor: Any = None
        self._features: dict[bytes, Features] = {}
        self.pairs: dict[tuple[bytes, bytes], Any] = {}

    @staticmethod
    def key(view: View) -> bytes:
        """Return what the features of a view depend on."""
        camera = view.camera
        about = (
            f"{view.name}|{view.image.path}|{view.image.video_frame}|{view.image.is_turned}|{view.image.lens}|"
            f"{camera.width}x{camera.height}|"
        )
        return about.encode() + camera.K.tobytes()

    def features(self, view: View) -> Features:
        """Return the features of a view.

        Raises:
            InputError: if its image cannot be read.
        """
        key = self.key(view)
        if key not in self._features:
            self._extractor = self._extractor or make_extractor()
            self._features[key] = extract_features(view, self._extractor)
        return self._features[key]
