"""How far several results for one prompt agree: the same views of all of them, two by two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from backend.optimize.pictures import render_views
from backend.representations.mesh_data import MeshData

AZIMUTHS = tuple(45.0 * number for number in range(8))
ELEVATION, SIZE = 20.0, 96


@dataclass(frozen=True)
class Agreement:
    """`overlap` [N, N]: silhouette IoU, a mean over views; `color` [N, N]: mean absolute difference of channels (0 to 1) where both
    objects are seen."""

    overlap: np.ndarray
    color: np.ndarray

    def between(self, values: np.ndarray) -> float:
        """The mean of `values` over all pairs of different results; of one alone, its own."""
        pairs = values[np.triu_indices(len(values), 1)]
        return float(pairs.mean() if len(pairs) else values[0, 0])


def views_of(mesh: MeshData) -> np.ndarray:
    """What is compared, [8, S, S, 4] u8 with straight alpha."""
    return np.concatenate([render_views(mesh, list(AZIMUTHS[i : i + 4]), ELEVATION, SIZE) for i in (0, 4)])


def agreement(views: Sequence[np.ndarray]) -> Agreement:
    """Of results that are seen like this, each [8, S, S, 4] u8."""
    rgba = [view.astype(np.float64) / 255 for view in views]
    overlap, color = np.ones((len(rgba), len(rgba))), np.zeros((len(rgba), len(rgba)))
    for i, a in enumerate(rgba):
        for j, b in enumerate(rgba[:i]):
            both, either = np.minimum(a[..., 3], b[..., 3]), np.maximum(a[..., 3], b[..., 3])
            overlap[i, j] = overlap[j, i] = np.mean(both.sum((1, 2)) / np.maximum(either.sum((1, 2)), 1e-6))
            difference = np.abs(a[..., :3] - b[..., :3]).mean(-1)
            color[i, j] = color[j, i] = (difference * both).sum() / max(both.sum(), 1e-6)
    return Agreement(overlap, color)
