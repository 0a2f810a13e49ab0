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
ROUNDS = 8
FEW = 128
"""Points by which the planes to refine are chosen."""
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


Nearest = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From any places [P, 3] to the surface's points nearest to them and its unit normals there, [P, 3] both."""


@torch.no_grad()
def find_symmetry_plane(points: Float[Tensor, "P 3"], nearest: Nearest) -> Float[Tensor, "3"]:
    """Unit normal of the plane through the origin in which a surface comes closest to itself; `points` are spread over it.

    The axes, the principal axes and 64 directions spread over the half sphere are tried and the four best refined: the nearest
    points are held with the planes that touch the surface there (Chen and Medioni 1992) while Gauss-Newton turns the normal. The
    best of all is returned, of about equals the first (the axes come first); its largest component is positive.
    """
    axes = torch.eye(3, dtype=points.dtype, device=points.device)
    principal = torch.linalg.eigh(points.T @ points)[1].T
    candidates = torch.cat([axes, principal, _directions(points)])
    few = points[:: max(1, len(points) // FEW)]
    scores = torch.stack([_Mirrored(few, normal, nearest).score for normal in candidates])
    best = sorted(torch.argsort(scores, stable=True)[:REFINED].tolist())
    tried = [_Mirrored(points, candidates[index], nearest) for index in best]
    tried += [_refined(each) for each in tried]
    least = torch.stack([each.score for each in tried]).min()
    unit = points.square().sum(dim=1).mean()
    normal = next(each.normal for each in tried if each.score <= least + EQUAL * unit)
    return normal * normal[normal.abs().argmax()].sign()


class _Mirrored:
    """Points mirrored in a plane, and what of the surface is nearest to them."""

    def __init__(self, points: Tensor, normal: Tensor, nearest: Nearest) -> None:
        self.points, self.normal, self.nearest = points, normal, nearest
        other = mirrored(points, normal)
        found, self._across = nearest(other)
        self._off = other - found
        self.score = self._off.square().sum(dim=1).mean()

    def turned(self, pace: float) -> _Mirrored:
        """After the Gauss-Newton step of sum (m . (mirrored p - q))^2 for surface normals m at q, at right angles to the plane's."""
        across, normal = self._across, self.normal
        slope = -2.0 * ((self.points @ normal)[:, None] * across + (across @ normal)[:, None] * self.points)
        slope = slope - (slope @ normal)[:, None] * normal
        square = slope.T @ slope
        # What no turn changes, as around a body of revolution's axis, and the normal's own direction take no part.
        damping = 1e-6 * square.trace().clamp_min(SMALLEST) * torch.eye(3, dtype=square.dtype, device=square.device)
        step = torch.linalg.solve(square + damping, -slope.T @ (self._off * across).sum(dim=1))
        return _Mirrored(self.points, torch.nn.functional.normalize(normal + pace * step, dim=0), self.nearest)


def _refined(best: _Mirrored) -> _Mirrored:
    pace = 1.0
    for _ in range(ROUNDS):
        after = best.turned(pace)
        if after.score < best.score:
            best = after
        else:
            pace /= 4.0
    return best


def _directions(points: Tensor) -> Tensor:
    """[DIRECTIONS, 3] unit vectors spread over the upper half sphere: a Fibonacci spiral."""
    number = torch.arange(DIRECTIONS, dtype=points.dtype, device=points.device) + 0.5
    height = 1.0 - number / DIRECTIONS
    angle = number * (torch.pi * (3.0 - 5.0**0.5))
    radius = (1.0 - height.square()).sqrt()
    return torch.stack([radius * torch.cos(angle), height, radius * torch.sin(angle)], dim=1)
