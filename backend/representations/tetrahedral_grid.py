"""Signed distances, offsets and colors at the points of a tetrahedral lattice, optimized through their surface.

Deep Marching Tetrahedra (Shen et al. 2021) without its networks: topology changes freely, and what is rendered is
already the mesh that will be handed on, with silhouettes and shading as the rasterizer makes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from backend.rendering.fragments import Topology, build_topology
from backend.rendering.lighting import Light, Shading
from backend.rendering.render import Rendered, ViewCameras, render_mesh
from backend.representations.marching_tetrahedra import LARGEST_OFFSET, Crossings, find_crossings, place_vertices
from backend.representations.mesh_data import MeshData
from backend.representations.tetrahedral_lattice import Lattice
from protocol.settings import TetrahedraStage

START_RADIUS = 0.6

COLOR_SLOPE = 4.0
"""color = sigmoid(COLOR_SLOPE * parameter): about as far as the parameter itself moves, where colors are middling."""


@dataclass(frozen=True)
class Surface:
    """The zero set now: vertices and colors [V, 3] with gradients, faces [F, 3] int32, and their topology."""

    vertices: Tensor
    faces: Tensor
    colors: Tensor
    topology: Topology


class TetrahedralGrid:
    """Parameters at the N points of a `Lattice`: distances [N] (negative inside), offsets [N, 3], colors [N, 3].

    Distances and offsets are in scene units. Offsets are bounded smoothly so that no tetrahedron turns over: the surface
    is closed, oriented and manifold, and does not cut itself, at every step. It is cut by the unit sphere, beyond which
    distances still learn, so that they can come back. Where no point is inside at all, the one that is closest to it
    (of equals the middle one) stands for a seed of about a cell's size: the surface is never empty and always has a gradient.

    Colors are interpolated along with the vertices, but do not move them: a surface should not shift because what is
    buried beneath it has another color.
    """

    def __init__(
        self, settings: TetrahedraStage, device: torch.device | str = "cpu", start: MeshData | None = None
    ) -> None:
        """Begins as a gray sphere, or as `start`: a closed mesh inside the unit sphere (see `mesh_to_distances`)."""
        self.settings = settings
        self.lattice = Lattice(settings.resolution, torch.device(device))
        points = self.lattice.points
        distances, colors = points.norm(dim=1) - START_RADIUS, torch.full_like(points, 0.5)
        if start is not None:
            from backend.representations.convert import mesh_to_distances  # its libraries take a second to load

            found = mesh_to_distances(points.cpu().numpy(), start, near=2.0 * self.lattice.cell)
            distances, colors = (torch.as_tensor(each, device=device) for each in found)
        self.distances = distances.clone().requires_grad_()
        self.offsets = torch.zeros_like(points, requires_grad=True)
        self.colors = (torch.logit(colors, eps=1e-3) / COLOR_SLOPE).requires_grad_()
        self._kept: tuple[Tensor, Crossings, Topology] | None = None

    def parameter_groups(self) -> list[dict]:
        """For torch.optim: "distances", "offsets" and "colors"."""
        return [
            {"name": "distances", "params": [self.distances]},
            {"name": "offsets", "params": [self.offsets]},
            {"name": "colors", "params": [self.colors]},
        ]

    def render(
        self, cameras: ViewCameras, resolution: int, light: Light | None = None, shading: Shading = "lit"
    ) -> Rendered:
        """Differentiable images of the surface, as `render_mesh` makes them."""
        surface = self.surface()
        return render_mesh(
            surface.vertices,
            surface.faces,
            surface.colors,
            cameras,
            resolution,
            light=light,
            shading=shading,
            topology=surface.topology,
            supersample=self.settings.supersample,
        )

    def surface(self) -> Surface:
        """The surface, colored; its topology is found anew only when a sign has changed."""
        points = self._points()
        distances = self._bounded_distances(points)
        crossings, topology = self._topology(distances)
        vertices, share = place_vertices(crossings, distances, points)
        colors = torch.sigmoid(COLOR_SLOPE * self.colors)
        first, second = crossings.edges.T
        share = share.detach()[:, None]
        return Surface(
            vertices,
            crossings.faces,
            torch.lerp(colors.index_select(0, first), colors.index_select(0, second), share),
            topology,
        )

    def regularization(self) -> dict[str, Tensor]:
        """Unweighted, dimensionless scalars.

        sign_changes: mean over the crossing edges of the binary cross entropy between each end's distance (in cells, as a
            logit) and the other end's sign (Munkberg et al. 2022, Extracting Triangular 3D Models, eq. 2). It draws both
            ends toward 0, so that surfaces which nothing else holds in place, inside and out, vanish in time.
        laplacian: mean squared distance of a vertex from the mean of its neighbors, in units of the mean squared edge.
        """
        points = self._points()
        distances = self._bounded_distances(points)
        crossings, topology = self._topology(distances)
        first, second = crossings.edges.T
        a, b = (distances.index_select(0, ends) / self.lattice.cell for ends in (first, second))
        toward_b, toward_a = (torch.where(ends.detach() < 0.0, -1.0, 1.0) for ends in (b, a))
        entropy = functional.softplus(-a * toward_b) + functional.softplus(-b * toward_a)
        vertices, _ = place_vertices(crossings, distances, points)
        return {"sign_changes": entropy.mean(), "laplacian": _bend(vertices, topology)}

    def to_mesh(self) -> MeshData:
        """The surface as it is, colored: closed and manifold, with the thin triangles that a fixed lattice makes."""
        with torch.no_grad():
            surface = self.surface()
        arrays = (surface.vertices, surface.faces, surface.colors)
        return MeshData(*(np.ascontiguousarray(each.cpu().numpy().copy()) for each in arrays))

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of everything that a resumed run needs."""
        return {
            "distances": self.distances.detach().clone(),
            "offsets": self.offsets.detach().clone(),
            "colors": self.colors.detach().clone(),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore `state_dict()` into the same parameter tensors."""
        with torch.no_grad():
            self.distances.copy_(state["distances"])
            self.offsets.copy_(state["offsets"])
            self.colors.copy_(state["colors"])

    def _points(self) -> Float[Tensor, "N 3"]:
        """The points where their offsets, bounded smoothly, have brought them; border points stay."""
        largest = LARGEST_OFFSET * self.lattice.cell
        length = (1.0 + self.offsets.square().sum(1, keepdim=True) / largest**2).sqrt()
        return self.lattice.points + (self.offsets / length) * ~self.lattice.border[:, None]

    def _bounded_distances(self, points: Tensor) -> Float[Tensor, "N"]:
        """The distances inside the unit sphere, never all positive; the gradient is that of the distances themselves."""
        with torch.no_grad():
            bounded = torch.maximum(self.distances, points.norm(dim=1) - 1.0)
            if not bool((bounded < 0.0).any()):
                middle_first = 1e-3 * points.norm(dim=1)
                seed = (bounded + middle_first).masked_fill(self.lattice.border, torch.inf).argmin()
                bounded[seed] = -bounded.max()
            change = bounded - self.distances
        return self.distances + change

    def _topology(self, distances: Tensor) -> tuple[Crossings, Topology]:
        inside = distances.detach() < 0.0
        if self._kept is None or not torch.equal(self._kept[0], inside):
            crossings = find_crossings(self.lattice, inside)
            self._kept = inside, crossings, build_topology(crossings.faces)
        return self._kept[1:]


def _bend(vertices: Float[Tensor, "V 3"], topology: Topology) -> Float[Tensor, ""]:
    """Mean squared uniform Laplacian in units of the mean squared edge length."""
    first, second = topology.edges.long().T
    along = vertices.index_select(0, second) - vertices.index_select(0, first)
    total = torch.zeros_like(vertices).index_add(0, first, along).index_add(0, second, -along)
    degree = torch.bincount(topology.edges.reshape(-1), minlength=len(vertices)).clamp_min(1)
    unit = along.detach().square().sum(1).mean()
    return (total / degree[:, None]).square().sum(1).mean() / unit
