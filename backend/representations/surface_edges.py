"""Who touches whom on a triangle mesh, as flat arrays: edges with their faces, and the faces around vertices.

A *side* is one of the three directed edges of a face: side 3 f + k runs from corner k of face f to the next corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class SurfaceEdges:
    """The undirected edges of faces `[F, 3]` between `vertex_count` vertices, in ascending order of their ends.

    Attributes:
        ends: `[E, 2]`, smaller vertex first.
        sides: `[E, 2]`, the side that runs from the smaller to the larger vertex, then the one that runs back; -1 where
            there is none. Meaningful for regular and boundary edges only.
        face_count: `[E]`, how many faces have the edge.
        regular: `[E]`, whether exactly two faces meet there and agree on which side is outside.
        keys: `[E]`, ascending, `smaller * vertex_count + larger`.
        vertex_count: of the mesh, unused vertices included.
    """

    ends: np.ndarray
    sides: np.ndarray
    face_count: np.ndarray
    regular: np.ndarray
    keys: np.ndarray
    vertex_count: int

    def valence(self) -> np.ndarray:
        """How many edges each vertex has, `[V]`."""
        return np.bincount(self.ends.reshape(-1), minlength=self.vertex_count)

    def numbers(self, keys: np.ndarray) -> np.ndarray:
        """The edges of those `keys` that are there."""
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return place[self.keys[place] == keys]

    def exists(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Whether vertices `first` and `second`, of one shape, are joined by an edge."""
        wanted = np.minimum(first, second) * self.vertex_count + np.maximum(first, second)
        place = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        return self.keys[place] == wanted


def surface_edges(faces: np.ndarray, vertex_count: int) -> SurfaceEdges:
    """The edges of `faces` `[F, 3]` int64, none of which repeats a vertex."""
    start, end = faces.reshape(-1), faces[:, [1, 2, 0]].reshape(-1)
    order, key = sorted_with_place(np.minimum(start, end) * vertex_count + np.maximum(start, end))
    is_first = np.empty(len(key), dtype=bool)
    is_first[:1] = True
    np.not_equal(key[1:], key[:-1], out=is_first[1:])
    first = np.flatnonzero(is_first)
    face_count = np.diff(first, append=len(key))
    keys = key[first]
    smaller = keys // vertex_count
    ends = np.stack([smaller, keys - smaller * vertex_count], axis=1)
    sides = np.full((len(first), 2), -1, dtype=np.int64)
    edge = np.cumsum(is_first) - 1
    sides.reshape(-1)[2 * edge + (start > end)[order]] = order
    regular = (face_count == 2) & (sides[:, 0] >= 0) & (sides[:, 1] >= 0)
    return SurfaceEdges(ends, sides, face_count, regular, keys, vertex_count)


@dataclass(frozen=True)
class VertexFaces:
    """The corners (3 f + k) at each vertex: `corners[offsets[v]:offsets[v + 1]]`."""

    corners: np.ndarray
    offsets: np.ndarray

    def around(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The corners at each of `vertices` `[K]`, one after the other, and for each the row of its vertex."""
        counts = self.offsets[vertices + 1] - self.offsets[vertices]
        row = np.repeat(np.arange(len(vertices)), counts)
        within = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.corners[self.offsets[vertices][row] + within], row


def vertex_faces(faces: np.ndarray, vertex_count: int) -> VertexFaces:
    """Sorted once, so that the faces around many vertices can be looked up together."""
    corner_vertex = faces.reshape(-1)
    counts = np.bincount(corner_vertex, minlength=vertex_count)
    return VertexFaces(sorted_with_place(corner_vertex)[0], np.concatenate([[0], np.cumsum(counts)]))


def irregular_vertices(faces: np.ndarray, edges: SurfaceEdges) -> np.ndarray:
    """Vertices `[V]` bool whose surroundings are no disk: at a boundary, at an edge that is not regular, or where several
    fans of faces meet."""
    irregular = np.zeros(edges.vertex_count, dtype=bool)
    irregular[edges.ends[~edges.regular].reshape(-1)] = True
    # Corners of one vertex are connected through the regular edges that it has; more than one group is a pinch.
    there, back = edges.sides[edges.regular].T
    rows = np.concatenate([there, next_side(there)])
    columns = np.concatenate([next_side(back), back])
    size = 3 * len(faces)
    graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(size, size))
    count, group = connected_components(graph, directed=False)
    vertex_of_group = np.empty(count, dtype=np.int64)
    vertex_of_group[group] = faces.reshape(-1)
    irregular |= np.bincount(vertex_of_group, minlength=edges.vertex_count) > 1
    return irregular


def independent(row: np.ndarray, item: np.ndarray, row_count: int, item_count: int) -> np.ndarray:
    """Rows `[row_count]` bool of which no two share an item, taken greedily from the first row to the last.

    Row `row[n]` (ascending) uses `item[n]`. The result is exactly that of a sequential pass: in each round a row wins if
    no earlier row is left that uses one of its items; with it go the rows that it excludes.
    """
    chosen = np.zeros(row_count, dtype=bool)
    best = np.empty(item_count, dtype=np.int64)
    while len(row):
        best[item[::-1]] = row[::-1]  # of the rows written to one item the last, which is the first of them, stays
        lost = np.zeros(row_count, dtype=bool)
        lost[row[best[item] != row]] = True
        won = ~lost[row]
        chosen[row[won]] = True
        best[item] = 0
        best[item[won]] = 1
        excluded = np.zeros(row_count, dtype=bool)
        excluded[row[best[item] == 1]] = True
        rest = ~excluded[row]
        row, item = row[rest], item[rest]
    return chosen


def next_side(side: np.ndarray) -> np.ndarray:
    """The side after `side` around its face."""
    return side + np.where(side % 3 == 2, -2, 1)


def previous_side(side: np.ndarray) -> np.ndarray:
    """The side before `side` around its face; it starts at the vertex opposite to `side`."""
    return side + np.where(side % 3 == 0, 2, -1)


def sorted_with_place(key: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The stable `argsort` of nonnegative integers, and these in that order; numbers that hold both key and place sort
    far faster than places by key."""
    bits = max(len(key) - 1, 1).bit_length()
    if len(key) == 0 or int(key.max()) >> (62 - bits):
        order = np.argsort(key, kind="stable")
        return order, key[order]
    packed = np.sort((key << bits) | np.arange(len(key)))
    return packed & ((1 << bits) - 1), packed >> bits
