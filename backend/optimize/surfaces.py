"""The surface that a step optimizes, whatever holds it: what losses of shape and color look at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from backend.representations.closest_point import closest_points
from backend.representations.representation import Representation
from backend.representations.tetrahedral_grid import TetrahedralGrid
from backend.representations.textured_mesh import TexturedMesh
from backend.representations.triangle_mesh import TriangleMesh


@dataclass(frozen=True, eq=False)
class SurfaceNow:
    """Vertices [V, 3] with their gradients, faces [F, 3] and edges [E, 2].

    Of vertices at one place (copies along texture seams) faces and edges name the first, so that no edge is a seam.
    """

    vertices: Tensor
    faces: Tensor
    edges: Tensor


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """P points of a surface: the face [P] of each and its barycentrics [P, 3]."""

    face: Tensor
    barycentrics: Tensor

    def of(self, values: Tensor, faces: Tensor) -> Tensor:
        """`values` [V, C] of the corners `faces` [F, 3], at the points: [P, C]."""
        return (self.barycentrics[..., None] * values[faces.long()[self.face]]).sum(1)


def has_surface(representation: Representation) -> bool:
    return isinstance(representation, TriangleMesh | TexturedMesh | TetrahedralGrid)


def surface_now(representation: TriangleMesh | TexturedMesh | TetrahedralGrid) -> SurfaceNow:
    """The surface as it is; differentiable in what moves it."""
    if isinstance(representation, TetrahedralGrid):
        surface = representation.surface()
        return SurfaceNow(surface.vertices, surface.faces, surface.topology.edges)
    moving = representation.surface
    return SurfaceNow(moving.positions(), moving.joined_faces, moving.topology.edges)


def artists_surface(representation: TriangleMesh | TexturedMesh | TetrahedralGrid) -> SurfaceNow | None:
    """The surface that the stage began with, where its topology is an artist's and its bends and edges are meant; else None."""
    if isinstance(representation, TetrahedralGrid) or not representation.locked:
        return None
    moving = representation.surface
    return SurfaceNow(moving.start, moving.joined_faces, moving.topology.edges)


def face_normals(surface: SurfaceNow) -> Tensor:
    """Unit normals [F, 3] of the faces; 0 where one has no area."""
    a, b, c = (surface.vertices[corner] for corner in surface.faces.long().T)
    return torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)


def draw_points(surface: SurfaceNow, count: int, generator: torch.Generator) -> SurfacePoints:
    """`count` points evenly spread over the surface, by `generator` (a CPU generator)."""
    a, b, c = (surface.vertices.detach()[corner] for corner in surface.faces.long().T)
    area = torch.linalg.vector_norm(torch.linalg.cross(b - a, c - a), dim=1).cpu()
    face = torch.multinomial(area.clamp_min(1e-20), count, replacement=True, generator=generator)
    u, v = torch.rand(2, count, generator=generator)
    u = u.sqrt()
    barycentrics = torch.stack([1.0 - u, u * (1.0 - v), u * v], dim=1)
    return SurfacePoints(face.to(surface.faces.device), barycentrics.to(surface.vertices))


def nearest_points(surface: SurfaceNow, places: Tensor) -> SurfacePoints:
    """The points of the surface nearest to `places` [P, 3]; no gradient."""
    positions, faces = surface.vertices.detach().cpu().numpy(), surface.faces.cpu().numpy()
    face, barycentrics = closest_points(places.detach().cpu().numpy(), positions, faces)
    device = surface.faces.device
    return SurfacePoints(
        torch.from_numpy(face.astype(np.int64)).to(device), torch.from_numpy(barycentrics).to(surface.vertices)
    )
