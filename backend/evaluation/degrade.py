"""True toy objects made to look like optimized ones, so that the judge reads both alike.

An optimized mesh is the level set of a coarse density grid: rounded edges, parts grown together, bumps, and colors that
run into each other. The same is done to a true object: its union is sampled on a grid, blurred, disturbed with smooth
noise and meshed again; its colors are averaged over neighbors on the surface and shifted as a whole.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from backend.representations.mesh_data import MeshData

HALF_WIDTH = 1.1
"""The grid spans [-HALF_WIDTH, HALF_WIDTH] on every axis."""


def degraded(mesh: MeshData, rng: np.random.Generator) -> MeshData:
    """`mesh` (closed solids, which may overlap) as a level set of a random coarse grid with blurred colors.

    If nothing is left at the level drawn, the mesh is returned as it was.
    """
    resolution = int(rng.integers(30, 49))
    field = gaussian_filter(inside(mesh, resolution).astype(np.float32), rng.uniform(0.4, 0.85))
    bumps = gaussian_filter(rng.standard_normal(field.shape).astype(np.float32), 1.5)
    field += rng.uniform(0.0, 0.12) * bumps / bumps.std() * (field > 0.02)
    level = rng.uniform(0.33, 0.5)
    if field.max() <= level:
        return mesh
    spacing = 2.0 * HALF_WIDTH / resolution
    positions, faces, _, _ = marching_cubes(np.pad(field, 1), level)
    positions = (positions - 0.5) * spacing - HALF_WIDTH
    faces = _outward(positions, faces)
    colors = _surface_colors(mesh, positions, int(rng.integers(1, 16)), rng)
    return MeshData(positions.astype(np.float32), faces.astype(np.int32), _off_color(colors, rng))


def inside(mesh: MeshData, resolution: int) -> np.ndarray:
    """Which cell centers of a cubic grid lie inside a union of closed solids, [R, R, R] bool over x, y, z.

    Along z every face adds its orientation to the winding number of the cells above it; inside is where it is positive.
    """
    corner = (mesh.positions.astype(np.float64) + HALF_WIDTH) * (resolution / (2.0 * HALF_WIDTH)) - 0.5
    corner[:, :2] += 1e-4 * np.array([1.0, np.sqrt(2.0)])  # keep columns off edges and vertices
    a, b, c = (corner[mesh.faces[:, k]] for k in range(3))
    low = np.ceil(np.minimum(np.minimum(a, b), c)[:, :2]).astype(int).clip(0)
    high = np.floor(np.maximum(np.maximum(a, b), c)[:, :2]).astype(int).clip(max=resolution - 1)
    span = (high - low + 1).clip(0)
    count = span[:, 0] * span[:, 1]
    face = np.repeat(np.arange(len(count)), count)
    index = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    x = low[face, 0] + index // span[face, 1]
    y = low[face, 1] + index % span[face, 1]
    pa, pb, pc = a[face], b[face], c[face]
    area = _cross(pb - pa, pc - pa)
    point = np.stack([x, y], -1)
    wb = _cross(point - pa[:, :2], pc[:, :2] - pa[:, :2]) / np.where(area == 0, np.inf, area)
    wc = _cross(pb[:, :2] - pa[:, :2], point - pa[:, :2]) / np.where(area == 0, np.inf, area)
    hit = (area != 0) & (wb >= 0) & (wc >= 0) & (wb + wc <= 1)
    z = pa[:, 2] + wb * (pb[:, 2] - pa[:, 2]) + wc * (pc[:, 2] - pa[:, 2])
    winding = np.zeros((resolution, resolution, resolution + 1), dtype=np.int32)
    above = np.ceil(z[hit]).astype(int).clip(0, resolution)
    np.add.at(winding, (x[hit], y[hit], above), -np.sign(area[hit]).astype(np.int32))
    return np.cumsum(winding, axis=2)[:, :, :resolution] > 0


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]


def _outward(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    a, b, c = (positions[faces[:, k]] for k in range(3))
    return faces if np.einsum("ij,ij->", a, np.cross(b, c)) > 0 else faces[:, ::-1]


def _surface_colors(mesh: MeshData, points: np.ndarray, neighbors: int, rng: np.random.Generator) -> np.ndarray:
    """The mean color of the `neighbors` nearest of 6000 random surface samples for each point."""
    a, b, c = (mesh.positions[mesh.faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    face = rng.choice(len(area), 6000, p=area / area.sum())
    u, v = np.sqrt(rng.random(6000)), rng.random(6000)
    weights = np.stack([1 - u, u * (1 - v), u * v], -1)
    samples = np.einsum("nk,nkd->nd", weights, mesh.positions[mesh.faces[face]])
    colors = mesh.colors[mesh.faces[face, 0]]
    nearest = cKDTree(samples).query(points, k=neighbors)[1].reshape(len(points), neighbors)
    return colors[nearest].mean(1)


def _off_color(colors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Less or more saturated, darker or brighter, slightly mottled."""
    gray = colors.mean(1, keepdims=True)
    changed = gray + (colors - gray) * rng.uniform(0.8, 1.1)
    changed = changed * rng.uniform(0.85, 1.1) + rng.normal(0.0, 0.02, colors.shape)
    return changed.clip(0.0, 1.0).astype(np.float32)
