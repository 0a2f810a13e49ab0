"""A triangle mesh as plain arrays: what jobs begin with, previews carry and results are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class MaterialData:
    """A metal-rough material, as glTF and Blender's Principled BSDF have it; textures are `[H, W, C]`, row 0 on top (v = 1).

    Attributes:
        base_color: float32 `[H, W, 3]` or `[3]` in [0, 1], as displayed (sRGB).
        metallic: float32 `[H, W]` or one number in [0, 1].
        roughness: float32 `[H, W]` or one number in [0, 1].
        normal: tangent-space normal map, float32 `[H, W, 3]` of unit vectors (x along u, y along v, z outward), or None.
        emission: float32 `[H, W, 3]` or `[3]`, as displayed, or None for a surface that does not shine.
        name: as the artist wrote it.
    """

    base_color: np.ndarray
    metallic: np.ndarray | float = 0.0
    roughness: np.ndarray | float = 0.5
    normal: np.ndarray | None = None
    emission: np.ndarray | None = None
    name: str = "Galatea"


@dataclass(frozen=True)
class MeshData:
    """A mesh, with colors of its vertices or with a texture.

    Attributes:
        positions: `[V, 3]` float32.
        faces: `[F, 3]` int32.
        colors: `[V, 3]` float32 in [0, 1] as displayed, or None.
        uvs: `[T, 2]` float32, v upward as in Blender and OBJ, or None.
        uv_faces: `[F, 3]` int32, the rows of `uvs` at the corners of each face; None exactly if `uvs` is.
        material: what the texture coordinates are for, or None.
    """

    positions: np.ndarray
    faces: np.ndarray
    colors: np.ndarray | None = None
    uvs: np.ndarray | None = None
    uv_faces: np.ndarray | None = None
    material: MaterialData | None = None
