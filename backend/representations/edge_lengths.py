"""Edge lengths for adaptive remeshing: short where a surface bends, long where it is flat, changing gently between."""

from __future__ import annotations

import numpy as np

from backend.errors import InputError
from backend.representations.editable_mesh import dot, face_normals, norm
from backend.representations.mesh_checks import check_mesh
from backend.representations.mesh_data import MeshData
from backend.representations.surface_edges import SurfaceEdges, previous_side, surface_edges

TURN = np.radians(30.0)
"""By how much the surface may turn along one edge."""

GRADATION = 0.5
"""The most by which wanted lengths differ between two vertices, as a share of their distance."""


def curvature_edge_length(mesh: MeshData, coarse: float, fine: float) -> np.ndarray:
    """`[V]`: an edge of the length wanted at a vertex turns by TURN there, but none is longer than `coarse` or shorter than
    `fine`; neighbors differ gently (`graded`).

    The curvature is the larger principal one of the curvature tensor of Cohen-Steiner and Morvan 2003, averaged over the
    faces around each vertex. A crease counts as bent over the width of the faces beside it: so its edges get shorter each
    time that the mesh is remeshed, down to `fine`.

    Raises:
        InputError: `mesh` is not a mesh, or not 0 < fine <= coarse.
    """
    check_mesh(mesh)
    if not 0.0 < fine <= coarse < np.inf:
        raise InputError(f"Edge lengths must be 0 < fine <= coarse, but fine is {fine} and coarse {coarse}.")
    faces = mesh.faces.astype(np.int64)
    proper = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    positions, faces = mesh.positions.astype(np.float64), faces[proper]
    edges = surface_edges(faces, len(positions))
    curvature = _largest_curvature(positions, faces, edges)
    return graded(positions, edges, np.clip(TURN / np.maximum(curvature, TURN / coarse), fine, coarse))


def graded(positions: np.ndarray, edges: SurfaceEdges, lengths: np.ndarray) -> np.ndarray:
    """`lengths` `[V]` reduced until none exceeds a neighbor's by more than GRADATION times their distance."""
    first, second = edges.ends.T
    reach = GRADATION * norm(positions[second] - positions[first])
    lengths = lengths.copy()
    for _ in range(len(lengths)):
        before = lengths.copy()
        np.minimum.at(lengths, second, before[first] + reach)
        np.minimum.at(lengths, first, before[second] + reach)
        if np.array_equal(before, lengths):
            break
    return lengths


def _largest_curvature(positions: np.ndarray, faces: np.ndarray, edges: SurfaceEdges) -> np.ndarray:
    """The larger absolute principal curvature at each vertex `[V]`; 0 where there are no regular edges."""
    regular = np.flatnonzero(edges.regular)
    first, second = edges.ends[regular].T
    along = positions[second] - positions[first]
    length = np.maximum(norm(along), 1e-300)
    normals = face_normals(positions, faces)
    double_area = norm(normals)
    normals = normals / np.maximum(double_area, 1e-300)[:, None]
    there, back = (edges.sides[regular] // 3).T
    angle = np.arccos(dot(normals[there], normals[back]).clip(-1.0, 1.0))
    inward = dot(positions[faces.reshape(-1)[previous_side(edges.sides[regular, 1])]] - positions[first], normals[there])
    angle = np.where(inward > 0.0, -angle, angle)
    # Within the third of its surroundings that is a vertex's own, half of each edge lies.
    weight = angle / (2.0 * length)
    count = len(positions)
    area = np.bincount(faces.reshape(-1), np.repeat(double_area / 6.0, 3), count)
    tensor = np.zeros((count, 3, 3))
    for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        column = weight * along[:, i] * along[:, j]
        tensor[:, i, j] = np.bincount(first, column, count) + np.bincount(second, column, count)
        tensor[:, j, i] = tensor[:, i, j]
    return np.abs(np.linalg.eigvalsh(tensor / np.maximum(area, 1e-300)[:, None, None])).max(axis=1)
