"""How colorful colors are."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-12


def colorfulness(colors: Float[Tensor, "*any 3"]) -> Float[Tensor, "*any"]:
    """Squared distance of each color from its gray, 1.5 |c - mean c|^2: 0 for gray, 1 for pure red, yellow, green and so on.

    It is 4.5 times the variance of the three channels. Dark colors have little of it whatever their hue; the saturation of
    HSV, a quotient, is noise there.
    """
    return 1.5 * (colors - colors.mean(dim=-1, keepdim=True)).square().sum(dim=-1)


def color_saturation(colors: Float[Tensor, "*any 3"], weight: Float[Tensor, "*any"] | None = None) -> Tensor:
    """Mean `colorfulness`, each weighted with `weight` (0 and more; coverages of pixels, areas), [].

    0, without gradient, where all is gray and where nothing weighs anything.
    """
    each = colorfulness(colors)
    if weight is None:
        return each.mean()
    return (weight * each).sum() / weight.sum().clamp_min(SMALLEST)
