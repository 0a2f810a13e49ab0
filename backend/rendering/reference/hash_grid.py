"""Multiresolution hash encoding, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import HASH_PRIMES


def encode_hash_grid(points: Tensor, table: Tensor, levels: Tensor) -> Tensor:
    """`[P, 4 L]`; see `backend.rendering.hash_grid.encode_hash_grid`."""
    finite = points.isfinite().all(dim=1, keepdim=True)
    points = torch.where(finite, points, torch.zeros_like(points))
    features = [_encode_level(points, table, *level) for level in levels.tolist()]
    return torch.cat(features, dim=1) * finite


def _encode_level(points: Tensor, table: Tensor, cells: int, first: int, hashed_rows: int) -> Tensor:
    at = ((points + 1.0) * (0.5 * cells)).clamp(0.0, cells)
    corner = at.detach().long().clamp_max(cells - 1)
    share = at - corner
    result = torch.zeros(1, dtype=points.dtype, device=points.device)
    for offset in torch.cartesian_prod(*[torch.arange(2, device=points.device)] * 3):
        weight = torch.where(offset.bool(), share, 1.0 - share).prod(dim=1, keepdim=True)
        result = result + weight * table[first + _row(corner + offset, cells, hashed_rows)]
    return result


def _row(vertex: Tensor, cells: int, hashed_rows: int) -> Tensor:
    x, y, z = vertex.unbind(dim=1)
    if hashed_rows == 0:
        return (z * (cells + 1) + y) * (cells + 1) + x
    # Two's complement: the low bits of 64-bit products are those of the paper's 32-bit ones.
    return ((x * HASH_PRIMES[0]) ^ (y * HASH_PRIMES[1]) ^ (z * HASH_PRIMES[2])) & (hashed_rows - 1)
