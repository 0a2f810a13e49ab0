"""How much the surface bends around its vertices."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

SMALLEST = 1e-12


def normal_spread(vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"]) -> Float[Tensor, "V"]:
    """Variance of the unit normals of the faces around each vertex: mean over them of |n - mean n|^2 = 1 - |mean n|^2.

    In [0, 1], 0 where all lie in one plane and at vertices without faces. It is the trace of the covariance whose smallest
    eigenvalue Stein et al. 2018 (Developability of Triangle Meshes) let vanish: developable surfaces may bend along lines,
    here only the plane is free. Faces without area count as 0 vectors and have no gradient.
    """
    corners = faces.long()
    a, b, c = (vertices.index_select(0, corner) for corner in corners.T.contiguous())
    normals = torch.linalg.cross(b - a, c - a)
    doubled = torch.linalg.vector_norm(normals, dim=1, keepdim=True)
    normals = torch.where(doubled > SMALLEST, normals / doubled.clamp_min(SMALLEST), torch.zeros_like(normals))
    at = corners.reshape(-1)
    total = torch.zeros_like(vertices).index_add(0, at, normals.repeat_interleave(3, dim=0))
    count = torch.bincount(at, minlength=len(vertices))[:, None].clamp_min(1)
    used = torch.zeros(len(vertices), dtype=vertices.dtype, device=vertices.device).index_fill(0, at, 1.0)
    return used - (total / count).square().sum(dim=1)


def normal_variance(
    vertices: Float[Tensor, "V 3"], faces: Int[Tensor, "F 3"], allowed: Float[Tensor, "V"] | None = None
) -> Tensor:
    """Mean `normal_spread` of the vertices that faces use, beyond what is `allowed` of each (an artist's own bends), [].

    0 on a plane, the same at every size; at most 1.
    """
    spread = normal_spread(vertices, faces)
    used = torch.bincount(faces.reshape(-1), minlength=1).count_nonzero().clamp_min(1)
    beyond = spread if allowed is None else (spread - allowed).clamp_min(0.0)
    return beyond.sum() / used
