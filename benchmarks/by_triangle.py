"""Antialiasing started from the triangles that pixels see (Laine et al. 2020, section 3.5), in plain torch.

Only for comparison: `backend.rendering.antialias` starts from the mesh's edges instead. Written from the paper: of two
neighboring pixels that see different triangles, the edges of the nearer triangle are asked which of them is a
silhouette and crosses between the two centers, and the pair is blended by where it does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering import Fragments


def opposite_corners(faces: Tensor) -> Tensor:
    """`[F, 3]`: the third vertex of the neighbor at each face's edge from corner k to k + 1, -1 where there is none."""
    corners = faces.long()
    start, end, other = corners, corners.roll(-1, 1), corners.roll(-2, 1)
    key = (torch.minimum(start, end) * (int(corners.max()) + 1) + torch.maximum(start, end)).reshape(-1)
    key, order = torch.sort(key, stable=True)
    other = other.reshape(-1)[order]
    found = torch.full_like(key, -1)
    same = (key[1:] == key[:-1]).nonzero()[:, 0]
    found[same], found[same + 1] = other[same + 1], other[same]
    result = torch.empty_like(found)
    result[order] = found
    return result.view(-1, 3)


def antialias_by_triangle(
    image: Tensor, fragments: Fragments, clip: Tensor, faces: Tensor, opposite: Tensor
) -> Tensor:
    """`image` `[N, H, W, C]` with its silhouettes blended; `opposite` is `opposite_corners(faces)`."""
    height, width, channels = image.shape[1:]
    ids, w = fragments.face_id, fragments.w.detach().reshape(-1)
    ndc = clip[..., :2] / clip[..., 3:]
    points = torch.stack([(ndc[..., 0] + 1) * (0.5 * width), (1 - ndc[..., 1]) * (0.5 * height)], dim=-1)
    colors = image.reshape(-1, channels)
    result = colors
    for vertical in (False, True):
        one, other = (ids[:, :-1], ids[:, 1:]) if vertical else (ids[:, :, :-1], ids[:, :, 1:])
        view, row, column = (one != other).nonzero(as_tuple=True)
        first = (view * height + row) * width + column
        second = first + (width if vertical else 1)
        nearer = torch.where(w[first] <= w[second], first, second)
        triangle = ids.reshape(-1)[nearer].long()
        line, start = (column + 0.5, row + 0.5) if vertical else (row + 0.5, column + 0.5)
        corners = points[view[:, None], faces.long()[triangle]]
        across = points[view[:, None], opposite[triangle].clamp_min(0)]
        if vertical:
            corners, across = corners.flip(-1), across.flip(-1)
        free = torch.ones_like(triangle, dtype=torch.bool)
        for k in range(3):
            p, q, third = (corners[:, (k + i) % 3] for i in range(3))
            with torch.no_grad():
                lone = opposite[triangle, k] < 0
                silhouette = lone | (_side(p, q, third) * _side(p, q, across[:, k]) > 0)
                steep = (q - p)[:, 1].abs() >= (q - p)[:, 0].abs()
                place = p[:, 0] + (line - p[:, 1]) / (q[:, 1] - p[:, 1]) * (q[:, 0] - p[:, 0])
                spans = ((p[:, 1] - line) * (q[:, 1] - line) < 0) & (place >= start) & (place < start + 1)
                taken = (free & silhouette & steep & spans).nonzero()[:, 0]
                free[taken] = False
            p, q = p[taken], q[taken]
            place = p[:, 0] + (line[taken] - p[:, 1]) / (q[:, 1] - p[:, 1]) * (q[:, 0] - p[:, 0])
            alpha = (start[taken] + 0.5 - place)[:, None]
            a, b = first[taken], second[taken]
            receiver = torch.where(alpha[:, 0] > 0, a, b)
            result = result.index_add(0, receiver, alpha * (colors[b] - colors[a]))
    return result.view(image.shape)


def _side(p: Tensor, q: Tensor, point: Tensor) -> Tensor:
    return (q - p)[:, 0] * (point - p)[:, 1] - (q - p)[:, 1] * (point - p)[:, 0]
