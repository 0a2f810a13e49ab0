"""What makes silhouettes differentiable, with its checks: the operators that blend or spread coverage at edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.fragments import Fragments, Topology
from backend.rendering.implementation import implementation
from backend.rendering.operators import check_faces


def antialias(image: Tensor, fragments: Fragments, clip: Tensor, faces: Tensor, topology: Topology) -> Tensor:
    """`image` `[N, H, W, C]` with silhouettes blended by where the edges cross the pixel pairs; same shape.

    This is what makes coverage differentiable: the gradient flows to the colors and, through each crossing, to the two
    vertices of the silhouette edge in `clip` `[N, V, 4]`. It is that of the crossing's color step, for which the color
    of the near surface is continued to the crossing; values are blended with the colors of the two pixels.
    `topology` is `build_topology(faces)`. Edges that cross the near plane are cut by it.

    Raises:
        InputError: shapes do not fit, or the topology refers to vertices that `clip` does not have.
    """
    _check_image(image, fragments)
    if topology.vertex_count > clip.shape[1]:
        raise InputError(
            f"The topology refers to {topology.vertex_count} vertices, but there are {clip.shape[1]}; "
            "build it from the same faces."
        )
    if fragments.ranges is not None:
        # What a view did not draw has no silhouettes in it; where its faces met others they end.
        clip = clip.masked_fill(~_vertices_drawn(fragments.ranges, faces, clip.shape[1])[..., None], torch.nan)
    return implementation.antialias(
        image, clip, fragments.face_id, fragments.w.detach(), topology.edges, topology.opposite
    )


def _vertices_drawn(ranges: Tensor, faces: Tensor, vertex_count: int) -> Tensor:
    """Which vertices are corners of the faces that each view drew, bool `[N, V]`."""
    row = torch.arange(faces.shape[0], device=faces.device)
    first, count = ranges.long().to(faces.device).unbind(dim=1)
    drawn = (row >= first[:, None]) & (row < (first + count)[:, None])
    valid = ((faces >= 0) & (faces < vertex_count)).all(dim=1)
    corners = faces.long().clamp(0, max(vertex_count - 1, 0)).T.reshape(1, -1).expand(len(ranges), -1)
    nobody = torch.zeros(len(ranges), vertex_count, dtype=torch.uint8, device=faces.device)
    return nobody.scatter_reduce(1, corners, (drawn & valid).to(torch.uint8).repeat(1, 3), "amax") > 0


def edge_gradient(image: Tensor, fragments: Fragments, clip: Tensor, faces: Tensor) -> Tensor:
    """`image` `[N, H, W, C]` as it is, but with gradients of its silhouettes (Pidhorskyi et al. 2024).

    Where neighboring pixels see different surfaces, the step between their colors pulls at the fragment that ends
    there, along the pair, and through it at the three vertices of its face in `clip` `[N, V, 4]`. Neighbors on one
    continuous surface (a shared vertex, or depths that the surface's slope explains) get none.

    Raises:
        InputError: shapes or types do not fit.
    """
    _check_image(image, fragments)
    check_faces(faces, clip.device)
    hard = (fragments.face_id, fragments.barycentrics.detach(), fragments.w.detach())
    return implementation.edge_gradient(image, clip, *hard, faces)


@dataclass(frozen=True)
class SoftFragments:
    """What a soft rasterization gives for each pixel.

    Attributes:
        coverage: `[N, H, W]` in [0, 1], differentiable.
        depth: `[N, H, W]`, mean distance along the viewing axis, infinite where no face is near; differentiable.
        attributes: `[N, H, W, C]`, mean of the faces' attributes (not multiplied by coverage), 0 where none is near.
    """

    coverage: Tensor
    depth: Tensor
    attributes: Tensor


def soft_rasterize(
    clip: Tensor,
    faces: Tensor,
    height: int,
    width: int,
    *,
    sigma: float,
    gamma: float,
    attributes: Tensor | None = None,
) -> SoftFragments:
    """Every face covers the pixels near it a little, and faces behind each other are mixed (Liu et al. 2019).

    A face covers a pixel with D = sigmoid(+-d^2 / sigma), where d is the distance on the screen from the pixel's center
    to the face's outline, positive inside. Coverage is 1 - prod (1 - D) over the faces; depth and attributes are means
    weighted by D exp(-w / gamma). Both temperatures are the caller's to lower over time. Faces that reach beyond the
    near plane are left out. Time grows with sigma: a face is felt 3 sqrt(sigma) outside of itself.

    Args:
        clip: `[N, V, 4]` float32.
        faces: `[F, 3]` int32.
        height: rows of the images.
        width: columns of the images.
        sigma: softness of outlines, in squared units of half the image's height; 1e-4 is usual.
        gamma: softness of depth, in units of `w`.
        attributes: `[V, C]` or `[N, V, C]` float32 to be mixed; none by default.

    Raises:
        InputError: shapes or types do not fit, or a temperature is not above 0.
    """
    if clip.dim() != 3 or clip.shape[2] != 4 or clip.dtype != torch.float32:
        raise InputError(f"clip must be float32 of shape [N, V, 4], not {clip.dtype} {list(clip.shape)}.")
    check_faces(faces, clip.device)
    if height < 1 or width < 1:
        raise InputError(f"An image of {height} x {width} pixels was asked for; use at least 1 a side.")
    for name, value in (("sigma", sigma), ("gamma", gamma)):
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"{name} is {value}; use a number above 0.")
    attributes = clip.new_zeros(clip.shape[1], 0) if attributes is None else attributes
    if attributes.shape[-2:-1] != clip.shape[1:2] or attributes.dtype != torch.float32:
        raise InputError(
            f"attributes must be float32 of shape [{clip.shape[1]}, C] or [{clip.shape[0]}, {clip.shape[1]}, C], "
            f"not {attributes.dtype} {list(attributes.shape)}."
        )
    attributes = attributes.expand(clip.shape[0], -1, -1)
    return SoftFragments(*implementation.soft_rasterize(clip, attributes, faces, height, width, sigma, gamma))


def _check_image(image: Tensor, fragments: Fragments) -> None:
    if image.dim() != 4 or image.shape[:3] != fragments.face_id.shape or image.dtype != torch.float32:
        expected = list(fragments.face_id.shape)
        raise InputError(f"image must be float32 of shape {expected} x C, not {image.dtype} {list(image.shape)}.")
