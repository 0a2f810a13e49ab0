"""How often the color of a surface changes."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

SMALL_CHANGE = 0.02
"""Differences of colors below it count by their square (noise), those above by their length (edges between colors)."""


def albedo_changes(colors: Float[Tensor, "P 3"], neighbors: Int[Tensor, "E 2"], small: float = SMALL_CHANGE) -> Tensor:
    """Mean over pairs of neighbors of sqrt(|c_i - c_j|^2 + small^2) - small, [].

    Reflectance mostly stays as it is and changes at once where it does (Land and McCann 1971), so its differences are sparse:
    intrinsic-image methods penalize them by a robust norm (Bell et al. 2014, L1 between neighbors; Barron and Malik 2015, a heavy-tailed
    one), and nvdiffrec (Munkberg et al. 2022) the absolute difference of albedo between a point and one beside it. This is the
    L1 norm over pairs of the Euclidean distance between their colors, rounded at 0 (Charbonnier et al. 1994). 0, without
    gradient, on a surface of one color. Neighbors are ends of edges for colors of vertices, texels side by side in one chart
    for textures.
    """
    first, second = neighbors.long().T
    change = (colors.index_select(0, second) - colors.index_select(0, first)).square().sum(dim=1)
    # Not the root minus `small`, which would lose the digits of a small change.
    return (change / ((change + small**2).sqrt() + small)).sum() / max(len(neighbors), 1)
