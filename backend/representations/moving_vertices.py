"""The moving part of a mesh: vertices that are optimized with large steps, for whatever colors the surface has.

Positions are the start's plus a smoothed displacement: v = v0 + m (I + lambda L)^-1 d, which is the parametrization of
Nicolet et al. 2021 (u = (I + lambda L) v0 + d) with the start split off. So a vertex that no gradient reaches keeps the
very bits that it came with. With a mask m, vertices where it is 0 are fixed in the linear system as well, so that smoothing
neither moves them nor carries a pull across them.

Vertices at one place (copies along texture seams and hard edges) move together: no gap opens between them, and where they
meet is no silhouette.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from backend.rendering.fragments import build_topology
from backend.representations.gradient_gate import GradientGate
from backend.representations.large_steps import Preconditioner, unique_edges
from backend.representations.masks import checked_mask
from backend.representations.mesh_checks import check_mesh
from backend.representations.mesh_data import MeshData
from backend.representations.mesh_regularizers import MeshRegularizers


class MovingVertices:
    """Parameter: `displacement` [P, 3], one row for each of the P places at which the mesh has vertices (mostly V).

    `joined_faces` [F, 3] are the faces with the first vertex at each place for all that lie there.
    """

    def __init__(
        self,
        data: MeshData,
        smoothing: float,
        keep_shape: bool,
        mask: Tensor | np.ndarray | None,
        device: torch.device,
    ) -> None:
        """`keep_shape`: bends and slivers of the start cost nothing. `mask` [V] in [0, 1]; None frees all vertices.

        Raises:
            InputError: `data` is not a mesh (see `check_mesh`), or the mask does not fit it.
        """
        check_mesh(data)
        # C order, whatever the arrays' layout was: the solver and the kernels take nothing else.
        self.start = torch.tensor(np.ascontiguousarray(data.positions), dtype=torch.float32, device=device)
        self.faces = torch.tensor(np.ascontiguousarray(data.faces), dtype=torch.int32, device=device)
        self.mask = None if mask is None else checked_mask(mask, (len(self.start),), "vertices").to(device)
        self.gate = GradientGate()
        first, place = _places(self.start)
        self._first, self._place = first, place
        joined, faces = self.faces, self.faces
        if place is not None:
            joined = first[place[self.faces.long()]].int()
            faces = place[self.faces.long()].int()
        self.joined_faces = joined
        self.topology = build_topology(joined)
        self.displacement = torch.zeros(len(first), 3, device=device, requires_grad=True)
        self._preconditioner = Preconditioner(len(first), unique_edges(faces), smoothing, self._fixed(len(first)))
        self._regularizers = MeshRegularizers(faces, len(first), self._at_places(self.start) if keep_shape else None)

    def positions(self) -> Tensor:
        """Where the vertices are now, [V, 3]; differentiable."""
        return self.gate(self.start + self._offsets())

    def regularization(self, names: Collection[str] | None = None) -> dict[str, Tensor]:
        """Unweighted "laplacian", "normal_consistency" and "slivers"; see `MeshRegularizers`."""
        if names is not None and not names:
            return {}
        return self._regularizers(self._at_places(self.positions()), names)

    def exact_positions(self) -> np.ndarray:
        """Where the vertices are now, [V, 3] float32; those that did not move are copies of the start's."""
        with torch.no_grad():
            offsets = self._offsets()
            return torch.where(offsets == 0.0, self.start, self.start + offsets).cpu().numpy()

    def _offsets(self) -> Tensor:
        offsets = self._preconditioner.smooth(self.displacement)
        offsets = offsets if self._place is None else offsets[self._place]
        return offsets if self.mask is None else offsets * self.mask[:, None]

    def _at_places(self, vertices: Tensor) -> Tensor:
        return vertices if self._place is None else vertices[self._first]

    def _fixed(self, places: int) -> Tensor | None:
        """Places [P] that must not move: one masked vertex holds all that lie there."""
        if self.mask is None:
            return None
        place = torch.arange(places, device=self.mask.device) if self._place is None else self._place
        return torch.ones(places, device=self.mask.device).scatter_reduce(0, place, self.mask, "amin") == 0.0


def _places(positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """The first vertex at each place [P], in ascending order, and the place of each vertex [V]; None if each has its own."""
    values = positions.cpu().numpy() + np.float32(0.0)
    _, first, place = np.unique(values, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    place = torch.from_numpy(rank[place.reshape(-1)]).to(positions.device)
    return torch.from_numpy(first[order]).to(positions.device), None if len(first) == len(values) else place
