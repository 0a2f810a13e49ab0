"""Which face each pixel sees, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import SMALLEST_W


def rasterize(clip: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Face ids `[N, H, W]`, barycentrics `[N, H, W, 3]`, depth and w `[N, H, W]`; see `backend.rendering.rasterize`."""
    with torch.no_grad():
        face_ids = torch.stack([_nearest_faces(view, faces.long(), height, width) for view in clip])
    covered = face_ids >= 0
    view, row, column = covered.nonzero(as_tuple=True)
    corners = clip[view[:, None], faces.long()[face_ids[covered].long()]]
    barycentrics = _homogeneous_barycentrics(corners, _centers(row, column, height, width, clip.dtype))
    w = (barycentrics * corners[..., 3]).sum(dim=-1)
    depth = (barycentrics * corners[..., 2]).sum(dim=-1) / w
    everywhere = (view, row, column)
    return (
        face_ids.int(),
        clip.new_zeros((*face_ids.shape, 3)).index_put(everywhere, barycentrics),
        clip.new_ones(face_ids.shape).index_put(everywhere, depth),
        torch.full_like(covered, torch.inf, dtype=clip.dtype).index_put(everywhere, w),
    )


def _nearest_faces(clip: Tensor, faces: Tensor, height: int, width: int) -> Tensor:
    """The nearest face at each pixel of one view, `[H, W]`, -1 on the background."""
    nearest = torch.full((height * width,), -1, dtype=torch.int64, device=clip.device)
    candidates, pixels = _bounding_box_pixels(clip, faces, height, width)
    if candidates.numel() == 0:
        return nearest.view(height, width)
    # Canonical vertex order: both faces of a shared edge evaluate it identically, so that nothing leaks between them.
    corners = clip[faces.sort(dim=1).values[candidates]]
    values = _edge_functions(corners, _centers(pixels // width, pixels % width, height, width, clip.dtype))
    w = (values * corners[..., 3]).sum(dim=-1)
    total, depth = values.sum(dim=-1), (values * corners[..., 2]).sum(dim=-1) / w
    inside = (
        ((values >= 0).all(dim=-1) | (values <= 0).all(dim=-1)) & (total != 0) & total.isfinite() & depth.isfinite()
    )
    candidates, pixels, depth = candidates[inside], pixels[inside], depth[inside]
    shallowest = clip.new_full((height * width,), torch.inf).scatter_reduce(0, pixels, depth, "amin")
    winners = depth == shallowest[pixels]
    nobody = faces.shape[0]
    nearest = torch.full_like(nearest, nobody).scatter_reduce(0, pixels[winners], candidates[winners], "amin")
    return torch.where(nearest == nobody, -1, nearest).view(height, width)


def _bounding_box_pixels(clip: Tensor, faces: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """All (face, pixel) pairs with the pixel's center in the face's bounding box, for faces that can be drawn."""
    repeated = (faces == faces.roll(1, dims=1)).any(dim=1)
    drawable = (faces >= 0).all(dim=1) & (faces < clip.shape[0]).all(dim=1) & ~repeated
    usable = drawable.nonzero()[:, 0]
    corners = clip[faces[usable]]
    visible = corners.isfinite().all(dim=-1) & (corners[..., 3] >= SMALLEST_W) & (corners[..., 2] >= -corners[..., 3])
    usable, corners = usable[visible.all(dim=1)], corners[visible.all(dim=1)]
    x, y = pixel_coordinates(corners, height, width).unbind(dim=-1)
    first_column, end_column = _center_range(x, width)
    first_row, end_row = _center_range(y, height)
    columns, rows = (end_column - first_column).clamp_min(0), (end_row - first_row).clamp_min(0)
    counts = columns * rows
    source = torch.repeat_interleave(torch.arange(len(usable), device=clip.device), counts)
    within = torch.arange(len(source), device=clip.device) - (counts.cumsum(0) - counts)[source]
    row = first_row[source] + within // columns[source]
    column = first_column[source] + within % columns[source]
    return usable[source], row * width + column


def _center_range(coordinates: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """First and end index of the pixel centers within the range of each face's `coordinates` `[F, 3]`, with slack."""
    low = (coordinates.amin(dim=1) - 1e-3).clamp(0, size)
    high = (coordinates.amax(dim=1) + 1e-3).clamp(0, size)
    return (low + 0.5).long(), (high + 0.5).long()


def pixel_coordinates(clip: Tensor, height: int, width: int) -> Tensor:
    """(column, row) in pixels of clip positions `[..., 4]`; integers are the pixels' upper left corners."""
    ndc = clip[..., :2] / clip[..., 3:]
    return torch.stack([(ndc[..., 0] + 1) * (0.5 * width), (1 - ndc[..., 1]) * (0.5 * height)], dim=-1)


def _centers(row: Tensor, column: Tensor, height: int, width: int, dtype: torch.dtype) -> Tensor:
    """Pixel centers in NDC, y up, `[P, 2]`."""
    x = (column.to(dtype) + 0.5) / (0.5 * width) - 1
    return torch.stack([x, 1 - (row.to(dtype) + 0.5) / (0.5 * height)], dim=-1)


def _edge_functions(corners: Tensor, centers: Tensor) -> Tensor:
    """The homogeneous edge functions `[P, 3]` of faces `[P, 3, 4]` at pixel centers `[P, 2]`."""
    local = corners[..., :2] - centers[:, None, :] * corners[..., 3:]
    (px, py), (qx, qy), (rx, ry) = (corner.unbind(dim=-1) for corner in local.unbind(dim=1))
    return torch.stack([qx * ry - qy * rx, -(px * ry - py * rx), px * qy - py * qx], dim=-1)


def _homogeneous_barycentrics(corners: Tensor, centers: Tensor) -> Tensor:
    values = _edge_functions(corners, centers)
    return values / values.sum(dim=-1, keepdim=True)
