"""Vertex normals, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import SMALLEST_NORMAL


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """`[V, 3]` unit normals; see `backend.rendering.vertex_normals`."""
    faces = faces.long()
    faces = faces[(faces >= 0).all(dim=1) & (faces < len(vertices)).all(dim=1)]
    # A face that is left out afterwards would still give a gradient of 0 times infinity.
    first, second, third = vertices[faces].detach().unbind(dim=1)
    faces = faces[torch.linalg.cross(second - first, third - first).isfinite().all(dim=1)]
    first, second, third = vertices[faces].unbind(dim=1)
    normals = torch.linalg.cross(second - first, third - first)
    sums = torch.zeros_like(vertices).index_add(0, faces.T.reshape(-1), normals.repeat(3, 1))
    squared = (sums.detach() ** 2).sum(dim=-1, keepdim=True)
    directed = (squared > SMALLEST_NORMAL**2) & squared.isfinite()
    length = torch.where(directed, sums, torch.ones_like(sums)).norm(dim=-1, keepdim=True)
    return torch.where(directed, sums / length, torch.zeros_like(sums))
