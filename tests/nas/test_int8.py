"""Convolutions of 8-bit integers: near those of floating-point numbers, and only where they are asked for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasrecon.nas import int8
from nasrecon.nas.convolution import convolve, flop_formulas
from nasrecon.nas.int8 import in_use, int8_convolutions, is_supported, suits
from nasrecon.nas.int8_kernels import round_values

needs_int8 = pytest.mark.skipif(not is_supported(), reason="this CPU has no instructions for 8-bit integers")

LAYERS = {
    "2d": lambda: nn.Conv2d(20, 40, 3, 1, 1),
    "stride and dilation": lambda: nn.Conv2d(20, 40, 3, 2, 2, 2, bias=False),
    "even kernel": lambda: nn.Conv2d(20, 40, 4, 2, 1),
    "1x1": lambda: nn.Conv2d(20, 70, 1),
    "3d": lambda: nn.Conv3d(20, 40, 3, 1, 1),
    "3d with stride": lambda: nn.Conv3d(20, 40, (2, 3, 3), (2, 1, 1), (0, 1, 1)),
}


def layer_and_input(kind: str) -> tuple[nn.Conv2d | nn.Conv3d, torch.Tensor]:
    torch.manual_seed(0)
    layer = LAYERS[kind]().requires_grad_(False)
    return layer, torch.randn(2, layer.in_channels, *([6] if kind.startswith("3d") else []), 14, 18)


def assert_near(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """The steps of input and weights make errors of a hundredth of the output's deviation."""
    assert actual.shape == expected.shape
    error = (actual.float() - expected).abs()
    assert error.mean() < 0.012 * expected.std() and error.max() < 0.12 * expected.std()
    assert error.max() > 0  # what is compared was rounded


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("kind", list(LAYERS))
def test_integers_give_what_floats_give(kind: str, signed: bool, dtype: torch.dtype) -> None:
    layer, x = layer_and_input(kind)
    x = x if signed else x.relu()
    y = layer(x)
    plus = torch.randn_like(y)
    for rectify in ("none", "relu"):
        for added in (None, plus):
            expected = y if added is None else y + added
            expected = expected.relu() if rectify == "relu" else expected
            with torch.inference_mode(), torch.autocast("cpu", enabled=dtype != torch.float32), int8_convolutions():
                actual = convolve(layer, x, plus=added, rectify=rectify)
            assert actual.dtype == dtype
            assert_near(actual, expected)


@needs_int8
def test_what_is_added_stays_as_it_is() -> None:
    layer, x = layer_and_input("2d")
    plus = torch.randn(2, 40, 14, 18).contiguous(memory_format=torch.channels_last)
    before = plus.clone()
    with torch.inference_mode(), int8_convolutions():
        convolve(layer, x, plus=plus, rectify="relu")
    assert plus.equal(before)


@pytest.mark.parametrize("integers", [pytest.param(True, marks=needs_int8), False])
@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_parts_of_the_input_sum_up_to_the_whole(kind: str, integers: bool) -> None:
    torch.manual_seed(0)
    layer = (nn.Conv2d if kind == "2d" else nn.Conv3d)(40, 64, 3, 1, 1)
    x = torch.randn(1, 40, *([6] if kind == "3d" else []), 10, 12)
    expected = layer(x).detach()
    total = None
    with torch.inference_mode(), int8_convolutions() if integers else torch.no_grad():
        convolve(layer, x[:, :20], inputs=slice(0, 20))  # not what slice(0, 3) takes its weights from
        for inputs in (slice(0, 3), slice(3, 20), slice(20, 40)):
            total = convolve(layer, x[:, inputs], plus=total, inputs=inputs)
    assert total is not None
    if integers:
        assert_near(total, expected)
    else:
        torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-5)
    gradients = convolve(layer, x[:, :3], inputs=slice(0, 3)) + convolve(layer, x[:, 3:], inputs=slice(3, 40))
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
    assert gradients.requires_grad


@needs_int8
def test_weights_that_change_are_rounded_again() -> None:
    layer, x = layer_and_input("2d")
    with torch.inference_mode(), int8_convolutions():
        convolve(layer, x)
    with torch.no_grad():
        layer.weight.mul_(-2)
        assert layer.bias is not None
        layer.bias.add_(1)
    with torch.inference_mode(), int8_convolutions():
        assert_near(convolve(layer, x), layer(x))


@needs_int8
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_that_are_not_finite_reach_the_output(value: float, dtype: torch.dtype) -> None:
    layer, x = layer_and_input("2d")
    x[0, 3, 5, 6] = value
    with torch.inference_mode(), int8_convolutions():
        y = convolve(layer.to(dtype), x.to(dtype))
    assert not y[0, :, 5, 6].isfinite().any() and y[1].isfinite().all()


def test_integers_are_used_only_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = layer_and_input("2d")
    exact = layer(x)

    def used() -> bool:
        with torch.inference_mode():
            return in_use() or not torch.allclose(convolve(layer, x), exact, atol=1e-5)

    with int8_convolutions(), ThreadPoolExecutor(1) as pool:
        assert used() == is_supported()
        assert not pool.submit(used).result()
        torch.testing.assert_close(convolve(layer.requires_grad_(True), x), exact)
    assert not used()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    with int8_convolutions():
        assert not used()


def test_torch_without_the_operations_computes_in_floats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_vnni": True})
    monkeypatch.setattr(torch.ops, "onednn", None)
    int8._has_operations.cache_clear()
    try:
        assert not is_supported()
    finally:
        int8._has_operations.cache_clear()


def test_layers_of_few_products_stay_in_floats() -> None:
    assert suits(nn.Conv2d(32, 32, 3), 32) and suits(nn.Conv3d(16, 16, 3), 16) and suits(nn.Conv2d(96, 96, 1), 96)
    assert not suits(nn.Conv2d(32, 32, 3), 3)
    assert not suits(nn.Conv2d(96, 16, 1), 96)
    assert not suits(nn.Conv2d(32, 32, 3, groups=32), 32)


@needs_int8
@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_operations_are_counted_as_those_of_floats(kind: str) -> None:
    layer, x = layer_and_input(kind)
    counts = []
    for context in (torch.no_grad(), int8_convolutions()):
        with torch.inference_mode(), context, FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
            convolve(layer, x, plus=layer(x))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("count", [1, 5000, 3_000_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("low", "high"), [(-1.0, 3.0), (0.0, 0.01), (-5.0, -1.0), (2.0, 2.0), (0.0, 0.0)])
def test_values_are_rounded_to_the_nearest_step(count: int, dtype: torch.dtype, low: float, high: float) -> None:
    x = (torch.rand(count, generator=torch.Generator().manual_seed(0)) * (high - low) + low).to(dtype)
    out = np.empty(count, np.uint8)
    scale, zero = round_values(x.view(torch.int32 if dtype == torch.float32 else torch.int16).numpy(), out)
    assert 0 <= zero <= 255
    assert scale == pytest.approx((max(float(x.max()), 0) - min(float(x.min()), 0)) / 255 or 1)
    error = (out.astype(np.float64) - zero) * scale - x.double().numpy()
    assert np.abs(error).max() <= 1.001 * scale * (0.5 if zero in (0, 255) else 1)
    assert np.abs(error).mean() <= 0.3 * scale


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_the_scale_of_values_that_are_not_finite_is_infinite(value: float, dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, 10_000).to(dtype)
    x[7000] = value
    scale, _ = round_values(
        x.view(torch.int32 if dtype == torch.float32 else torch.int16).numpy(), np.empty(10_000, np.uint8)
    )
    assert scale == np.inf
