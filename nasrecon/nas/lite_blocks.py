"""The learned parts of ``lite``, in the order of their use; ``lite.py`` puts them together."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from nasrecon.nas.convolution import Convolution, ConvolutionSequence, convolve
from nasrecon.nas.encoder import CHANNELS
from nasrecon.nas.volume import pixel_rays

_NOISE = 0.01  # contrast [image units, -1 to 1] that counts as noise


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, dilation: int = 1) -> ConvolutionSequence:
    """Return convolution, batch normalisation and ReLU; an even kernel with stride 2 covers pixels 2i-1 ... 2i+2."""
    padding = (kernel - 1) // 2 * dilation
    return ConvolutionSequence(
        nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def conv3(
    inputs: int, outputs: int, kernel: int | tuple = 3, stride: int | tuple = 1, padding: int | tuple = 1
) -> ConvolutionSequence:
    """Return 3D convolution, batch normalisation and ReLU."""
    return ConvolutionSequence(
        nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False),
        nn.BatchNorm3d(outputs),
        nn.ReLU(inplace=True),
    )


def zero_bias(layer: nn.Conv2d) -> None:
    """Start a layer without a bias of its output."""
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)


def fold_normalization_of_sum(norm: nn.BatchNorm2d | nn.BatchNorm3d, *layers: Convolution) -> None:
    """Fold a normalisation into the convolutions whose sum it normalises; the first of them has a bias."""
    assert norm.running_var is not None and norm.running_mean is not None and layers[0].bias is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    with torch.no_grad():
        for layer in layers:
            layer.weight.mul_(scale.view(-1, *[1] * (layer.weight.dim() - 1)))
        layers[0].bias.sub_(norm.running_mean).mul_(scale).add_(norm.bias)


def resize_like(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Resample x linearly to the size of ``like``, pixel corners aligned."""
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    return F.interpolate(x, size=like.shape[2:], mode=mode, align_corners=False)


class Residual(nn.Module):
    """ReLU of the input plus two convolutions of it."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.first = conv(channels, channels, 3, 1, dilation)
        self.second = ConvolutionSequence(*list(conv(channels, channels, 3, 1, dilation))[:2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer, normalization = self.second
        assert isinstance(layer, nn.Conv2d)
        if isinstance(normalization, nn.Identity):
            return convolve(layer, self.first(x), plus=x, rectify="relu")
        return F.relu(self.second(self.first(x)).add_(x), inplace=True)


def normalize_contrast(image: torch.Tensor) -> torch.Tensor:
    """Return the grey image minus its local mean, over its local deviation and noise: (N, 3, H, W) -> (N, 1, H, W)."""
    grey = image.float().mean(dim=1, keepdim=True)
    difference = grey - _local_mean(grey)
    return (difference / (_local_mean(difference**2).clamp_min(0).sqrt() + _NOISE)).clamp(-3, 3)


def _local_mean(x: torch.Tensor) -> torch.Tensor:
    """Return the mean over windows of 20x20 px every 4 px, linear between them."""
    means = F.avg_pool2d(F.avg_pool2d(x, 4), 5, 1, 2, count_include_pad=False)
    return F.interpolate(means, x.shape[-2:], mode="bilinear", align_corners=False)


class FeaturePyramid(nn.Module):
    """Encoder features and image -> context at 1/8 and 1/4, and matching features at 1/8 and 1/4.

    The texture path sees the image freed of local brightness and contrast: on a nearly white wall its faint texture is
    what depth can be measured by.
    """

    context8, context4 = 64, 48
    matching8, matching4 = 16, 32

    def __init__(self) -> None:
        super().__init__()
        _, at4, at8, at16 = CHANNELS
        self.from16, self.from8 = nn.Conv2d(at16, self.context8, 1), nn.Conv2d(at8, self.context8, 1)
        self.from4, self.down_to_4 = nn.Conv2d(at4, self.context4, 1), nn.Conv2d(self.context8, self.context4, 1)
        self.smooth8, self.smooth4 = conv(self.context8, self.context8), conv(self.context4, self.context4)
        self.match8 = nn.Conv2d(self.context8, self.matching8, 1)
        self.match4 = nn.Conv2d(self.context4, self.matching4, 1)
        self.texture4 = nn.Sequential(conv(16, 32), conv(32, 32))
        self.texture8 = nn.Sequential(conv(32, 48, 4, 2), conv(48, 48))
        self.add4, self.add8 = nn.Conv2d(32, self.matching4, 1), nn.Conv2d(48, self.matching8, 1)

    def forward(self, image: torch.Tensor, encoded: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return context (N, 64, H/8, W/8) and (N, 48, H/4, W/4), matching features (N, 16, ...) and (N, 32, ...)."""
        _, at4, at8, at16 = encoded
        context8 = self.smooth8(convolve(self.from8, at8, plus=resize_like(convolve(self.from16, at16), at8)))
        context4 = self.smooth4(convolve(self.from4, at4, plus=resize_like(convolve(self.down_to_4, context8), at4)))
        texture4 = self.texture4(F.pixel_unshuffle(normalize_contrast(image), 4))
        texture8 = self.texture8(texture4)
        matching8 = convolve(self.match8, context8, plus=convolve(self.add8, texture8))
        matching4 = convolve(self.match4, context4, plus=convolve(self.add4, texture4))
        return context8, context4, matching8, matching4


class Hourglass(nn.Module):
    """3D encoder and decoder over the volume, the context added on entry: (B, G, D, h, w) -> (B, 32, D, h, w)."""

    channels = 32

    def __init__(self, groups: int, context: int) -> None:
        super().__init__()
        a, b, c, d = self.channels, 48, 64, 64
        self.enter, self.from_context = nn.ModuleList(conv3(groups, a)), nn.Conv2d(context, a, 1)  # no sequence: the
        # context is added before the normalisation
        self.level2 = nn.Sequential(conv3(a, b, 3, 2), conv3(b, b))
        self.level4 = nn.Sequential(conv3(b, c, 3, 2), conv3(c, c))
        self.level8 = nn.Sequential(conv3(c, d, 3, 2), conv3(d, d))
        self.up4, self.up2, self.up1 = conv3(d, c, 1, 1, 0), conv3(c, b, 1, 1, 0), conv3(b, a, 1, 1, 0)
        self.out4, self.out2, self.out1 = conv3(c, c), conv3(b, b), conv3(a, a)

    def forward(self, volume: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        first, *rest = self.enter
        assert isinstance(first, nn.Conv3d)
        full = convolve(first, volume).add_(self.from_context(context)[:, :, None])
        for layer in rest:
            full = layer(full)
        half = self.level2(full)
        quarter = self.level4(half)
        quarter = self.out4(resize_like(self.up4(self.level8(quarter)), quarter).add_(quarter))
        half = self.out2(resize_like(self.up2(quarter), half).add_(half))
        full = resize_like(self.up1(half), full).add_(full)
        return self.out1(full)

    def fold_normalization(self) -> None:
        """Fold the normalisation behind the sum of volume and context into both convolutions."""
        first, norm, rectify = self.enter
        assert isinstance(first, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d)
        fold_normalization_of_sum(norm, self.from_context, first)
        self.enter = nn.ModuleList([first, nn.Identity(), rectify])


class ContextAggregation(nn.Module):
    """Sharpen the cost with the reference's context (paper, section 3.1): a 2D U-Net with the planes as channels."""

    def __init__(self, planes: int, context: int) -> None:
        super().__init__()
        a, b, c = 96, 128, 160
        self.enter = nn.Sequential(conv(planes + context, a), Residual(a))
        self.down2 = nn.Sequential(conv(a, b, 4, 2), Residual(b))
        self.down4 = nn.Sequential(conv(b, c, 4, 2), Residual(c), Residual(c, 2))
        self.up2, self.up1 = conv(c, b, 1), conv(b, a, 1)
        self.leave2, self.leave1 = Residual(b), Residual(a)
        self.out = nn.Conv2d(a, planes, 3, 1, 1)
        nn.init.normal_(self.out.weight, std=1e-3)
        zero_bias(self.out)

    def forward(self, cost: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return the sharper cost (B, D, h, w), float32."""
        full = self.enter(torch.cat([cost.to(context.dtype), context], dim=1))
        half = self.down2(full)
        half = self.leave2(resize_like(self.up2(self.down4(half)), half).add_(half))
        full = self.leave1(resize_like(self.up1(half), full).add_(full))
        return cost + convolve(self.out, full).float()


class NormalHead(nn.Module):
    """Normals (B, 3, h, w), not yet unit, from slices of the volume and world coordinates (paper, section 3.2)."""

    def __init__(self, channels: int, context: int, width: int = 48) -> None:
        super().__init__()
        pool = lambda i, o: conv3(i, o, (2, 3, 3), (2, 1, 1), (0, 1, 1))  # noqa: E731
        self.pool = nn.Sequential(pool(channels + 3, 16), pool(16, 32), pool(32, 32))
        self.from_context = nn.Conv2d(context, width, 1)
        self.from_slice = nn.Conv2d(32, width, 3, 1, 1, bias=False)
        self.body = nn.Sequential(
            nn.ReLU(inplace=True), conv(width, width, 3, 1, 2), conv(width, width, 3, 1, 4), conv(width, 32)
        )
        self.out = nn.Conv2d(32, 3, 1)

    def forward(
        self, r: torch.Tensor, volume: torch.Tensor, ref_K: torch.Tensor, context: torch.Tensor
    ) -> torch.Tensor:
        B, _, D, h, w = r.shape
        labels = torch.arange(D, device=r.device, dtype=torch.float32).clamp_min(0.5)
        rays = pixel_rays(ref_K, h, w).view(B, 3, 1, h, w)
        world = (rays / (2 * labels.view(1, 1, D, 1, 1))).clamp(-1, 1)
        slices = self.pool[1:](self._pool_first(world, r, volume))
        N = slices.shape[2]
        first = convolve(self.from_slice, slices.transpose(1, 2).flatten(0, 1)).view(B, N, -1, h, w)
        first = (first + self.from_context(context)[:, None]).flatten(0, 1)
        return self.out(self.body(first)).view(B, N, 3, h, w).sum(dim=1)

    def _pool_first(self, *parts: torch.Tensor) -> torch.Tensor:
        """Apply the first pooling to the parts (B, ., D, h, w), channel after channel, without joining them."""
        first = self.pool[0]
        assert isinstance(first, nn.Sequential)
        layer: Any = first[0]
        total, start = None, 0
        for part in parts:
            inputs = slice(start, start + part.shape[1])
            part = part.to(parts[1].dtype).contiguous(memory_format=torch.channels_last_3d)
            total, start = convolve(layer, part, plus=total, inputs=inputs), inputs.stop
        return first[1:](total)


class Consistency(nn.Module):
    """One step of refinement: label and normal that agree with each other and with the matching near the surface.

    The module is recurrent: a step takes the hidden state of the step before. What does not change from step to step
    enters once (``enter_fixed``).
    """

    hidden = 96
    outputs = 7  # step of the label; logits of the two hypotheses; step of the normal (3); log of the spread

    def __init__(self, fixed: int, changing: int) -> None:
        super().__init__()
        a, b, c = self.hidden, 96, 128
        self.fixed = ConvolutionSequence(conv(fixed, a), nn.Conv2d(a, a, 3, 1, 1))
        self.changing = nn.Conv2d(changing, a, 3, 1, 1, bias=False)
        self.recur = nn.Conv2d(a, a, 1, bias=False)
        self.enter = nn.Sequential(nn.BatchNorm2d(a), nn.ReLU(inplace=True))
        self.down8 = nn.Sequential(conv(a, b, 4, 2), Residual(b))
        self.down16 = nn.Sequential(conv(b, c, 4, 2), Residual(c), Residual(c, 2))
        self.up8, self.up4 = conv(c, b, 1), conv(b, a, 1)
        self.leave8, self.leave4 = conv(b, b), Residual(a)
        self.out = nn.Conv2d(a, self.outputs, 3, 1, 1)
        nn.init.zeros_(self.recur.weight)
        nn.init.normal_(self.out.weight, std=1e-3)
        zero_bias(self.out)

    def enter_fixed(self, x: torch.Tensor) -> torch.Tensor:
        """Return the share (B, 96, h, w) of what is the same in all steps."""
        return self.fixed(x)

    def forward(
        self, fixed: torch.Tensor, x: torch.Tensor, hidden: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the outputs (B, 7, h, w), float32, and the hidden state (B, 96, h, w).

        Args:
            fixed: of ``enter_fixed``. x: (B, changing, h, w). hidden: of the step before; None in the first.
        """
        state = convolve(self.changing, x, plus=fixed)
        if hidden is not None:
            state = convolve(self.recur, hidden, plus=state)
        quarter = self.enter(state)
        eighth = self.down8(quarter)
        eighth = self.leave8(resize_like(self.up8(self.down16(eighth)), eighth).add_(eighth))
        state = self.leave4(resize_like(self.up4(eighth), quarter).add_(quarter))
        return convolve(self.out, state).float(), state

    def fold_normalization(self) -> None:
        """Fold the normalisation behind the sum of three convolutions into them."""
        norm, rectify = self.enter
        last = self.fixed[1]
        assert isinstance(norm, nn.BatchNorm2d) and isinstance(last, nn.Conv2d)
        fold_normalization_of_sum(norm, last, self.changing, self.recur)
        self.enter = nn.Sequential(nn.Identity(), rectify)


class Sharpener(nn.Module):
    """The residual of the labels at full size, in shares of the local slope of the image: (B, H, W) -> (B, H, W).

    It works on 2x2 pixels at a time, beside the encoder's features at stride 2.
    """

    reach = 2.0  # labels

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.body = nn.Sequential(conv(4 + 12 + CHANNELS[0], width), conv(width, width))
        self.out = nn.Conv2d(width, 4, 1)
        nn.init.zeros_(self.out.weight)
        zero_bias(self.out)

    def forward(self, label: torch.Tensor, image: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        four = F.pixel_unshuffle(label[:, None], 2)
        mean = four.mean(dim=1, keepdim=True)
        for window, padding in (((7, 1), (3, 0)), ((1, 7), (0, 3))):
            mean = F.avg_pool2d(mean, window, 1, padding, count_include_pad=False)
        parts = [(four - mean).clamp(-4, 4), F.pixel_unshuffle(image, 2), half]
        parts = [part.to(half.dtype, memory_format=torch.channels_last) for part in parts]
        step = self.out(self.body(torch.cat(parts, dim=1))).float()
        return label + F.pixel_shuffle(self.reach * torch.tanh(step / self.reach), 2)[:, 0]
