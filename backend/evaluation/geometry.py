"""Is a mesh sound and does it have the holes that its kind should have? Measured, not judged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from backend.cameras import Cameras
from backend.rendering import render_mesh
from backend.representations.mesh_data import MeshData
from backend.representations.soundness import soundness

HOLE_SHARE = 0.004
"""A hole is visible if the enclosed background covers this share of the silhouette in some view."""


@dataclass(frozen=True)
class Geometry:
    """Facts about a mesh. `genus` is the number of handles of all pieces together (0 for a mesh that is not sound).

    inverted: share of sampled faces whose outer side lies inside the solid, by winding number.
    visible_hole: the largest share of a silhouette that is background enclosed by it, over 33 views.
    """

    watertight: bool
    manifold: bool
    oriented: bool
    components: int
    genus: int
    volume: float
    degenerate_faces: int
    inverted: float
    visible_hole: float
    vertices: int
    faces: int

    @property
    def sound(self) -> bool:
        """Watertight, manifold, all faces looking outward."""
        return self.watertight and self.manifold and self.oriented and self.volume > 0.0 and self.inverted < 0.01

    @property
    def has_hole(self) -> bool:
        """A handle in the topology that can also be looked through."""
        return self.genus >= 1 and self.visible_hole >= HOLE_SHARE


def measure(mesh: MeshData) -> Geometry:
    """All facts about `mesh`; deterministic."""
    facts = soundness(mesh)
    whole = facts.watertight and facts.manifold
    return Geometry(
        watertight=facts.watertight,
        manifold=facts.manifold,
        oriented=facts.oriented,
        components=facts.components,
        genus=facts.components - facts.euler // 2 if whole else 0,
        volume=facts.volume,
        degenerate_faces=degenerate_faces(mesh),
        inverted=inverted_share(mesh),
        visible_hole=visible_hole(mesh),
        vertices=len(mesh.positions),
        faces=len(mesh.faces),
    )


def degenerate_faces(mesh: MeshData) -> int:
    """Faces with hardly any area (below 1e-10 of the bounding box's diagonal squared) or with a vertex twice."""
    a, b, c = (mesh.positions[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    diagonal = np.linalg.norm(np.ptp(mesh.positions, axis=0))
    return int((area < 1e-10 * diagonal**2).sum())


def inverted_share(mesh: MeshData, samples: int = 80) -> float:
    """The share of faces that look inward: just outside of them the winding number is larger than just inside."""
    rng = np.random.default_rng(0)
    a, b, c = (mesh.positions[mesh.faces[:, k]].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1)
    proper = np.flatnonzero(length > 1e-12)
    if len(proper) == 0:
        return 1.0
    chosen = rng.choice(proper, min(samples, len(proper)), replace=False)
    step = 1e-3 * np.linalg.norm(np.ptp(mesh.positions, axis=0)) * normal[chosen] / length[chosen, None]
    center = (a + b + c)[chosen] / 3.0
    outside, within = winding_number(mesh, center + step), winding_number(mesh, center - step)
    return float(np.mean((np.abs(outside) > 0.5) | (within < 0.5)))


def winding_number(mesh: MeshData, points: np.ndarray) -> np.ndarray:
    """The generalized winding number [P] of points [P, 3] (Jacobson et al. 2013): 1 inside, 0 outside.

    Sum of the signed solid angles of all faces (Van Oosterom and Strackee 1983) over 4 pi.
    """
    result = np.empty(len(points))
    for number, point in enumerate(points):
        a, b, c = (mesh.positions[mesh.faces[:, k]].astype(np.float64) - point for k in range(3))
        la, lb, lc = (np.linalg.norm(corner, axis=1) for corner in (a, b, c))
        volume = np.einsum("ij,ij->i", a, np.cross(b, c))
        dots = [np.einsum("ij,ij->i", u, v) for u, v in ((a, b), (b, c), (c, a))]
        result[number] = np.arctan2(volume, la * lb * lc + dots[0] * lc + dots[1] * la + dots[2] * lb).sum()
    return result / (2.0 * np.pi)


def visible_hole(mesh: MeshData, resolution: int = 96) -> float:
    """The largest enclosed background region over views from all around, as a share of that view's silhouette."""
    around = [15.0 * k for k in range(0, 24, 3)]
    cameras = Cameras.orbit(
        torch.tensor(around * 4 + [0.0]), torch.tensor([0.0] * 8 + [20.0] * 8 + [45.0] * 8 + [65.0] * 8 + [89.0])
    )
    with torch.no_grad():
        alpha = render_mesh(
            torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces), None, cameras, resolution, shading="albedo"
        ).alpha[..., 0]
    largest = 0.0
    for covered in (alpha > 0.5).numpy():
        enclosed, count = ndimage.label(ndimage.binary_fill_holes(covered) & ~covered)
        if count:
            largest = max(largest, float(np.bincount(enclosed.ravel())[1:].max() / covered.sum()))
    return largest
