"""Masks: which vertices and texels may change, and how much. 0 keeps the very bits, 1 is free, between is a soft border.

A masked value is `start + mask * (value - start)`: the gradient arrives scaled by the mask, and whatever an optimizer's
momentum does to the value behind it, nothing of that shows where the mask is 0.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering import texture
from backend.representations.closest_point import closest_points
from backend.representations.mesh_data import MeshData
from backend.representations.texel_map import TexelMap, map_texels


def checked_mask(mask: Tensor | np.ndarray, shape: tuple[int, ...], what: str) -> Tensor:
    """The mask as float32 numbers in [0, 1] of that shape.

    Raises:
        InputError: it has another shape, or numbers outside [0, 1].
    """
    mask = torch.as_tensor(np.array(mask) if isinstance(mask, np.ndarray) else mask).detach().float().clone()
    if tuple(mask.shape) != shape:
        raise InputError(f"The mask has shape {list(mask.shape)}, but there are {list(shape)} {what}.")
    if not bool(((mask >= 0.0) & (mask <= 1.0)).all()):
        raise InputError(f"The mask of the {what} has numbers outside [0, 1]; 0 keeps what is there, 1 frees it.")
    return mask


def let_through(start: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """`start` where `mask` is 0, `values` where it is 1 (both bit for bit), between them in proportion; differentiable."""
    return torch.where(mask == 0.0, start, torch.lerp(start, values, mask))


def resized_mask(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """A mask of texels at another texture's size: a texel is as free as the least free of those that it overlaps."""
    if tuple(mask.shape) == size:
        return mask
    kept = torch.nn.functional.adaptive_max_pool2d(1.0 - mask[None, None], size)
    return 1.0 - kept[0, 0]


def carried_mask(texel_mask: Tensor, source: MeshData, target: MeshData) -> Tensor:
    """A mask of texels of `source`, of any size, on the base color texture of `target`, the same surface: [H, W].

    It is resized where both have the same texture coordinates, else looked up at the points that the texels show.
    """
    height, width = target.material.base_color.shape[:2]
    if source.uvs is target.uvs:
        return resized_mask(texel_mask, (height, width))
    texels = map_texels(target, height, width)
    points = texels.interpolate(target.positions, target.faces)
    face, barycentrics = closest_points(points, source.positions, source.faces)
    uv = np.einsum("pk,pkc->pc", barycentrics, source.uvs.astype(np.float64)[source.uv_faces[face]])
    seen = texture(texel_mask[..., None], torch.from_numpy(uv.astype(np.float32)).view(1, 1, -1, 2), wrap="clamp")
    image = np.zeros((height, width), dtype=np.float32)
    image[texels.covered] = seen[0, 0, :, 0].numpy().clip(0.0, 1.0)
    return torch.from_numpy(texels.fill(image))


def vertex_mask(texel_mask: Tensor | np.ndarray, mesh: MeshData) -> Tensor:
    """What a mask of texels `[H, W]` leaves of each vertex, [V]: the smallest it is at one of its places in the texture.

    Vertices without texture coordinates are free.

    Raises:
        InputError: the mesh has no texture coordinates, or the mask is none.
    """
    if mesh.uvs is None or mesh.uv_faces is None:
        raise InputError("A mask of texels needs a mesh with texture coordinates; unwrap it first.")
    shape = tuple(texel_mask.shape)
    mask = checked_mask(texel_mask, shape if len(shape) == 2 else (0, 0), "texels [H, W]")
    uv = torch.from_numpy(np.ascontiguousarray(mesh.uvs[mesh.uv_faces], dtype=np.float32)).view(1, 1, -1, 2)
    seen = texture(mask[..., None], uv, wrap="clamp")[0, 0, :, 0]
    corner = torch.from_numpy(mesh.faces.reshape(-1).astype(np.int64))
    return torch.ones(len(mesh.positions)).scatter_reduce(0, corner, seen, "amin")


def texel_mask(vertices: Tensor | np.ndarray, mesh: MeshData, texels: TexelMap) -> Tensor:
    """A mask of vertices [V] on the texture, [H, W]: interpolated, and 0 on every face whose vertices are all kept.

    Raises:
        InputError: the mask is none, or does not fit the mesh.
    """
    mask = checked_mask(vertices, (len(mesh.positions),), "vertices").numpy()
    image = np.zeros(texels.face.shape, dtype=np.float32)
    image[texels.covered] = texels.interpolate(mask[:, None], mesh.faces)[:, 0].clip(0.0, 1.0)
    return torch.from_numpy(texels.fill(image))
