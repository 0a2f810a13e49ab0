"""How far renders are from a picture: color, silhouette, depth up to its unknown scale and shift, normals.

Each is a mean over what it looks at, 0 where the render shows what the picture does. Colors are premultiplied by alpha
(`Rendered`), so that composited over the same background their difference is that of what a person sees.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

SMALLEST = 1e-12

SHALLOW = 0.01
"""Deviation of a relief, in scene units, below which it counts as flat."""


def color_difference(
    rgb: Float[Tensor, "n h w 3"],
    alpha: Float[Tensor, "n h w 1"],
    target_rgb: Float[Tensor, "n h w 3"],
    target_alpha: Float[Tensor, "n h w 1"],
    background: Float[Tensor, "3"],
    norm: Literal["l1", "l2"] = "l1",
) -> Tensor:
    """Mean absolute ("l1") or squared ("l2") difference of both over `background`, per pixel of the pictured object, [].

    Colors are premultiplied. Where neither shows anything they do not differ, so empty margins do not dilute it.
    """
    difference = rgb - target_rgb + (target_alpha - alpha) * background
    distance = difference.abs() if norm == "l1" else difference.square()
    return distance.mean(dim=-1).sum() / target_alpha.sum().clamp_min(SMALLEST)


def silhouette_difference(alpha: Float[Tensor, "n h w 1"], target: Float[Tensor, "n h w 1"]) -> Tensor:
    """1 - intersection over union of two coverages in [0, 1], [].

    Intersection and union of fractions are their minimum and maximum (Ruzicka's index), so that equal coverages, soft edges
    included, differ by 0; products would not say that.
    """
    union = torch.maximum(alpha, target).sum()
    return 1.0 - torch.minimum(alpha, target).sum() / union.clamp_min(SMALLEST)


def depth_difference(
    depth: Float[Tensor, "*any"], target: Float[Tensor, "*any"], weight: Float[Tensor, "*any"]
) -> Tensor:
    """Share of the variance of `depth` (scene units) that `scale * target + shift` does not explain, in [0, 1], [].

    Scale and shift follow by least squares in closed form, as in MiDaS (Ranftl et al. 2020, equation 4), with the scale not
    below 0: a relief turned inside out does not fit. What is fitted is the target, whose unit nobody knows; dividing by the
    render's variance keeps a flat relief from being the answer. Averages are weighted by `weight` (0 and more). It is 0 for
    the true relief whatever its unit, and fades to 0 for reliefs much shallower than `SHALLOW`.
    """
    total = weight.sum().clamp_min(SMALLEST)
    depth = depth - (weight * depth).sum() / total
    target = target - (weight * target).sum() / total
    spread, target_spread = (weight * depth.square()).sum() / total, (weight * target.square()).sum() / total
    together = (weight * depth * target).sum().clamp_min(0.0) / total
    explained = together.square() / target_spread.clamp_min(SMALLEST)
    return (spread - explained) / (spread + SHALLOW**2)


def normal_difference(
    normals: Float[Tensor, "*any 3"], target: Float[Tensor, "*any 3"], weight: Float[Tensor, "*any"]
) -> Tensor:
    """Mean of (1 - cosine) / 2 between directions of any length, in [0, 1], weighted by `weight` (0 and more), []."""
    cosine = (normalize(normals, dim=-1, eps=SMALLEST) * normalize(target, dim=-1, eps=SMALLEST)).sum(dim=-1)
    return (weight * 0.5 * (1.0 - cosine)).sum() / weight.sum().clamp_min(SMALLEST)
