"""Comparisons of pairs of views at coarse samples, in loops that Numba compiles."""

from __future__ import annotations

import numpy as np

from nasrecon.compiled import compiled


@compiled()
def surface_differences(
    a: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    A: np.ndarray,
    t: np.ndarray,
    b: np.ndarray,
    step: float,
    off: np.ndarray,
    gain: np.ndarray,
    variance: np.ndarray,
) -> tuple[int, int]:
    """Compare samples of the planes (4, h, w) of a view, at x (w,) and y (h,), with those of another view.

    Args:
        b, step: (4, k, m), every ``step``-th plane of the other view.
        A, t: (3, 3) and (3,) float32, to pixels of the other view: of (x, y, 1) and of the inverse depth.
        off, gain, variance: (h * w,) float32, receive the differences of log inverse depth at the samples where both
            have a depth, how they follow the other view's scale, and the sums of the relative variances.

    Returns:
        numbers of samples that the other view could show, and where it has a depth.
    """
    inside = known = 0
    for i in range(a.shape[1]):
        for j in range(a.shape[2]):
            inverse = a[0, i, j] * x[j] + a[1, i, j] * y[i] + a[2, i, j]
            if not inverse > 0:
                continue
            u = A[0, 0] * x[j] + A[0, 1] * y[i] + A[0, 2] + t[0] * inverse
            v = A[1, 0] * x[j] + A[1, 1] * y[i] + A[1, 2] + t[1] * inverse
            w = A[2, 0] * x[j] + A[2, 1] * y[i] + A[2, 2] + t[2] * inverse
            column, row = u / w / step, v / w / step
            if not (w > 0 and column >= 0 and column < b.shape[2] and row >= 0 and row < b.shape[1]):
                continue
            inside += 1
            k, m = int(row), int(column)
            if not b[3, k, m] > 0:
                continue
            behind = 1 - (b[0, k, m] * t[0] + b[1, k, m] * t[1] + b[2, k, m] * t[2])
            along = b[0, k, m] * u + b[1, k, m] * v + b[2, k, m] * w - inverse * (1 - behind)
            off[known] = np.log(along / behind / inverse)
            gain[known] = 1 / behind
            variance[known] = a[3, i, j] + b[3, k, m]
            known += 1
    return inside, known


@compiled()
def color_differences(
    points: np.ndarray,
    cells: np.ndarray,
    ours: np.ndarray,
    P: np.ndarray,
    depth: np.ndarray,
    theirs: np.ndarray,
    same_surface: float,
    low: float,
    high: float,
    out: np.ndarray,
) -> int:
    """Compare the colours of a view with those of another where both see one surface.

    Args:
        points, cells: (n, 3) in the world and (n,), the places of these among the view's colours ``ours`` (c, 3).
        P: (3, 4), to the grid of the other view's coarse depth (h, w) and colours ``theirs`` (h * w, 3).
        same_surface: the part by which depths may differ. low, high: colours outside are not compared.
        out: (3, n) float32, receives the logarithms of the colours' quotients, ours by theirs.

    Returns:
        the number of them.
    """
    n = 0
    height, width = depth.shape
    for i in range(len(points)):
        x, y, z = points[i, 0], points[i, 1], points[i, 2]
        w = P[2, 0] * x + P[2, 1] * y + P[2, 2] * z + P[2, 3]
        u = (P[0, 0] * x + P[0, 1] * y + P[0, 2] * z + P[0, 3]) / w
        v = (P[1, 0] * x + P[1, 1] * y + P[1, 2] * z + P[1, 3]) / w
        if not (w > 0 and u >= 0 and u < width and v >= 0 and v < height):
            continue
        surface = depth[int(v), int(u)]
        if not (surface > 0 and abs(w - surface) < same_surface * surface):
            continue
        k, m = cells[i], int(v) * width + int(u)
        least = min(min(ours[k, 0], ours[k, 1]), min(ours[k, 2], min(theirs[m, 0], min(theirs[m, 1], theirs[m, 2]))))
        most = max(max(ours[k, 0], ours[k, 1]), max(ours[k, 2], max(theirs[m, 0], max(theirs[m, 1], theirs[m, 2]))))
        if least > low and most < high:
            for c in range(3):
                out[c, n] = np.log(ours[k, c] / theirs[m, c])
            n += 1
    return n


@compiled()
def overlaps(
    points: np.ndarray,
    P: np.ndarray,
    size: np.ndarray,
    centers: np.ndarray,
    focal: np.ndarray,
    coarse: np.ndarray,
    ref: int,
    same_surface: float,
    shared: np.ndarray,
    angle: np.ndarray,
    finer: np.ndarray,
) -> None:
    """Find what other views see of points (n, 3) in the world that view ``ref`` sees.

    Args:
        P: (V, 3, 4), projects. size: (V, 2), width and height. centers: (V, 3). focal: (V,) [px].
        coarse: (V, h, w), coarse depths. same_surface: the part by which depths may differ.
        shared, angle, finer: (V,), receive the number of points seen, the mean angle [degrees] between the rays, and
            the mean logarithm of how much smaller the view's pixels are there.
    """
    rows, columns = coarse.shape[1:]
    for view in range(len(P)):
        shared[view] = angle[view] = finer[view] = 0
        for i in range(len(points)):
            x, y, z = points[i, 0], points[i, 1], points[i, 2]
            depth = P[view, 2, 0] * x + P[view, 2, 1] * y + P[view, 2, 2] * z + P[view, 2, 3]
            if not depth > 0:
                continue
            u = (P[view, 0, 0] * x + P[view, 0, 1] * y + P[view, 0, 2] * z + P[view, 0, 3]) / depth / size[view, 0]
            v = (P[view, 1, 0] * x + P[view, 1, 1] * y + P[view, 1, 2] * z + P[view, 1, 3]) / depth / size[view, 1]
            if not (u >= 0 and u < 1 and v >= 0 and v < 1):
                continue
            surface = coarse[view, int(v * rows), int(u * columns)]
            if not (surface > 0 and abs(depth - surface) < same_surface * surface):
                continue
            a0, a1, a2 = x - centers[view, 0], y - centers[view, 1], z - centers[view, 2]
            b0, b1, b2 = x - centers[ref, 0], y - centers[ref, 1], z - centers[ref, 2]
            distance = max(np.sqrt(a0 * a0 + a1 * a1 + a2 * a2), 1e-300)
            from_ref = np.sqrt(b0 * b0 + b1 * b1 + b2 * b2)
            cosine = (a0 * b0 + a1 * b1 + a2 * b2) / max(distance * from_ref, 1e-300)
            shared[view] += 1
            angle[view] += np.degrees(np.arccos(min(max(cosine, -1.0), 1.0)))
            finer[view] += np.log(max(from_ref / focal[ref] * focal[view] / distance, 1e-300))
        angle[view] /= max(shared[view], 1.0)
        finer[view] /= max(shared[view], 1.0)
