"""Averages under different poses and at different sizes: weights, pixels that are missing, honest spread."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import torch
import torch.nn.functional as F

from nasrecon.inference.ensemble import fuse_stages
from nasrecon.nas.network import Prediction

SIZE = (4, 6)


def says(depth: float, relative: float, normal: tuple[float, float, float] = (0.0, 0.0, -1.0)) -> Prediction:
    """The same everywhere; confidence is Laplace's, as ``lite`` has it. Z1 is 1.2 times the refined depth, Z2 1.1
    times."""
    full = torch.full((1, *SIZE), depth)
    normals = torch.tensor(normal).view(1, 3, 1, 1).expand(1, 3, *SIZE).clone()
    certain = torch.full_like(full, 1 - math.exp(-0.05 * math.sqrt(2) / relative))
    return Prediction(
        depth_initial=1.2 * full,
        depth=1.1 * full,
        normal=normals,
        refined_depth=full,
        refined_normal=normals.clone(),
        confidence=certain,
        sigma=relative * full,
    )


def test_one_prediction_stays_as_it_is() -> None:
    only = says(2.0, 0.1)
    assert fuse_stages([only], 8.0) is only


def test_the_same_twice_is_the_same() -> None:
    one = says(2.0, 0.1, (0.6, 0.0, -0.8))
    both = fuse_stages([one, one], 8.0)
    for field in fields(Prediction):
        torch.testing.assert_close(getattr(both, field.name), getattr(one, field.name))


def test_equally_sure_ones_meet_half_way_in_parallax() -> None:
    both = fuse_stages([says(2.0, 0.1, (0.6, 0.0, -0.8)), says(4.0, 0.1, (-0.6, 0.0, -0.8))], 8.0)
    middle = 2 / (1 / 2 + 1 / 4)
    for name, factor in (("depth_initial", 1.2), ("depth", 1.1), ("refined_depth", 1.0)):
        torch.testing.assert_close(getattr(both, name), torch.full((1, *SIZE), factor * middle))
    for normal in (both.normal, both.refined_normal):
        torch.testing.assert_close(normal, torch.tensor([0.0, 0, -1]).view(1, 3, 1, 1).expand_as(normal))


def test_the_one_that_is_surer_over_the_image_counts_more_at_every_pixel() -> None:
    # At pixel (0, 0) both are equally sure, elsewhere the first twice as much.
    first, second = says(2.0, 0.1), says(4.0, 0.2)
    second.sigma[0, 0, 0] = 0.1 * 4.0
    over_image = torch.tensor([0.1, math.exp(math.log(0.2) + math.log(0.5) / 24)]) ** -8
    at_pixel = torch.tensor([0.1, 0.2]) ** -2
    for both, corner, inside in (
        (fuse_stages([first, second], 8.0), over_image, over_image),
        (fuse_stages([first, second], 2.0, by_pixel=True), torch.ones(2), at_pixel),
    ):
        for place, weight in (((0, 0), corner), ((1, 1), inside)):
            weight = weight / weight.sum()
            expected = 1 / (weight * torch.tensor([1 / 2, 1 / 4])).sum()
            torch.testing.assert_close(both.refined_depth[0, *place], expected)


def test_pixels_without_depth_leave_the_word_to_the_others() -> None:
    first, second = says(2.0, 0.01), says(4.0, 0.5)
    for row, nothing in enumerate((0.0, -1.0, float("nan"), float("inf"))):
        first.refined_depth[0, row, 0] = nothing
    first.sigma[0, :, 0] = float("nan")
    first.normal[0, :, 0, 0] = float("nan")
    second.refined_depth[0, 3, 0] = float("nan")
    both = fuse_stages([first, second], 8.0)
    torch.testing.assert_close(both.refined_depth[0, :3, 0], torch.full((3,), 4.0))
    torch.testing.assert_close(both.sigma[0, :3, 0], torch.full((3,), 2.0))
    torch.testing.assert_close(both.confidence[0, :3, 0], second.confidence[0, :3, 0])
    assert both.refined_depth[0, 3, 0].isnan() and both.confidence[0, 3, 0] == 0
    assert torch.isfinite(both.refined_depth[0, :, 1:]).all() and torch.isfinite(both.normal).all()
    assert not both.normal[0, :, 3, 0].any()


def test_sigma_and_confidence_are_those_of_the_mixture(samples: int = 400_000) -> None:
    predictions = [says(2.0, 0.02), says(2.12, 0.03)]
    both = fuse_stages(predictions, 8.0)
    weight = torch.tensor([0.02, 0.03]) ** -8
    weight = (weight / weight.sum()).numpy()
    # Laplace's distributions of the relative depth around each prediction, their standard deviations as given.
    average = float(both.refined_depth[0, 0, 0])
    rng = np.random.default_rng(0)
    which = rng.choice(2, size=samples, p=weight)
    center = np.array([2.0, 2.12])[which] / average
    drawn = rng.laplace(center, np.array([0.02, 0.03])[which] / math.sqrt(2))
    near, spread = (np.abs(drawn - 1) < 0.05).mean(), np.sqrt(((drawn - 1) ** 2).mean())
    assert abs(float(both.confidence[0, 0, 0]) - near) < 5e-3
    assert abs(float(both.sigma[0, 0, 0]) / average / spread - 1) < 1e-2
    alone = sum(w * float(p.confidence[0, 0, 0]) for w, p in zip(weight, predictions, strict=True))
    assert near < alone - 0.01


def test_normals_come_out_unit() -> None:
    both = fuse_stages([says(2.0, 0.1, (0.6, 0.0, -0.8)), says(2.0, 0.2, (0.0, 0.8, -0.6))], 8.0)
    torch.testing.assert_close(both.refined_normal.norm(dim=1), torch.ones(1, *SIZE))
    weight = 2.0**8
    expected = F.normalize(torch.tensor([weight * 0.6, 0.8, -weight * 0.8 - 0.6]), dim=0)
    torch.testing.assert_close(both.refined_normal[0, :, 0, 0], expected)
