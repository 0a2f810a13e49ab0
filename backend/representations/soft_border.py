"""Soft borders of masks: what changes, changes less and less toward what is kept."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from backend.representations.mesh_data import MeshData


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
