"""Sampling a grid over [-1, 1]^3 along rays, in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from torch import Tensor

from backend.rendering.chords import Chords


def sample_density(logits: Tensor, chords: Chords, scale: float, sharpness: float) -> Tensor:
    """`[P, S]` densities at the samples; see `backend.rendering.volume.render_volume`."""
    values = trilinear(logits[None], chords.points())[0]
    return scale * functional.softplus(sharpness * values)


def accumulate(normals: Tensor, colors: Tensor, weights: Tensor, chords: Chords) -> tuple[Tensor, Tensor]:
    """`[P, 3]` sums of normals and of colors at the samples, weighted by `weights` [P, S]."""
    values = trilinear(torch.cat([normals, colors], dim=-1).movedim(-1, 0), chords.points())
    sums = (values * weights).sum(-1)
    return sums[:3].T, sums[3:].T


def occupied_samples(chords: Chords, bits: Tensor, resolution: int) -> Tensor:
    """`[P, S]` bool; see `backend.rendering.volume.occupied_samples`."""
    x, y, z = ((chords.points() + 1.0) * (0.5 * resolution)).long().clamp(0, resolution - 1).unbind(-1)
    cell = (z * resolution + y) * resolution + x
    return ((bits[cell >> 5] >> (cell & 31)) & 1).bool() & (chords.step > 0.0)[:, None]


def trilinear(volume: Tensor, points: Tensor) -> Tensor:
    """`[C, P, S]` of a grid `[C, R, R, R]` at points `[P, S, 3]`."""
    sampled = functional.grid_sample(
        volume[None], points[None, None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return sampled[0, :, 0]
