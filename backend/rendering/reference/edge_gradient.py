"""Rasterized edge gradients, in plain torch; see `backend.rendering.kernels.edge_gradient` for what they do."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import SLOPE_SLACK, W_SLACK
from backend.rendering.reference.visibility import pixel_coordinates


def edge_gradient(
    image: Tensor, clip: Tensor, face_ids: Tensor, barycentrics: Tensor, w: Tensor, faces: Tensor
) -> Tensor:
    """`image` unchanged, with gradients of its edges; see `backend.rendering.edge_gradient`."""
    views, height, width, channels = image.shape
    with torch.no_grad():
        a, b, vertical, owner = _edges(clip, face_ids, w, faces.long())
        view = owner // (height * width)
        corners = faces.long()[face_ids.reshape(-1)[owner].long()]
        weights = barycentrics.reshape(-1, 3)[owner, :, None]
    # The fragment's place in pixels is the lever: its value is subtracted again, so that only its gradient is left.
    place = pixel_coordinates((weights * clip[view[:, None], corners]).sum(1), height, width)
    shift = torch.where(vertical, place[:, 1], place[:, 0])
    shift = (shift - shift.detach())[:, None]
    colors = image.reshape(-1, channels)
    push = -0.5 * shift * (colors[b] - colors[a]).detach()
    return colors.index_add(0, a, push).index_add(0, b, push).view(image.shape)


def _edges(clip: Tensor, face_ids: Tensor, w: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pairs of pixels that see different surfaces: both pixels, whether one is below the other, and the edge's owner."""
    height, width = face_ids.shape[1:]
    pixels = torch.arange(face_ids.numel(), device=face_ids.device).view(face_ids.shape)
    a = torch.cat([pixels[:, :, :-1].reshape(-1), pixels[:, :-1].reshape(-1)])
    b = torch.cat([pixels[:, :, 1:].reshape(-1), pixels[:, 1:].reshape(-1)])
    vertical = torch.arange(len(a), device=a.device) >= pixels[:, :, 1:].numel()
    ids, depth = face_ids.reshape(-1).long(), w.reshape(-1)
    differ = ids[a] != ids[b]
    a, b, vertical = a[differ], b[differ], vertical[differ]
    owner = torch.where(depth[a] <= depth[b], a, b)
    both = (ids[a] >= 0) & (ids[b] >= 0)
    face_a, face_b = faces[ids[a].clamp_min(0)], faces[ids[b].clamp_min(0)]
    shared = (face_a[:, :, None] == face_b[:, None, :]).any(2).any(1)
    view = a // (height * width)
    slope_a = (_w_of_plane(clip[view[:, None], face_a], b, height, width) - depth[a]).abs()
    slope_b = (_w_of_plane(clip[view[:, None], face_b], a, height, width) - depth[b]).abs()
    allowed = SLOPE_SLACK * torch.maximum(slope_a, slope_b) + W_SLACK * depth[owner]
    edge = ~(both & (shared | ((depth[a] - depth[b]).abs() <= allowed)))
    return a[edge], b[edge], vertical[edge], owner[edge]


def _w_of_plane(corners: Tensor, pixel: Tensor, height: int, width: int) -> Tensor:
    """w where the rays through pixel centers meet the planes of faces `[P, 3, 4]`, inside of them or not."""
    fx = (pixel % width + 0.5) / (0.5 * width) - 1
    fy = 1 - (pixel % (height * width) // width + 0.5) / (0.5 * height)
    local = corners[..., :2] - torch.stack([fx, fy], dim=-1)[:, None] * corners[..., 3:]
    (ax, ay), (bx, by), (cx, cy) = (corner.unbind(-1) for corner in local.unbind(1))
    weights = torch.stack([bx * cy - by * cx, cx * ay - cy * ax, ax * by - ay * bx], dim=-1)
    return (weights * corners[..., 3]).sum(-1) / weights.sum(-1)
