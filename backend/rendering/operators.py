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
MOST_NUMBERS = 2**31


def rasterize(clip: Tensor, faces: Tensor, height: int, width: int, *, ranges: Tensor | None = None) -> Fragments:
    """The nearest face at each pixel center, with perspective-correct barycentrics.

    Both sides of a face are visible. A face that crosses the near plane (z/w = -1), even one with vertices behind the
    camera, is drawn where it lies in front of that plane. A face is left out if one of its vertices is not finite or
    out of range, if it repeats a vertex, or if it is seen exactly edge-on. Row 0 of the images is on top (y is up in
    NDC). Of faces whose depths are equal in float32 the one with the lowest index is seen; a center that lies exactly
    on an edge belongs to the faces at both of its sides.

    Args:
        clip: `[N, V, 4]` float32, clip-space vertices of each view.
        faces: `[F, 3]` int32 on the same device.
        height: rows of the images.
        width: columns of the images.
        ranges: `[N, 2]` int32, the first face of each view and how many follow; a view then shows only these, so that
            one batch holds several meshes in concatenated `faces` and vertices. Its values are checked: on the CPU
            that costs nothing, on a GPU it waits for them. `face_id` still counts from the first row of `faces`.

    Raises:
        InputError: shapes, types or devices do not fit, a range leaves `faces`, or the images would be empty, larger
            than 8192 pixels a side, or more than 2^28 pixels together.
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
    if clip.shape[0] * max(clip.shape[1], faces.shape[0]) >= MOST_NUMBERS:
        raise InputError(
            f"{clip.shape[0]} views of {clip.shape[1]} vertices and {faces.shape[0]} faces are too many at once; "
            "render fewer views."
        )
    checked = None if ranges is None else _check_ranges(ranges, clip.shape[0], faces.shape[0])
    return Fragments(*implementation.rasterize(clip, faces, height, width, checked), ranges)


def interpolate(attributes: Tensor, fragments: Fragments, faces: Tensor) -> Tensor:
    """Vertex attributes at each pixel: `[V, C]` or `[N, V, C]` -> `[N, H, W, C]`, 0 on the background.

    `faces` may index attributes separately from positions, as `uv_faces` do: one row per face in the order of
    `rasterize`'s faces. Where it has no such row, or a row's index is out of range, the result is 0.

    Raises:
        InputError: shapes, types or devices do not fit.
    """
    _check_attributes(attributes, fragments)
    check_faces(faces, attributes.device)
    return implementation.interpolate(attributes, fragments.barycentrics, fragments.face_id, faces)


def screen_derivatives(
    attributes: Tensor, fragments: Fragments, clip: Tensor, faces: Tensor, attribute_faces: Tensor | None = None
) -> Tensor:
    """How interpolated attributes change from pixel to pixel: `[N, H, W, C, 2]`, 0 on the background.

    The last dimension is the change per pixel to the right and per pixel downward, exact for the face that the pixel
    sees (analytic, from the homogeneous edge functions; no differences between neighbors). Textures choose their level
    of detail by it. No gradient flows through it.

    Args:
        attributes: `[V, C]` or `[N, V, C]` float32.
        fragments: of `rasterize(clip, faces, ...)`.
        clip: `[N, V, 4]` float32.
        faces: `[F, 3]` int32.
        attribute_faces: `[F, 3]` int32 like `faces`, if attributes are indexed separately (`uv_faces`).

    Raises:
        InputError: shapes, types or devices do not fit.
    """
    _check_attributes(attributes, fragments, numbers=2)
    views = fragments.face_id.shape[0]
    if clip.dim() != 3 or clip.shape[0] != views or clip.shape[2] != 4 or clip.dtype != torch.float32:
        raise InputError(f"clip must be float32 of shape [{views}, V, 4], not {clip.dtype} {list(clip.shape)}.")
    check_faces(faces, clip.device)
    attribute_faces = faces if attribute_faces is None else attribute_faces
    check_faces(attribute_faces, clip.device)
    if attribute_faces.shape != faces.shape:
        raise InputError(
            f"attribute_faces holds {attribute_faces.shape[0]} faces, but faces {faces.shape[0]}; "
            "give one row per face."
        )
    return implementation.screen_derivatives(attributes, fragments.face_id, clip, faces, attribute_faces)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals `[V, 3]` of `vertices` `[V, 3]`; 0 where a vertex has no face of any area.

    A face with a vertex that is not finite or does not exist is left out, as `rasterize` does.

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


def _check_attributes(attributes: Tensor, fragments: Fragments, numbers: int = 1) -> None:
    """`numbers`: how many each channel becomes."""
    views = fragments.face_id.shape[0]
    if attributes.dim() not in (2, 3) or attributes.dtype != torch.float32:
        raise InputError(
            f"attributes must be float32 of shape [V, C] or [N, V, C], not {attributes.dtype} {list(attributes.shape)}."
        )
    if attributes.shape[-1] == 0:
        raise InputError("attributes hold no channels; give at least one.")
    if attributes.dim() == 3 and attributes.shape[0] != views:
        raise InputError(f"attributes hold {attributes.shape[0]} views, but {views} were rasterized.")
    if attributes.device != fragments.face_id.device:
        raise InputError(
            f"attributes are on {attributes.device}, but the fragments are on {fragments.face_id.device}; "
            "move them to one device."
        )
    if max(fragments.face_id.numel() * attributes.shape[-1] * numbers, attributes.numel()) >= MOST_NUMBERS:
        raise InputError(f"{attributes.shape[-1]} channels are too many for such images; interpolate them in parts.")


def _check_ranges(ranges: Tensor, views: int, face_count: int) -> list[tuple[int, int]]:
    if ranges.shape != (views, 2) or ranges.dtype != torch.int32:
        raise InputError(f"ranges must be int32 of shape [{views}, 2], not {ranges.dtype} {list(ranges.shape)}.")
    checked = [(int(first), int(count)) for first, count in ranges.tolist()]
    for view, (first, count) in enumerate(checked):
        if first < 0 or count < 0 or first + count > face_count:
            raise InputError(
                f"ranges asks for {count} faces from face {first} on in view {view}, but there are {face_count} faces; "
                "give the first face and the count."
            )
    return checked
