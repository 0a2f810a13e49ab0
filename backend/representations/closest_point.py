"""Closest points on a triangle mesh, and attributes carried from one mesh to another through them."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

CANDIDATES = 12
"""Faces with the nearest centers that are tried per point; enough for triangles of similar size."""


def transfer_attributes(
    points: np.ndarray, positions: np.ndarray, faces: np.ndarray, attributes: np.ndarray
) -> np.ndarray:
    """`attributes` [V, C] of a mesh, interpolated where the mesh is closest to each of `points` [P, 3]: [P, C]."""
    face, barycentrics = closest_points(points, positions, faces)
    return np.einsum("pk,pkc->pc", barycentrics, attributes[faces[face]]).astype(attributes.dtype)


def closest_points(points: np.ndarray, positions: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The face [P] nearest to each point and the barycentrics [P, 3] of the closest point on it.

    Exact among the CANDIDATES faces whose centers are nearest.
    """
    corners = positions.astype(np.float64)[faces]
    count = min(CANDIDATES, len(faces))
    candidates = cKDTree(corners.mean(axis=1)).query(points, k=count)[1].reshape(len(points), count)
    barycentrics = _closest_barycentrics(points.astype(np.float64)[:, None], corners[candidates])
    nearest = np.einsum("pnk,pnkc->pnc", barycentrics, corners[candidates])
    best = np.square(nearest - points[:, None]).sum(-1).argmin(1)
    row = np.arange(len(points))
    return candidates[row, best], barycentrics[row, best]


def _closest_barycentrics(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Barycentrics of the point of each triangle [..., 3, 3] closest to `points` [..., 3].

    The projection if it is inside, else the best of the closest points on the three sides.
    """
    a, b, c = (corners[..., k, :] for k in range(3))
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = ((x * y).sum(-1) for x, y in ((ab, ab), (ab, ac), (ac, ac)))
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    determinant = d00 * d11 - d01 * d01
    safe = np.where(determinant > 1e-30, determinant, 1.0)
    v = (d11 * d20 - d01 * d21) / safe
    w = (d00 * d21 - d01 * d20) / safe
    inside = (determinant > 1e-30) & (v >= 0.0) & (w >= 0.0) & (v + w <= 1.0)
    best = np.stack([1.0 - v - w, v, w], -1)
    distance = np.where(inside, -1.0, np.inf)
    for i, j in ((0, 1), (1, 2), (2, 0)):
        start, side = corners[..., i, :], corners[..., j, :] - corners[..., i, :]
        t = ((points - start) * side).sum(-1) / np.maximum((side * side).sum(-1), 1e-30)
        t = np.clip(t, 0.0, 1.0)
        off = np.square(points - start - t[..., None] * side).sum(-1)
        on_side = np.zeros_like(best)
        on_side[..., i], on_side[..., j] = 1.0 - t, t
        closer = off < distance
        best = np.where(closer[..., None], on_side, best)
        distance = np.where(closer, off, distance)
    return best
