"""What is true of a mesh, found by plain loops and brute force that share no code with the library."""

from __future__ import annotations

import warnings
from collections import defaultdict

import numpy as np

from backend.representations.mesh_data import MeshData

with warnings.catch_warnings():  # its package imports a name that scipy deprecates
    warnings.simplefilter("ignore", DeprecationWarning)
    import gpytoolbox


def is_closed_manifold(faces: np.ndarray) -> bool:
    """Every directed edge once, its reverse once, and the faces around every vertex in one ring."""
    after: dict[int, dict[int, int]] = defaultdict(dict)  # around vertex v, neighbor -> next neighbor
    for face in faces.tolist():
        for k in range(3):
            v, a, b = face[k], face[(k + 1) % 3], face[(k + 2) % 3]
            if v == a or a in after[v]:
                return False
            after[v][a] = b
    for ring in after.values():
        if len(ring) < 3 or set(ring) != set(ring.values()):
            return False
        start = at = next(iter(ring))
        steps = 0
        while True:
            at, steps = ring[at], steps + 1
            if at == start:
                break
        if steps != len(ring):
            return False
    return True


def euler_number(faces: np.ndarray) -> int:
    edges = {frozenset(pair) for a, b, c in faces.tolist() for pair in ((a, b), (b, c), (c, a))}
    return len({v for face in faces.tolist() for v in face}) - len(edges) + len(faces)


def crossings(positions: np.ndarray, faces: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of faces of which a side of one passes through the inside of the other, by the signs of all volumes in
    double precision (rounding leaves 1e-16 of them). Neighbors are tried with the sides that do not touch the other."""
    rounding = 1e-14 * np.ptp(positions, axis=0).max() ** 3
    corners = positions.astype(np.float64)[faces]
    low, high = corners.min(axis=1), corners.max(axis=1)
    overlap = (low[:, None] <= high).all(axis=2) & (low <= high[:, None]).all(axis=2)
    one, other = np.nonzero(overlap & ~np.eye(len(faces), dtype=bool))
    found = np.zeros(len(one), dtype=bool)
    p, q, r = corners[other].transpose(1, 0, 2)
    normal = np.cross(q - p, r - p)
    for k in range(3):
        start, end = faces[one, k], faces[one, (k + 1) % 3]
        apart = ~((faces[other] == start[:, None]) | (faces[other] == end[:, None])).any(axis=1)
        a, b = corners[one, k], corners[one, (k + 1) % 3]
        above, below = ((a - p) * normal).sum(1), ((b - p) * normal).sum(1)
        through = [(np.cross(x - a, y - a) * (b - a)).sum(1) for x, y in ((p, q), (q, r), (r, p))]
        inside = (np.min(through, axis=0) > rounding) | (np.max(through, axis=0) < -rounding)
        found |= apart & inside & (np.minimum(above, below) < -rounding) & (np.maximum(above, below) > rounding)
    return {(min(f, g), max(f, g)) for f, g in zip(one[found].tolist(), other[found].tolist(), strict=True)}


def volume(positions: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (positions.astype(np.float64)[faces[:, k]] for k in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6.0)


def area(positions: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (positions.astype(np.float64)[faces[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2.0)


def smallest_angles(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Of each face, in degrees."""
    corners = positions.astype(np.float64)[faces]
    angles = []
    for k in range(3):
        u, v = corners[:, (k + 1) % 3] - corners[:, k], corners[:, (k + 2) % 3] - corners[:, k]
        cosine = (u * v).sum(1) / (np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1))
        angles.append(np.degrees(np.arccos(cosine.clip(-1.0, 1.0))))
    return np.min(angles, axis=0)


def one_sided_hausdorff(mesh: MeshData, other: MeshData) -> float:
    """How far vertices, edge and face centers of `mesh` are from `other` at most."""
    corners = mesh.positions.astype(np.float64)[mesh.faces]
    middles = [(corners[:, k] + corners[:, k - 1]) / 2 for k in range(3)]
    points = np.concatenate([corners.reshape(-1, 3), corners.mean(axis=1), *middles])
    faces = np.ascontiguousarray(other.faces, dtype=np.int32)
    squared = gpytoolbox.squared_distance(points, other.positions.astype(np.float64), faces, use_cpp=True)[0]
    return float(np.sqrt(squared.max()))


def edge_lengths(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Each edge once for every face that has it."""
    corners = positions.astype(np.float64)[faces]
    return np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).reshape(-1)


def botsch_and_kobbelt(mesh: MeshData, length: float) -> tuple[np.ndarray, np.ndarray]:
    """The remeshing that a library has: positions and faces."""
    return gpytoolbox.remesh_botsch(mesh.positions.astype(np.float64), mesh.faces.astype(np.int32), 5, length, True)
