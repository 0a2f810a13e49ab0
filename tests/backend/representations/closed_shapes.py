"""Closed surfaces for the remeshing tests, small and of every kind: round, flat, thin, spiky, with handles."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from backend.representations.isosurface import extract_isosurface
from backend.representations.mesh_data import MeshData
from backend.representations.primitives import cube, icosphere


def torus(around: int = 24, across: int = 12, ring: float = 0.6, tube: float = 0.25) -> MeshData:
    u, v = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    a, b = 2 * np.pi * u / around, 2 * np.pi * v / across
    positions = np.stack(
        [(ring + tube * np.cos(b)) * np.cos(a), (ring + tube * np.cos(b)) * np.sin(a), tube * np.sin(b)], -1
    )
    index = lambda i, j: ((i % around) * across + j % across).reshape(-1)  # noqa: E731
    a, b, c, d = index(u, v), index(u + 1, v), index(u + 1, v + 1), index(u, v + 1)
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    return MeshData(positions.reshape(-1, 3).astype("f4"), faces.astype("i4"))


def double_torus(resolution: int = 20) -> MeshData:
    """Two rings that have grown together, with the slivers that marching cubes make."""
    axis = np.linspace(-1.1, 1.1, resolution)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    rings = [0.17 - np.hypot(np.hypot(x - middle, y) - 0.42, z) for middle in (-0.42, 0.42)]
    positions, faces = extract_isosurface(np.maximum(*rings).astype("f4"), np.full(3, -1.1), axis[1] - axis[0])
    return MeshData(positions, faces)


def box(divisions: int, width: float, height: float, depth: float) -> MeshData:
    shape = cube(divisions)
    unit = shape.positions / np.abs(shape.positions).max()
    return MeshData((unit * np.array([width, height, depth]) / 2).astype("f4"), shape.faces)


def spiky(level: int = 3) -> MeshData:
    """A ball with twelve thorns."""
    ball = icosphere(level)
    directions = ball.positions / np.linalg.norm(ball.positions, axis=1, keepdims=True)
    thorns = np.random.default_rng(0).normal(size=(12, 3))
    thorns /= np.linalg.norm(thorns, axis=1, keepdims=True)
    height = np.exp(-((np.arccos((directions @ thorns.T).clip(-1, 1)) / 0.25) ** 2)).sum(axis=1)
    return MeshData((directions * (0.35 + 0.4 * height)[:, None]).astype("f4"), ball.faces)


def noisy_ball(level: int = 2, noise: float = 0.12) -> MeshData:
    """As an optimizer may leave it: vertices off by a share of the edge length in every direction."""
    ball = icosphere(level)
    edge = np.linalg.norm(ball.positions[ball.faces[0, 0]] - ball.positions[ball.faces[0, 1]])
    shift = np.random.default_rng(1).normal(size=ball.positions.shape) * noise * edge
    return MeshData((ball.positions + shift).astype("f4"), ball.faces)


CLOSED: dict[str, Callable[[], MeshData]] = {
    "sphere": lambda: icosphere(2),
    "torus": torus,
    "double torus": double_torus,
    "thin plate": lambda: box(8, 1.2, 1.2, 0.06),
    "cube": lambda: cube(6),
    "spiky": spiky,
    "noisy": noisy_ball,
}


def mean_edge(mesh: MeshData) -> float:
    corners = mesh.positions.astype(np.float64)[mesh.faces]
    return float(np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).mean())
