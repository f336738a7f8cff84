"""Layers of the paper's network."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class CappedAvgPool(nn.Module):
    """Average over windows of ``window`` x ``window``, stride the same, or over the whole side where that is shorter.

    The cap serves images below 128 px, which the published network refuses; the rest comes out as there.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, (min(self.window, x.shape[-2]), min(self.window, x.shape[-1])))


class ResidualBlock(nn.Module):
    """x -> convolutions(x) + shortcut(x), with no ReLU after the sum."""

    def __init__(self, c_in: int, c_out: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv2d_norm(c_in, c_out, stride=stride, dilation=dilation), relu())
        self.conv2 = conv2d_norm(c_out, c_out, dilation=dilation)
        same = stride == 1 and c_in == c_out
        self.downsample = None if same else conv2d_norm(c_in, c_out, kernel=1, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(x)) + (x if self.downsample is None else self.downsample(x))


class UNet(nn.Module):
    """Four halvings and back, a double convolution at each size; sides from 16 px, multiples of nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inc = nn.ModuleDict({"conv": DoubleConv(channels, 64)})
        self.down1, self.down2, self.down3, self.down4 = (
            nn.ModuleDict({"mpconv": nn.Sequential(nn.MaxPool2d(2), DoubleConv(c_in, c_out))})
            for c_in, c_out in ((64, 128), (128, 256), (256, 512), (512, 512))
        )
        self.up1, self.up2, self.up3, self.up4 = (
            nn.ModuleDict({"conv": DoubleConv(c_in, c_out)})
            for c_in, c_out in ((1024, 256), (512, 128), (256, 64), (128, 64))
        )
        self.outc = nn.ModuleDict({"conv": nn.Conv2d(64, channels, 3, padding=1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.inc["conv"](x)
        skips = []
        for down in (self.down1, self.down2, self.down3, self.down4):
            skips.append(x)
            x = down["mpconv"](x)
        for up in (self.up1, self.up2, self.up3, self.up4):
            skip = skips.pop()
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            # Halving dropped the last row or column of an odd side: put it back as zeros.
            x = F.pad(x, (0, skip.shape[-1] - x.shape[-1], 0, skip.shape[-2] - x.shape[-2]))
            x = up["conv"](torch.cat([skip, x], dim=1))
        return self.outc["conv"](x)


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution with bias, BatchNorm, ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (c_in, c_out):
            layers += [nn.Conv2d(channels, c_out, 3, padding=1), nn.BatchNorm2d(c_out), relu()]
        self.conv = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)


def constant_half(features: torch.Tensor, weight: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that adds to a volume (B, C', D, h, w), in place, its share from ``features`` (B, C, h, w).

    The share is the zero-padded 3x3x3 convolution, ``weight`` (C', C, 3, 3, 3), of the features on every plane. Inner
    planes see three equal neighbours, so the taps along D add up; the two border planes lack one.
    """
    first, inner, last = (
        F.conv2d(features, taps.sum(2), padding=1) for taps in (weight[:, :, 1:], weight, weight[:, :, :2])
    )

    def add(volume: torch.Tensor) -> torch.Tensor:
        volume[:, :, 0] += first
        volume[:, :, 1:-1] += inner[:, :, None]
        volume[:, :, -1] += last
        return volume

    return add


def relu() -> nn.Module:
    return nn.ReLU(inplace=True)


def conv2d_norm(c_in: int, c_out: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return convolution without bias and BatchNorm; the padding keeps the size at stride 1."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out))


def conv3d_norm(
    c_in: int,
    c_out: int,
    kernel: tuple[int, int, int] = (3, 3, 3),
    stride: tuple[int, int, int] = (1, 1, 1),
    padding: tuple[int, int, int] = (1, 1, 1),
) -> nn.Sequential:
    """Return 3D convolution without bias and BatchNorm."""
    conv = nn.Conv3d(c_in, c_out, kernel, stride=stride, padding=padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm3d(c_out))


def residual_layer(c_in: int, c_out: int, blocks: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Return residual blocks in a row; the first changes channels and size."""
    first = ResidualBlock(c_in, c_out, stride, dilation)
    return nn.Sequential(first, *(ResidualBlock(c_out, c_out, 1, dilation) for _ in range(blocks - 1)))


def dilated_stack(channels: tuple[int, ...]) -> nn.Sequential:
    """Return seven 3x3 convolutions without bias, LeakyReLU after each, the last included.

    Dilations 1, 2, 4, 8, 16, 1, 1 in both stacks: for the normals the paper's text says 1, 2, 4, 6, 8, 1, 1, but the
    published networks were trained with these.
    """
    steps = zip(pairwise(channels), (1, 2, 4, 8, 16, 1, 1), strict=True)
    return nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=d, dilation=d, bias=False), nn.LeakyReLU(0.1, inplace=True))
            for (a, b), d in steps
        )
    )
