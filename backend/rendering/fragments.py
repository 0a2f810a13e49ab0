"""What rasterization leaves behind for the operators that follow."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from backend.errors import InputError


@dataclass(frozen=True)
class Fragments:
    """The nearest surface at each pixel center.

    Attributes:
        face_id: int32 `[N, H, W]`, row of `faces`, -1 on the background.
        barycentrics: `[N, H, W, 3]` in [0, 1], perspective-correct, in the order of the face's vertices, 0 on the
            background; differentiable in the clip positions.
        depth: `[N, H, W]`, z/w in [-1, 1], 1 on the background; differentiable.
        w: `[N, H, W]`, distance along the viewing axis, infinite on the background; differentiable.
        ranges: int32 `[N, 2]`, which part of `faces` each view showed, None for all of them.
    """

    face_id: Tensor
    barycentrics: Tensor
    depth: Tensor
    w: Tensor
    ranges: Tensor | None = None


@dataclass(frozen=True)
class Topology:
    """The unique edges of a mesh and what lies beside them; computed once per topology.

    Attributes:
        edges: int32 `[E, 2]`, smaller vertex first.
        opposite: int32 `[E, 2]`, the third vertices of the (first) two faces at the edge, -1 where there is no second.
        vertex_count: one more than the largest vertex index used.
    """

    edges: Tensor
    opposite: Tensor
    vertex_count: int


def build_topology(faces: Tensor) -> Topology:
    """The edges of `faces` (integers `[F, 3]`) with their opposite vertices.

    If positions are split at UV seams, pass the faces of the *welded* positions: a seam is no silhouette. At an edge of
    more than two faces only the first two are considered. Faces that repeat a vertex are left out.

    Raises:
        InputError: `faces` has another shape or type, or an index is negative.
    """
    if faces.dim() != 2 or faces.shape[1] != 3 or faces.dtype not in (torch.int32, torch.int64):
        raise InputError(f"faces must be integers of shape [F, 3], not {faces.dtype} {list(faces.shape)}.")
    if faces.numel() == 0:
        empty = torch.zeros((0, 2), dtype=torch.int32, device=faces.device)
        return Topology(empty, empty.clone(), 0)
    if int(faces.min()) < 0:
        raise InputError(f"faces must index vertices from 0, but the smallest index is {int(faces.min())}.")
    vertex_count = int(faces.max()) + 1
    corners = faces.long()
    distinct = (corners != corners.roll(1, dims=1)).all(dim=1)
    corners = corners[distinct]
    start, end, other = corners.T.reshape(-1), corners.roll(-1, 1).T.reshape(-1), corners.roll(-2, 1).T.reshape(-1)
    key = torch.minimum(start, end) * vertex_count + torch.maximum(start, end)
    # Sorting puts the sides of one edge next to each other; stable, so that the first faces come first.
    key, order = torch.sort(key, stable=True)
    other = other[order]
    leads = torch.ones_like(key, dtype=torch.bool)
    leads[1:] = key[1:] != key[:-1]
    first = leads.nonzero()[:, 0]
    follower = torch.clamp(first + 1, max=key.shape[0] - 1)
    has_second = (follower > first) & ~leads[follower]
    second = torch.where(has_second, other[follower], -1)
    edges = torch.stack([key[first] // vertex_count, key[first] % vertex_count], dim=1)
    return Topology(
        edges.int().contiguous(), torch.stack([other[first], second], dim=1).int().contiguous(), vertex_count
    )
