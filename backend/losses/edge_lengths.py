"""How unevenly long the edges of a mesh are."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

SMALLEST = 1e-12


def relative_lengths(vertices: Float[Tensor, "V 3"], edges: Int[Tensor, "E 2"]) -> Float[Tensor, "E"]:
    """Lengths of the edges in units of their mean; 0 where all are."""
    first, second = edges.long().T
    lengths = torch.linalg.vector_norm(vertices.index_select(0, second) - vertices.index_select(0, first), dim=1)
    return lengths / lengths.mean().clamp_min(SMALLEST)


def edge_length_deviation(
    vertices: Float[Tensor, "V 3"], edges: Int[Tensor, "E 2"], wanted: Float[Tensor, "E"] | None = None
) -> Tensor:
    """Mean squared deviation of the edges' lengths from their mean, in units of it (the squared coefficient of variation), [].

    0 where all edges are equally long, the same at every size. With `wanted`, the `relative_lengths` of another state of the
    same mesh, that state costs nothing and neither does any uniform scaling of it. An edge without length has no gradient.
    """
    lengths = relative_lengths(vertices, edges)
    return (lengths - (1.0 if wanted is None else wanted)).square().mean()
