"""Two views of one object agree on where its surface is, which way it faces and what it covers.

On one opaque surface they always do, up to the pixels' size: these losses have nothing to say about a mesh. A volume is
another matter: rays that come through fog from two sides end, in the mean, at two different places.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from backend.losses.reprojection import Correspondence, mean_over


def depth_agreement(found: Correspondence) -> Float[Tensor, ""]:
    """|z - z'| / (z + z') between the depth of points seen in A, as B should see them, and the depth that B sees there.

    The mean over the pixels of A whose points B can see; in [0, 1), and 0 where both see the same surface (geometry
    consistency, Bian et al. 2019, Unsupervised Scale-consistent Depth Learning, equation 2). Differentiable in both depths.
    """
    apart = (found.expected - found.found).abs() / (found.expected + found.found)
    return mean_over(apart, found.seen)


def normal_agreement(
    normals: Float[Tensor, "N H W 3"], other_normals: Float[Tensor, "N h w 3"], found: Correspondence
) -> Float[Tensor, ""]:
    """(1 - cosine) / 2 between the world-space normals that A and B see at the same points; need not have unit length.

    The mean over the pixels of A whose points B can see, in [0, 1].
    """
    cosine = torch.nn.functional.cosine_similarity(normals, found.look_up(other_normals), dim=-1, eps=1e-6)
    return mean_over(0.5 - 0.5 * cosine, found.seen)


def silhouette_agreement(
    alpha: Float[Tensor, "N H W 1"], other_alpha: Float[Tensor, "N h w 1"], found: Correspondence
) -> Float[Tensor, ""]:
    """1 - IoU of what A covers and what B covers where it looks at the same points: sum of minima over sum of maxima.

    What A sees must lie inside B's silhouette (visual hull, Laurentini 1994), as opaque as A sees it. A point hidden from B
    counts as well: whatever hides it covers its place. 0 where there is nothing to compare.
    """
    own, other = alpha[..., 0], found.look_up(other_alpha)[..., 0]
    shared = torch.where(found.within, torch.minimum(own, other), 0.0).sum()
    either = torch.where(found.within, torch.maximum(own, other), 0.0).sum()
    return 1.0 - (shared + EMPTY) / (either + EMPTY)


EMPTY = 1e-6
"""Pixels; keeps the quotient of two empty silhouettes at 1."""
