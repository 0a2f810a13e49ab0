"""Which face each pixel sees, in plain torch.

What is discrete is decided in float64 with the arithmetic of the kernels, operation by operation, so both find the same
faces to the last bit; barycentrics, depth and w are then written as differentiable tensor operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import LARGEST, SMALLEST_W


def rasterize(
    clip: Tensor, faces: Tensor, height: int, width: int, ranges: list[tuple[int, int]] | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Face ids `[N, H, W]`, barycentrics `[N, H, W, 3]`, depth and w `[N, H, W]`; see `backend.rendering.rasterize`."""
    ranges = [(0, faces.shape[0])] * clip.shape[0] if ranges is None else ranges
    with torch.no_grad():
        views = [
            _nearest_faces(view.double(), faces.long(), first, first + count, height, width)
            for view, (first, count) in zip(clip, ranges, strict=True)
        ]
        face_ids = torch.stack(views) if views else faces.new_empty((0, height, width))
    covered = face_ids >= 0
    view, row, column = covered.nonzero(as_tuple=True)
    corners = clip[view[:, None], faces.long()[face_ids[covered].long()]].double()
    values = _from_centers(corners, row, column, height, width)
    barycentrics = values / values.sum(dim=-1, keepdim=True)
    w = (barycentrics * corners[..., 3]).sum(dim=-1)
    depth = (barycentrics * corners[..., 2]).sum(dim=-1) / w
    everywhere, dtype = (view, row, column), clip.dtype
    return (
        face_ids.int(),
        clip.new_zeros((*face_ids.shape, 3)).index_put(everywhere, barycentrics.to(dtype)),
        clip.new_ones(face_ids.shape).index_put(everywhere, depth.to(dtype)),
        torch.full_like(covered, torch.inf, dtype=dtype).index_put(everywhere, w.to(dtype)),
    )


def _nearest_faces(clip: Tensor, faces: Tensor, first: int, end: int, height: int, width: int) -> Tensor:
    """The nearest of the faces `first` up to `end` at each pixel of one view, `[H, W]`, -1 on the background."""
    nearest = torch.full((height * width,), -1, dtype=torch.int64, device=clip.device)
    candidates, pixels, crosses = _candidates(clip, faces, first, end, height, width)
    if candidates.numel() == 0:
        return nearest.view(height, width)
    x, y = (pixels % width).double() + 0.5, (pixels // width).double() + 0.5
    unique, position = candidates.unique(return_inverse=True)
    corners = clip[faces[unique]]
    edges = edge_functions(corners, height, width)
    determinant = (edges[:, 0, 2] * corners[:, 0, 3] + edges[:, 1, 2] * corners[:, 1, 3]) + (
        edges[:, 2, 2] * corners[:, 2, 3]
    )
    sign = torch.where(determinant < 0, -1.0, 1.0).to(edges.dtype)
    edges, determinant = edges * sign[:, None, None], determinant * sign
    z = corners[:, :, 2, None]
    plane = ((edges[:, 0] * z[:, 0] + edges[:, 1] * z[:, 1]) + edges[:, 2] * z[:, 2]) * (1.0 / determinant)[:, None]
    values = edges[position] * torch.stack([x, y, torch.ones_like(x)], dim=1)[:, None]
    values = values[..., 0] + (values[..., 1] + values[..., 2])
    plane = plane[position]
    depth = (plane[:, 0] * x + (plane[:, 1] * y + plane[:, 2])).float()
    inverse_w = values[:, 0] + values[:, 1] + values[:, 2]
    in_front = (inverse_w <= determinant[position] * (1.0 / SMALLEST_W)) & (depth >= -1)
    inside = (values >= 0).all(dim=-1) & (determinant[position] > 0) & (in_front | ~crosses) & (depth < LARGEST)
    candidates, pixels, depth = candidates[inside], pixels[inside], depth[inside]
    shallowest = depth.new_full((height * width,), torch.inf).scatter_reduce(0, pixels, depth, "amin")
    winners = depth == shallowest[pixels]
    nobody = faces.shape[0]
    nearest = torch.full_like(nearest, nobody).scatter_reduce(0, pixels[winners], candidates[winners], "amin")
    return torch.where(nearest == nobody, -1, nearest).view(height, width)


def _candidates(
    clip: Tensor, faces: Tensor, first: int, end: int, height: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All (face, pixel) pairs with the pixel's center in the face's bounding box, and whether the face crosses the
    near plane: then the box is that of the part in front of it."""
    repeated = (faces == faces.roll(1, dims=1)).any(dim=1)
    usable = (faces >= 0).all(dim=1) & (faces < clip.shape[0]).all(dim=1) & ~repeated
    usable[:first] = False
    usable[end:] = False
    usable = usable.nonzero()[:, 0]
    corners = clip[faces[usable]]
    finite = (corners.abs() < LARGEST).flatten(1).all(dim=1)
    usable, corners = usable[finite], corners[finite]
    crosses = ((corners[..., 3] < SMALLEST_W) | (corners[..., 2] < -corners[..., 3])).any(dim=1)
    low, high = _bounds_in_front(corners)
    first_column, end_column = _center_range((low[:, 0] + 1) * (0.5 * width), (high[:, 0] + 1) * (0.5 * width), width)
    first_row, end_row = _center_range((1 - high[:, 1]) * (0.5 * height), (1 - low[:, 1]) * (0.5 * height), height)
    columns, rows = (end_column - first_column).clamp_min(0), (end_row - first_row).clamp_min(0)
    counts = columns * rows
    source = torch.repeat_interleave(torch.arange(len(usable), device=clip.device), counts)
    within = torch.arange(len(source), device=clip.device) - (counts.cumsum(0) - counts)[source]
    row = first_row[source] + within // columns[source]
    column = first_column[source] + within % columns[source]
    return usable[source], row * width + column, crosses[source]


def _bounds_in_front(corners: Tensor) -> tuple[Tensor, Tensor]:
    """Lowest and highest (x, y) in NDC, each `[F, 2]`, of faces `[F, 3, 4]` cut off at the near plane z = -w."""
    start, end = corners, corners.roll(-1, dims=1)
    start_height, end_height = start[..., 2] + start[..., 3], end[..., 2] + end[..., 3]
    along, fall = end - start, start_height - end_height
    fall = torch.where(fall == 0, torch.ones_like(fall), fall)
    cut = start + along * (start_height / fall)[..., None]
    points = torch.cat(
        [
            torch.where((start_height < 0)[..., None], cut, start),
            torch.where((end_height < 0)[..., None], cut, end),
        ],
        dim=1,
    )
    hidden = ((start_height < 0) & (end_height < 0)).repeat(1, 2)
    ndc = points[..., :2] / points[..., 3:]
    behind = ~hidden & (points[..., 3] <= SMALLEST_W)
    low = torch.where(hidden[..., None], torch.inf, torch.where(behind[..., None], -torch.inf, ndc))
    high = torch.where(hidden[..., None], -torch.inf, torch.where(behind[..., None], torch.inf, ndc))
    return low.amin(dim=1), high.amax(dim=1)


def _center_range(low: Tensor, high: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First and end index of the pixel centers between `low` and `high`, with slack."""
    return ((low - 2e-2).clamp(0, size) + 0.5).long(), ((high + 2e-2).clamp(0, size) + 0.5).long()


def pixel_coordinates(clip: Tensor, height: int, width: int) -> Tensor:
    """(column, row) in pixels of clip positions `[..., 4]`; integers are the pixels' upper left corners."""
    ndc = clip[..., :2] / clip[..., 3:]
    return torch.stack([(ndc[..., 0] + 1) * (0.5 * width), (1 - ndc[..., 1]) * (0.5 * height)], dim=-1)


def edge_functions(corners: Tensor, height: int, width: int) -> Tensor:
    """The homogeneous edge functions of faces `[F, 3, 4]` as (per column, per row, constant), `[F, 3, 3]`."""
    p, q = corners.roll(-1, dims=1), corners.roll(-2, dims=1)
    a = p[..., 1] * q[..., 3] - p[..., 3] * q[..., 1]
    b = p[..., 3] * q[..., 0] - p[..., 0] * q[..., 3]
    c = p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]
    return torch.stack([a * (2.0 / width), -(b * (2.0 / height)), (c - a) + b], dim=-1)


def _from_centers(corners: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """The edge functions `[P, 3]` of faces `[P, 3, 4]` at pixel centers, where each face is seen from its center."""
    x = (column.double() + 0.5) * (2.0 / width) - 1.0
    y = 1.0 - (row.double() + 0.5) * (2.0 / height)
    local = corners[..., :2] - torch.stack([x, y], dim=-1)[:, None] * corners[..., 3:]
    following, last = local.roll(-1, dims=1), local.roll(-2, dims=1)
    return following[..., 0] * last[..., 1] - following[..., 1] * last[..., 0]
