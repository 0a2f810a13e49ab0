"""How colored light is."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

SMALLEST = 1e-12


def light_color(light: Float[Tensor, "*any 3"]) -> Tensor:
    """Squared distance of light from its gray, relative to that gray: sum |l - mean l|^2 / sum 3 (mean l)^2, [].

    `light` is linear RGB: coefficients [9, 3] of spherical harmonics, or an environment map [H, W, 3]. The mean is that of the
    three channels of each, so gray light may be as uneven as it likes. 0 for it, the same at every exposure. Munkberg et al.
    2022 (nvdiffrec) hold light to be neutral by the absolute difference from the mean of the channels; the square has no
    gradient where light is gray. Light that is all dark has neither loss nor gradient.
    """
    gray = light.mean(dim=-1, keepdim=True)
    return (light - gray).square().sum() / (3.0 * gray.square().sum()).clamp_min(SMALLEST)
