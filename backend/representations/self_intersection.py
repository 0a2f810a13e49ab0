"""Which faces of a mesh pass through each other: what neither Euler's number nor manifoldness tells.

Pairs that may meet are found with a hierarchy of grids (every face in cells of about its own size), the rest is the
separating axis theorem for two triangles.
"""

from __future__ import annotations

import numpy as np

from backend.errors import InputError
from backend.representations.editable_mesh import cross, dot
from backend.representations.mesh_checks import check_mesh
from backend.representations.mesh_data import MeshData
from backend.representations.surface_edges import sorted_with_place

TOLERANCE = 1e-7
"""Faces that enter each other by less than this share of the mesh's size are taken to touch, which is no intersection."""

BLOCK = 1 << 21
"""Pairs that are held in memory together."""


def self_intersections(mesh: MeshData) -> np.ndarray:
    """Pairs of faces `[K, 2]` that pass through each other or lie upon each other, lower face first, in ascending order.

    Faces that only touch, as neighbors do along edges and at vertices, do not intersect; neighbors that are folded flat
    onto each other do. Faces without area are left out. Some 0.3 s for 40k faces.

    Raises:
        InputError: `mesh` is not a mesh (see `check_mesh`).
    """
    check_mesh(mesh)
    corners = mesh.positions.astype(np.float64)[mesh.faces]
    normals = cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.sqrt(dot(normals, normals))
    size = float(np.ptp(mesh.positions.astype(np.float64), axis=0).max())
    proper = np.flatnonzero(lengths > (TOLERANCE * size) ** 2)
    corners, normals = corners[proper], normals[proper] / lengths[proper, None]
    found = [
        pairs[_intersect(corners, normals, pairs, TOLERANCE * size)] for pairs in _near_pairs(corners, TOLERANCE * size)
    ]
    pairs = np.sort(proper[np.concatenate([np.zeros((0, 2), dtype=np.int64), *found])], axis=1)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].astype(np.int32)


def _near_pairs(corners: np.ndarray, tolerance: float):
    """Blocks `[P, 2]` of pairs of faces whose axis-aligned boxes overlap, each pair once."""
    if len(corners) == 0:
        return
    low, high = corners.min(axis=1), corners.max(axis=1)
    origin = low.min(axis=0)
    extent = np.maximum((high - low).max(axis=1), np.ptp(corners.reshape(-1, 3), axis=0).max() * 1e-5)
    level = np.ceil(np.log2(extent)).astype(int)
    for current in np.unique(level):
        members = np.flatnonzero(level <= current)
        cell = 2.0**current
        first = np.floor((low[members] - origin) / cell).astype(np.int64)
        last = np.floor((high[members] - origin) / cell).astype(np.int64)
        entry, coordinates = _cells(first, last)
        key = (coordinates[:, 0] << 42) | (coordinates[:, 1] << 21) | coordinates[:, 2]
        order, key = sorted_with_place(key)
        entry, coordinates = entry[order], coordinates[order]
        start = np.searchsorted(key, key, side="left")
        end = np.searchsorted(key, key, side="right")
        own = np.flatnonzero(level[members[entry]] == current)
        partners = np.cumsum(end[own] - start[own])
        begin = 0
        while begin < len(own):
            stop = max(begin + 1, int(np.searchsorted(partners, (partners[begin - 1] if begin else 0) + BLOCK)))
            block = own[begin:stop]
            count = end[block] - start[block]
            one = np.repeat(block, count)
            other = np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(start[block], count)
            a, b = entry[one], entry[other]
            # A pair of this level is met from both sides; and it counts only in the cell where its boxes begin to overlap.
            once = (a < b) | (level[members[b]] < current)
            once &= (np.maximum(first[a], first[b]) == coordinates[one]).all(axis=1)
            pairs = members[np.stack([a[once], b[once]], axis=1)]
            one, other = pairs.T
            overlap = (low[one] < high[other] + tolerance) & (low[other] < high[one] + tolerance)
            yield pairs[overlap[:, 0] & overlap[:, 1] & overlap[:, 2]]
            begin = stop


def _cells(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All cells between `first` and `last` `[N, 3]`, at most two along each axis: the rows `[E]` and the cells `[E, 3]`."""
    rows, cells = [], []
    for corner in np.ndindex(2, 2, 2):
        cell = np.where(corner, last, first)
        new = ((cell != first) == np.array(corner, dtype=bool)).all(axis=1)
        rows.append(np.flatnonzero(new))
        cells.append(cell[new])
    return np.concatenate(rows), np.concatenate(cells)


def _intersect(corners: np.ndarray, normals: np.ndarray, pairs: np.ndarray, tolerance: float) -> np.ndarray:
    """Which pairs `[P]` bool of triangles have no separating axis (Gottschalk et al. 1996); touching counts as apart."""
    left = np.arange(len(pairs))
    flat, one_sided = np.ones(len(pairs), dtype=bool), np.zeros(len(pairs), dtype=bool)
    for own in (0, 1):
        one, other = corners[pairs[left, own]], corners[pairs[left, 1 - own]]
        distance = dot(other - one[:, :1], normals[pairs[left, own]][:, None, :])
        behind, before = (distance <= tolerance).all(axis=1), (distance >= -tolerance).all(axis=1)
        flat[left] &= behind & before
        one_sided[left] |= behind | before
        left = left[flat[left] | ~one_sided[left]]
    sides = np.roll(corners, -1, axis=1) - corners
    sides /= np.sqrt(dot(sides, sides))[:, :, None]
    in_plane = left[flat[left]]
    for own in (0, 1):
        for k in range(3):
            face = pairs[in_plane, own]
            axis = cross(normals[face], sides[face, k])
            in_plane = in_plane[~_apart_along(axis, corners, pairs[in_plane], tolerance)]
    crossing = left[~flat[left]]
    for i, j in np.ndindex(3, 3):
        axis = cross(sides[pairs[crossing, 0], i], sides[pairs[crossing, 1], j])
        crossing = crossing[~_apart_along(axis, corners, pairs[crossing], tolerance)]
    meets = np.zeros(len(pairs), dtype=bool)
    meets[in_plane], meets[crossing] = True, True
    return meets


def _apart_along(axis: np.ndarray, corners: np.ndarray, pairs: np.ndarray, tolerance: float) -> np.ndarray:
    """Whether `axis` `[P, 3]` has one triangle before the other; of parallel sides there is none. `[P]` bool."""
    length = np.sqrt(dot(axis, axis))
    first = dot(corners[pairs[:, 0]], axis[:, None, :])
    second = dot(corners[pairs[:, 1]], axis[:, None, :])
    gap = np.maximum(second.min(axis=1) - first.max(axis=1), first.min(axis=1) - second.max(axis=1))
    return (length > 1e-6) & (gap >= -tolerance * length)
