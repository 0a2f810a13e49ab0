"""Into textures: vertex colors, the texture of another mesh or of other texture coordinates, and what lies between charts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from backend.errors import InputError
from backend.rendering import texture
from backend.representations.closest_point import closest_points
from backend.representations.mesh_data import MaterialData, MeshData
from backend.representations.texel_map import TexelMap, map_texels

LARGEST = 8192


def bake_colors(mesh: MeshData, size: int) -> MaterialData:
    """The vertex colors of a mesh with texture coordinates as a matte material with a `size` x `size` base color.

    Each texel gets the interpolated color of the point that it shows; those between charts the nearest one's.

    Raises:
        InputError: the mesh has no colors or no usable texture coordinates, or the size is not in 1 to 8192.
    """
    if mesh.colors is None:
        raise InputError("The mesh has no vertex colors to bake; paint it or give its material a base color.")
    _check_size(size)
    return MaterialData(paint(map_texels(mesh, size, size), mesh.colors, mesh.faces), roughness=1.0)


def paint(texels: TexelMap, values: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`values` `[V, C]` of the corners `faces` `[F, 3]` as a texture `[H, W, C]` float32, filled between the charts."""
    image = np.zeros((*texels.face.shape, values.shape[1]), dtype=np.float32)
    image[texels.covered] = texels.interpolate(values, faces)
    return texels.fill(image)


def transfer_material(source: MeshData, target: MeshData, size: int) -> MaterialData:
    """The material of `source` with every texture made anew for the texture coordinates of `target`, `size` x `size`.

    Each texel looks up the source's texture, bilinearly, at the point of the source's surface that is closest to the
    point it shows: for other texture coordinates of one surface, and for surfaces that lie close to each other. Numbers
    stay numbers. A normal map's vectors are carried over as they are, which is right where both charts run the same way.

    Raises:
        InputError: the source has no material or no texture coordinates, the target has none that are usable, or the
            size is not in 1 to 8192.
    """
    if source.material is None or source.uvs is None or source.uv_faces is None:
        raise InputError("The source mesh has no material with texture coordinates that could be transferred.")
    _check_size(size)
    texels = map_texels(target, size, size)
    points = texels.interpolate(target.positions, target.faces)
    face, barycentrics = closest_points(points, source.positions, source.faces)
    uv = np.einsum("pk,pkc->pc", barycentrics, source.uvs.astype(np.float64)[source.uv_faces[face]])
    place = torch.from_numpy(uv.astype(np.float32)).view(1, 1, -1, 2)

    def carried(values: np.ndarray | float | None) -> np.ndarray | float | None:
        if values is None or np.ndim(values) < 2:
            return values
        flat = values.ndim == 2
        image = torch.from_numpy(np.ascontiguousarray(values[..., None] if flat else values, dtype=np.float32))
        seen = np.zeros((size, size, image.shape[-1]), dtype=np.float32)
        seen[texels.covered] = texture(image, place)[0, 0].numpy()
        return texels.fill(seen)[..., 0] if flat else texels.fill(seen)

    maps = ("base_color", "metallic", "roughness", "normal", "emission")
    return replace(source.material, **{name: carried(getattr(source.material, name)) for name in maps})


def dilate_seams(image: np.ndarray, covered: np.ndarray, texels: int) -> np.ndarray:
    """`image` `[H, W, C]` with the nearest covered texel's value in every other texel at most `texels` away from one.

    Covered texels (`covered` `[H, W]` bool) and those farther away keep their bits. `texels` counts along the longer axis.

    Raises:
        InputError: shapes do not fit, or `texels` is negative.
    """
    if image.ndim != 3 or covered.shape != image.shape[:2] or texels < 0:
        raise InputError(
            f"dilate_seams needs an image [H, W, C], a mask [H, W] and a distance from 0, not {image.shape}, "
            f"{covered.shape} and {texels}."
        )
    if not covered.any():
        return image.copy()
    distance, (row, column) = ndimage.distance_transform_cdt(~covered.astype(bool), "chessboard", return_indices=True)
    near = (distance > 0) & (distance <= texels)
    dilated = image.copy()
    dilated[near] = image[row[near], column[near]]
    return dilated


def _check_size(size: int) -> None:
    if not 1 <= size <= LARGEST:
        raise InputError(f"A texture of {size} texels a side was asked for; use 1 to {LARGEST}.")
