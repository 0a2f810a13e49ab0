"""What makes silhouettes differentiable, with its checks: the operators that blend or spread coverage at edges."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.fragments import Fragments, Topology
from backend.rendering.implementation import implementation


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
