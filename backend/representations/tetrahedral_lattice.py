"""The body-centered cubic lattice that fills the cube with congruent tetrahedra, by arithmetic instead of lists.

Points are the corners and the centers of cubic cells; a tetrahedron joins two neighboring centers and one edge of the
square between them (Labelle and Shewchuk 2007, Isosurface Stuffing, figure 4). All dihedral angles are 60 or 90 degrees,
and each face of it is a face of exactly one other tetrahedron. What lies where follows from a point's number, so that
nothing is stored per tetrahedron: there are twelve to a cell.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

TETRAHEDRON_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))

Site = tuple[int, int, int, int]
"""A point relative to another: 0 for a corner or 1 for a center, and the steps along x, y and z."""


@dataclass(frozen=True)
class Lattice:
    """Corners of `resolution` cells along each edge of [-1, 1]^3, and the cells' centers with one more layer around.

    Both are numbered as blocks of `side`^3 points, x fastest; corner k of an axis lies at -1 + k h, center k at
    -1 + (k - 1/2) h, where h is the `cell` size. A surface between border points and others would not be closed: border
    points never count as inside.
    """

    resolution: int
    device: torch.device

    @property
    def cell(self) -> float:
        """The length of a cell's edge."""
        return 2.0 / self.resolution

    @property
    def side(self) -> int:
        return self.resolution + 2

    @property
    def count(self) -> int:
        """How many points there are, the border's included."""
        return 2 * self.side**3

    @cached_property
    def points(self) -> Float[Tensor, "N 3"]:
        steps = torch.arange(self.side, device=self.device, dtype=torch.float64)
        blocks = [torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij")[::-1], -1) + shift for shift in (0.0, -0.5)]
        return (torch.stack(blocks).reshape(-1, 3) * self.cell - 1.0).float()

    @cached_property
    def border(self) -> Bool[Tensor, "N"]:
        """The outermost points of both kinds, whose tetrahedra are not all there."""
        steps = torch.arange(self.side, device=self.device)
        outer = (steps == 0) | (steps == self.side - 1)
        blocks = []
        for ends in (outer | (steps == self.resolution), outer):
            blocks.append(ends[:, None, None] | ends[None, :, None] | ends[None, None, :])
        return torch.stack(blocks).reshape(-1)

    def number(self, site: Site) -> int:
        """What `site` adds to the number of a point of the block of corners."""
        kind, x, y, z = site
        return kind * self.side**3 + (z * self.side + y) * self.side + x

    @cached_property
    def edge_kinds(self) -> list[tuple[Site, Site]]:
        """Fourteen edges at each site, as their two ends: every edge of the lattice is one of these at one site."""
        axes = [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
        along = [((kind, 0, 0, 0), (kind, *axis)) for kind in (0, 1) for axis in axes]
        return along + [((1, 0, 0, 0), (0, *step)) for step in product((-1, 0), repeat=3)]

    @cached_property
    def edge_ends(self) -> Int[Tensor, "14 2"]:
        """Numbers of the ends of the fourteen kinds of edges at site 0."""
        return torch.tensor([[self.number(end) for end in kind] for kind in self.edge_kinds], device=self.device)

    @cached_property
    def square_sites(self) -> Int[Tensor, "3 6"]:
        """For each axis the points around a square across it, at site 0: the centers before and behind, four corners."""
        return torch.tensor([[self.number(site) for site in _square_sites(axis)] for axis in range(3)], device=self.device)

    @cached_property
    def tetrahedra(self) -> Int[Tensor, "4 4"]:
        """The four tetrahedra around a square: indices of their points in a row of `square_sites`; positive volume."""
        return torch.tensor(_AROUND_SQUARE, device=self.device)

    @cached_property
    def tetrahedron_slots(self) -> Int[Tensor, "3 4 6"]:
        """For each axis and tetrahedron, its six edges at site 0 as slots: kind * side^3 + site."""
        kinds = {(a[0], b[0], _step(a, b)): kind for kind, (a, b) in enumerate(self.edge_kinds)}

        def slot(first: Site, second: Site) -> int:
            ends = (first, second) if (first[0], second[0], _step(first, second)) in kinds else (second, first)
            kind = kinds[ends[0][0], ends[1][0], _step(*ends)]
            return kind * self.side**3 + self.number((0, *ends[0][1:]))

        squares = [_square_sites(axis) for axis in range(3)]
        slots = [
            [[slot(sites[four[a]], sites[four[b]]) for a, b in TETRAHEDRON_EDGES] for four in _AROUND_SQUARE]
            for sites in squares
        ]
        return torch.tensor(slots, device=self.device)


_AROUND_SQUARE = tuple((0, 1, 2 + i, 2 + (i + 1) % 4) for i in range(4))


def _square_sites(axis: int) -> list[Site]:
    """The centers before and behind the square across `axis`, and its corners, counterclockwise seen from behind."""

    def site(kind: int, along: int, second: int, third: int) -> Site:
        steps = [0, 0, 0]
        steps[axis], steps[(axis + 1) % 3], steps[(axis + 2) % 3] = along, second, third
        return (kind, *steps)

    ring = [site(0, 0, *corner) for corner in ((-1, -1), (0, -1), (0, 0), (-1, 0))]
    return [site(1, 0, 0, 0), site(1, 1, 0, 0), *ring]


def _step(first: Site, second: Site) -> tuple[int, ...]:
    return tuple(b - a for a, b in zip(first[1:], second[1:]))
