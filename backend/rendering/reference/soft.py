"""Soft rasterization, in plain torch and with all pixels times all faces at once; see `backend.rendering.kernels.soft`."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import SMALLEST_W, SOFT_REACH


def soft_rasterize(
    clip: Tensor, attributes: Tensor, faces: Tensor, height: int, width: int, sigma: float, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Coverage, depth `[N, H, W]` and mixed attributes `[N, H, W, C]`; see `backend.rendering.soft_rasterize`."""
    sizes = (faces.long(), height, width, sigma, gamma)
    views = [_soft_view(one, other, *sizes) for one, other in zip(clip, attributes)]
    return tuple(torch.stack(values) for values in zip(*views))


def _soft_view(
    clip: Tensor, attributes: Tensor, faces: Tensor, height: int, width: int, sigma: float, gamma: float
) -> tuple[Tensor, Tensor, Tensor]:
    faces = faces[((faces >= 0) & (faces < len(clip))).all(1)]
    corners = clip[faces]
    drawable = corners.isfinite().all(-1) & (corners[..., 3] >= SMALLEST_W) & (corners[..., 2] >= -corners[..., 3])
    faces, corners = faces[drawable.all(1)], corners[drawable.all(1)]
    points = corners[..., :2] / corners[..., 3:]
    points = torch.stack([(points[..., 0] + 1) * (width / height), 1 - points[..., 1]], dim=-1)
    area = _cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])
    faces, corners, points, area = (value[area != 0] for value in (faces, corners, points, area))
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x = (torch.stack([column, row], dim=-1).reshape(-1, 1, 2).to(clip) + 0.5) / (0.5 * height)
    signed, weights = _nearness(x, points, area, sigma)
    counts = signed > -SOFT_REACH
    shares = weights / corners[..., 3]
    w = 1 / shares.sum(-1)
    values = w[..., None] * torch.einsum("pfi,fic->pfc", shares, attributes[faces])
    nearest = torch.where(counts, w, torch.inf).amin(1, keepdim=True).detach() if len(faces) else w.sum(1, keepdim=True)
    logits = torch.where(counts, torch.nn.functional.logsigmoid(signed) + (nearest - w) / gamma, -torch.inf)
    touched = counts.any(1)
    share = torch.softmax(torch.where(touched[:, None], logits, 0.0), dim=1) * counts
    miss = torch.where(counts, -torch.nn.functional.softplus(signed), 0.0).sum(1)
    depth = torch.where(touched, (share * w).sum(1), torch.inf)
    shape = (height, width)
    return -torch.expm1(miss).view(shape), depth.view(shape), (share[..., None] * values).sum(1).view(*shape, -1)


def _nearness(x: Tensor, points: Tensor, area: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """+-d^2 / sigma `[P, F]` and the screen barycentrics `[P, F, 3]` of each face's point nearest to each center."""
    p, q, r = points.unbind(1)
    inner = torch.stack([_cross(q - x, r - x), _cross(r - x, p - x), _cross(p - x, q - x)], dim=-1) / area[:, None]
    inside = (inner >= 0).all(-1)
    distances, outer = [], []
    for i in range(3):
        start, edge = points[:, i], points[:, (i + 1) % 3] - points[:, i]
        along = (((x - start) * edge).sum(-1) / edge.square().sum(-1).clamp_min(1e-20)).clamp(0, 1)
        distances.append((x - start - edge * along[..., None]).square().sum(-1))
        weights = [torch.zeros_like(along)] * 3
        weights[i], weights[(i + 1) % 3] = 1 - along, along
        outer.append(torch.stack(weights, dim=-1))
    shortest, side = torch.stack(distances).min(0)
    outer = torch.stack(outer).gather(0, side[None, ..., None].expand(1, *side.shape, 3))[0]
    return torch.where(inside, shortest, -shortest) / sigma, torch.where(inside[..., None], inner, outer)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
