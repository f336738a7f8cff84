"""Least squares over differences between pairs of views, without a dense row for each pair."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PairEquations:
    """For each pair one equation gain * a[source] - a[ref] = offset in one unknown a for each view.

    Attributes:
        source, ref: (n,) numbers of the views.
        gain: (n,).
        views: the number of unknowns V.
    """

    source: np.ndarray
    ref: np.ndarray
    gain: np.ndarray
    views: int

    def information(self, weight: np.ndarray) -> np.ndarray:
        """Return the matrix (V, V) of the normal equations for weights (n,)."""
        across = self._matrix(self.source, self.ref, -weight * self.gain)
        diagonal = np.bincount(self.source, weight * self.gain**2, self.views)
        return across + across.T + np.diag(diagonal + np.bincount(self.ref, weight, self.views))

    def right_side(self, weighted: np.ndarray) -> np.ndarray:
        """Return the right side (V,) of the normal equations for weighted offsets (n,)."""
        return np.bincount(self.source, self.gain * weighted, self.views) - np.bincount(self.ref, weighted, self.views)

    def differences(self, a: np.ndarray) -> np.ndarray:
        """Return gain * a[source] - a[ref] (n,) for unknowns (V,)."""
        return self.gain * a[self.source] - a[self.ref]

    def _matrix(self, row: np.ndarray, column: np.ndarray, values: np.ndarray) -> np.ndarray:
        return np.bincount(row * self.views + column, values, self.views**2).reshape(self.views, self.views)
