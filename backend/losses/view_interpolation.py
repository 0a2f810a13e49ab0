"""Pictures taken a few degrees apart show the same colors at the same points.

The plain difference of two such pictures also punishes correct parallax: it is least for an object that does not turn with
the camera. Here the second picture is looked up where the points of the first one are found in it, so that an opaque
object with colors of its own costs nothing, and colors that flicker with the view, or that swim in fog, do.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from backend.losses.reprojection import Correspondence, mean_over


def view_interpolation(
    image: Float[Tensor, "N H W C"], other_image: Float[Tensor, "N h w C"], found: Correspondence
) -> Float[Tensor, ""]:
    """Mean absolute difference between the pixels of A and what B shows at the same points, where B can see them.

    Differentiable in both images; the places are known and take no gradient.
    """
    return mean_over((image - found.look_up(other_image)).abs().mean(-1), found.seen)
