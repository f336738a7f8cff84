"""Folding BatchNorm changes the arithmetic, not the result."""

from __future__ import annotations

import copy

import pytest
import torch
from nas.setups import angle_deg, drawn_network, random_batch, relative_difference, run
from torch import nn

from nasrecon.errors import NasReconError
from nasrecon.nas.fold import fold_batchnorm
from nasrecon.nas.lite import LiteNetwork

NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, NORMS) for module in network.modules())


def stirred(network: nn.Module) -> nn.Module:
    """Give BatchNorm parameters and statistics that are far from doing nothing."""
    g = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, NORMS):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.3 * torch.randn(shape, generator=g))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=g))
            nn.init.uniform_(module.weight, 0.7, 1.3, generator=g)
            nn.init.uniform_(module.bias, -0.2, 0.2, generator=g)
    return network.eval()


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_one_pair(dim: int, bias: bool, affine: bool) -> None:
    conv, norm = ((nn.Conv2d, nn.BatchNorm2d), (nn.Conv3d, nn.BatchNorm3d))[dim - 2]
    g = torch.Generator().manual_seed(0)
    pair = nn.Sequential(conv(3, 5, 3, bias=bias), norm(5, affine=affine)).eval()
    pair[1].running_mean.normal_(generator=g)
    pair[1].running_var.uniform_(0.2, 3, generator=g)
    if affine:
        nn.init.uniform_(pair[1].weight, 0.5, 2, generator=g)
        nn.init.uniform_(pair[1].bias, -1, 1, generator=g)
    folded = fold_batchnorm(pair)
    x = torch.randn(2, 3, *[6] * dim, generator=g)
    assert norms(folded) == 0
    torch.testing.assert_close(run(folded, x), run(pair, x), atol=1e-5, rtol=1e-5)


def test_papers_network() -> None:
    network, batch = drawn_network(planes=16), random_batch(1, 1, 64, 64)
    before = copy.deepcopy(network.state_dict())
    folded = fold_batchnorm(network)
    assert norms(network) > 80 and norms(folded) == 0
    found, expected = run(folded, batch), run(network, batch)
    for name in ("depth_initial", "depth", "refined_depth"):
        assert relative_difference(getattr(found, name), getattr(expected, name)) < 1e-3, name
    for name in ("normal", "refined_normal"):
        assert angle_deg(getattr(found, name), getattr(expected, name)).max() < 0.05, name
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items()), "original untouched"


def test_house_network() -> None:
    torch.manual_seed(0)
    network, batch = stirred(LiteNetwork()), random_batch(1, 2, 64, 64)
    folded = fold_batchnorm(network)
    assert norms(network) > 10 and norms(folded) == 0
    found, expected = run(folded, batch), run(network, batch)
    assert relative_difference(found.refined_depth, expected.refined_depth) < 1e-3
    assert angle_deg(found.refined_normal, expected.refined_normal).max() < 0.1


def test_training_mode_is_refused() -> None:
    with pytest.raises(NasReconError, match="eval"):
        fold_batchnorm(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).train())
