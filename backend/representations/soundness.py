"""Is a triangle mesh sound? Watertight, manifold, oriented outward, in how many pieces; and dropping dust from one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from backend.representations.mesh_checks import check_mesh
from backend.representations.mesh_data import MeshData

DUST_VOLUME = 0.01
DUST_AREA = 0.03
"""A piece is dust if it has less than both of these shares of the whole volume and area."""


@dataclass(frozen=True)
class Soundness:
    """Facts about a mesh's topology. Vertices that no face uses do not count.

    watertight: every edge belongs to two faces (or an even number, if it is not manifold).
    manifold: no edge has more than two faces, and the faces around each vertex form one fan.
    oriented: no two faces run along an edge in the same direction.
    components: pieces connected through shared vertices. euler: V - E + F (2 for a ball, 0 for a torus, each added up).
    volume: signed, positive if faces look outward; meaningful for watertight meshes.
    """

    watertight: bool
    manifold: bool
    oriented: bool
    components: int
    euler: int
    volume: float

    @property
    def sound(self) -> bool:
        """Watertight, manifold, and facing outward as a whole."""
        return self.watertight and self.manifold and self.oriented and self.volume > 0.0


def soundness(mesh: MeshData) -> Soundness:
    """Measure positions [V, 3] and faces [F, 3]. A mesh without faces is not watertight and has nothing else either.

    Raises:
        InputError: `mesh` is not a mesh (see `check_mesh`).
    """
    if len(mesh.faces) == 0:
        return Soundness(False, False, False, 0, 0, 0.0)
    check_mesh(mesh)
    faces = mesh.faces.astype(np.int64)
    used, corners = np.unique(faces, return_inverse=True)
    faces = corners.reshape(-1, 3)
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    low, high = directed.min(1), directed.max(1)
    _, edge, count = np.unique(low * len(used) + high, return_inverse=True, return_counts=True)
    forward = np.bincount(edge[directed[:, 0] == low], minlength=len(count))
    degenerate = bool((low == high).any())
    return Soundness(
        watertight=bool((count % 2 == 0).all()),
        manifold=bool(count.max() <= 2) and not degenerate and _fan_count(faces, edge) == len(used),
        oriented=bool((forward <= 1).all() and (count - forward <= 1).all()),
        components=int(_vertex_components(faces, len(used)).max()) + 1,
        euler=len(used) - len(count) + len(faces),
        volume=signed_volume(mesh.positions, mesh.faces),
    )


def signed_volume(positions: np.ndarray, faces: np.ndarray) -> float:
    """Sum of the signed tetrahedra from the origin, in double precision."""
    a, b, c = (positions[faces[:, corner]].astype(np.float64) for corner in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6.0)


def drop_dust(positions: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave out pieces that are inside out (cavities) or tiny in both volume and area; the largest piece always stays.

    Returns the indices of the vertices that stay [K], and the faces [F, 3] int32 between those, renumbered.
    """
    component = _vertex_components(faces, len(positions))[faces[:, 0]]
    a, b, c = (positions[faces[:, corner]].astype(np.float64) for corner in range(3))
    volume = np.bincount(component, np.einsum("ij,ij->i", a, np.cross(b, c)) / 6.0)
    area = np.bincount(component, np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2.0)
    whole = volume[volume > 0.0].sum()
    kept = (volume > 0.0) & ((volume > DUST_VOLUME * whole) | (area > DUST_AREA * area.sum()))
    kept[np.argmax(volume)] = True
    faces = faces[kept[component]]
    used, corners = np.unique(faces, return_inverse=True)
    return used, corners.reshape(-1, 3).astype(np.int32)


def _vertex_components(faces: np.ndarray, vertex_count: int) -> np.ndarray:
    """Component number of every vertex [V]; faces that share a vertex are connected."""
    rows = faces[:, [0, 1]].reshape(-1)
    columns = faces[:, [1, 2]].reshape(-1)
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(vertex_count, vertex_count))
    return connected_components(graph, directed=False)[1]


def _fan_count(faces: np.ndarray, edge: np.ndarray) -> int:
    """How many fans of edge-connected faces there are around all vertices together; V if each vertex has one.

    `edge` [3F] numbers the undirected edges of (0, 1), (1, 2), (2, 0) of all faces, in three blocks.
    """
    count = len(faces)
    face = np.arange(count)
    # Corner k of face f is node 3 f + k; faces on one edge connect their corners at its lower and at its higher vertex.
    blocks = [(3 * face + k, 3 * face + (k + 1) % 3, faces[:, k] < faces[:, (k + 1) % 3]) for k in range(3)]
    lower = np.concatenate([np.where(ascending, first, second) for first, second, ascending in blocks])
    higher = np.concatenate([np.where(ascending, second, first) for first, second, ascending in blocks])
    order = np.argsort(edge, kind="stable")
    same = np.flatnonzero(edge[order][1:] == edge[order][:-1])
    here, there = order[same], order[same + 1]
    rows = np.concatenate([lower[here], higher[here]])
    columns = np.concatenate([lower[there], higher[there]])
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(3 * count, 3 * count))
    return int(connected_components(graph, directed=False)[0])
