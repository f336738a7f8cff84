"""Labels, spread and confidence of distributions that can be written down."""

from __future__ import annotations

import numpy as np
import torch

from nasrecon.nas.heads import expected_label, label_spread, mass_near, sigma_from_spread
from nasrecon.nas.volume import depth_from_label


def test_mean_and_spread_of_random_distributions() -> None:
    prob = torch.rand(2, 64, 3, 5, generator=torch.Generator().manual_seed(0)).pow(4)
    prob = prob / prob.sum(1, keepdim=True)
    labels = np.arange(64)[None, :, None, None]
    weights = prob.double().numpy()
    mean = (weights * labels).sum(1)
    found = expected_label(prob)
    np.testing.assert_allclose(found, mean, rtol=1e-5)
    for about in (mean, mean + 3):
        expected = np.sqrt((weights * (labels - about[:, None]) ** 2).sum(1))
        spread = label_spread(prob, torch.from_numpy(about).float())
        np.testing.assert_allclose(spread, expected, rtol=1e-3)  # differences of squares up to 4000 in float32


def test_mass_near_counts_the_four_nearest_planes() -> None:
    prob = torch.arange(1.0, 11).view(1, 10, 1, 1) / 55
    for mean, planes in ((4.3, (3, 4, 5, 6)), (0.2, (0, 1, 2, 3)), (9.0, (6, 7, 8, 9)), (1.0, (0, 1, 2, 3))):
        expected = sum(p + 1 for p in planes) / 55
        torch.testing.assert_close(mass_near(prob, torch.full((1, 1, 1), mean)), torch.full((1, 1, 1), expected))


def test_sigma_is_the_spread_of_the_depths() -> None:
    """Depths of labels drawn about a mean spread as sigma says, to first order (spread / label = 1 %)."""
    label, spread, min_depth = 30.0, 0.3, torch.tensor([0.7])
    drawn = label + spread * torch.randn(200_000, generator=torch.Generator().manual_seed(0))
    depths = depth_from_label(drawn[None], min_depth, 64)
    sigma = sigma_from_spread(torch.full((1, 1, 1), spread), torch.full((1, 1, 1), label), min_depth, 64)
    torch.testing.assert_close(sigma.reshape(()), depths.std(), rtol=0.01, atol=0)


def test_sigma_grows_towards_infinity_and_stays_finite() -> None:
    label = torch.tensor([40.0, 5.0, 1.0, 0.5, 0.1, 0.0]).view(1, 1, -1)
    sigma = sigma_from_spread(torch.full_like(label, 0.2), label, torch.tensor([0.5]), 64).flatten()
    assert (sigma.diff() >= 0).all() and torch.isfinite(sigma).all()
    assert sigma[-1] == sigma[3] > sigma[2]


def test_labels_keep_their_precision_under_autocast() -> None:
    prob = torch.rand(1, 64, 4, 4, generator=torch.Generator().manual_seed(0)).softmax(1)
    exact = expected_label(prob), label_spread(prob, expected_label(prob))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = expected_label(prob), label_spread(prob, expected_label(prob))
    assert torch.equal(exact[0], mixed[0]) and torch.equal(exact[1], mixed[1])
