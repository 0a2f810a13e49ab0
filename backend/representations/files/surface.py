"""What several writers need to know about a surface: its normals, and its colors at the vertices."""

from __future__ import annotations

import numpy as np

from backend.representations.files.file_mesh import FileMesh
from backend.representations.files.images import linear_to_srgb, sample, srgb_to_linear
from backend.representations.mesh_data import MeshData


def smooth_normals(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals [V, 3]; (0, 1, 0) where no face says anything, since files want unit length."""
    facing = facet_vectors(positions, faces)
    facing /= max(np.abs(facing).max(initial=0.0), 1e-300)
    normals = np.zeros((len(positions), 3))
    for axis in range(3):
        for corner in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], facing[:, axis], len(positions))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-30, normals / np.maximum(length, 1e-30), [0.0, 1.0, 0.0])


def facet_vectors(positions: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Normals of the faces [F, 3], as long as twice their areas."""
    corners = positions.astype(np.float64)[faces]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def vertex_colors(mesh: MeshData) -> np.ndarray | None:
    """Colors of the vertices [V, 3] in [0, 1] as displayed: the mesh's own, else its material's; None without either.

    Where texture coordinates split a vertex, its colors in the texture are averaged.
    """
    if mesh.colors is not None or mesh.material is None:
        return mesh.colors
    base = np.asarray(mesh.material.base_color, dtype=np.float64)
    if base.ndim == 1:
        return np.tile(base[:3], (len(mesh.positions), 1)).astype(np.float32)
    if mesh.uvs is None or mesh.uv_faces is None:
        return None
    pairs = np.stack([mesh.faces.reshape(-1), mesh.uv_faces.reshape(-1)], axis=1)
    vertices, rows = np.unique(pairs, axis=0).T
    return mean_colors(vertices, sample(base, mesh.uvs[rows]), len(mesh.positions)).astype(np.float32)


def mean_colors(vertices: np.ndarray, colors: np.ndarray, count: int, otherwise: float = 0.8) -> np.ndarray:
    """The mean of `colors` [N, 3] at each of `count` vertices; gray where there is none."""
    counts = np.bincount(vertices, minlength=count)[:, None]
    sums = np.stack([np.bincount(vertices, colors[:, channel], count) for channel in range(3)], axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), otherwise)


def colors_at_vertices(read: FileMesh, place: np.ndarray, count: int) -> np.ndarray | None:
    """The colors `[count, 3]` as displayed at the places that a file's vertices were welded to, or None without any.

    A vertex color is multiplied by its material in glTF and stands alone elsewhere; without one, the material's texture or
    color is taken.

    Args:
        place: `[P]`, the row of each of the file's vertices.
    """
    if read.polygon_material is None or not read.materials:
        if read.colors is None:
            return None
        known = np.isfinite(read.colors).all(axis=1)
        return mean_colors(place[known], read.colors[known], count)
    owner = np.repeat(np.arange(len(read.sizes)), read.sizes)
    material = read.polygon_material[owner]
    uv_rows = np.full(len(read.corners), -1) if read.uv_corners is None else read.uv_corners
    keys = np.stack([read.corners, uv_rows, material], axis=1)
    vertices, uv_rows, material = np.unique(keys, axis=0).T
    colors = np.full((len(vertices), 3), np.nan)
    for index, described in enumerate(read.materials):
        if index in read.unknown_materials:
            continue
        mine = np.flatnonzero(material == index)
        base = np.asarray(described.base_color, dtype=np.float64)
        if base.ndim == 1:
            colors[mine] = base
            continue
        mapped = mine[uv_rows[mine] >= 0]
        colors[mapped] = sample(base, read.uvs[uv_rows[mapped]])
    if read.colors is not None:
        own = read.colors[vertices]
        tinted = linear_to_srgb(srgb_to_linear(own) * srgb_to_linear(colors)) if read.colors_tint else own
        colors = np.where(np.isnan(colors), own, np.where(np.isnan(own), colors, tinted))
    known = np.isfinite(colors).all(axis=1)
    return mean_colors(place[vertices[known]], colors[known], count) if known.any() else None
