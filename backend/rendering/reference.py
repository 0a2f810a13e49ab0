"""The operators in plain torch: the oracle of the kernels' tests, and the fallback where Warp has no build.

Same names, signatures and rules as `backend.rendering.kernels`; gradients by autograd; any float type. What is discrete
(which face, which edge) is decided without gradient, then the continuous part is written out as tensor operations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import SMALLEST_LENGTH, SMALLEST_NORMAL, SMALLEST_W, W_SLACK


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
    x, y = _pixel_coordinates(corners, height, width).unbind(dim=-1)
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


def _pixel_coordinates(clip: Tensor, height: int, width: int) -> Tensor:
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


def interpolate(attributes: Tensor, barycentrics: Tensor, face_ids: Tensor, faces: Tensor) -> Tensor:
    """`[V, C]` or `[N, V, C]` -> `[N, H, W, C]`; see `backend.rendering.interpolate`."""
    covered = face_ids >= 0
    view = covered.nonzero(as_tuple=True)[0]
    corners = faces.long()[face_ids[covered].long()]
    values = attributes[corners] if attributes.dim() == 2 else attributes[view[:, None], corners]
    blended = (values * barycentrics[covered][..., None]).sum(dim=1)
    empty = attributes.new_zeros((*face_ids.shape, attributes.shape[-1]))
    return empty.index_put(covered.nonzero(as_tuple=True), blended)


def shade(
    colors: Tensor,
    normals: Tensor,
    barycentrics: Tensor,
    face_ids: Tensor,
    faces: Tensor,
    light: Tensor,
    ambient: Tensor,
    shading: str,
) -> Tensor:
    """`[N, H, W, 4]` premultiplied color and coverage; see `backend.rendering.shade`."""
    covered = (face_ids >= 0)[..., None].to(colors.dtype)
    rgb = covered.expand(-1, -1, -1, 3)
    if shading in ("lit", "albedo"):
        rgb = interpolate(colors, barycentrics, face_ids, faces)
    if shading != "albedo":
        seen = interpolate(normals, barycentrics, face_ids, faces)
        seen = torch.nn.functional.normalize(seen, dim=-1, eps=SMALLEST_LENGTH)
        if shading == "normal":
            rgb = (0.5 * seen + 0.5) * covered
        else:
            cosine = (seen * light[:, None, None, :]).sum(dim=-1, keepdim=True).clamp_min(0)
            share = ambient[:, None, None, None]
            rgb = rgb * (share + (1 - share) * cosine)
    return torch.cat([rgb, covered], dim=-1)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """`[V, 3]` unit normals; see `backend.rendering.vertex_normals`."""
    faces = faces.long()
    faces = faces[(faces >= 0).all(dim=1) & (faces < len(vertices)).all(dim=1)]
    first, second, third = vertices[faces].unbind(dim=1)
    normals = torch.linalg.cross(second - first, third - first)
    sums = torch.zeros_like(vertices).index_add(0, faces.T.reshape(-1), normals.repeat(3, 1))
    directed = (sums.detach() ** 2).sum(dim=-1, keepdim=True) > SMALLEST_NORMAL**2
    length = torch.where(directed, sums, torch.ones_like(sums)).norm(dim=-1, keepdim=True)
    return torch.where(directed, sums / length, torch.zeros_like(sums))


def antialias(image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor) -> Tensor:
    """`image` with its silhouettes blended, `[N, H, W, C]`; see `backend.rendering.antialias`."""
    views = [_antialias_view(*view, edges.long(), opposite.long()) for view in zip(image, clip, face_ids, w)]
    return torch.stack(views) if views else image.clone()


def _antialias_view(
    image: Tensor, clip: Tensor, face_ids: Tensor, w: Tensor, edges: Tensor, opposite: Tensor
) -> Tensor:
    height, width, channels = image.shape
    points = _pixel_coordinates(clip, height, width)
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
