"""Splits and flips of many edges at once: two of the three edits of remeshing (Botsch and Kobbelt 2004).

These functions, and `collapse_edges`, take edges in order of preference, apply an independent set of those that are safe,
and return how many that were. An edit is safe if the surface stays what it was: closed stays closed, manifold manifold,
no face turns over, what is pinned or locked is not touched, texture charts keep their seams. One edge given is one edit.
"""

from __future__ import annotations

import numpy as np

from backend.representations.editable_mesh import EditableMesh, cross, dot, norm, seams, uv_areas
from backend.representations.surface_edges import SurfaceEdges, independent, next_side, previous_side

LARGEST_TURN = 0.5
"""Cosine of the angle by which an edit may turn a face."""

FLIP_DEVIATION = 0.2
"""How far a flip may move the surface, in wanted edge lengths."""


def split_edges(mesh: EditableMesh, edges: SurfaceEdges, candidates: np.ndarray) -> int:
    """Put a vertex in the middle of each edge of an independent set of `candidates` `[K]`: no face is cut twice.

    Edges between two locked vertices and edges that are not manifold are left out. Boundary edges are split, and the
    halves of a seam stay a seam; what is between two pinned vertices on a boundary or a seam becomes pinned.
    """
    splittable = edges.regular | (edges.face_count == 1)
    splittable &= ~mesh.locked[edges.ends].all(axis=1)
    candidates = candidates[splittable[candidates]]
    sides = edges.sides[candidates]
    row, column = np.nonzero(sides >= 0)
    side = sides[row, column]
    chosen = independent(row, side // 3, len(candidates), len(mesh.faces))
    row, side = row[chosen[row]], side[chosen[row]]
    taken = candidates[chosen]
    if len(taken) == 0:
        return 0
    border = ~edges.regular[taken] | seams(edges, mesh.uv_faces)[taken]
    middle = np.empty(len(candidates), dtype=np.int64)
    middle[chosen] = mesh.add_vertices(*edges.ends[taken].T)
    mesh.pinned[middle[chosen][border]] = True
    if mesh.uv_faces is not None:
        mesh.uv_faces = _halved(mesh.uv_faces, side, _middle_rows(mesh, side, row))
    mesh.faces = _halved(mesh.faces, side, middle[row])
    return len(taken)


def flip_edges(mesh: EditableMesh, edges: SurfaceEdges, candidates: np.ndarray) -> int:
    """Replace each edge of an independent set of `candidates` `[K]` by the other diagonal of its two faces.

    Not where that diagonal exists already, where the two faces are not nearly in one plane, or on seams. The two faces
    keep their rows.
    """
    allowed = edges.regular & ~mesh.locked[edges.ends].all(axis=1) & ~seams(edges, mesh.uv_faces)
    candidates = candidates[allowed[candidates]]
    there, back = edges.sides[candidates].T
    corner = mesh.faces.reshape(-1)
    first, second = edges.ends[candidates].T
    left, right = corner[previous_side(there)], corner[previous_side(back)]
    valence = edges.valence()
    valid = (left != right) & (valence[first] > 3) & (valence[second] > 3) & ~edges.exists(left, right)
    valid &= _flips_flat(mesh, first, second, left, right)
    if mesh.uv_faces is not None:
        valid &= _flips_in_texture(mesh, there, back)
    quad = np.stack([first, second, left, right], axis=1)
    row = np.repeat(np.flatnonzero(valid), 4)
    taken = independent(row, quad[valid].reshape(-1), len(candidates), len(mesh.positions)) & valid
    there, back = there[taken], back[taken]
    for faces in (mesh.faces, mesh.uv_faces):
        if faces is not None:
            _turn(faces, there, back)
    return int(taken.sum())


def _middle_rows(mesh: EditableMesh, side: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """New rows of texture coordinates in the middle of `side` `[S]`: one for both faces at `edge` `[S]`, two on a seam."""
    start, end = mesh.uv_faces.reshape(-1)[side], mesh.uv_faces.reshape(-1)[next_side(side)]
    key = np.stack([edge, np.minimum(start, end), np.maximum(start, end)], axis=1)
    rows, which = np.unique(key, axis=0, return_inverse=True)
    count = len(mesh.uvs)
    mesh.uvs = np.concatenate([mesh.uvs, (mesh.uvs[rows[:, 1]] + mesh.uvs[rows[:, 2]]) / 2.0])
    return count + which.reshape(-1)


def _halved(faces: np.ndarray, side: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """`faces` with one side of some of them cut at `middle` `[S]`; the second halves come last."""
    face, corner = side // 3, side % 3
    halves = faces[face]
    number = np.arange(len(face))
    first, second = halves.copy(), halves
    first[number, (corner + 1) % 3] = middle
    second[number, corner] = middle
    faces = faces.copy()
    faces[face] = first
    return np.concatenate([faces, second])


def _flips_flat(
    mesh: EditableMesh, first: np.ndarray, second: np.ndarray, left: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """Whether the diagonals (first, second) and (left, right) pass close to each other and no face turns over, `[K]`."""
    a, b, c, d = (mesh.positions[corner] for corner in (first, second, left, right))
    old = cross(b - a, c - a), cross(a - b, d - b)
    new = cross(b - d, c - d), cross(a - c, d - c)
    facing = old[0] + old[1]
    length = norm(facing)
    wanted = mesh.size[first] + mesh.size[second]
    # The distance between the lines of the two diagonals: facing is normal to both.
    flat = np.abs(dot(facing, c - a)) <= FLIP_DEVIATION * wanted / 2.0 * length
    for normal in new:
        flat &= dot(normal, facing) > LARGEST_TURN * norm(normal) * length
    return flat


def _flips_in_texture(mesh: EditableMesh, there: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Whether all four faces, the two old and the two new ones, lie in the texture the same side up, `[K]`."""
    row = mesh.uv_faces.reshape(-1)
    a, b, c, d = row[there], row[next_side(there)], row[previous_side(there)], row[previous_side(back)]
    areas = [uv_areas(mesh.uvs, np.stack(face, axis=1)) for face in ((a, b, c), (b, a, d), (d, b, c), (c, a, d))]
    return (np.min(areas, axis=0) > 0.0) | (np.max(areas, axis=0) < 0.0)


def _turn(faces: np.ndarray, there: np.ndarray, back: np.ndarray) -> None:
    """Faces (a, b, c) and (b, a, d) at the sides `there` and `back` become (d, b, c) and (c, a, d)."""
    corner = faces.reshape(-1)
    c, d = corner[previous_side(there)], corner[previous_side(back)]
    corner[there], corner[back] = d, c
