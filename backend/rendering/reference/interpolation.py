"""Vertex attributes to pixels, in plain torch."""

from __future__ import annotations

from torch import Tensor


def interpolate(attributes: Tensor, barycentrics: Tensor, face_ids: Tensor, faces: Tensor) -> Tensor:
    """`[V, C]` or `[N, V, C]` -> `[N, H, W, C]`; see `backend.rendering.interpolate`."""
    covered = (face_ids >= 0) & (face_ids < len(faces))
    view, row, column = covered.nonzero(as_tuple=True)
    corners = faces.long()[face_ids[covered].long()]
    known = ((corners >= 0) & (corners < attributes.shape[-2])).all(dim=1)
    view, row, column, corners = view[known], row[known], column[known], corners[known]
    values = attributes[corners] if attributes.dim() == 2 else attributes[view[:, None], corners]
    blended = (values * barycentrics[view, row, column][..., None]).sum(dim=1)
    empty = attributes.new_zeros((*face_ids.shape, attributes.shape[-1]))
    return empty.index_put((view, row, column), blended)
