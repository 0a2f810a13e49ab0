"""The differentiable operators of the rasterizer, in nvdiffrast's words (Laine et al. 2020), with their checks.

Each runs as a Warp kernel on CPU or CUDA. Where Warp has no build (macOS on Intel), the plain-torch twins of
`backend.rendering.reference` stand in; this module is the one place that chooses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.fragments import Fragments, Topology
from backend.rendering.lighting import Light, Shading

try:
    from backend.rendering import kernels as implementation
except ImportError:
    from backend.rendering import reference as implementation

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


def antialias(image: Tensor, fragments: Fragments, clip: Tensor, faces: Tensor, topology: Topology) -> Tensor:
    """`image` `[N, H, W, C]` with silhouettes blended by where the edges cross the pixel pairs; same shape.

    This is what makes coverage differentiable: the gradient flows to the colors and, through each crossing, to the two
    vertices of the silhouette edge in `clip` `[N, V, 4]`. `topology` is `build_topology(faces)`.

    Raises:
        InputError: shapes do not fit, or the topology refers to vertices that `clip` does not have.
    """
    if image.dim() != 4 or image.shape[:3] != fragments.face_id.shape or image.dtype != torch.float32:
        expected = list(fragments.face_id.shape)
        raise InputError(f"image must be float32 of shape {expected} x C, not {image.dtype} {list(image.shape)}.")
    if topology.vertex_count > clip.shape[1]:
        raise InputError(
            f"The topology refers to {topology.vertex_count} vertices, but there are {clip.shape[1]}; "
            "build it from the same faces."
        )
    return implementation.antialias(
        image, clip, fragments.face_id, fragments.w.detach(), topology.edges, topology.opposite
    )


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals `[V, 3]` of `vertices` `[V, 3]`; 0 where a vertex has no face of any area.

    Raises:
        InputError: shapes or types do not fit.
    """
    if vertices.dim() != 2 or vertices.shape[1] != 3 or vertices.dtype != torch.float32:
        raise InputError(f"vertices must be float32 of shape [V, 3], not {vertices.dtype} {list(vertices.shape)}.")
    check_faces(faces, vertices.device)
    return implementation.vertex_normals(vertices, faces)


def shade(
    colors: Tensor, normals: Tensor, fragments: Fragments, faces: Tensor, light: Light, shading: Shading
) -> Tensor:
    """Premultiplied color and coverage `[N, H, W, 4]` of each fragment, before antialiasing.

    Interpolates vertex `colors` and unit `normals` (both `[V, 3]`) and shades them under `light`: "lit" (color times
    light), "albedo" (color), "textureless" (light on white) or "normal" (`n / 2 + 1/2`). The gradient flows to colors,
    normals and barycentrics, not to the light.

    Raises:
        InputError: colors or normals have another shape or type.
    """
    for name, values in (("colors", colors), ("normals", normals)):
        if values.dim() != 2 or values.shape[1] != 3 or values.dtype != torch.float32:
            raise InputError(f"{name} must be float32 of shape [V, 3], not {values.dtype} {list(values.shape)}.")
    args = (colors, normals, fragments.barycentrics, fragments.face_id, faces, light.direction, light.ambient)
    return implementation.shade(*args, shading)


def check_faces(faces: Tensor, device: torch.device) -> None:
    if faces.dim() != 2 or faces.shape[1] != 3 or faces.dtype != torch.int32:
        raise InputError(f"faces must be int32 of shape [F, 3], not {faces.dtype} {list(faces.shape)}.")
    if faces.device != device:
        raise InputError(f"faces are on {faces.device}, but the vertices are on {device}; move them to one device.")
