"""Vertex attributes to pixels, in plain torch."""

from __future__ import annotations

from torch import Tensor


def interpolate(attributes: Tensor, barycentrics: Tensor, face_ids: Tensor, faces: Tensor) -> Tensor:
    """`[V, C]` or `[N, V, C]` -> `[N, H, W, C]`; see `backend.rendering.interpolate`."""
    covered = face_ids >= 0
    view = covered.nonzero(as_tuple=True)[0]
    corners = faces.long()[face_ids[covered].long()]
    values = attributes[corners] if attributes.dim() == 2 else attributes[view[:, None], corners]
    blended = (values * barycentrics[covered][..., None]).sum(dim=1)
    empty = attributes.new_zeros((*face_ids.shape, attributes.shape[-1]))
    return empty.index_put(covered.nonzero(as_tuple=True), blended)
