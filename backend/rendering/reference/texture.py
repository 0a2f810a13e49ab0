"""Texture lookup (nearest, bilinear, trilinear) with mip maps, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def texture(image: Tensor, uv: Tensor, derivatives: Tensor | None, filter: str, wrap: str, highest: int) -> Tensor:
    """`[N, H, W, C]`; see `backend.rendering.texture`. Levels above `highest` are not used."""
    images = image[None] if image.dim() == 3 else image
    x, y = _fold(uv[..., 0], wrap), _fold(1.0 - uv[..., 1], wrap)
    if filter == "nearest":
        height, width = images.shape[1:3]
        column, row = (x * width).long().clamp_max(width - 1), (y * height).long().clamp_max(height - 1)
        return _texels(images, row, column)
    if filter == "linear":
        return _bilinear(images, x, y, wrap)
    levels = _pyramid(images, highest)
    level = _mip_level(derivatives.detach(), images.shape[1], images.shape[2]).clamp_max(len(levels) - 1)
    lower = level.floor()
    blend = (level - lower)[..., None]
    result = 0.0
    for index, texels in enumerate(levels):
        weight = (lower == index)[..., None] * (1.0 - blend) + (lower + 1 == index)[..., None] * blend
        result = result + weight * _bilinear(texels, x, y, wrap)
    return result


def _fold(coordinate: Tensor, wrap: str) -> Tensor:
    coordinate = torch.where(coordinate.isfinite(), coordinate, 0.0)
    if wrap == "repeat":
        return coordinate - coordinate.detach().floor()
    if wrap == "clamp":
        return coordinate.clamp(0.0, 1.0)
    turned = coordinate - 2.0 * (coordinate.detach() * 0.5).floor()
    return torch.where(turned > 1.0, 2.0 - turned, turned)


def _bilinear(images: Tensor, x: Tensor, y: Tensor, wrap: str) -> Tensor:
    left, right, s = _neighbors(x, images.shape[2], wrap)
    top, bottom, t = _neighbors(y, images.shape[1], wrap)
    upper = _texels(images, top, left) * (1.0 - s) + _texels(images, top, right) * s
    lower = _texels(images, bottom, left) * (1.0 - s) + _texels(images, bottom, right) * s
    return upper * (1.0 - t) + lower * t


def _neighbors(coordinate: Tensor, size: int, wrap: str) -> tuple[Tensor, Tensor, Tensor]:
    place = coordinate * size - 0.5
    floor = place.detach().floor()
    first = floor.long()
    pair = torch.stack([first, first + 1])
    pair = pair % size if wrap == "repeat" else pair.clamp(0, size - 1)
    return pair[0], pair[1], (place - floor)[..., None]


def _texels(images: Tensor, row: Tensor, column: Tensor) -> Tensor:
    view = torch.arange(row.shape[0], device=row.device)[:, None, None] if images.shape[0] > 1 else 0
    return images[view, row, column]


def _mip_level(derivatives: Tensor, height: int, width: int) -> Tensor:
    (a, b), (c, d) = (row.unbind(-1) for row in derivatives.unbind(-2))
    a, b, c, d = a * width, b * width, c * height, d * height
    longest = 0.5 * ((a + d).hypot(c - b) + (a - d).hypot(c + b))
    return longest.nan_to_num(nan=1.0).clamp_min(1.0).log2()


def _pyramid(images: Tensor, highest: int) -> list[Tensor]:
    levels = [images]
    while len(levels) <= highest and levels[-1].shape[1:3] != (1, 1):
        down, across = (_shrinking(size, images) for size in levels[-1].shape[1:3])
        levels.append(torch.einsum("ih,nhwc,jw->nijc", down, levels[-1], across))
    return levels


def _shrinking(size: int, like: Tensor) -> Tensor:
    """The matrix [size // 2, size] that averages over equal shares of an axis (Guthe and Heckbert 2005 for odd sizes)."""
    half = max(1, size // 2)
    edges = torch.arange(half + 1, dtype=like.dtype, device=like.device) * (size / half)
    texel = torch.arange(size, dtype=like.dtype, device=like.device)
    overlap = torch.minimum(edges[1:, None], texel + 1.0) - torch.maximum(edges[:-1, None], texel)
    return overlap.clamp_min(0.0) * (half / size)
