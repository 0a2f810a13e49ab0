"""A triangle mesh as plain arrays: what jobs begin with, previews carry and results are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MeshData:
    """positions [V, 3] float32, faces [F, 3] int32, colors [V, 3] float32 in [0, 1] as displayed, or None."""

    positions: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None
