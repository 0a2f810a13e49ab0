"""The quads and n-gons of an artist's mesh, cut into the triangles that are optimized, and the way back.

A polygon keeps its corners as the file names them; each triangle knows which polygon it is a piece of and which of the
polygon's corners it took. No vertices are added or moved, so a polygon of a refined mesh is its old corners at new places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend.errors import InputError

MAX_CORNERS = 10_000
"""Of one polygon: cutting takes time by the square of it."""

_THIN = 0.1
"""A quad's first diagonal gives way where its smaller triangle is smaller than this share of the second's."""


@dataclass(frozen=True)
class Polygons:
    """Attributes:
    sizes: `[N]` int32, the number of corners of each polygon.
    corners: `[C]` int32, vertices of the polygons, one after another.
    uv_corners: `[C]` int32, rows of `uvs` at the corners, or None.
    triangle_polygon: `[F]` int32, the polygon that each triangle is a piece of.
    triangle_corners: `[F, 3]` int32, rows of `corners` (and of `uv_corners`) at each triangle's corners.
    """

    sizes: np.ndarray
    corners: np.ndarray
    uv_corners: np.ndarray | None
    triangle_polygon: np.ndarray
    triangle_corners: np.ndarray

    def faces(self) -> np.ndarray:
        """The triangles [F, 3] int32."""
        return self.corners[self.triangle_corners]

    def uv_faces(self) -> np.ndarray | None:
        """The rows of `uvs` at the triangles' corners [F, 3] int32."""
        return None if self.uv_corners is None else self.uv_corners[self.triangle_corners]

    def of_triangles(self, values: np.ndarray) -> np.ndarray:
        """One value a polygon [N, ...] from one a triangle [F, ...]: that of its first triangle."""
        first = np.zeros(len(self.sizes), dtype=np.int64)
        first[self.triangle_polygon[::-1]] = np.arange(len(self.triangle_polygon))[::-1]
        return values[first]


def cut_polygons(
    positions: np.ndarray, sizes: np.ndarray, corners: np.ndarray, uv_corners: np.ndarray | None = None
) -> Polygons:
    """Triangles in the order of their polygons; polygons with fewer than 3 corners have none.

    A quad is cut from its first corner unless that turns a triangle over or leaves it without area. Larger polygons that
    are convex become fans; others, and those with corners on a straight line, are cut by clipping ears (Meisters 1975) in
    the plane of their area vector, the best-shaped ear first.

    Raises:
        InputError: a polygon has more than `MAX_CORNERS` corners.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    if len(sizes) and sizes.max() > MAX_CORNERS:
        raise InputError(
            f"A polygon of the mesh has {sizes.max():,} corners; at most {MAX_CORNERS:,} can be read, so cut it first."
        )
    starts = np.cumsum(sizes) - sizes
    pieces, owners = [], []
    for size in np.unique(sizes[sizes >= 3]):
        polygons = np.flatnonzero(sizes == size)
        points = positions[corners[starts[polygons][:, None] + np.arange(size)]]
        for rows, cut in _cut_equal(points - points.mean(axis=1, keepdims=True)):
            pieces.append((starts[polygons[rows]][:, None, None] + cut).reshape(-1, 3))
            owners.append(np.repeat(polygons[rows], cut.shape[-2]))
    if not pieces:
        owner, triangle_corners = np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.int64)
    else:
        owner, triangle_corners = np.concatenate(owners), np.concatenate(pieces)
        order = np.argsort(owner, kind="stable")
        owner, triangle_corners = owner[order], triangle_corners[order]
    return Polygons(
        sizes.astype(np.int32),
        np.asarray(corners, dtype=np.int32),
        None if uv_corners is None else np.asarray(uv_corners, dtype=np.int32),
        owner.astype(np.int32),
        triangle_corners.astype(np.int32),
    )


def _cut_equal(points: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Polygons of one size [N, size, 3] cut: (rows among them [n], corners of their triangles [n, size - 2, 3])."""
    count, size = points.shape[:2]
    every = np.arange(count)
    if size == 3:
        return [(every, np.broadcast_to(np.arange(3), (count, 1, 3)))]
    if size == 4:
        second = _needs_second_diagonal(points)
        first_cut, second_cut = np.array([[0, 1, 2], [0, 2, 3]]), np.array([[0, 1, 3], [1, 2, 3]])
        return [(every, np.where(second[:, None, None], second_cut, first_cut))]
    fan = np.stack([np.zeros(size - 2, dtype=np.int64), np.arange(1, size - 1), np.arange(2, size)], axis=1)
    convex = _is_convex(points)
    cut = [(every[convex], np.broadcast_to(fan, (convex.sum(), *fan.shape)))]
    return cut + [(every[[row]], _clip_ears(_flattened(points[row]))[None]) for row in np.flatnonzero(~convex)]


def _area_vectors(points: np.ndarray) -> np.ndarray:
    """Twice the signed area of polygons [..., size, 3] around each axis (Newell): [..., 3]."""
    return np.cross(points, np.roll(points, -1, axis=-2)).sum(axis=-2)


def _needs_second_diagonal(quads: np.ndarray) -> np.ndarray:
    """Whether the diagonal from corner 1 to 3 is the better one, of each of [N, 4, 3]."""
    up = _area_vectors(quads)

    def smaller(one: tuple[int, int, int], other: tuple[int, int, int]) -> np.ndarray:
        return np.minimum(*((_area_vectors(quads[:, list(each)]) * up).sum(axis=1) for each in (one, other)))

    first, second = smaller((0, 1, 2), (0, 2, 3)), smaller((0, 1, 3), (1, 2, 3))
    return first < _THIN * second


def _is_convex(points: np.ndarray) -> np.ndarray:
    """Whether polygons [N, size, 3] turn the same way, and visibly, at every corner, and once around only."""
    up = _area_vectors(points)
    up = up / np.maximum(np.linalg.norm(up, axis=1, keepdims=True), 1e-300)
    ahead = np.roll(points, -1, axis=1) - points
    behind = np.roll(ahead, 1, axis=1)
    sine = (np.cross(behind, ahead) * up[:, None]).sum(axis=2)
    cosine = (behind * ahead).sum(axis=2)
    lengths = np.linalg.norm(behind, axis=2) * np.linalg.norm(ahead, axis=2)
    turned = np.arctan2(sine, cosine).sum(axis=1)
    # Seen from corner 0, no triangle of the fan may be a sliver either: corners on one line are for the ear clipper.
    spokes = points[:, 1:] - points[:, :1]
    fan = (np.cross(spokes[:, :-1], spokes[:, 1:]) * up[:, None]).sum(axis=2)
    scale = np.square(points).sum(axis=2).max(axis=1)
    return (sine > 1e-6 * lengths).all(axis=1) & (turned < 6.5) & (fan > 1e-7 * scale[:, None]).all(axis=1)


def _flattened(points: np.ndarray) -> np.ndarray:
    """A polygon [size, 3] seen from the tip of its area vector: [size, 2], counterclockwise, about as large as 1."""
    up = _area_vectors(points)
    length = np.linalg.norm(up)
    up = up / length if length > 0.0 else np.array([0.0, 0.0, 1.0])
    side = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    side /= np.linalg.norm(side)
    flat = points @ np.stack([side, np.cross(up, side)], axis=1)
    return flat / max(np.abs(flat).max(), 1e-300)


def _clip_ears(points: np.ndarray) -> np.ndarray:
    """Triangles [size - 2, 3] of a polygon [size, 2] in the plane, with its winding.

    Where no ear is left (the outline crosses itself or has no area), the corner that turns most is cut off: every polygon
    gets its size - 2 triangles.
    """
    size = len(points)
    before, after = np.roll(np.arange(size), 1), np.roll(np.arange(size), -1)
    there = np.ones(size, dtype=bool)
    shape = np.array([_shape(*points[[before[i], i, after[i]]]) for i in range(size)])
    blocker = np.full(size, -1)
    triangles = []
    for _ in range(size - 2):
        ear = _best_ear(points, before, after, there, shape, blocker)
        triangles.append((before[ear], ear, after[ear]))
        there[ear] = False
        left, right = before[ear], after[ear]
        after[left], before[right] = right, left
        for corner in (left, right):
            shape[corner] = _shape(*points[[before[corner], corner, after[corner]]])
            blocker[corner] = -1
    return np.array(triangles)


def _best_ear(
    points: np.ndarray, before: np.ndarray, after: np.ndarray, there: np.ndarray, shape: np.ndarray, blocker: np.ndarray
) -> int:
    """The best-shaped corner whose triangle holds no other corner; remembers in `blocker` what is in the way of others."""
    blocked = (blocker >= 0) & there[blocker]
    score = np.where(there & ~blocked, shape, -np.inf)
    while True:
        ear = int(np.argmax(score))
        if score[ear] <= 1e-9:
            return int(np.argmax(np.where(there, shape, -np.inf)))
        inside = _first_inside(points, before[ear], ear, after[ear], there)
        if inside < 0:
            return ear
        blocker[ear] = inside
        score[ear] = -np.inf


def _first_inside(points: np.ndarray, a: int, b: int, c: int, there: np.ndarray) -> int:
    """A corner inside the triangle abc or on its rim, its own corners and their twins left out; -1 if there is none."""
    inside = there.copy()
    for start, end in ((a, b), (b, c), (c, a)):
        edge, offset = points[end] - points[start], points - points[start]
        inside &= edge[0] * offset[:, 1] - edge[1] * offset[:, 0] >= -1e-12
    for corner in (a, b, c):
        inside &= (points != points[corner]).any(axis=1)
    return int(np.argmax(inside)) if inside.any() else -1


def _shape(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    """How near to equilateral a counterclockwise triangle is, 1 at best; negative for a corner that turns inward."""
    double_area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    squares = np.square(b - a).sum() + np.square(c - b).sum() + np.square(a - c).sum()
    return float(2.0 * np.sqrt(3.0) * double_area / max(squares, 1e-300))
