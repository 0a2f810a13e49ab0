"""Edge-driven analytic antialiasing, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import SMALLEST_W, W_SLACK
from backend.rendering.reference.visibility import pixel_coordinates


def antialias(image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor) -> Tensor:
    """`image` with its silhouettes blended, `[N, H, W, C]`; see `backend.rendering.antialias`."""
    views = [_antialias_view(*view, edges.long(), opposite.long()) for view in zip(image, clip, face_ids, w)]
    return torch.stack(views) if views else image.clone()


def _antialias_view(
    image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor
) -> Tensor:
    height, width, channels = image.shape
    points = pixel_coordinates(clip, height, width)
    with torch.no_grad():
        edge, line, flat, toward = _silhouette_lines(points, clip, edges, opposite, height, width)
    # Flat edges work on vertical pairs: exchanging the coordinates makes every edge a steep one.
    start, end = points[edges[edge, 0]], points[edges[edge, 1]]
    start, end = (torch.where(flat[:, None], point.flip(-1), point) for point in (start, end))
    along = (line + 0.5 - start[:, 1]) / (end[:, 1] - start[:, 1])
    crossing = start[:, 0] + along * (end[:, 0] - start[:, 0])
    with torch.no_grad():
        inverse_w = (1 - along) / clip[edges[edge, 0], 3] + along / clip[edges[edge, 1], 3]
        kept = ((crossing >= 0.5) & (crossing < torch.where(flat, height, width) - 0.5)).nonzero()[:, 0]
        edge, line, flat, toward, a = edge[kept], line[kept], flat[kept], toward[kept], (crossing[kept] - 0.5).long()
        first = torch.where(flat, a * width + line, line * width + a)
        second = first + torch.where(flat, width, 1)
        near, far = torch.where(toward > 0, second, first), torch.where(toward > 0, first, second)
        ids = face_ids.reshape(-1)
        shown = (ids[near] >= 0) & (ids[near] != ids[far]) & (w.reshape(-1)[far] * inverse_w[kept] > 1 - W_SLACK)
        slot = 2 * first + flat.long()
        best = _nearest_per_slot(slot[shown], 1 / inverse_w[kept][shown], edge[shown], 2 * height * width, len(edges))
        chosen = shown.nonzero()[:, 0][best]
        first, second = first[chosen], second[chosen]
    alpha = a[chosen].to(crossing.dtype) + 1 - crossing[kept][chosen]
    flat_image = image.reshape(-1, channels)
    change = alpha[:, None] * (flat_image[second] - flat_image[first])
    receiver = torch.where(alpha > 0, first, second)
    return flat_image.index_add(0, receiver, change).view(height, width, channels)


def _silhouette_lines(
    points: Tensor, clip: Tensor, edges: Tensor, opposite: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each silhouette edge once per line of pixel centers that it spans: edge, line, whether flat, the face's side."""
    visible = clip.isfinite().all(dim=-1) & (clip[:, 3] >= SMALLEST_W) & (clip[:, 2] >= -clip[:, 3])
    p, q, near = points[edges[:, 0]], points[edges[:, 1]], points[opposite[:, 0]]
    other = opposite[:, 1].clamp_min(0)
    near_side, far_side = _side(p, q, near), _side(p, q, points[other])
    boundary = (opposite[:, 1] < 0) | ~visible[other]
    silhouette = (near_side != 0) & (boundary | (near_side * far_side > 0))
    silhouette &= visible[edges].all(dim=1) & visible[opposite[:, 0]]
    edge = silhouette.nonzero()[:, 0]
    p, q, near = p[edge], q[edge], near[edge]
    flat = (q[:, 1] - p[:, 1]).abs() < (q[:, 0] - p[:, 0]).abs()
    p, q, near = (torch.where(flat[:, None], point.flip(-1), point) for point in (p, q, near))
    lines = torch.where(flat, width, height).to(points.dtype)
    low = torch.ceil(torch.minimum(torch.minimum(p[:, 1], q[:, 1]).sub(0.5).clamp_min(0), lines)).long()
    high = torch.ceil(torch.minimum(torch.maximum(p[:, 1], q[:, 1]).sub(0.5).clamp_min(0), lines)).long()
    counts = (high - low).clamp_min(0)
    toward = near[:, 0] - (p[:, 0] + (near[:, 1] - p[:, 1]) * (q[:, 0] - p[:, 0]) / (q[:, 1] - p[:, 1]))
    source = torch.repeat_interleave(torch.arange(len(edge), device=clip.device), counts)
    within = torch.arange(len(source), device=clip.device) - (counts.cumsum(0) - counts)[source]
    return edge[source], low[source] + within, flat[source], toward[source]


def _side(p: Tensor, q: Tensor, point: Tensor) -> Tensor:
    along, across = q - p, point - p
    return along[:, 0] * across[:, 1] - along[:, 1] * across[:, 0]


def _nearest_per_slot(slot: Tensor, depth: Tensor, edge: Tensor, slots: int, edges: int) -> Tensor:
    """Indices of the candidates that are the nearest of their slot; of equal ones the lowest edge."""
    shallowest = depth.new_full((slots,), torch.inf).scatter_reduce(0, slot, depth, "amin")
    tied = depth == shallowest[slot]
    lowest = torch.full((slots,), edges, device=slot.device).scatter_reduce(0, slot[tied], edge[tied], "amin")
    return (tied & (edge == lowest[slot])).nonzero()[:, 0]
