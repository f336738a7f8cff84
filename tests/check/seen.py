"""Exact matches of a cloud of points that cameras on a bent path see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from plane_world import make_view

from nasrecon.geometry import transform
from nasrecon.matching.features import Features
from nasrecon.matching.matches import Matches, PairMatches
from nasrecon.types import Scene

POINTS = np.random.default_rng(0).uniform([-1, -0.8, 4], [1, 0.8, 7], size=(60, 3))


def bent_path() -> Scene:
    """Cameras on a bent path, all turned to ``POINTS``."""
    views = [
        make_view(
            f"{i}.png",
            640,
            480,
            500,
            (4 * np.sin(2 * i), -6 * (i - 4), 5 * np.cos(i)),
            (0.4 * (i - 4), 0.2 * np.sin(3 * i), 0.1 * i),
        )
        for i in range(9)
    ]
    return Scene(root=Path("x"), views=views)


def seen_by(scene: Scene, points: np.ndarray, noise_px: float = 0.0) -> Matches:
    """The matches of points (n, 3) that all views see, with noise of the pixels."""
    rng = np.random.default_rng(3)
    features = {}
    for i, view in enumerate(scene.views):
        pixels = view.camera.project(transform(view.cam_from_world, points))
        assert np.isfinite(pixels).all()
        features[i] = Features(
            pixels=pixels + noise_px * rng.normal(size=pixels.shape),
            descriptors=np.zeros((len(points), 0)),
            image_px_per_feature_px=1.0,
        )
    ids = np.stack([np.arange(len(points))] * 2, axis=1)
    pairs = []
    for i in features:
        for j in range(i + 1, len(features)):
            x, y = features[i].pixels, features[j].pixels
            moved = float(np.median(np.linalg.norm(y - x, axis=1)))
            pair = dict(
                ids=ids,
                x=x,
                y=y,
                count=len(ids),
                residual_px=max(noise_px, 1e-3),
                median_flow_px=moved,
                homography=None,
            )
            pairs.append(PairMatches(first=i, second=j, **pair))
    return Matches(views=tuple(features), features=features, pairs=tuple(pairs), tried=len(pairs))
