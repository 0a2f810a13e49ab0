"""Collapses of many edges at once: the edit of remeshing that needs the most care (see `mesh_edits`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.representations.editable_mesh import EditableMesh, cross, dot, face_normals, norm, seams, uv_areas
from backend.representations.mesh_edits import LARGEST_TURN
from backend.representations.surface_edges import (
    SurfaceEdges,
    VertexFaces,
    independent,
    next_side,
    previous_side,
    vertex_faces,
)

DEVIATION = 0.2
"""How far a collapse may move the surface, in wanted edge lengths."""

TOTAL_DEVIATION = 0.5
"""How far all collapses at one place together may."""

MIDDLE_BONUS = 0.03
"""The merged vertex lies in the middle unless an end is better by this much, in wanted edge lengths."""

FLATTEST = 0.02
"""No triangle is left below this quality (1 is equilateral) that is worse than the one that it replaces."""


@dataclass
class _Collapses:
    """Row by row: vertex `gone` merges into `kept` at `place` `[K, 3]`, which is the middle or where `kept` is.

    sides: `[K, 2]`, those of the edge. uv_gone, uv_kept: rows of texture coordinates at the edge's ends, or None.
    """

    sides: np.ndarray
    gone: np.ndarray
    kept: np.ndarray
    place: np.ndarray
    middle: np.ndarray
    uv_gone: np.ndarray | None = None
    uv_kept: np.ndarray | None = None

    def where(self, rows: np.ndarray) -> _Collapses:
        """These rows only."""
        return _Collapses(*(None if array is None else array[rows] for array in vars(self).values()))


@dataclass
class _Star:
    """The faces around both ends of collapses: row `row[n]` changes face `side[n] // 3` at its corner `side[n] % 3`.

    dies: whether that face has the edge and goes. second, third: the face's other corners, in order. normals: `[N, 3]`,
    as long as twice the face's area, which is `double_area`. count: of collapses.
    """

    row: np.ndarray
    side: np.ndarray
    dies: np.ndarray
    second: np.ndarray
    third: np.ndarray
    normals: np.ndarray
    double_area: np.ndarray
    count: int

    def any(self, wrong: np.ndarray) -> np.ndarray:
        """For each collapse whether `wrong` `[N]` holds at a face that stays, `[K]`."""
        return np.bincount(self.row, wrong & ~self.dies, self.count) > 0


def collapse_edges(
    mesh: EditableMesh, edges: SurfaceEdges, candidates: np.ndarray, longest: float = np.inf
) -> tuple[int, np.ndarray]:
    """Merge the ends of an independent set of `candidates` `[K]`: no two change the same face.

    The link condition (Dey et al. 1999) keeps the surface a manifold of the same genus, and no vertex is left with fewer
    than three neighbors. The merged vertex lies in the middle or, where that would cut a crease or an end is pinned, at
    an end. A collapse is left out if it would make an edge longer than `longest` wanted lengths.

    Returns how many were merged, and those candidates that were found unsafe: where nothing around them changes there is
    no use in trying them again. Candidates that had to stand back behind earlier ones are in neither.
    """
    allowed = edges.regular & ~seams(edges, mesh.uv_faces) & ~mesh.pinned[edges.ends].all(axis=1)
    refused = candidates[~allowed[candidates]]
    candidates = _apart(mesh, edges, candidates[allowed[candidates]])
    around = vertex_faces(mesh.faces, len(mesh.positions))
    linked, collapses = _collapsible(mesh, edges, around, candidates)
    refused, candidates = np.concatenate([refused, candidates[~linked]]), candidates[linked]
    star = _star(mesh, around, collapses)
    _choose_place(mesh, star, collapses)
    safe = ~_spoils_shape(mesh, star, collapses, longest)
    deviation = _deviation(mesh, star, collapses, safe)
    wanted = (mesh.size[collapses.gone] + mesh.size[collapses.kept]) / 2.0
    total = deviation + np.maximum(mesh.deviation[collapses.gone], mesh.deviation[collapses.kept])
    safe &= (deviation <= DEVIATION * wanted) & (total <= TOTAL_DEVIATION * wanted)
    if mesh.uv_faces is not None:
        safe &= ~_turns_over_in_texture(mesh, star, collapses)
    refused = np.concatenate([refused, candidates[~safe]])
    listed = safe[star.row]
    order = np.argsort(star.row[listed], kind="stable")
    row, face = star.row[listed][order], star.side[listed][order] // 3
    taken = safe & independent(row, face, star.count, len(mesh.faces))
    mesh.deviation[collapses.kept[taken]] = total[taken]
    _merge(mesh, collapses.where(taken))
    return int(taken.sum()), refused


def _apart(mesh: EditableMesh, edges: SurfaceEdges, candidates: np.ndarray) -> np.ndarray:
    """An independent part of `candidates` whose edges and opposite vertices differ: cheap, and all further checks are for
    few. It also sees to it that no opposite vertex loses more than one neighbor at a time."""
    opposite = mesh.faces.reshape(-1)[previous_side(edges.sides[candidates])]
    item = np.concatenate([edges.ends[candidates], opposite], axis=1).reshape(-1)
    row = np.repeat(np.arange(len(candidates)), 4)
    return candidates[independent(row, item, len(candidates), len(mesh.positions))]


def _collapsible(
    mesh: EditableMesh, edges: SurfaceEdges, around: VertexFaces, candidates: np.ndarray
) -> tuple[np.ndarray, _Collapses]:
    """Which candidates `[K]` bool may be collapsed as far as topology goes, and those; a pinned end is kept."""
    gone, kept = edges.ends[candidates].T
    swapped = mesh.pinned[gone]
    gone, kept = np.where(swapped, kept, gone), np.where(swapped, gone, kept)
    valence = edges.valence()
    sides = edges.sides[candidates]
    opposite = mesh.faces.reshape(-1)[previous_side(sides)]
    linked = (valence[opposite] > 3).all(axis=1) & (valence[gone] + valence[kept] > 6)
    # Each neighbor of a vertex inside the surface is the next corner of exactly one of its faces.
    corners, row = around.around(gone)
    neighbor = mesh.faces.reshape(-1)[next_side(corners)]
    common = (neighbor != kept[row]) & edges.exists(neighbor, kept[row])
    linked &= np.bincount(row, common, len(gone)) == 2
    sides, gone, kept = sides[linked], gone[linked], kept[linked]
    collapses = _Collapses(sides, gone, kept, mesh.positions[kept], np.zeros(len(gone), dtype=bool))
    if mesh.uv_faces is not None:
        start, rows = mesh.faces.reshape(-1)[sides[:, 0]], mesh.uv_faces.reshape(-1)
        at_start, at_end = rows[sides[:, 0]], rows[next_side(sides[:, 0])]
        collapses.uv_gone = np.where(start == gone, at_start, at_end)
        collapses.uv_kept = np.where(start == gone, at_end, at_start)
    return linked, collapses


def _star(mesh: EditableMesh, around: VertexFaces, collapses: _Collapses) -> _Star:
    corners_gone, row_gone = around.around(collapses.gone)
    corners_kept, row_kept = around.around(collapses.kept)
    side, row = np.concatenate([corners_gone, corners_kept]), np.concatenate([row_gone, row_kept])
    dies = (side[:, None] // 3 == collapses.sides[row] // 3).any(axis=1)
    once = ~dies | (np.arange(len(row)) < len(row_gone))  # faces that die are found from both ends
    side, row, dies = side[once], row[once], dies[once]
    normals = face_normals(mesh.positions, mesh.faces[side // 3])
    corner = mesh.faces.reshape(-1)
    second, third = corner[next_side(side)], corner[previous_side(side)]
    return _Star(row, side, dies, second, third, normals, norm(normals), len(collapses.gone))


def _choose_place(mesh: EditableMesh, star: _Star, collapses: _Collapses) -> None:
    """Set `place` to the best of middle and ends.

    Best is what is closest to the planes of the faces around, the squared distance averaged over their areas: a simple
    quadric error (Garland and Heckbert 1997). Where the end that was to go is the best place, the ends change roles.
    """
    gone, kept = mesh.positions[collapses.gone], mesh.positions[collapses.kept]
    wanted = (mesh.size[collapses.gone] + mesh.size[collapses.kept]) / 2.0
    area = np.maximum(np.bincount(star.row, star.double_area, star.count), 1e-300)
    base = mesh.positions[star.second]

    def off_planes(place: np.ndarray) -> np.ndarray:
        volume = dot(star.normals, place[star.row] - base)
        squared = np.bincount(star.row, volume**2 / np.maximum(star.double_area, 1e-300), star.count) / area
        return np.sqrt(squared) / wanted

    middle = (gone + kept) / 2.0
    at_kept, at_gone, at_middle = off_planes(kept), off_planes(gone), off_planes(middle)
    bound = mesh.pinned[collapses.kept]
    at_gone[bound], at_middle[bound] = np.inf, np.inf
    collapses.middle = at_middle <= np.minimum(at_kept, at_gone) + MIDDLE_BONUS
    swapped = ~collapses.middle & (at_gone < at_kept)
    for one, other in (("gone", "kept"), ("uv_gone", "uv_kept")):
        first, second = getattr(collapses, one), getattr(collapses, other)
        if first is not None:
            setattr(collapses, one, np.where(swapped, second, first))
            setattr(collapses, other, np.where(swapped, first, second))
    at_end = np.where(swapped[:, None], gone, kept)
    collapses.place = np.where(collapses.middle[:, None], middle, at_end)


def _deviation(mesh: EditableMesh, star: _Star, collapses: _Collapses, asked: np.ndarray) -> np.ndarray:
    """How far the old ends are from the new faces, `[K]`; infinite where not `asked` `[K]` for."""
    stays = ~star.dies & asked[star.row]
    row = star.row[stays]
    apex = collapses.place[row]
    second, third = mesh.positions[star.second[stays]], mesh.positions[star.third[stays]]
    largest = np.zeros(star.count)
    for end in (collapses.gone, collapses.kept):
        nearest = np.full(star.count, np.inf)
        np.minimum.at(nearest, row, _squared_distance(mesh.positions[end][row], apex, second, third))
        largest = np.maximum(largest, nearest)
    return np.sqrt(largest)


def _squared_distance(point: np.ndarray, apex: np.ndarray, second: np.ndarray, third: np.ndarray) -> np.ndarray:
    """From points to triangles, `[N]`: to the plane where the point lies over the triangle, else to the nearest side that
    starts at `second` (all faces of a fan together have all sides so)."""
    normal = cross(second - apex, third - apex)
    area = np.maximum(dot(normal, normal), 1e-300)
    inside = np.ones(len(point), dtype=bool)
    best = np.full(len(point), np.inf)
    for start, end in ((apex, second), (second, third), (third, apex)):
        side, offset = end - start, point - start
        inside &= dot(cross(side, offset), normal) >= 0.0
        along = (dot(offset, side) / np.maximum(dot(side, side), 1e-300)).clip(0.0, 1.0)
        off = offset - along[:, None] * side
        best = np.minimum(best, dot(off, off))
    return np.where(inside, dot(point - apex, normal) ** 2 / area, best)


def _spoils_shape(mesh: EditableMesh, star: _Star, collapses: _Collapses, longest: float) -> np.ndarray:
    """Whether a face turns too far or becomes a sliver, or an edge too long, `[K]`."""
    vertex = mesh.faces.reshape(-1)[star.side]
    old, new = mesh.positions[vertex], collapses.place[star.row]
    second, third = mesh.positions[star.second], mesh.positions[star.third]
    normals = cross(second - new, third - new)
    double_area = norm(normals)
    turned = dot(normals, star.normals) < LARGEST_TURN * double_area * star.double_area
    quality = _quality(double_area, second - new, third - new, third - second)
    worse = quality < _quality(star.double_area, second - old, third - old, third - second)
    wanted = (mesh.size[vertex] + mesh.size[star.second]) / 2.0
    length = norm(second - new)
    too_long = (length > longest * wanted) & (length > norm(second - old))
    return star.any(turned | ((quality < FLATTEST) & worse) | (double_area == 0.0) | too_long)


def _turns_over_in_texture(mesh: EditableMesh, star: _Star, collapses: _Collapses) -> np.ndarray:
    """Whether a face turns over in the texture, `[K]`."""
    rows = mesh.uv_faces.reshape(-1)
    # A pinned vertex on a seam has other rows in other charts; its own faces keep theirs.
    own = mesh.faces.reshape(-1)[star.side] == collapses.kept[star.row]
    at_end = np.where(own, rows[star.side], collapses.uv_kept[star.row])
    middle = (mesh.uvs[collapses.uv_gone] + mesh.uvs[collapses.uv_kept]) / 2.0
    place = np.where(collapses.middle[star.row, None], middle[star.row], mesh.uvs[at_end])
    second, third = mesh.uvs[rows[next_side(star.side)]] - place, mesh.uvs[rows[previous_side(star.side)]] - place
    new = second[:, 0] * third[:, 1] - second[:, 1] * third[:, 0]
    return star.any(new * uv_areas(mesh.uvs, mesh.uv_faces[star.side // 3]) <= 0.0)


def _merge(mesh: EditableMesh, collapses: _Collapses) -> None:
    gone, kept, middle = collapses.gone, collapses.kept, collapses.middle
    for values in (mesh.size, mesh.colors):
        values[kept[middle]] = (values[kept[middle]] + values[gone[middle]]) / 2.0
    mesh.positions[kept] = collapses.place
    mesh.changed[kept[middle]] = True
    alive = np.ones(len(mesh.faces), dtype=bool)
    alive[collapses.sides // 3] = False
    into = np.arange(len(mesh.positions))
    into[gone] = kept
    mesh.faces = into[mesh.faces[alive]]
    if mesh.uv_faces is not None:
        uv_kept, uv_gone = collapses.uv_kept, collapses.uv_gone
        mesh.uvs[uv_kept[middle]] = (mesh.uvs[uv_kept[middle]] + mesh.uvs[uv_gone[middle]]) / 2.0
        into = np.arange(len(mesh.uvs))
        into[uv_gone] = uv_kept
        mesh.uv_faces = into[mesh.uv_faces[alive]]


def _quality(double_area: np.ndarray, *sides: np.ndarray) -> np.ndarray:
    """4 sqrt(3) A / (a^2 + b^2 + c^2): 1 for equilateral triangles, 0 for slivers (Bhatia and Lawrence 1990)."""
    return (2.0 * 3.0**0.5) * double_area / np.maximum(sum(dot(side, side) for side in sides), 1e-300)
