"""Marching tetrahedra: the zero set of signed distances at the points of a `Lattice` as a triangle mesh, differentiable.

The distances are interpolated linearly along edges, as by Shen et al. 2021 (Deep Marching Tetrahedra, section 3.1). A
point is inside if its distance is negative: 0 is outside, so that every case has its triangles and the surface is a
closed, oriented manifold whatever the numbers are. Since the tetrahedra do not overlap it does not cut itself either, as
long as points stay within `LARGEST_OFFSET` cells of their places.

A dual extraction after Shen et al. 2023 (FlexiCubes: weights of corners and edges of cubic cells, offsets, no table
against ambiguous faces) fitted no better. A turned cube and a thin-walled mug from 64 pictures of normals and coverage of
96 pixels, 250 steps, 16 and 32 cells an edge, after remeshing to 2500 vertices; Chamfer distance and mean angle between
normals, by tetrahedra and dual: cube .0079, 3.1 and .0083, 3.6 at 16; .0079, 2.5 and .0078, 2.3 at 32; mug .0348, 31 and
.0348, 30 at 16; .0329, 25 and .0330, 26 at 32. As they are extracted, 8-13 % of the triangles are thin (quality below .2)
where 1-5 % of the dual ones are, there are four times as many, and a step takes half as long again: remeshing mends the
former. But the dual mesh of the mug at 32 was not manifold, and nothing keeps a dual mesh from cutting itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from backend.representations.tetrahedral_lattice import Lattice

LARGEST_OFFSET = 0.24
"""In cells. Four points cannot become coplanar before opposite edges, half a cell apart, have met."""

CLOSEST = 0.01
"""Vertices keep this share of an edge away from its ends, so that a distance of 0 makes no triangle without area."""

# Edges of the tetrahedron (in the order of TETRAHEDRON_EDGES) that each triangle connects; bit i of the case: point i is
# inside. Triangles look away from what is inside.
_ = -1
TRIANGLES = (
    (_, _, _, _, _, _), (0, 1, 2, _, _, _), (0, 4, 3, _, _, _), (1, 2, 4, 1, 4, 3),
    (1, 3, 5, _, _, _), (2, 0, 3, 2, 3, 5), (4, 5, 1, 4, 1, 0), (2, 4, 5, _, _, _),
    (2, 5, 4, _, _, _), (0, 1, 5, 0, 5, 4), (5, 3, 0, 5, 0, 2), (1, 5, 3, _, _, _),
    (3, 4, 2, 3, 2, 1), (0, 3, 4, _, _, _), (0, 2, 1, _, _, _), (_, _, _, _, _, _),
)  # fmt: skip


@dataclass(frozen=True)
class Crossings:
    """Where a surface passes: follows from the signs alone.

    Attributes:
        edges: [V, 2], the two points of the crossing edge that each vertex lies on.
        faces: [F, 3] int32.
    """

    edges: Int[Tensor, "V 2"]
    faces: Int[Tensor, "F 3"]


def find_crossings(lattice: Lattice, inside: Bool[Tensor, "N"]) -> Crossings:
    """The surface between points inside and outside; border points must be outside."""
    block = lattice.side**3
    reach = lattice.side**2 + lattice.side + 1
    corners, centers = (torch.nn.functional.pad(each, (reach, reach)) for each in inside.view(2, block))

    def shifted(number: int) -> Tensor:
        """Whether the point at `number` from each site is inside; beyond the ends of the blocks nothing is."""
        kind, step = divmod(number + reach, block)
        step -= reach
        return (centers if kind else corners)[reach + step : reach + step + block]

    ends = lattice.edge_ends.tolist()
    crossing = torch.cat([shifted(first) ^ shifted(second) for first, second in ends])
    slots = crossing.nonzero()[:, 0]
    kind, site = slots // block, slots % block
    edges = lattice.edge_ends[kind] + site[:, None]
    vertex = torch.empty(len(crossing), dtype=torch.int32, device=inside.device)
    vertex[slots] = torch.arange(len(slots), dtype=torch.int32, device=inside.device)

    corners_of_faces = []
    table = torch.tensor(TRIANGLES, device=inside.device)
    weights = torch.tensor([1, 2, 4, 8], device=inside.device)
    for axis, numbers in enumerate(lattice.square_sites.tolist()):
        around = [shifted(number) for number in numbers]
        some, every = around[0], around[0]
        for each in around[1:]:
            some, every = some | each, every & each
        site = (some & ~every).nonzero()[:, 0]
        six = torch.stack([each[site] for each in around], 1)
        case = (six[:, lattice.tetrahedra] * weights).sum(-1)  # [A, 4]
        active = (case > 0) & (case < 15)
        square, which = active.nonzero().T
        slots = lattice.tetrahedron_slots[axis][which] + site[square, None]
        triangles = table[case[active]].view(-1, 2, 3)
        there = triangles[:, :, 0] >= 0
        connected = torch.gather(slots, 1, triangles.clamp_min(0).view(-1, 6)).view(-1, 2, 3)
        corners_of_faces.append(vertex[connected[there]])
    return Crossings(edges, torch.cat(corners_of_faces))


def place_vertices(
    crossings: Crossings, distances: Float[Tensor, "N"], points: Float[Tensor, "N 3"]
) -> tuple[Float[Tensor, "V 3"], Float[Tensor, "V"]]:
    """Vertices where the distances vanish along their edges, and how far along: 0 at the first point, 1 at the second.

    Differentiable in distances and points. Where a vertex is kept off the end of its edge it has the gradient that it
    would have there, so that it is never stuck.
    """
    first, second = crossings.edges.T
    a, b = distances.index_select(0, first), distances.index_select(0, second)
    # Both can be 0 where a border point was given a negative distance; every other pair differs in sign.
    share = a / torch.where(a == b, torch.ones_like(a), a - b)
    share = share + (share.clamp(CLOSEST, 1.0 - CLOSEST) - share).detach()
    start, end = points.index_select(0, first), points.index_select(0, second)
    return start + share[:, None] * (end - start), share
