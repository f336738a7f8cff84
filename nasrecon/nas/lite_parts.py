"""The learned parts of the house network, in the order of their use; ``lite.py`` puts them together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from nasrecon.nas.volume import pixel_rays


def _conv(i: int, o: int, k: int = 3, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    pad = (k - 1) // 2 * dilation
    return nn.Sequential(
        nn.Conv2d(i, o, k, stride, pad, dilation, bias=False), nn.BatchNorm2d(o), nn.ReLU(inplace=True)
    )


def _conv3(i: int, o: int, k: int | tuple = 3, stride: int | tuple = 1, pad: int | tuple = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv3d(i, o, k, stride, pad, bias=False), nn.BatchNorm3d(o), nn.ReLU(inplace=True))


class Residual(nn.Module):
    """conv-BN-ReLU, conv-BN, plus the input, ReLU."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = _conv(channels, channels, 3, 1, dilation)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, dilation, dilation, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(x + self.second(self.first(x)))


class Features(nn.Module):
    """Image (B, 3, H, W) in [-1, 1] -> matching features (B, C, h, w) and context (B, 32, h, w).

    Beside the colours the network sees the grey image freed of local brightness and contrast. Downsampling uses
    even kernels, so that feature pixel i covers image pixels 4i ... 4i + 3.
    """

    def __init__(self, channels: int = 32) -> None:
        super().__init__()
        self.at2 = nn.Sequential(
            nn.Conv2d(16, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True), Residual(16)
        )
        self.at4 = nn.Sequential(_conv(16, 32, 4, 2), Residual(32), Residual(32))
        self.at8 = nn.Sequential(_conv(32, 48, 4, 2), Residual(48), Residual(48))
        self.at16 = nn.Sequential(_conv(48, 64, 4, 2), Residual(64), Residual(64, 2), Residual(64, 4))
        self.from16, self.from8, self.from4 = nn.Conv2d(64, 48, 1), nn.Conv2d(48, 48, 1), nn.Conv2d(32, 48, 1)
        self.smooth8, self.smooth4 = _conv(48, 48), _conv(48, 48)
        self.matching, self.context = nn.Conv2d(48, channels, 1), nn.Conv2d(48, 32, 1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        half = self.at2(F.pixel_unshuffle(torch.cat([image, _local_contrast(image)], dim=1), 2))
        quarter = self.at4(half)
        eighth = self.at8(quarter)
        top = self.from16(self.at16(eighth))
        top = self.smooth8(_resize_like(top, eighth) + self.from8(eighth))
        top = self.smooth4(_resize_like(top, quarter) + self.from4(quarter))
        return self.matching(top), self.context(top)


def _local_contrast(image: torch.Tensor, window: int = 9) -> torch.Tensor:
    """Grey image minus its local mean, over its local standard deviation: (B, 3, H, W) -> (B, 1, H, W), about [-2, 2]."""
    grey = image.float().mean(dim=1, keepdim=True)
    blur = lambda x: F.avg_pool2d(F.pad(x, (window // 2,) * 4, mode="replicate"), window, 1)  # noqa: E731
    mean = blur(grey)
    spread = (blur(grey**2) - mean**2).clamp_min(0).sqrt()
    return ((grey - mean) / (spread + 0.03)).clamp(-3, 3)


def _resize_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    return F.interpolate(x, size=like.shape[2:], mode=mode, align_corners=False)


class Hourglass(nn.Module):
    """3D encoder and decoder over the volume: (B, 16, D, h, w) -> (B, 16, D, h, w)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.level1 = _conv3(groups, 16)
        self.level2 = nn.Sequential(_conv3(16, 32, 3, 2), _conv3(32, 32))
        self.level4 = nn.Sequential(_conv3(32, 48, 3, 2), _conv3(48, 48), _conv3(48, 48))
        self.up_half, self.up_full = _conv3(48, 32, 1, 1, 0), _conv3(32, 16, 1, 1, 0)
        self.out_half, self.out_full = _conv3(32, 32), _conv3(16, 16)
        self.from_belief = nn.Conv3d(2, 16, 3, 1, 1, bias=False)
        nn.init.zeros_(self.from_belief.weight)

    def forward(self, x: torch.Tensor, told: torch.Tensor, belief: torch.Tensor | None = None) -> torch.Tensor:
        """``told`` (B, 16, h, w) is added on every plane before the first normalisation, and what the belief says there."""
        full = self.level1[0](x) + told[:, :, None]
        if belief is not None:
            full = full + self.from_belief(belief.to(full.dtype))
        full = self.level1[1:](full)
        half = self.level2(full)
        low = self.level4(half)
        half = self.out_half(half + _resize_like(self.up_half(low), half))
        return self.out_full(full + _resize_like(self.up_full(half), full))


class ContextAggregation(nn.Module):
    """Sharpen each slice of the cost with the reference's context, weights shared over planes (paper, section 3.1).

    The context's share of the first convolution is the same on all planes and computed once.
    """

    def __init__(self, context: int, width: int = 16) -> None:
        super().__init__()
        self.from_context = nn.Conv2d(context, width, 3, 1, 1)
        self.from_cost = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.body = nn.Sequential(
            nn.ReLU(inplace=True), _conv(width, width, 3, 1, 2), _conv(width, width, 3, 1, 4), _conv(width, width)
        )
        self.out = nn.Conv2d(width, 1, 1)

    def forward(self, cost: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        B, D, h, w = cost.shape
        first = self.from_cost(cost.reshape(B * D, 1, h, w)).view(B, D, -1, h, w)
        first = (first + self.from_context(context)[:, None]).flatten(0, 1)
        return cost + self.out(self.body(first)).view(B, D, h, w)


class NormalHead(nn.Module):
    """Normals (B, 3, h, w), not yet unit, from slices of the volume and their world coordinates (paper, section 3.2)."""

    def __init__(self, channels: int, context: int, width: int = 48) -> None:
        super().__init__()
        pool = lambda i, o: _conv3(i, o, (2, 3, 3), (2, 1, 1), (0, 1, 1))  # noqa: E731
        self.pool = nn.Sequential(pool(channels + 3, 16), pool(16, 32), pool(32, 32))
        self.from_context = nn.Conv2d(context, width, 1)
        self.from_slice = nn.Conv2d(32, width, 3, 1, 1, bias=False)
        self.body = nn.Sequential(
            nn.ReLU(inplace=True), _conv(width, width, 3, 1, 2), _conv(width, width, 3, 1, 4), _conv(width, 32, 3, 1, 8)
        )
        self.out = nn.Conv2d(32, 3, 1)

    def forward(
        self, r: torch.Tensor, volume: torch.Tensor, ref_K: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        B, _, D, h, w = r.shape
        labels = torch.arange(D, device=r.device, dtype=torch.float32).clamp_min(0.5)
        rays = pixel_rays(ref_K, h, w).view(B, 3, 1, h, w)
        world = (rays / (2 * labels.view(1, 1, D, 1, 1))).clamp(-1, 1)
        world = world.contiguous(memory_format=torch.channels_last_3d)
        slices = self.pool(torch.cat([world.to(r.dtype), r, volume.to(r.dtype)], dim=1))
        N = slices.shape[2]
        first = self.from_slice(slices.transpose(1, 2).flatten(0, 1)).view(B, N, -1, h, w)
        first = (first + self.from_context(context)[:, None]).flatten(0, 1)
        return self.out(self.body(first)).view(B, N, 3, h, w).sum(dim=1)


class Consistency(nn.Module):
    """One step of refinement: label and normal that agree with each other and with the matching near the surface.

    Input (B, channels, h, w); output: step of the label, of the normal (3), log of the relative spread, mask features.
    """

    def __init__(self, channels: int, width: int = 48) -> None:
        super().__init__()
        self.enter = nn.Sequential(_conv(channels, width), Residual(width))
        self.down8 = nn.Sequential(_conv(width, 64, 4, 2), Residual(64))
        self.down16 = nn.Sequential(_conv(64, 64, 4, 2), Residual(64), Residual(64, 2))
        self.up8, self.up4 = _conv(64, 64), _conv(64, width)
        self.leave = Residual(width)
        self.out = nn.Conv2d(width, 5, 3, 1, 1)
        nn.init.normal_(self.out.weight, std=1e-3)
        nn.init.zeros_(self.out.bias)
        self.from_hint = nn.Conv2d(5, width, 3, 1, 1, bias=False)
        nn.init.zeros_(self.from_hint.weight)

    def forward(
        self, x: torch.Tensor, told: torch.Tensor, hint: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``hint`` (B, 5, h, w): what the coarser pass says of label (difference, relative difference) and normal.

        ``told`` (B, width, h, w) is added before the first normalisation.
        """
        quarter = self.enter[0][0](x) + told
        if hint is not None:
            quarter = quarter + self.from_hint(hint.to(quarter.dtype))
        quarter = self.enter[1](self.enter[0][1:](quarter))
        eighth = self.down8(quarter)
        top = self.down16(eighth)
        eighth = self.up8(eighth + _resize_like(top, eighth))
        state = self.leave(quarter + self.up4(_resize_like(eighth, quarter)))
        return self.out(state), state
