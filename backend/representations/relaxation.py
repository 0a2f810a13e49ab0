"""Vertices moved along the surface until they are evenly spread, and put back on the surface that remeshing began with."""

from __future__ import annotations

import warnings

import numpy as np

from backend.representations.editable_mesh import EditableMesh, dot, face_normals, norm, used_vertices, uv_areas
from backend.representations.mesh_data import MeshData

with warnings.catch_warnings():  # its package imports scipy.ndimage.filters, a name that scipy deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytoolbox

CREASE = 0.08
"""Share of a vertex's surroundings that looks in a direction from which on it does not move along that direction."""

LEAST_MOVE = 1e-4
"""Smaller moves, in wanted edge lengths, are not made."""

LARGEST_TURN = 0.3
"""Cosine of the angle by which a face may turn; vertices of faces that turn more stay where they were."""


class InputSurface:
    """The surface that remeshing began with: whatever moves is put back on it and takes its attributes from there."""

    def __init__(self, mesh: MeshData, size: np.ndarray) -> None:
        self.positions = np.ascontiguousarray(mesh.positions, dtype=np.float64)
        self.faces = np.ascontiguousarray(mesh.faces, dtype=np.int32)
        self.normals = face_normals(self.positions, self.faces)
        self.size = size
        self.colors = np.zeros((len(size), 0)) if mesh.colors is None else mesh.colors.astype(np.float64)
        self.uvs = None if mesh.uvs is None else mesh.uvs.astype(np.float64)
        self.uv_faces = mesh.uv_faces

    def nearest(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The face `[P]` nearest to each of `points` `[P, 3]`, and the barycentrics `[P, 3]` of the nearest point on it."""
        _, face, barycentrics = gpytoolbox.squared_distance(points, self.positions, self.faces, use_cpp=True)
        return face, barycentrics

    def at(self, values: np.ndarray, faces: np.ndarray, face: np.ndarray, barycentrics: np.ndarray) -> np.ndarray:
        """`values` `[V, ...]` interpolated."""
        return np.einsum("pk,pk...->p...", barycentrics, values[faces[face]])


def relax(mesh: EditableMesh, surface: InputSurface) -> None:
    """Move what is not pinned toward the middle of its surroundings, along the surface, and back onto `surface`.

    Across a crease nothing moves, at a corner nothing at all. What moved takes color, texture coordinates and wanted
    edge length from the place on `surface` where it comes to lie.
    """
    normals = face_normals(mesh.positions, mesh.faces)
    step = _along_surface(_toward_center(mesh, normals), _facing(mesh, normals))
    moving = np.flatnonzero(~mesh.pinned & used_vertices(mesh.faces, len(step)) & np.isfinite(step).all(axis=1))
    face, barycentrics = surface.nearest(mesh.positions[moving] + step[moving])
    place = surface.at(surface.positions, surface.faces, face, barycentrics)
    facing = _scatter(mesh, normals)[moving]
    distance = norm(place - mesh.positions[moving])
    good = (dot(facing, surface.normals[face]) > 0.0) & (distance > LEAST_MOVE * mesh.size[moving])
    good &= distance < mesh.size[moving]
    moving, face, barycentrics, place = moving[good], face[good], barycentrics[good], place[good]

    old, old_uvs = mesh.positions.copy(), mesh.uvs.copy()
    mesh.positions[moving] = place
    if mesh.uv_faces is not None:
        row_of_vertex = np.empty(len(mesh.positions), dtype=np.int64)
        row_of_vertex[mesh.faces.reshape(-1)] = mesh.uv_faces.reshape(-1)
        mesh.uvs[row_of_vertex[moving]] = surface.at(surface.uvs, surface.uv_faces, face, barycentrics)
    kept = ~_move_back(mesh, normals, old, old_uvs)[moving]
    moving, face, barycentrics = moving[kept], face[kept], barycentrics[kept]
    mesh.size[moving] = surface.at(surface.size, surface.faces, face, barycentrics)
    mesh.colors[moving] = surface.at(surface.colors, surface.faces, face, barycentrics)
    mesh.changed[moving] = True


def _toward_center(mesh: EditableMesh, normals: np.ndarray) -> np.ndarray:
    """From each vertex to the middle of the faces around it, `[V, 3]`; faces count by area over wanted area."""
    corners = mesh.positions[mesh.faces]
    weight = 0.5 * norm(normals) / mesh.size[mesh.faces].mean(axis=1) ** 2
    total = np.bincount(mesh.faces.reshape(-1), np.repeat(weight, 3), len(mesh.positions))
    center = _scatter(mesh, corners.mean(axis=1) * weight[:, None]) / np.maximum(total, 1e-300)[:, None]
    return np.where(total[:, None] > 0.0, center - mesh.positions, 0.0)


def _facing(mesh: EditableMesh, normals: np.ndarray) -> np.ndarray:
    """The mean of n n^T over the faces around each vertex, by area: `[V, 3, 3]`."""
    double_area = np.maximum(norm(normals), 1e-300)
    outer = (normals[:, :, None] * normals[:, None, :] / double_area[:, None, None]).reshape(-1, 9)
    total = np.bincount(mesh.faces.reshape(-1), np.repeat(double_area, 3), len(mesh.positions))
    return (_scatter(mesh, outer) / np.maximum(total, 1e-300)[:, None]).reshape(-1, 3, 3)


def _along_surface(step: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """`step` `[V, 3]` without what leads along directions in which the surface around looks.

    An eigenvalue of `facing` is the share of the surface that looks along its direction: on a plane 1 along the normal
    and 0 across. (I + (facing / CREASE)^4)^-1 lets shares far below CREASE pass and stops those far above.
    """
    ratio = facing / CREASE
    squared = ratio @ ratio
    return np.linalg.solve(np.eye(3) + squared @ squared, step[:, :, None])[:, :, 0]


def _move_back(mesh: EditableMesh, normals: np.ndarray, old: np.ndarray, old_uvs: np.ndarray) -> np.ndarray:
    """Put the vertices of faces that turn over back until none does; `[V]` bool, those that were put back."""
    back = np.zeros(len(old), dtype=bool)
    old_areas = None if mesh.uv_faces is None else uv_areas(old_uvs, mesh.uv_faces)
    while True:
        new = face_normals(mesh.positions, mesh.faces)
        wrong = dot(new, normals) < LARGEST_TURN * norm(new) * norm(normals)
        wrong |= (norm(new) == 0.0) & (norm(normals) > 0.0)
        if old_areas is not None:
            wrong |= (uv_areas(mesh.uvs, mesh.uv_faces) * old_areas <= 0.0) & (old_areas != 0.0)
        again = np.unique(mesh.faces[wrong])
        again = again[~back[again]]
        if len(again) == 0:
            return back
        back[again] = True
        mesh.positions[again] = old[again]
        if old_areas is not None:
            mesh.uvs[mesh.uv_faces[wrong]] = old_uvs[mesh.uv_faces[wrong]]


def _scatter(mesh: EditableMesh, values: np.ndarray) -> np.ndarray:
    """Sums of `values` `[F, C]` over the faces around each vertex, `[V, C]`."""
    vertex, count = mesh.faces.reshape(-1), len(mesh.positions)
    return np.stack([np.bincount(vertex, np.repeat(column, 3), count) for column in values.T], axis=1)
