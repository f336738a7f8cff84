"""Steps of cameras: turns and moves in their own frames, and the frame and unit that all of them leave open."""

from __future__ import annotations

import math

import numpy as np

from nasrecon.geometry import inverse, rotation_from_vector, vector_from_rotation

_ROUNDS, _WIDTH = 4, 1e-4  # Gauss-Newton steps; differences for derivatives [rad, scene sizes, 1]


def step_cameras(cam_from_world: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Turn and move cameras (N, 4, 4) by steps (N, 6) in their own frames: turn [rad], move [scene units]."""
    out = cam_from_world.copy()
    R = rotation_from_vector(steps[:, :3])
    out[:, :3, :3] = R @ cam_from_world[:, :3, :3]
    out[:, :3, 3] = (R @ cam_from_world[:, :3, 3:])[..., 0] + steps[:, 3:]
    return out


def steps_between(given: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return the steps (N, 6) by which ``step_cameras`` makes cameras (N, 4, 4) of those given."""
    R = new[:, :3, :3] @ np.swapaxes(given[:, :3, :3], -1, -2)
    move = new[:, :3, 3] - (R @ given[:, :3, 3:])[..., 0]
    return np.concatenate([vector_from_rotation(R), move], axis=1)


def scale_cameras(cam_from_world: np.ndarray, factor: float) -> np.ndarray:
    """Scale the centres of cameras (N, 4, 4), cam_from_world, about their mean; triangulated depths scale with them."""
    centers = inverse(cam_from_world)[:, :3, 3]
    out, middle = cam_from_world.copy(), centers.mean(axis=0)
    out[:, :3, 3] = -(out[:, :3, :3] @ (middle + factor * (centers - middle))[..., None])[..., 0]
    return out


def align_parameters(given: np.ndarray, parameters: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Turn, move and scale all cameras together such that their steps are the likeliest under the prior.

    Matches do not see that, and descent along what the prior alone decides is slow.

    Args:
        given: (N, 4, 4) cam_from_world. parameters: (6N + 1,) the steps of the cameras, then what stays as it is.
        sigma: (6N + 1,) standard deviations of the parameters.

    Returns:
        (6N + 1,) the parameters.
    """
    deviation = sigma[:-1].reshape(-1, 6)
    start = step_cameras(given, parameters[:-1].reshape(-1, 6))
    centers = inverse(start)[:, :3, 3]
    middle, size = centers.mean(axis=0), max(float(np.ptp(centers, axis=0).max()), 1e-12)

    def steps(similarity: np.ndarray) -> np.ndarray:
        """Return the steps (N, 6) after a turn, a move [sizes] and the logarithm of a scale, about the middle."""
        R = rotation_from_vector(similarity[:3])
        moved = start.copy()
        moved[:, :3, :3] = start[:, :3, :3] @ R.T
        to = math.exp(similarity[6]) * (centers - middle) @ R.T + middle + size * similarity[3:6]
        moved[:, :3, 3] = -(moved[:, :3, :3] @ to[..., None])[..., 0]
        return steps_between(given, moved)

    similarity = np.zeros(7)
    for _ in range(_ROUNDS):
        residuals = (steps(similarity) / deviation).ravel()
        shifted = [(steps(similarity + _WIDTH * unit) / deviation).ravel() for unit in np.eye(7)]
        derivatives = (np.stack(shifted, axis=1) - residuals[:, None]) / _WIDTH
        similarity = similarity - np.linalg.lstsq(derivatives, residuals, rcond=None)[0]
    return np.append(steps(similarity).ravel(), parameters[-1])
