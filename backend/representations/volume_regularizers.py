"""What keeps a field that is seen along rays from being fog: terms of visibility weights, each a plain function."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from backend.rendering.volume import sum_along

OPACITY_MARGIN = 1e-3
"""The entropy's slope is infinite at 0 and 1: opacities closer than this count as certain."""

DIAMETER = 2.0
"""Of the unit sphere: distances along rays are told as shares of it."""


def opacity_entropy(opacity: Tensor) -> Float[Tensor, ""]:
    """Mean binary entropy (in nats) of rendered opacities, which presses every pixel to see all or nothing."""
    opacity = opacity.clamp(OPACITY_MARGIN, 1.0 - OPACITY_MARGIN)
    return -(opacity * opacity.log() + (1.0 - opacity) * (1.0 - opacity).log()).mean()


def orientation(
    weights: Float[Tensor, "M"],
    normals: Float[Tensor, "M 3"],
    directions: Float[Tensor, "M 3"],
    rays: Tensor,
    count: int,
) -> Float[Tensor, "P"]:
    """Per ray: sum of weight * max(0, normal . direction)^2 over its samples (Verbin et al. 2022, equation 11).

    A visible surface faces the camera; what faces away is fog. `rays` [M] is the ray of each sample. The weights are
    taken as they are, without gradient: otherwise the term would rather hide samples than turn them.
    """
    away = (normals * directions).sum(dim=1).clamp_min(0.0).square()
    return sum_along(weights.detach(), away[:, None], rays, count)[:, 0]


def distortion(weights: Float[Tensor, "P S"], step: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
    """Per ray: how far its weight is spread (Barron et al. 2022, Mip-NeRF 360, equation 15).

    The sum over pairs of samples of both weights times their distance, and over samples of a third of the squared
    weight times the interval's length `step`; lengths as shares of the sphere's diameter. For equal intervals the
    pairs add up in one pass, since |i - j| counts the borders between them: at each border, the weight before it times
    the weight behind it.
    """
    before = weights.cumsum(dim=1)
    behind = before[:, -1:] - before
    pairs = 2.0 * (before * behind).sum(dim=1)
    return (pairs + weights.square().sum(dim=1) / 3.0) * (step / DIAMETER)
