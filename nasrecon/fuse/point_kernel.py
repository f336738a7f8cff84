"""Points of views and their merging by cells, in loops that Numba compiles (``points.py``)."""

from __future__ import annotations

import numpy as np

from nasrecon.compiled import compiled

COLUMNS = 12
"""What a point has: its place [cells from the origin], normal and colour, its weight, the number of points in it, and
the number of views that agree."""

MERGED = COLUMNS + 3
"""What a merged point has: the same, and the normal of the first of its points."""

_WEIGHT, _COUNT, _SUPPORT = 9, 10, 11
_EMPTY = -1


@compiled()
def lift(
    taken: np.ndarray,
    depth: np.ndarray,
    normal: np.ndarray,
    sigma: np.ndarray,
    support: np.ndarray,
    rgb: np.ndarray,
    width: int,
    to_cells: np.ndarray,
    shift: np.ndarray,
    R: np.ndarray,
    cell: float,
    out: np.ndarray,
) -> None:
    """Write the pixels ``taken`` (n,) of a view as points (n, 12).

    Args:
        depth, sigma, support: (H * W,). normal, rgb: (H * W, 3), in the camera frame and uint8.
        to_cells, shift: (3, 3) and (3,), from (x z, y z, z) to the place in cells.
        R: (3, 3) float32, the rotation of world_from_cam. cell: the edge of a cell [scene units].
    """
    for i in range(len(taken)):
        k = taken[i]
        z = np.float64(depth[k])
        x, y = (k % width + 0.5) * z, (k // width + 0.5) * z
        weight = max(np.float64(sigma[k]) / cell, 1e-9)
        for axis in range(3):
            place = to_cells[axis, 0] * x + to_cells[axis, 1] * y + to_cells[axis, 2] * z
            out[i, axis] = np.float32(place + shift[axis])
            out[i, 3 + axis] = R[axis, 0] * normal[k, 0] + R[axis, 1] * normal[k, 1] + R[axis, 2] * normal[k, 2]
            out[i, 6 + axis] = np.float32(rgb[k, axis])
        out[i, _WEIGHT] = np.float32(1 / (weight * weight))
        out[i, _COUNT], out[i, _SUPPORT] = np.float32(1), np.float32(support[k])


@compiled()
def find_keys(points: np.ndarray, sigmas_in_cell: float, longest: float, hash: np.ndarray, out: np.ndarray) -> None:
    """Write one int64 for each of the points (n, 12), equal for points in one cell.

    Where sigma, 1 / sqrt(weight) [cells], is large, the cell is 2, 4, 8 or 16 times as long along the axis that is the
    nearest to the normal, and surfaces that face opposite ways have different cells.

    Args:
        hash: (4,) int64, factors of the cell's three places and of its direction and length.
    """
    for i in range(len(points)):
        sigma = 1 / np.sqrt(np.float64(points[i, _WEIGHT]))
        level = int(np.rint(np.log2(min(max(sigmas_in_cell * sigma, 1.0), longest))))
        n0, n1, n2 = abs(points[i, 3]), abs(points[i, 4]), abs(points[i, 5])
        axis = 1 if n1 > n0 else 0
        axis = 2 if n2 > max(n0, n1) else axis
        key = np.int64(0)
        if level > 0:
            key = np.int64(8 * level + 2 * axis + (1 if points[i, 3 + axis] > 0 else 0)) * hash[3]
        for k in range(3):
            place = np.float64(points[i, k])
            key += np.int64(np.floor(place * 2.0**-level if k == axis else place)) * hash[k]
        out[i] = key


@compiled()
def rehash(keys: np.ndarray, count: int, table: np.ndarray) -> None:
    """Fill an empty table (a power of two) with the numbers of the first ``count`` keys."""
    for i in range(count):
        slot = _slot(keys, table, keys[i])
        table[slot] = i


@compiled()
def merge(
    keys: np.ndarray, points: np.ndarray, cells: np.ndarray, merged: np.ndarray, count: int, table: np.ndarray
) -> int:
    """Merge points (n, 12) into those of the cells of their keys (n,): weighted means, sums, the largest support.

    Args:
        cells, merged: (m,) int64 and (m, 15): the keys and the points of the cells, the first ``count`` in use, with
            room for n more.
        table: int32, a power of two and larger than their number: the numbers of the cells by their keys, -1 where
            free.

    Returns:
        the number of cells.
    """
    for i in range(len(keys)):
        slot = _slot(cells, table, keys[i])
        cell = table[slot]
        if cell == _EMPTY:
            table[slot] = cell = count
            cells[cell] = keys[i]
            merged[cell, :COLUMNS] = points[i]
            merged[cell, COLUMNS:] = points[i, 3:6]
            count += 1
            continue
        weight = points[i, _WEIGHT]
        merged[cell, _WEIGHT] += weight
        share = weight / merged[cell, _WEIGHT]
        for k in range(_WEIGHT):
            merged[cell, k] += share * (points[i, k] - merged[cell, k])
        merged[cell, _COUNT] += points[i, _COUNT]
        merged[cell, _SUPPORT] = max(merged[cell, _SUPPORT], points[i, _SUPPORT])
    return count


@compiled()
def _slot(cells: np.ndarray, table: np.ndarray, key: int) -> int:
    """Return the slot of the table that holds a key, or the free one where it belongs."""
    last = len(table) - 1
    mixed = np.uint64(key)
    mixed = (mixed ^ (mixed >> np.uint64(32))) * np.uint64(0x9E3779B97F4A7C15)
    slot = int(mixed >> np.uint64(32)) & last
    while table[slot] != _EMPTY and cells[table[slot]] != key:
        slot = (slot + 1) & last
    return slot
