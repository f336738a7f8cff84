"""Matching of the house network on a CPU, compiled by Numba: sampling and correlation in one loop, no warped features.

The functions compute what those of the same names in ``lite_matching.py`` compute, for one item of a batch, without
gradients. Arrays are float32; features have their channels last, (h, w, C). Indices of inner loops are unsigned:
without the wrap-around of negative indices the loops are vectorised.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from nasrecon.compiled import compiled

_compiled = compiled(fastmath={"reassoc", "contract", "nsz"}, error_model="python")  # sums are vectorised


def correlate_near(
    features: np.ndarray, homographies: np.ndarray, weights: np.ndarray, inv_depth: np.ndarray, groups: int
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate at a few depths of each pixel; average over the sources with their weights.

    Args:
        features: (1 + S, h, w, C), the reference first. homographies: (S, 3, 4), columns K_src R inv(K_ref) and
            K_src t. weights: (S, h, w). inv_depth: (N, h, w). groups: of channels whose products are averaged.

    Returns:
        the correlation (groups, N, h, w); the weight (h, w) of the sources, of the N depths the mean.
    """
    N, h, w = inv_depth.shape
    out, visible = np.empty((groups, N, h, w), np.float32), np.empty((h, w), np.float32)
    over_rows(h, _correlate_rows, features, homographies, weights, inv_depth, out, visible)
    return out, visible


def plane_similarity(
    features: np.ndarray, homography: np.ndarray, inv_depth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correlate the reference with a source on all planes.

    Args:
        features: (2, h, w, C): reference and source. homography: (3, 4). inv_depth: (D,).

    Returns:
        the mean product of the features (D, h, w), 0 outside the source; the share (h, w) of planes inside it.
    """
    _, h, w, _ = features.shape
    out, inside = np.empty((len(inv_depth), h, w), np.float32), np.empty((h, w), np.float32)
    over_rows(h, _similarity_rows, features, homography, inv_depth, out, inside)
    return out, inside


def plane_volume(
    features: np.ndarray, homographies: np.ndarray, weights: np.ndarray, inv_depth: np.ndarray
) -> np.ndarray:
    """Multiply the reference's features with those of the sources on all planes; average with the views' weights.

    Args:
        features: (1 + S, h, w, C), the reference first. homographies: (S, 3, 4). weights: (S, h, w).
        inv_depth: (D,).

    Returns:
        the volume (D, h, w, C).
    """
    _, h, w, C = features.shape
    out = np.empty((len(inv_depth), h, w, C), np.float32)
    over_rows(h, _volume_rows, features, homographies, weights, inv_depth, out)
    return out


def weigh_channels(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the sums over the channels of values (..., C), bfloat16 as uint16, times weights (C,): (...), float32."""
    out = np.empty(values.shape[:-1], np.float32)
    over_rows(out.size, _weigh_voxels, values.reshape(-1), weights, out.reshape(-1))
    return out


def over_rows(rows: int, kernel: Callable[..., None], *arrays: np.ndarray) -> None:
    """Call kernel(first, last, *arrays) for parts of the rows, in as many threads as torch uses."""
    threads = torch.get_num_threads()
    edges = [rows * i // threads for i in range(threads + 1)]
    if threads == 1:
        return kernel(0, rows, *arrays)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda first, last: kernel(first, last, *arrays), edges[:-1], edges[1:]))


@_compiled
def _locate(H, y, inv_depth, size, start, weights, inside):  # type: ignore[no-untyped-def]
    """Say where the pixels (0 ... w-1, y) of a row fall in the source's features of size (h, w, C).

    Fills start (w,), the index of the first of four neighbours in the flat features, a valid one also for depths that
    are not numbers; weights (4, w), bilinear, 0 outside; inside (w,), 1 or 0.
    """
    h, w, C = size
    zero, one = np.float32(0), np.float32(1)
    right, bottom = np.float32(w - 1), np.float32(h - 1)
    slack = np.float32(4.8e-7) * max(right, bottom)
    for x in range(w):
        X, d = np.float32(x), inv_depth[x]
        z = H[2, 0] * X + H[2, 1] * y + H[2, 2] + H[2, 3] * d
        scale = one / max(z, np.float32(1e-6))
        u = (H[0, 0] * X + H[0, 1] * y + H[0, 2] + H[0, 3] * d) * scale
        v = (H[1, 0] * X + H[1, 1] * y + H[1, 2] + H[1, 3] * d) * scale
        within = (u >= -slack) & (u <= right + slack) & (v >= -slack) & (v <= bottom + slack)
        hit = within & (z > np.float32(1e-6))
        share = one if hit else zero
        u, v = min(max(u, zero), right) if hit else zero, min(max(v, zero), bottom) if hit else zero
        i, j = min(np.int32(u), np.int32(w - 2)), min(np.int32(v), np.int32(h - 2))
        u, v = u - np.float32(i), v - np.float32(j)
        start[x], inside[x] = (j * np.int32(w) + i) * np.int32(C), share
        weights[0, x], weights[1, x] = (one - u) * (one - v) * share, u * (one - v) * share
        weights[2, x], weights[3, x] = (one - u) * v * share, u * v * share


@_compiled
def _correlate_rows(first, last, features, homographies, weights, inv_depth, out, visible):  # type: ignore[no-untyped-def]
    (groups, N, h, w), S, C = out.shape, len(homographies), features.shape[3]
    flat, size, right, down = features.reshape(-1), C // groups, np.uint64(C), np.uint64(w * C)
    start, inside = np.empty((S, N, w), np.int32), np.empty(w, np.float32)
    bilinear, weight_sum = np.empty((S, N, 4, w), np.float32), np.empty((N, w), np.float32)
    sums = np.empty((N, C), np.float32)
    for y in range(first, last):
        weight_sum[:] = np.float32(1e-3)
        for s in range(S):
            for n in range(N):
                _locate(homographies[s], np.float32(y), inv_depth[n, y], (h, w, C), start[s, n], bilinear[s, n], inside)
                weight_sum[n] += weights[s, y] * inside
                for corner in bilinear[s, n]:
                    corner *= weights[s, y]
        for x in range(w):
            for n in range(N):
                sums[n] = 0
                for s in range(S):
                    at, share = np.uint64((1 + s) * h * w * C + start[s, n, x]), bilinear[s, n, :, x]
                    a, b, c, d = share[0], share[1], share[2], share[3]
                    for k in range(right):
                        upper = a * flat[at + k] + b * flat[at + right + k]
                        sums[n, k] += upper + c * flat[at + down + k] + d * flat[at + down + right + k]
            for n in range(N):
                scale = np.float32(1) / (weight_sum[n, x] * np.float32(size))
                for g in range(groups):
                    total, at = np.float32(0), np.uint64((y * w + x) * C + g * size)
                    for k in range(np.uint64(size)):
                        total += flat[at + k] * sums[n, np.uint64(g * size) + k]
                    out[g, n, y, x] = total * scale
        visible[y] = 0
        for n in range(N):
            visible[y] += weight_sum[n] / np.float32(N)


@_compiled
def _similarity_rows(first, last, features, homography, inv_depth, out, share):  # type: ignore[no-untyped-def]
    (_, h, w, C), D = features.shape, len(inv_depth)
    flat, depths, right, down = features.reshape(-1), np.empty(w, np.float32), np.uint64(C), np.uint64(w * C)
    start, inside, bilinear = np.empty(w, np.int32), np.empty(w, np.float32), np.empty((4, w), np.float32)
    for y in range(first, last):
        share[y] = 0
        for n in range(D):
            depths[:] = inv_depth[n]
            _locate(homography, np.float32(y), depths, (h, w, C), start, bilinear, inside)
            share[y] += inside / np.float32(D)
            for x in range(w):
                ref, at, total = np.uint64((y * w + x) * C), np.uint64(h * w * C + start[x]), np.float32(0)
                a, b, c, d = bilinear[0, x], bilinear[1, x], bilinear[2, x], bilinear[3, x]
                for k in range(right):
                    upper = a * flat[at + k] + b * flat[at + right + k]
                    lower = c * flat[at + down + k] + d * flat[at + down + right + k]
                    total += flat[ref + k] * (upper + lower)
                out[n, y, x] = total / np.float32(C)


@_compiled
def _volume_rows(first, last, features, homographies, weights, inv_depth, out):  # type: ignore[no-untyped-def]
    (_, h, w, C), D = features.shape, len(inv_depth)
    flat, depths, shape = features.reshape(-1), np.empty(w, np.float32), (h, w, C)
    start, inside, bilinear = np.empty(w, np.int32), np.empty(w, np.float32), np.empty((4, w), np.float32)
    weight_sum, sums = np.empty(w, np.float32), np.empty((w, C), np.float32)
    for y in range(first, last):
        row = flat[y * w * C : (y + 1) * w * C]
        for n in range(D):
            depths[:] = inv_depth[n]
            weight_sum[:], sums[:] = np.float32(1e-3), 0
            for s in range(len(homographies)):
                _locate(homographies[s], np.float32(y), depths, shape, start, bilinear, inside)
                source = flat[(1 + s) * h * w * C : (2 + s) * h * w * C]
                for x in range(w):
                    weight = weights[s, y, x] * inside[x]
                    weight_sum[x] += weight
                    upper = source[start[x] : start[x] + 2 * C]
                    lower = source[start[x] + w * C : start[x] + (w + 2) * C]
                    a, b = bilinear[0, x] * weight, bilinear[1, x] * weight
                    c, d, total = bilinear[2, x] * weight, bilinear[3, x] * weight, sums[x]
                    for k in range(C):
                        total[k] += a * upper[k] + b * upper[C + k] + c * lower[k] + d * lower[C + k]
            for x in range(w):
                voxel, total, scale = out[n, y, x], sums[x], np.float32(1) / weight_sum[x]
                ref = row[x * C : (x + 1) * C]
                for k in range(C):
                    voxel[k] = total[k] * ref[k] * scale


@_compiled
def _weigh_voxels(first, last, values, weights, out):  # type: ignore[no-untyped-def]
    C = np.uint64(len(weights))
    bits = np.empty(len(weights), np.uint32)
    numbers = bits.view(np.float32)
    for i in range(first, last):
        start, total = np.uint64(i) * C, np.float32(0)
        for k in range(C):
            bits[k] = np.uint32(values[start + k]) << np.uint32(16)
        for k in range(C):
            total += numbers[k] * weights[k]
        out[i] = total
