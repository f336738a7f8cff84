"""Convolutions that add and rectify: equal to the separate operations, with and without gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nasrecon.nas.convolution import ConvolutionSequence, convolve, flop_formulas

_RECTIFIERS = {"none": lambda y: y, "relu": F.relu, "relu6": F.relu6}


def layer_and_input(kind: str) -> tuple[nn.Conv2d | nn.Conv3d, torch.Tensor]:
    """A layer with large weights, so that ReLU6 cuts at both ends, and its input."""
    torch.manual_seed(0)
    layer: nn.Conv2d | nn.Conv3d = {
        "2d": lambda: nn.Conv2d(8, 16, 3, 2, 1),
        "depthwise": lambda: nn.Conv2d(8, 8, 3, 1, 1, groups=8),
        "dilated, no bias": lambda: nn.Conv2d(8, 16, 3, 1, 2, 2, bias=False),
        "3d": lambda: nn.Conv3d(8, 16, 3, 2, 1),
    }[kind]()
    with torch.no_grad():
        layer.weight.mul_(8)
    return layer, torch.randn(2, 8, *([7] if kind == "3d" else []), 12, 10)


@pytest.mark.parametrize("rectify", list(_RECTIFIERS))
@pytest.mark.parametrize("kind", ["2d", "depthwise", "dilated, no bias", "3d"])
@pytest.mark.parametrize("adds", [False, True])
def test_one_operation_equals_three(kind: str, rectify: str, adds: bool) -> None:
    layer, x = layer_and_input(kind)
    y = layer(x).detach()
    plus = torch.randn_like(y) * 4 if adds else None
    expected = _RECTIFIERS[rectify](y if plus is None else y + plus)
    with torch.inference_mode():
        torch.testing.assert_close(convolve(layer, x, plus=plus, rectify=rectify), expected, rtol=1e-4, atol=1e-5)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        rounded = convolve(layer, x, plus=plus, rectify=rectify)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), expected, rtol=0.03, atol=0.15)
    y = convolve(layer, x, plus=plus, rectify=rectify)
    torch.testing.assert_close(y, expected)
    assert y.requires_grad
    with torch.no_grad():
        precise = convolve(layer.double(), x.double(), plus=None if plus is None else plus.double(), rectify=rectify)
    torch.testing.assert_close(precise.float(), expected, rtol=1e-4, atol=1e-5)


def test_zeros_before_the_kernel_pad_the_far_sides() -> None:
    layer, x = layer_and_input("2d")
    expected = F.conv2d(F.pad(x, (0, 1, 0, 1)), layer.weight, layer.bias, 2)
    with torch.inference_mode():
        torch.testing.assert_close(convolve(layer, x, kernel_padding=1), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(convolve(layer, x, kernel_padding=1), expected, rtol=1e-4, atol=1e-5)


def test_weights_that_change_are_cast_again() -> None:
    layer, x = layer_and_input("2d")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        convolve(layer, x)
    other, _ = layer_and_input("2d")
    with torch.no_grad():
        other.weight.mul_(-1)
        layer.load_state_dict(other.state_dict())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(convolve(layer, x), convolve(other, x))


def test_layers_made_in_inference_mode_work() -> None:
    with torch.inference_mode():
        layer, x = layer_and_input("2d")
        for _ in range(2):
            torch.testing.assert_close(convolve(layer, x), layer(x), rtol=1e-4, atol=1e-5)
            with torch.autocast("cpu", torch.bfloat16):
                torch.testing.assert_close(convolve(layer, x).float(), layer(x).float(), rtol=0.03, atol=0.15)
            layer.weight.mul_(-1)


def test_sequences_rectify_only_behind_a_convolution() -> None:
    torch.manual_seed(0)
    layers = nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Identity(), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.Sigmoid(), nn.ReLU()
    x = torch.randn(1, 4, 6, 5)
    with torch.inference_mode():
        torch.testing.assert_close(ConvolutionSequence(*layers)(x.clone()), nn.Sequential(*layers)(x.clone()))


def test_sequences_apply_a_rectifier_once_and_have_gradients() -> None:
    rectifier = nn.ReLU(inplace=True)
    rectifier.register_forward_hook(lambda *_: pytest.fail("the convolution has rectified already"))
    sequence, x = ConvolutionSequence(nn.Conv2d(4, 4, 1), rectifier, nn.Conv2d(4, 4, 1)), torch.randn(1, 4, 6, 5)
    with torch.inference_mode():
        sequence(x)
    sequence(x).sum().backward()
    assert all(parameter.grad is not None for parameter in sequence.parameters())


def test_operations_are_counted() -> None:
    layer, x = layer_and_input("2d")
    expected = 2 * (2 * 16 * 6 * 5) * (8 * 9)
    for plus in (None, torch.zeros(2, 16, 6, 5)):
        with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=flop_formulas()) as counter:
            convolve(layer, x, plus=plus, rectify="relu")
        assert counter.get_total_flops() == expected
