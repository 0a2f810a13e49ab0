"""Soft borders of masks: what changes, changes less and less toward what is kept."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float32
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree

from backend.representations.masks import resized_mask
from backend.representations.mesh_data import MeshData
from backend.representations.texel_map import map_texels

LARGEST = 1024
"""Texels a side; larger masks are reduced to it before distances are measured."""


def soft_border(
    mask: Float32[np.ndarray, "V"], mesh: MeshData, distance: float
) -> Float32[np.ndarray, "V"]:
    """`mask` times a ramp that rises from 0 at the vertices that it keeps to 1 at `distance` from them, along edges.

    So a region becomes no larger by it. Pieces that no edge joins to a kept vertex stay as they are.
    """
    kept = np.flatnonzero(mask == 0.0)
    if not len(kept) or not distance > 0.0:
        return mask
    sides = np.concatenate([mesh.faces[:, [0, 1]], mesh.faces[:, [1, 2]], mesh.faces[:, [2, 0]]])
    sides = np.unique(np.sort(sides, axis=1), axis=0)
    corners = mesh.positions.astype(np.float64)[sides]
    lengths = np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1).clip(1e-12)  # 0 would be no edge
    graph = coo_matrix((lengths, sides.T), shape=(len(mask), len(mask))).tocsr()
    away = dijkstra(graph, directed=False, indices=kept, min_only=True, limit=distance)
    return (mask * np.minimum(away / distance, 1.0)).astype(np.float32)


def soft_texel_border(
    mask: Float32[np.ndarray, "H W"], mesh: MeshData, distance: float
) -> Float32[np.ndarray, "H W"]:
    """The same for a mask of texels: from the nearest texel that it keeps, in a straight line, whatever seams are between.

    Raises:
        InputError: the mesh has no usable texture coordinates (see `map_texels`).
    """
    if not distance > 0.0:
        return mask
    size = tuple(min(side, LARGEST) for side in mask.shape)
    mask = resized_mask(torch.from_numpy(mask), size).numpy()
    texels = map_texels(mesh, *size)
    points, free = texels.interpolate(mesh.positions, mesh.faces), mask[texels.covered] > 0.0
    if free.all():
        return mask
    away = np.zeros(len(points))
    away[free] = cKDTree(points[~free]).query(points[free], distance_upper_bound=distance)[0]
    ramp = np.zeros(size)
    ramp[texels.covered] = np.minimum(away / distance, 1.0)
    return (mask * texels.fill(ramp)).astype(np.float32)
