"""Vertices moved along the surface until they are evenly spread, and put back on the surface that remeshing began with."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.sparse import csr_array

from backend.representations.editable_mesh import EditableMesh, dot, face_normals, norm, uv_areas
from backend.representations.mesh_data import MeshData

with warnings.catch_warnings():  # its package imports scipy.ndimage.filters, a name that scipy deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytoolbox

CREASE = 0.11
"""Share of a vertex's surroundings that looks in a direction from which on it does not move along that direction."""

SHARPEST = 0.4
"""Length of the mean normal of a vertex's surroundings below which it does not move: at tips and on knife edges, whose two
sides look along one direction."""

SMALLEST_AREA = 1e-14
"""Of a face, as a share of the largest one's."""

LEAST_MOVE = 1e-4
"""Smaller moves, in wanted edge lengths, are not made."""

LARGEST_TURN = 0.3
"""Cosine of the angle by which a face may turn; vertices of faces that turn more stay where they were."""


class InputSurface:
    """The surface that remeshing began with: whatever moves is put back on it and takes its attributes from there."""

    def __init__(self, mesh: MeshData, size: np.ndarray) -> None:
        self.positions = np.ascontiguousarray(mesh.positions, dtype=np.float64)
        self.faces = np.ascontiguousarray(mesh.faces, dtype=np.int32)
        normals = face_normals(self.positions, self.faces)
        area = norm(normals)
        # A face without area has no point that its neighbors do not have, and no barycentrics.
        proper = area > SMALLEST_AREA * area.max()
        self.faces, self.normals = self.faces[proper], normals[proper]
        self.size = size
        self.colors = np.zeros((len(size), 0)) if mesh.colors is None else mesh.colors.astype(np.float64)
        self.uvs = None if mesh.uvs is None else mesh.uvs.astype(np.float64)
        self.uv_faces = None if mesh.uv_faces is None else mesh.uv_faces[proper]

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
    to_center, spread, facing = _surroundings(mesh, normals)
    step = _along_surface(to_center, spread)
    moving = np.flatnonzero(~mesh.pinned & (norm(facing) > SHARPEST))
    face, barycentrics = surface.nearest(mesh.positions[moving] + step[moving])
    place = surface.at(surface.positions, surface.faces, face, barycentrics)
    distance = norm(place - mesh.positions[moving])
    good = (dot(facing[moving], surface.normals[face]) > 0.0) & (distance > LEAST_MOVE * mesh.size[moving])
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


def _surroundings(mesh: EditableMesh, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the faces around each vertex say together.

    The way to their middle `[V, 3]`, where faces count by area over wanted area; the mean of n n^T `[V, 3, 3]` and of the
    unit normals n `[V, 3]`, where they count by their angle at the vertex: both sides of a crease alike, however they are
    cut into triangles.
    """
    count, corner = len(mesh.positions), mesh.faces.reshape(-1)
    points = mesh.positions[mesh.faces]
    double_area = np.maximum(norm(normals), 1e-300)
    size = mesh.size[mesh.faces[:, 0]] + mesh.size[mesh.faces[:, 1]] + mesh.size[mesh.faces[:, 2]]
    weight = double_area / size**2
    center = (points[:, 0] + points[:, 1] + points[:, 2]) * (weight / 3.0)[:, None]
    sums = _around(mesh, np.ones(len(corner)), np.column_stack([weight, center]))
    to_center = np.where(sums[:, :1] > 0.0, sums[:, 1:] / np.maximum(sums[:, :1], 1e-300) - mesh.positions, 0.0)

    sides = points[:, [1, 2, 0]] - points
    # The angle between two sides that span a parallelogram of this area.
    angles = np.arctan2(np.repeat(double_area, 3), -dot(sides, sides[:, [2, 0, 1]]).reshape(-1))
    unit = normals / double_area[:, None]
    pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
    products = [unit[:, i] * unit[:, j] for i, j in pairs]
    sums = _around(mesh, angles, np.column_stack([unit, *products]))
    sums /= np.maximum(np.bincount(corner, angles, count), 1e-300)[:, None]
    spread = np.empty((count, 3, 3))
    for (i, j), column in zip(pairs, sums[:, 3:].T, strict=True):
        spread[:, i, j] = spread[:, j, i] = column
    return to_center, spread, sums[:, :3]


def _around(mesh: EditableMesh, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` `[F, C]` summed over the corners at each vertex, with the `weights` `[3 F]` of those: `[V, C]`."""
    starts = np.arange(0, 3 * len(mesh.faces) + 1, 3)
    corners = csr_array((weights, mesh.faces.reshape(-1), starts), shape=(len(mesh.faces), len(mesh.positions)))
    return corners.T @ values


def _along_surface(step: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """`step` `[V, 3]` without what leads along directions in which the surface around looks.

    An eigenvalue of `spread` is the share of the surface that looks along its direction: on a plane 1 along the normal
    and 0 across. (I + (spread / CREASE)^8)^-1 lets shares far below CREASE pass and stops those far above.
    """
    ratio = spread / CREASE
    for _ in range(3):
        ratio = ratio @ ratio
    return np.linalg.solve(np.eye(3) + ratio, step[:, :, None])[:, :, 0]


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
