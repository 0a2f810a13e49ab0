"""The differentiable operators of the rasterizer, in nvdiffrast's words (Laine et al. 2020), with their checks.

Each runs as a Warp kernel on CPU or CUDA. Where Warp has no build (macOS on Intel), the plain-torch twins of
`backend.rendering.reference` stand in; `backend.rendering.implementation` chooses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.fragments import Fragments
from backend.rendering.implementation import implementation

LARGEST_IMAGE = 8192
MOST_PIXELS = 2**28
"""Of all views together; kernels count an image's numbers in 31 bits."""


def rasterize(clip: Tensor, faces: Tensor, height: int, width: int) -> Fragments:
    """The nearest face at each pixel center, with perspective-correct barycentrics.

    A face is left out if one of its vertices is not finite, lies nearer than the near plane (z/w < -1 or w <= 0) or is
    out of range, or if it repeats a vertex. Both sides of a face are visible. Row 0 of the images is on top (y
    is up in NDC).

    Args:
        clip: `[N, V, 4]` float32, clip-space vertices of each view.
        faces: `[F, 3]` int32 on the same device.
        height: rows of the images.
        width: columns of the images.

    Raises:
        InputError: shapes, types or devices do not fit, or the images would be empty, larger than 8192 pixels a side,
            or more than 2^28 pixels together.
    """
    if clip.dim() != 3 or clip.shape[2] != 4 or clip.dtype != torch.float32:
        raise InputError(f"clip must be float32 of shape [N, V, 4], not {clip.dtype} {list(clip.shape)}.")
    check_faces(faces, clip.device)
    if not (1 <= height <= LARGEST_IMAGE and 1 <= width <= LARGEST_IMAGE):
        raise InputError(f"An image of {height} x {width} pixels was asked for; use 1 to {LARGEST_IMAGE} a side.")
    if clip.shape[0] * height * width > MOST_PIXELS:
        raise InputError(
            f"{clip.shape[0]} views of {height} x {width} pixels exceed {MOST_PIXELS} together; render fewer at once."
        )
    return Fragments(*implementation.rasterize(clip, faces, height, width))


def interpolate(attributes: Tensor, fragments: Fragments, faces: Tensor) -> Tensor:
    """Vertex attributes at each pixel: `[V, C]` or `[N, V, C]` -> `[N, H, W, C]`, 0 on the background.

    `faces` may index attributes separately from positions (one row per face in the order of `rasterize`'s faces).

    Raises:
        InputError: shapes or types do not fit.
    """
    views = fragments.face_id.shape[0]
    if attributes.dim() not in (2, 3) or attributes.dtype != torch.float32:
        raise InputError(
            f"attributes must be float32 of shape [V, C] or [N, V, C], not {attributes.dtype} {list(attributes.shape)}."
        )
    if attributes.dim() == 3 and attributes.shape[0] != views:
        raise InputError(f"attributes hold {attributes.shape[0]} views, but {views} were rasterized.")
    if fragments.face_id.numel() * attributes.shape[-1] >= 2**31:
        raise InputError(f"{attributes.shape[-1]} channels are too many for such images; interpolate them in parts.")
    return implementation.interpolate(attributes, fragments.barycentrics, fragments.face_id, faces)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals `[V, 3]` of `vertices` `[V, 3]`; 0 where a vertex has no face of any area.

    Raises:
        InputError: shapes or types do not fit.
    """
    if vertices.dim() != 2 or vertices.shape[1] != 3 or vertices.dtype != torch.float32:
        raise InputError(f"vertices must be float32 of shape [V, 3], not {vertices.dtype} {list(vertices.shape)}.")
    check_faces(faces, vertices.device)
    return implementation.vertex_normals(vertices, faces)


def check_faces(faces: Tensor, device: torch.device) -> None:
    if faces.dim() != 2 or faces.shape[1] != 3 or faces.dtype != torch.int32:
        raise InputError(f"faces must be int32 of shape [F, 3], not {faces.dtype} {list(faces.shape)}.")
    if faces.device != device:
        raise InputError(f"faces are on {faces.device}, but the vertices are on {device}; move them to one device.")
