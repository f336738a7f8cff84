"""From radiance to what a camera writes: exposure, white balance, gamma, vignetting, blur, noise, JPEG."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    """Draw a uniform tensor on the generator's device."""
    return torch.rand(shape, generator=generator, device=generator.device) * (high - low) + low


def expose(
    radiance: torch.Tensor, generator: torch.Generator, gamma: tuple[float, float] = (0.45, 1.0)
) -> torch.Tensor:
    """Turn linear radiance (B, V, 3, H, W) into images in [0, 1] with every view's own exposure, optics and noise.

    The views of one scene share a tone curve and differ in exposure, colour balance, sharpness and noise, as one
    camera's do. ``gamma`` bounds the exponent of the tone curve.
    """
    B, V, _, H, W = radiance.shape
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    white = radiance.flatten(1).float().kthvalue(int(0.92 * radiance[0].numel()), dim=1).values.clamp_min(0.02)
    image = radiance / white.view(B, 1, 1, 1, 1) * r((B, 1, 1, 1, 1), 0.6, 1.1)
    image = image * torch.exp(r((B, V, 1, 1, 1), -0.15, 0.15) + r((B, V, 3, 1, 1), -0.05, 0.05))
    image = image.clamp(1e-4, 1) ** r((B, 1, 1, 1, 1), *gamma)
    y, x = torch.meshgrid(
        torch.linspace(-0.5, 0.5, H, device=image.device),
        torch.linspace(-0.5, 0.5, W, device=image.device),
        indexing="ij",
    )
    image = image * (1 - r((B, 1, 1, 1, 1), 0, 0.5) * (x**2 + y**2))
    # A blend with a blurred copy: from sharp to about a pixel of blur.
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=image.device) / 16
    flat = F.pad(image.flatten(0, 1), (2, 2, 2, 2), mode="replicate")
    weights = (kernel[:, None] * kernel[None]).expand(3, 1, 5, 5)
    blurred = F.conv2d(flat, weights, groups=3).view_as(image)
    share = r((B, V, 1, 1, 1), -0.3, 0.9).clamp_min(0)
    image = image * (1 - share) + blurred * share
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    level = r((B, V, 1, 1, 1), 0, 1) ** 2 * 0.03
    image = image + noise * level * (0.4 + image.clamp_min(0).sqrt())
    return jpeg(image.clamp(0, 1), r((B, V), 0.0, 1.0), generator)


def blur_views(image: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Blur a share of the scenes as a moving or badly focused camera does, every view in its own way.

    Args:
        image: (B, V, 3, H, W). share: of the B scenes.

    Returns:
        The images, blurred by Gaussians of 0.5 to 3 px along a direction of each view's own and as much or less across
        it, with some new noise.
    """
    B, V, C, H, W = image.shape
    r = lambda shape, low, high: uniform(shape, low, high, generator)  # noqa: E731
    chosen = r((B,), 0, 1) < share
    along = torch.exp(r((B, 1), math.log(0.5), math.log(2.2)) + r((B, V), -0.35, 0.35))
    across = along * r((B, V), 0.15, 1)
    angle, level = r((B, V), 0, math.pi), r((B, V, 1, 1, 1), 0, 1) ** 2 * 0.03
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    if not chosen.any():
        return image
    reach = 6
    y, x = torch.meshgrid(*[torch.arange(-reach, reach + 1.0, device=image.device)] * 2, indexing="ij")
    c, s = angle.cos()[..., None, None], angle.sin()[..., None, None]
    u, v = (c * x + s * y) / along[..., None, None], (c * y - s * x) / across[..., None, None].clamp_min(0.3)
    kernel = torch.exp(-(u**2 + v**2) / 2)[chosen]
    kernel = (kernel / kernel.sum((-1, -2), keepdim=True)).flatten(0, 1)[:, None].repeat_interleave(C, dim=0)
    flat = F.pad(image[chosen].flatten(0, 1), (reach,) * 4, mode="replicate").flatten(0, 1)[None]
    blurred = F.conv2d(flat, kernel, groups=len(kernel)).view(-1, V, C, H, W)
    out = image.clone()
    out[chosen] = blurred + (noise * level)[chosen]
    return out


def jpeg(image: torch.Tensor, strength: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Quantise 8x8 DCT blocks of (B, V, 3, H, W) as JPEG does; strength (B, V) from 0 (none) to 1 (quality about 30).

    Sides that are no multiple of 8 are padded for it. One view in three is left alone.
    """
    B, V, C, H, W = image.shape
    device = image.device
    n = torch.arange(8, device=device)
    basis = torch.cos(math.pi * (2 * n[None] + 1) * n[:, None] / 16) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    padded = F.pad(image.flatten(0, 1), (0, -W % 8, 0, -H % 8), mode="replicate")
    h, w = padded.shape[-2] // 8, padded.shape[-1] // 8
    blocks = padded.view(B, V, C, h, 8, w, 8).permute(0, 1, 2, 3, 5, 4, 6)
    coefficients = basis @ blocks @ basis.T
    frequency = (n[:, None] + n[None]).float()
    step = (1 + frequency * 1.2) * 0.02
    keep = torch.rand((B, V), generator=generator, device=device) < 1 / 3
    step = step * (strength * ~keep).view(B, V, 1, 1, 1, 1, 1).clamp_min(1e-4)
    coefficients = (coefficients / step).round() * step
    blocks = basis.T @ coefficients @ basis
    out = blocks.permute(0, 1, 2, 3, 5, 4, 6).reshape(B, V, C, h * 8, w * 8)[..., :H, :W]
    return out.clamp(0, 1)
