"""The zero set of a sampled scalar field as a closed triangle mesh."""

from __future__ import annotations

import numpy as np
from skimage.measure import marching_cubes


def extract_isosurface(field: np.ndarray, origin: np.ndarray, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Marching cubes (Lewiner et al. 2003) at 0 of a field indexed [x, y, z], positive inside, somewhere positive.

    The sample at index (0, 0, 0) lies at `origin` [3], neighbors `spacing` apart; outside the samples the field is
    negative, so that every surface is closed. Returns positions [V, 3] float32 and outward faces [F, 3] int32.
    """
    # A vertex exactly on the level would make triangles without area.
    tiny = 1e-4 * float(field.max())
    field = np.where(np.abs(field) < tiny, np.float32(-tiny), field)
    padded = np.pad(field, 1, constant_values=float(min(field.min(), -field.max())))
    corners, faces, _, _ = marching_cubes(padded, 0.0, gradient_direction="ascent")
    positions = (corners - 1.0) * spacing + origin
    return np.ascontiguousarray(positions, dtype=np.float32), np.ascontiguousarray(faces, dtype=np.int32)
