"""Upsampling of ``surface.py`` and the hypotheses of ``heads.py`` on a CPU without gradients, compiled by Numba.

The functions compute what those of the same names compute, for one item of a batch, float32.
"""

from __future__ import annotations

import numpy as np
import torch

from nasrecon.compiled import compiled
from nasrecon.nas.lite_kernels import over_rows

_compiled = compiled(fastmath={"reassoc", "contract", "nsz"})  # sums are vectorised


def upsample_distribution(prob: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Upsample plane probabilities (D, h, w) by 2 with the logits (9, 2h, 2w), and find their two best hypotheses.

    Returns:
        the probabilities (2h, 2w, D), the labels (2, 2h, 2w) and the masses (2, 2h, 2w) of the hypotheses.
    """
    coarse = prob.permute(1, 2, 0).contiguous().numpy()
    weights = mask.float().softmax(dim=0).contiguous().numpy()
    _, height, width = weights.shape
    fine = np.empty((height, width, coarse.shape[2]), np.float32)
    labels, masses = np.empty((2, 2, height, width), np.float32)
    over_rows(height, _upsample_rows, coarse, weights, fine, labels, masses)
    return torch.from_numpy(fine), torch.from_numpy(labels), torch.from_numpy(masses)


def upsample_planes(
    label: torch.Tensor, slopes: torch.Tensor, normal: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Upsample label (h, w), slopes (2, h, w) and normals (3, h, w) by 4 with the logits (9 * 16, h, w).

    Returns:
        label (4h, 4w) and unit normal (3, 4h, 4w).
    """
    h, w = label.shape
    planes = torch.cat([label[None], slopes, normal]).permute(1, 2, 0).contiguous().numpy()
    logits = mask.permute(1, 2, 0).reshape(h, w, 9, 16).float().clone()
    outside = -torch.inf
    logits[0, :, :3], logits[-1, :, 6:], logits[:, 0, ::3], logits[:, -1, 2::3] = outside, outside, outside, outside
    weights = logits.softmax(dim=2).numpy()
    fine_label, fine_normal = np.empty((4 * h, 4 * w), np.float32), np.empty((3, 4 * h, 4 * w), np.float32)
    over_rows(h, _plane_rows, planes, weights, fine_label, fine_normal)
    return torch.from_numpy(fine_label), torch.from_numpy(fine_normal)


@_compiled
def _upsample_rows(first, last, coarse, weights, fine, labels, masses):  # type: ignore[no-untyped-def]
    h, w, D = coarse.shape
    for y in range(first, last):
        for x in range(fine.shape[1]):
            out = fine[y, x]
            out[:] = 0
            for k in range(9):
                i = min(max(y // 2 + k // 3 - 1, 0), h - 1)
                j = min(max(x // 2 + k % 3 - 1, 0), w - 1)
                near, weight = coarse[i, j], weights[k, y, x]
                for d in range(D):
                    out[d] += weight * near[d]
            best = _best(out, D, D)
            labels[0, y, x], masses[0, y, x] = _mean_about(out, best, D, D)
            second = _best(out, best, D)
            labels[1, y, x], masses[1, y, x] = _mean_about(out, second, best, D)


@_compiled
def _best(prob, taken, D):  # type: ignore[no-untyped-def]
    """Return the most probable plane, but for the seven about ``taken``, which count as impossible; D: none is."""
    best, most = 0, np.float32(-1)
    for d in range(D):
        p = np.float32(0) if taken < D and abs(d - taken) <= 3 else prob[d]
        if p > most:
            best, most = d, p
    return best


@_compiled
def _mean_about(prob, best, taken, D):  # type: ignore[no-untyped-def]
    """Return the mean label and the mass of the five planes about ``best``, without the seven about ``taken``."""
    mass = mean = np.float32(0)
    for d in range(max(best - 2, 0), min(best + 2, D - 1) + 1):
        p = np.float32(0) if taken < D and abs(d - taken) <= 3 else prob[d]
        mass += p
        mean += p * np.float32(d)
    return mean / max(mass, np.float32(1e-9)), mass


@_compiled
def _plane_rows(first, last, planes, weights, fine_label, fine_normal):  # type: ignore[no-untyped-def]
    h, w, _ = planes.shape
    sums = np.empty((4, 16), np.float32)
    right, below = np.empty(16, np.float32), np.empty(16, np.float32)
    for f in range(16):
        below[f], right[f] = np.float32((f // 4 - 1.5) / 4), np.float32((f % 4 - 1.5) / 4)
    for y in range(first, last):
        for x in range(w):
            sums[:] = 0
            for k in range(9):
                i, j = min(max(y + k // 3 - 1, 0), h - 1), min(max(x + k % 3 - 1, 0), w - 1)
                near, share = planes[i, j], weights[y, x, k]
                step_x, step_y = np.float32(k % 3 - 1), np.float32(k // 3 - 1)
                for f in range(16):
                    weight = share[f]
                    value = near[0] + near[1] * (right[f] - step_x) + near[2] * (below[f] - step_y)
                    sums[0, f] += weight * value
                    sums[1, f] += weight * near[3]
                    sums[2, f] += weight * near[4]
                    sums[3, f] += weight * near[5]
            for f in range(16):
                row, column = 4 * y + f // 4, 4 * x + f % 4
                fine_label[row, column] = sums[0, f]
                a, b, c = sums[1, f], sums[2, f], sums[3, f]
                scale = np.float32(1) / np.sqrt(max(a * a + b * b + c * c, np.float32(1e-12)))
                fine_normal[0, row, column], fine_normal[1, row, column] = a * scale, b * scale
                fine_normal[2, row, column] = c * scale
