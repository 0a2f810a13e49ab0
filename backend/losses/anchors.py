"""How far a surface is from what it was: its silhouettes and its bends, both 0 and without gradient for the start itself."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def silhouette_change(alpha: Float[Tensor, "N H W 1"], start: Float[Tensor, "N H W 1"]) -> Tensor:
    """Squared difference of two coverages in [0, 1], per pixel that the start covers, [].

    Squares pull back the harder the farther a silhouette is, up to a pixel: the coarser the picture, the softer the hold.
    Intersection over union would pull with the same force from the first hair's breadth on.
    """
    return (alpha - start).square().sum() / start.sum().clamp_min(1e-12)


def bend_change(vertices: Float[Tensor, "V 3"], start: Float[Tensor, "V 3"], edges: Int[Tensor, "E 2"]) -> Tensor:
    """Mean squared change since `start` of the differential coordinates over the mean squared edge length of the start, [].

    A vertex's differential coordinates are the mean of its neighbors less itself (Sorkine et al. 2004, Laplacian Surface
    Editing, section 3, with uniform weights); over a squared edge length they are about half the mean curvature, however fine
    the mesh is, per scene unit. 0, without gradient, for the start and for shifted copies of it. `edges` are undirected, each
    once; a vertex without any counts as unchanged.
    """
    first, second = edges.unbind(1)
    degree = torch.bincount(edges.reshape(-1), minlength=len(vertices)).clamp_min(1)
    unit = (start.index_select(0, second) - start.index_select(0, first)).square().sum(1).mean()
    moved = vertices - start
    along = moved.index_select(0, second) - moved.index_select(0, first)
    change = torch.zeros_like(moved).index_add(0, first, along).index_add(0, second, -along) / degree[:, None]
    return change.square().sum(1).mean() / unit.square().clamp_min(1e-20)
