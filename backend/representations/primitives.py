"""Start shapes inside the unit sphere: icosphere, cube and cylinder, gray, closed and facing outward."""

from __future__ import annotations

from typing import Literal

import numpy as np

from backend.representations.mesh_data import MeshData

GRAY = 0.5
RADIUS = 0.6
"""Start shapes leave room to grow inside the unit sphere."""

_ICOSAHEDRON_FACES = np.array(
    [
        [0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2], [10, 7, 6], [7, 1, 8],
        [3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10], [8, 6, 7], [9, 8, 1],
    ]
)  # fmt: skip


def start_shape(kind: Literal["sphere", "cube", "cylinder"]) -> MeshData:
    """A start shape with about 2500 evenly spread vertices, which a mesh stage can optimize as it is."""
    if kind == "sphere":
        return icosphere()
    return cube() if kind == "cube" else cylinder()


def icosphere(level: int = 4, radius: float = RADIUS) -> MeshData:
    """An icosahedron, each face split into four `level` times and pushed onto the sphere: 10 * 4^level + 2 vertices."""
    golden = (1.0 + 5.0**0.5) / 2.0
    corners = [(-1, golden), (1, golden), (-1, -golden), (1, -golden)]
    planes = [[(a, b, 0), (0, a, b), (b, 0, a)] for a, b in corners]
    points = np.array([planes[i][axis] for axis in range(3) for i in range(4)], dtype=np.float64)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    faces = _ICOSAHEDRON_FACES
    for _ in range(level):
        points, faces = _split_in_four(points, faces)
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    return _gray(points * radius, faces)


def cube(divisions: int = 20, radius: float = RADIUS) -> MeshData:
    """A cube whose corners lie on the sphere of `radius`; `divisions` squares along each edge, two triangles each."""
    steps = np.linspace(-1.0, 1.0, divisions + 1)
    v, u = np.meshgrid(steps, steps, indexing="ij")
    ones = np.ones_like(u)
    sides = [np.stack(side, -1).reshape(-1, 3) for side in ((ones, u, v), (v, ones, u), (u, v, ones))]
    quads = _grid_faces(divisions + 1, divisions + 1)
    count = (divisions + 1) ** 2
    points = np.concatenate(sides + [-side for side in sides])
    # Mirroring a side through the center turns its triangles around.
    faces = [quads + count * i for i in range(3)] + [quads[:, ::-1] + count * i for i in range(3, 6)]
    points, faces = _weld(points, np.concatenate(faces))
    return _gray(points * (radius / 3.0**0.5), faces)


def cylinder(segments: int = 64, radius: float = RADIUS) -> MeshData:
    """An upright cylinder, as tall as wide, whose rims lie on the sphere of `radius`; rings are about as far apart as
    the vertices around."""
    rings = max(2, round(segments / np.pi))
    half = rings // 2
    angle = 2.0 * np.pi * np.arange(segments + 1) / segments
    profile = [(i / half, -1.0) for i in range(1, half + 1)]
    profile += [(1.0, -1.0 + 2.0 * i / rings) for i in range(1, rings)]
    profile += [(i / half, 1.0) for i in range(half, 0, -1)]
    distance, height = np.array(profile).T
    x = distance[:, None] * np.sin(angle)
    z = distance[:, None] * np.cos(angle)
    y = np.broadcast_to(height[:, None], x.shape)
    points = np.stack([x, y, z], -1).reshape(-1, 3)
    faces = _grid_faces(len(profile), segments + 1)
    poles = len(points) + np.array([0, 1])
    around = np.arange(segments)
    bottom = np.stack([np.full(segments, poles[0]), around + 1, around], -1)
    last = (len(profile) - 1) * (segments + 1)
    top = np.stack([np.full(segments, poles[1]), last + around, last + around + 1], -1)
    points = np.concatenate([points, [[0.0, -1.0, 0.0], [0.0, 1.0, 0.0]]])
    points, faces = _weld(points, np.concatenate([faces, bottom, top]))
    return _gray(points * (radius / 2.0**0.5), faces)


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Two triangles for each cell of a grid of rows x columns vertices, seen with columns to the right and rows up."""
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1)
    lower = np.stack([corner, corner + 1, corner + columns + 1], -1)
    upper = np.stack([corner, corner + columns + 1, corner + columns], -1)
    return np.concatenate([lower, upper])


def _split_in_four(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, index = np.unique(edges, axis=0, return_inverse=True)
    ab, bc, ca = (index.reshape(-1) + len(points)).reshape(3, -1)
    a, b, c = faces.T
    middles = points[unique].mean(axis=1)
    parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
    return np.concatenate([points, middles]), np.concatenate([np.stack(part, -1) for part in parts])


def _weld(points: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices at one place (to 1e-9) become one."""
    _, first, index = np.unique(np.round(points, 9) + 0.0, axis=0, return_index=True, return_inverse=True)
    return points[first], index.reshape(-1)[faces]


def _gray(points: np.ndarray, faces: np.ndarray) -> MeshData:
    colors = np.full((len(points), 3), GRAY, dtype=np.float32)
    return MeshData(points.astype(np.float32), faces.astype(np.int32), colors)
