"""A triangle mesh under edit: its arrays, what of it must stay, and the way from and to `MeshData`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.representations.mesh_data import MeshData
from backend.representations.surface_edges import SurfaceEdges, irregular_vertices, surface_edges


@dataclass
class EditableMesh:
    """Rows of removed vertices stay until `to_mesh_data`; faces are always those that exist.

    Attributes:
        positions: `[V, 3]` float64.
        faces: `[F, 3]` int64.
        size: `[V]`, the wanted edge length.
        colors: `[V, C]` float64, C is 3 or 0.
        uvs, uv_faces: `[T, 2]` float64 and `[F, 3]` int64; `[0, 2]` and None without texture coordinates.
        deviation: `[V]`, a bound of how far collapses have moved the surface there.
        origin: `[V]`, the vertex of the input that this one is, -1 for new ones.
        changed: `[V]` bool, whether position or attributes differ from that vertex's.
        pinned: `[V]` bool: may neither move nor vanish. Locked, at a boundary, a seam, or where the mesh is no manifold.
        locked: `[V]` bool: edges between two of these stay as well.
    """

    positions: np.ndarray
    faces: np.ndarray
    size: np.ndarray
    colors: np.ndarray
    uvs: np.ndarray
    uv_faces: np.ndarray | None
    deviation: np.ndarray
    origin: np.ndarray
    changed: np.ndarray
    pinned: np.ndarray
    locked: np.ndarray

    def edges(self) -> SurfaceEdges:
        """The edges as they are now."""
        return surface_edges(self.faces, len(self.positions))

    def wanted_length(self, edges: SurfaceEdges) -> np.ndarray:
        """`[E]`, the mean of what the ends of an edge ask for."""
        return (self.size[edges.ends[:, 0]] + self.size[edges.ends[:, 1]]) / 2.0

    def lengths(self, edges: SurfaceEdges) -> np.ndarray:
        """`[E]`."""
        return norm(self.positions[edges.ends[:, 1]] - self.positions[edges.ends[:, 0]])

    def add_vertices(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """New vertices halfway between `first` and `second` `[K]`, with all attributes; their numbers `[K]`."""
        count = len(self.positions)
        for name in ("positions", "size", "colors"):
            values = getattr(self, name)
            setattr(self, name, np.concatenate([values, (values[first] + values[second]) / 2.0]))
        self.deviation = np.concatenate([self.deviation, np.maximum(self.deviation[first], self.deviation[second])])
        self.origin = np.concatenate([self.origin, np.full(len(first), -1)])
        self.changed = np.concatenate([self.changed, np.ones(len(first), dtype=bool)])
        self.pinned = np.concatenate([self.pinned, np.zeros(len(first), dtype=bool)])
        self.locked = np.concatenate([self.locked, np.zeros(len(first), dtype=bool)])
        return count + np.arange(len(first))

    def to_mesh_data(self, source: MeshData, scale: float) -> tuple[MeshData, np.ndarray]:
        """The mesh without removed vertices, in the order of `source` with new ones at the end, and `origin` of its rows.

        `scale`: how much larger `source` is. What is not `changed` is copied from `source`. Vertices that no face used there are kept.
        """
        alive = np.zeros(len(self.positions), dtype=bool)
        alive[self.faces.reshape(-1)] = True
        alive[: len(source.positions)] |= ~used_vertices(source.faces, len(source.positions))
        kept = np.flatnonzero(alive)
        origin, same = self.origin[kept], ~self.changed[kept]
        positions = (self.positions[kept] * scale).astype(np.float32)
        positions[same] = source.positions[origin[same]]
        colors = None
        if source.colors is not None:
            colors = self.colors[kept].clip(0.0, 1.0).astype(np.float32)
            colors[same] = source.colors[origin[same]]
        uvs, uv_faces = None, None
        if self.uv_faces is not None:
            rows, corners = np.unique(self.uv_faces, return_inverse=True)
            uvs = self.uvs[rows].astype(np.float32)
            uv_faces = corners.reshape(-1, 3).astype(np.int32)
        faces = renumbered(self.faces, kept, len(self.positions))
        mesh = MeshData(positions, faces, colors, uvs, uv_faces, source.material)
        return mesh, origin.astype(np.int32)


def editable(mesh: MeshData, size: np.ndarray, locked: np.ndarray) -> EditableMesh:
    """`mesh` (no face of which repeats a vertex) for editing; boundaries, seams and whatever is no manifold are pinned."""
    count = len(mesh.positions)
    faces = mesh.faces.astype(np.int64)
    edges = surface_edges(faces, count)
    pinned = locked | irregular_vertices(faces, edges)
    uvs, uv_faces = np.zeros((0, 2)), None
    if mesh.uvs is not None and mesh.uv_faces is not None:
        uvs, uv_faces = _rows_of_their_own(mesh.uvs.astype(np.float64), mesh.uv_faces, faces)
        pinned[edges.ends[seams(edges, uv_faces)].reshape(-1)] = True
    return EditableMesh(
        positions=mesh.positions.astype(np.float64),
        faces=faces,
        size=size.astype(np.float64),
        colors=np.zeros((count, 0)) if mesh.colors is None else mesh.colors.astype(np.float64),
        uvs=uvs,
        uv_faces=uv_faces,
        deviation=np.zeros(count),
        origin=np.arange(count),
        changed=np.zeros(count, dtype=bool),
        pinned=pinned,
        locked=locked.copy(),
    )


def _rows_of_their_own(uvs: np.ndarray, uv_faces: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same texture coordinates with no row used by two vertices, so that a row can change with its vertex."""
    pair = faces.reshape(-1) * len(uvs) + uv_faces.reshape(-1)
    pairs, row = np.unique(pair, return_inverse=True)
    return uvs[pairs % len(uvs)], row.reshape(-1, 3)


def seams(edges: SurfaceEdges, uv_faces: np.ndarray | None) -> np.ndarray:
    """Edges `[E]` bool whose two faces have different texture coordinates there."""
    seam = np.zeros(len(edges.ends), dtype=bool)
    if uv_faces is not None:
        there, back = edges.sides[edges.regular].T
        start, end = uv_faces.reshape(-1), uv_faces[:, [1, 2, 0]].reshape(-1)
        seam[edges.regular] = (start[there] != end[back]) | (end[there] != start[back])
    return seam


def used_vertices(faces: np.ndarray, vertex_count: int) -> np.ndarray:
    """`[V]` bool."""
    used = np.zeros(vertex_count, dtype=bool)
    used[faces.reshape(-1)] = True
    return used


def renumbered(faces: np.ndarray, kept: np.ndarray, vertex_count: int) -> np.ndarray:
    """`faces` as int32 rows of the `kept` vertices."""
    number = np.full(vertex_count, -1, dtype=np.int32)
    number[kept] = np.arange(len(kept), dtype=np.int32)
    return number[faces]


def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`np.cross` of `[..., 3]`, several times faster."""
    return np.stack(
        [
            a[..., 1] * b[..., 2] - a[..., 2] * b[..., 1],
            a[..., 2] * b[..., 0] - a[..., 0] * b[..., 2],
            a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0],
        ],
        axis=-1,
    )


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of `[..., 3]` and `[..., 3]`."""
    return np.einsum("...i,...i->...", a, b)


def norm(a: np.ndarray) -> np.ndarray:
    """Lengths of `[..., 3]`."""
    return np.sqrt(dot(a, a))


def face_normals(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`[F, 3]`, as long as twice the faces' areas."""
    a, b, c = positions[faces[:, 0]], positions[faces[:, 1]], positions[faces[:, 2]]
    return cross(b - a, c - a)


def uv_areas(uvs: np.ndarray, uv_faces: np.ndarray) -> np.ndarray:
    """`[F]`, twice the signed areas in the texture."""
    ab, ac = uvs[uv_faces[:, 1]] - uvs[uv_faces[:, 0]], uvs[uv_faces[:, 2]] - uvs[uv_faces[:, 0]]
    return ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
