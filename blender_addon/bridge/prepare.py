"""What arrives from the wire, made ready for Blender's arrays. Plain arithmetic: it runs in the client's thread.

All that costs time and needs no bpy is done here: coordinates, linear colors, and the edges of a new topology, which
Blender would take most of the time of an update to find.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .colors import to_linear
from .placement import Placement

if TYPE_CHECKING:
    from ..protocol.client_events import ResultArrived, SnapshotArrived
    from ..protocol.mesh_codec import Mesh


@dataclass(frozen=True, eq=False)
class Topology:
    """Triangles and their edges as Blender keeps them; contiguous int32 arrays.

    corner_verts [3 F], corner_edges [3 F] (the edge from a corner to the next of its face), edge_verts [E, 2],
    face_starts [F] (the first corner of each face). `key` names it: equal faces have equal keys.
    """

    key: str
    corner_verts: np.ndarray
    corner_edges: np.ndarray
    edge_verts: np.ndarray
    face_starts: np.ndarray

    @property
    def faces(self) -> int:
        return len(self.face_starts)


@dataclass(frozen=True, eq=False)
class Prepared:
    """positions [V, 3] float32 in local coordinates, rgba [V, 4] float32 linear or None, all contiguous.

    `topology` is None if the snapshot said nothing about faces, or if they are the artist's.
    """

    positions: np.ndarray
    rgba: np.ndarray | None
    topology: Topology | None


KEPT = 4

_recent: dict[str, Topology] = {}
"""The topologies prepared last, under their keys, oldest first: most snapshots have the same one as that before. Replaced
whole, never changed, so that threads may share it."""


def prepare(placement: Placement, arrived: SnapshotArrived | ResultArrived) -> Prepared:
    """A snapshot or a result for `preview.apply`. The faces of a refined object are the artist's, and are not touched."""
    return prepare_mesh(placement, arrived.mesh)


def prepare_mesh(placement: Placement, mesh: Mesh) -> Prepared:
    """The same for a mesh of the wire: checked (finite, indices in range), in wire space."""
    positions = placement.to_local(mesh.positions)
    rgba = None
    if mesh.colors is not None:
        rgba = np.ones((len(positions), 4), dtype=np.float32)
        rgba[:, :3] = to_linear(mesh.colors)
    refined = placement.original is not None
    topology = None if refined or mesh.faces is None else topology_of(mesh.faces)
    return Prepared(positions, rgba, topology)


def topology_of(faces: np.ndarray) -> Topology:
    """The topology of triangles [F, 3] int32. Triangles that use a vertex twice are left out: Blender cannot edit them."""
    global _recent
    faces = np.ascontiguousarray(faces, dtype=np.int32)
    key = hashlib.sha256(faces).hexdigest()
    known = _recent.get(key)
    if known is None:
        known = _build(key, faces)
        _recent = dict([*_recent.items(), (key, known)][-KEPT:])
    return known


def _build(key: str, faces: np.ndarray) -> Topology:
    twice = (faces == np.roll(faces, 1, axis=1)).any(axis=1)
    faces = faces[~twice]
    start, end = faces, np.roll(faces, -1, axis=1)
    pairs = np.minimum(start, end).astype(np.int64) << 32 | np.maximum(start, end)
    edges, corner_edges = np.unique(pairs.ravel(), return_inverse=True)
    return Topology(
        key,
        faces.ravel(),
        corner_edges.ravel().astype(np.int32),
        np.stack([edges >> 32, edges & 0xFFFFFFFF], axis=1).astype(np.int32),
        np.arange(0, faces.size, 3, dtype=np.int32),
    )
