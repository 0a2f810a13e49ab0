"""Two views of one object agree on where its surface is and which way it faces.

On one opaque surface they always do, up to the size of pixels: these losses have nothing to say about a mesh. A volume is
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
