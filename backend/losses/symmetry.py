"""How far a shape and its colors are from their mirror image in a plane through the origin, and which plane mirrors it best."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-12
DIRECTIONS = 64
"""Planes that are tried beside the axes and the principal axes."""
REFINED = 4
"""How many of the best planes are refined."""
ROUNDS = 30
EQUAL = 1e-7
"""Differences of two planes' asymmetries that are rounding."""


def mirrored(points: Float[Tensor, "P 3"], normal: Float[Tensor, "3"]) -> Float[Tensor, "P 3"]:
    """`points` on the other side of the plane through the origin with this unit normal."""
    return points - 2.0 * (points @ normal)[:, None] * normal


def asymmetry(
    points: Float[Tensor, "P 3"], nearest: Float[Tensor, "P 3"], normal: Float[Tensor, "3"]
) -> Tensor:
    """Mean squared distance of the mirrored `points` from the shape's points `nearest` to them, per mean squared distance of
    `points` from the origin, [].

    One direction of the Chamfer distance between a shape and its mirror image; as mirroring twice changes nothing, the other
    direction is the same. The caller finds `nearest` without gradient and hands it in with its own: the derivative of a
    squared distance to the nearest point is that to the point held where it is on the surface (envelope theorem).
    """
    unit = points.square().sum(dim=1).mean().clamp_min(SMALLEST)
    return (mirrored(points, normal) - nearest).square().sum(dim=1).mean() / unit


def color_asymmetry(colors: Float[Tensor, "P 3"], nearest: Float[Tensor, "P 3"]) -> Tensor:
    """Mean squared difference of the colors of points and of the points nearest to their mirror images, per channel, []."""
    return (colors - nearest).square().mean()


@torch.no_grad()
def find_symmetry_plane(
    points: Float[Tensor, "P 3"], nearest: Callable[[Tensor], Tensor]
) -> Float[Tensor, "3"]:
    """Unit normal of the plane through the origin in which a surface comes closest to itself.

    `points` are spread evenly over it; `nearest` maps any points [P, 3] to the surface's nearest ones. The axes, the principal
    axes and 64 directions spread over the half sphere are tried; the four best are refined by turns of nearest points and plane,
    as in iterative closest points (Besl and McKay 1992): with p and its nearest q fixed, |mirrored p - q|^2 = |p - q|^2 +
    4 (p . n)(q . n), so the best n is the eigenvector of sum (p q' + q p') with the smallest eigenvalue. The best of all is
    returned, of about equals the first (the axes come first); its largest component is positive.
    """
    axes = torch.eye(3, dtype=points.dtype, device=points.device)
    principal = torch.linalg.eigh(points.T @ points)[1].T
    candidates = torch.cat([axes, principal, _directions(points)])
    scores = torch.stack([_score(points, normal, nearest)[0] for normal in candidates])
    best = sorted(torch.argsort(scores, stable=True)[:REFINED].tolist())
    tried = [(scores[index], candidates[index]) for index in best]
    tried += [_refined(points, candidates[index], nearest) for index in best]
    least = torch.stack([score for score, _ in tried]).min()
    unit = points.square().sum(dim=1).mean()
    normal = next(normal for score, normal in tried if score <= least + EQUAL * unit)
    return normal * normal[normal.abs().argmax()].sign()


def _refined(points: Tensor, normal: Tensor, nearest: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    score, found = _score(points, normal, nearest)
    for _ in range(ROUNDS):
        product = points.T @ found
        turned = torch.linalg.eigh(product + product.T)[1][:, 0]
        better, there = _score(points, turned, nearest)
        if better >= score:
            break
        score, normal, found = better, turned, there
    return score, normal


def _score(points: Tensor, normal: Tensor, nearest: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Mean squared distance of the mirrored points to the nearest ones, and these."""
    other = mirrored(points, normal)
    found = nearest(other)
    return (other - found).square().sum(dim=1).mean(), found


def _directions(points: Tensor) -> Tensor:
    """[DIRECTIONS, 3] unit vectors spread over the upper half sphere: a Fibonacci spiral."""
    number = torch.arange(DIRECTIONS, dtype=points.dtype, device=points.device) + 0.5
    height = 1.0 - number / DIRECTIONS
    angle = number * (torch.pi * (3.0 - 5.0**0.5))
    radius = (1.0 - height.square()).sqrt()
    return torch.stack([radius * torch.cos(angle), height, radius * torch.sin(angle)], dim=1)
