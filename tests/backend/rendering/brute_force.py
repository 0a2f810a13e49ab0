"""What each pixel sees, by brute force: each face at each pixel center, in float64 or in exact fractions.

Independent of the renderer's arithmetic: a pixel center (fx, fy) is seen at the point sum l_i P_i of a face for which
sum l_i (x_i, y_i, w_i) = (fx, fy, 1). Then b_i = l_i / sum l, z/w = sum l_i z_i and 1/w = sum l_i.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SMALLEST_W = 1e-6


@dataclass(frozen=True)
class Seen:
    """`[H, W]` arrays; barycentrics `[H, W, 3]`."""

    face_id: NDArray[np.int64]
    barycentrics: Array
    depth: Array
    w: Array
    certain: NDArray[np.bool_]  # where no edge and no second depth is so close that float64 itself is in doubt


def centers(height: int, width: int) -> Array:
    """(fx, fy, 1) of each pixel, `[H, W, 3]`."""
    x, y = np.meshgrid((np.arange(width) + 0.5) * 2.0 / width - 1.0, 1.0 - (np.arange(height) + 0.5) * 2.0 / height)
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def in_float64(clip: NDArray, faces: NDArray, height: int, width: int) -> Seen:
    """The nearest face of one view, `clip` `[V, 4]`; doubtful where two depths agree to 2 float32 steps."""
    points = centers(height, width)
    nearest, second = np.full((height, width), np.inf), np.full((height, width), np.inf)
    face_id, chosen = np.full((height, width), -1), np.zeros((height, width, 3))
    certain = np.ones((height, width), dtype=bool)
    for index, face in enumerate(faces):
        if (face < 0).any() or (face >= len(clip)).any() or len(set(face)) < 3:
            continue
        corners = clip[face].astype(np.float64)
        if not np.isfinite(corners).all() or np.linalg.det(corners[:, [0, 1, 3]]) == 0.0:
            continue
        solve = np.linalg.inv(corners[:, [0, 1, 3]])
        weights = points @ solve
        rounding = 1e-10 * (np.abs(points) @ np.abs(solve))
        inverse_w, depth = weights.sum(axis=-1), weights @ corners[:, 2]
        in_front = (inverse_w > 0) & (inverse_w <= 1 / SMALLEST_W) & (depth >= -1.0)
        inside = (weights >= 0).all(axis=-1) & in_front
        on_rim = (np.abs(weights) <= rounding).any(axis=-1) & (weights >= -rounding).all(axis=-1)
        certain &= ~on_rim & ~(inside & (np.abs(depth + 1.0) < 1e-6))
        closer = inside & (depth < nearest)
        second = np.where(closer, nearest, np.where(inside, np.minimum(second, depth), second))
        nearest, face_id = np.where(closer, depth, nearest), np.where(closer, index, face_id)
        chosen = np.where(closer[..., None], weights, chosen)
    with np.errstate(invalid="ignore", divide="ignore"):
        certain &= ~(second - nearest <= 2.0 * np.spacing(np.abs(nearest).astype(np.float32)))
        w = 1.0 / chosen.sum(axis=-1)
        barycentrics = np.where(face_id[..., None] >= 0, chosen * w[..., None], 0.0)
    return Seen(face_id, barycentrics, np.where(face_id >= 0, nearest, 1.0), np.where(face_id >= 0, w, np.inf), certain)


def candidates_exactly(
    clip: NDArray, faces: NDArray, row: int, column: int, height: int, width: int
) -> dict[int, tuple[Fraction, bool]]:
    """Faces that cover a pixel center: index -> (depth as a fraction, whether the center lies exactly on the rim)."""
    x, y = Fraction(2 * column + 1, width) - 1, 1 - Fraction(2 * row + 1, height)
    found = {}
    for index, face in enumerate(faces):
        (ax, ay, az, aw), (bx, by, bz, bw), (cx, cy, cz, cw) = (
            [Fraction(float(number)) for number in clip[vertex]] for vertex in face
        )
        determinant = ax * (by * cw - bw * cy) - ay * (bx * cw - bw * cx) + aw * (bx * cy - by * cx)
        if determinant == 0:
            continue
        # Cramer's rule: each vertex in turn replaced by (x, y, 1).
        first = x * (by * cw - bw * cy) - y * (bx * cw - bw * cx) + (bx * cy - by * cx)
        second = ax * (y * cw - cy) - ay * (x * cw - cx) + aw * (x * cy - y * cx)
        third = ax * (by - bw * y) - ay * (bx - bw * x) + aw * (bx * y - by * x)
        weights = [first / determinant, second / determinant, third / determinant]
        depth = weights[0] * az + weights[1] * bz + weights[2] * cz
        if min(weights) >= 0 and 0 < sum(weights) <= 1 / Fraction(SMALLEST_W) and depth >= -1:
            found[index] = (depth, min(weights) == 0)
    return found
