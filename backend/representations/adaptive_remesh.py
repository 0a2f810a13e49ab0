"""Remeshing to a wanted edge length at every vertex: split, collapse, flip and relax (Botsch and Kobbelt 2004).

Continuous remeshing (Palfinger 2022) runs the same edits between the steps of an optimizer, with edge lengths that follow
where it wants detail; `edge_lengths` chooses them by curvature. Nothing here is random: equal input, equal bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from backend.errors import InputError
from backend.representations.editable_mesh import EditableMesh, dot, editable, face_normals, norm
from backend.representations.mesh_checks import MAX_FACES, check_mesh
from backend.representations.mesh_collapse import collapse_edges
from backend.representations.mesh_data import MeshData
from backend.representations.mesh_edits import flip_edges, split_edges
from backend.representations.relaxation import InputSurface, relax
from backend.representations.surface_edges import SurfaceEdges, previous_side

ITERATIONS = 7
POLISHING = 2
"""Relaxations at the end, each followed by flips that open the smallest angles."""

LONGEST, SHORTEST = 4.0 / 3.0, 4.0 / 5.0
"""Edges are split above and collapsed below these multiples of their wanted length."""

MOST_PASSES = 30
"""Of one kind of edit within an iteration; a pass halves what is too long at most, so this is never reached in practice."""


@dataclass(frozen=True)
class Remeshed:
    """origin `[V]` int32: the vertex of the input that each vertex was, -1 for new ones. Ascending, new ones last."""

    mesh: MeshData
    origin: np.ndarray


def remesh_adaptive(
    mesh: MeshData, edge_length: float | np.ndarray, locked: np.ndarray | None = None
) -> MeshData:
    """`mesh` with edges of about `edge_length`, a number or one for each vertex `[V]`, in the units of the mesh.

    A closed manifold stays one of the same genus, pieces stay apart, faces keep the side that they look to, creases stay
    sharp. Texture seams, boundaries and whatever is not manifold stay where they are: their edges are split where
    they are too long, and that is all. Vertices that stay keep position and attributes bit for bit; those in the middle of split
    edges get the mean of the ends, those that were moved along the surface what `mesh` has at that place. Faces that repeat a vertex
    are left out. The order of what stays is kept, new vertices come last.

    Args:
        mesh: with colors, texture coordinates, both or neither; the material is passed on.
        edge_length: changes gently over the surface at best; see `edge_lengths.curvature_edge_length`.
        locked: `[V]` bool; these vertices stay as they are, and so do the edges between two and the faces of three of them.

    Raises:
        InputError: `mesh` is not a mesh (see `check_mesh`) or has no area, the edge lengths or `locked` do not fit it, or
            edges would be so short that MAX_FACES faces would not do.
    """
    return remesh_tracked(mesh, edge_length, locked).mesh


def remesh_tracked(mesh: MeshData, edge_length: float | np.ndarray, locked: np.ndarray | None = None) -> Remeshed:
    """`remesh_adaptive` that also tells which vertex of the result was which: what masks and optimizers' state need."""
    check_mesh(mesh)
    mesh = _without_repeated_vertices(mesh)
    wanted = _checked_lengths(mesh, edge_length)
    held = _checked_locked(mesh, locked)
    # A power of two scales without rounding; far from 1, tolerances would stop to mean anything.
    scale = 2.0 ** np.ceil(np.log2(np.ptp(mesh.positions, axis=0).max()))
    unit = replace(mesh, positions=mesh.positions / np.float64(scale))
    work = editable(unit, wanted / scale, held)
    surface = InputSurface(unit, wanted / scale)
    for _ in range(ITERATIONS):
        split_long(work)
        collapse_short(work)
        even_valences(work)
        relax(work, surface)
    open_angles(work)
    for _ in range(POLISHING):
        relax(work, surface)
        open_angles(work)
    return Remeshed(*work.to_mesh_data(mesh, scale))


def split_long(work: EditableMesh) -> None:
    """Split edges longer than LONGEST, the longest first: those of twice that until there are none, the others once, since
    relaxation shortens some of their neighbors.
    """
    for _ in range(MOST_PASSES):
        edges = work.edges()
        excess = work.lengths(edges) / work.wanted_length(edges)
        coarse = bool((excess > 2.0 * LONGEST).any())
        candidates = np.flatnonzero(excess > LONGEST)
        split = split_edges(work, edges, candidates[np.argsort(-excess[candidates], kind="stable")])
        if split == 0 or not coarse:
            return


def collapse_short(work: EditableMesh) -> None:
    """Collapse edges shorter than SHORTEST, the shortest first, unless that makes edges that would be split again."""
    refused = np.zeros(0, dtype=np.int64)
    for _ in range(MOST_PASSES):
        edges = work.edges()
        excess = work.lengths(edges) / work.wanted_length(edges)
        short = excess < SHORTEST
        short[edges.numbers(refused)] = False
        candidates = np.flatnonzero(short)
        candidates = candidates[np.argsort(excess[candidates], kind="stable")]
        merged, unsafe = collapse_edges(work, edges, candidates, LONGEST)
        refused = np.concatenate([refused, edges.keys[unsafe]])
        if merged <= len(edges.ends) // 1000:
            return


def even_valences(work: EditableMesh) -> None:
    """Flip edges where that brings the numbers of neighbors closer to 6 (4 at a boundary)."""
    for _ in range(MOST_PASSES):
        edges = work.edges()
        regular = np.flatnonzero(edges.regular)
        ideal = np.full(len(work.positions), 6)
        ideal[edges.ends[edges.face_count == 1].reshape(-1)] = 4
        excess = edges.valence() - ideal
        gain = _flip_gain(excess, edges.ends[regular], opposite_vertices(work, edges, regular))
        candidates = regular[gain > 0]
        candidates = candidates[np.argsort(-gain[gain > 0], kind="stable")]
        if flip_edges(work, edges, candidates) <= len(edges.ends) // 100:
            return


def open_angles(work: EditableMesh) -> None:
    """Flip edges whose two opposite angles exceed 180 degrees together (Delaunay): the smallest angles grow."""
    for _ in range(MOST_PASSES):
        edges = work.edges()
        regular = np.flatnonzero(edges.regular)
        ends, opposite = edges.ends[regular], opposite_vertices(work, edges, regular)
        angles = [_angle(work.positions, opposite[:, k], ends[:, 0], ends[:, 1]) for k in (0, 1)]
        excess = angles[0] + angles[1] - np.pi
        candidates = regular[excess > 1e-6]
        candidates = candidates[np.argsort(-excess[excess > 1e-6], kind="stable")]
        if flip_edges(work, edges, candidates) == 0:
            return


def _without_repeated_vertices(mesh: MeshData) -> MeshData:
    proper = (mesh.faces != np.roll(mesh.faces, 1, axis=1)).all(axis=1)
    if proper.all():
        return mesh
    return replace(mesh, faces=mesh.faces[proper], uv_faces=None if mesh.uv_faces is None else mesh.uv_faces[proper])


def _checked_lengths(mesh: MeshData, edge_length: float | np.ndarray) -> np.ndarray:
    lengths = np.asarray(edge_length, dtype=np.float64)
    if lengths.shape not in ((), (len(mesh.positions),)) or not (np.isfinite(lengths) & (lengths > 0.0)).all():
        raise InputError(
            f"edge_length must be one positive number or {len(mesh.positions)} of them, one for each vertex, not "
            + (f"{edge_length}." if lengths.ndim == 0 else f"an array of shape {list(lengths.shape)} with values from "
               f"{lengths.min(initial=np.inf):g} on.")
        )
    lengths = np.broadcast_to(lengths, len(mesh.positions)).copy()
    area = 0.5 * norm(face_normals(mesh.positions.astype(np.float64), mesh.faces))
    if not area.any():
        raise InputError("The faces of the mesh have no area; there is no surface to remesh.")
    # An equilateral triangle of edge h has the area sqrt(3)/4 h^2.
    faces = float((area / (3.0**0.5 / 4.0 * lengths[mesh.faces].mean(axis=1) ** 2)).sum())
    if faces > MAX_FACES:
        raise InputError(
            f"Such short edges would make about {faces:,.0f} faces of the mesh; at most {MAX_FACES:,} can be used, so "
            "ask for longer ones."
        )
    return lengths


def _checked_locked(mesh: MeshData, locked: np.ndarray | None) -> np.ndarray:
    if locked is None:
        return np.zeros(len(mesh.positions), dtype=bool)
    locked = np.asarray(locked)
    if locked.shape != (len(mesh.positions),) or locked.dtype != bool:
        raise InputError(
            f"locked must be {len(mesh.positions)} booleans, one for each vertex, not {locked.dtype} of shape "
            f"{list(locked.shape)}."
        )
    return locked


def opposite_vertices(work: EditableMesh, edges: SurfaceEdges, regular: np.ndarray) -> np.ndarray:
    """The third vertices of both faces at regular edges, `[K, 2]`."""
    return work.faces.reshape(-1)[previous_side(edges.sides[regular])]


def _flip_gain(excess: np.ndarray, ends: np.ndarray, opposite: np.ndarray) -> np.ndarray:
    """By how much the sum of squared valence errors falls if the edges are flipped, `[K]`."""
    return (2 * excess[ends] - 1).sum(axis=1) - (2 * excess[opposite] + 1).sum(axis=1)


def _angle(positions: np.ndarray, apex: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """In radians, `[K]`."""
    to_first, to_second = positions[first] - positions[apex], positions[second] - positions[apex]
    cosine = dot(to_first, to_second) / np.maximum(norm(to_first) * norm(to_second), 1e-300)
    return np.arccos(cosine.clip(-1.0, 1.0))
