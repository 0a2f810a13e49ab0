"""How interpolated attributes change from pixel to pixel, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.reference.visibility import edge_functions


@torch.no_grad()
def screen_derivatives(
    attributes: Tensor, face_ids: Tensor, clip: Tensor, faces: Tensor, attribute_faces: Tensor
) -> Tensor:
    """`[N, H, W, C, 2]`, without gradient; see `backend.rendering.screen_derivatives`."""
    _, height, width = face_ids.shape
    view, row, column = (face_ids >= 0).nonzero(as_tuple=True)
    face_id = face_ids[view, row, column].long()
    corners = attribute_faces.long()[face_id]
    known = ((corners >= 0) & (corners < attributes.shape[-2])).all(dim=1)
    view, row, column, face_id, corners = (part[known] for part in (view, row, column, face_id, corners))
    edges = edge_functions(clip[view[:, None], faces.long()[face_id]].double(), height, width)
    values = edges[:, :, 0] * (column.double() + 0.5)[:, None] + edges[:, :, 1] * (row.double() + 0.5)[:, None] + edges[:, :, 2]
    total = values.sum(dim=1)[:, None, None]
    weights = (values / total[:, 0])[:, :, None]
    slopes = edges[:, :, :2]
    steps = (slopes - weights * slopes.sum(dim=1, keepdim=True)) / total  # [P, 3, 2]
    numbers = (attributes[corners] if attributes.dim() == 2 else attributes[view[:, None], corners]).double()
    changes = torch.einsum("pic,pis->pcs", numbers - numbers[:, :1], steps)
    derivatives = attributes.new_zeros((*face_ids.shape, attributes.shape[-1], 2))
    derivatives[view, row, column] = changes.to(derivatives.dtype)
    return derivatives
