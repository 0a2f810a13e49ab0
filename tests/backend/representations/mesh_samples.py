"""Meshes that file formats are tried with."""

from __future__ import annotations

import numpy as np

from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.primitives import icosphere


def eight_bit(generator: np.random.Generator, *shape: int) -> np.ndarray:
    """Random values that 8 bits hold exactly."""
    return generator.integers(0, 256, shape).astype(np.float32) / np.float32(255.0)


def random_normals(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    vectors = generator.normal(size=(height, width, 3)) * [0.4, 0.4, 0.1] + [0.0, 0.0, 1.0]
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)


def textured_box(seed: int = 0) -> MeshData:
    """A box with a chart for each side (all vertices split), and every map there is, of different sizes."""
    generator = np.random.default_rng(seed)
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 2) for z in (0, 3)], np.float32)
    quads = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
    faces, uv_faces, uvs = [], [], []
    for side, (a, b, c, d) in enumerate(quads):
        faces += [(a, b, c), (a, c, d)]
        first = 4 * side
        uv_faces += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
        uvs += (np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * 0.3 + generator.random(2) * 0.6).tolist()
    material = MaterialData(
        base_color=eight_bit(generator, 16, 8, 3),
        metallic=eight_bit(generator, 8, 8),
        roughness=eight_bit(generator, 8, 8),
        normal=random_normals(generator, 4, 16),
        emission=eight_bit(generator, 4, 4, 3),
        name="Käse 木",
    )
    return MeshData(corners, np.int32(faces), None, np.float32(uvs), np.int32(uv_faces), material)


def colored_ball(subdivisions: int = 2) -> MeshData:
    ball = icosphere(subdivisions)
    return MeshData(ball.positions, ball.faces, np.random.default_rng(0).random(ball.positions.shape, dtype=np.float32))
