"""What is rendered in the benchmarks: colored spheres of any number of faces, seen from around."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from backend.cameras.orbit import Cameras
from backend.rendering import build_topology
from backend.rendering.fragments import Topology

RADIUS = 0.8


@dataclass(frozen=True)
class Scene:
    """vertices [V, 3], faces [F, 3], a color of each vertex [V, 3]; the same for everybody who takes part."""

    vertices: Tensor
    faces: Tensor
    colors: Tensor
    topology: Topology


def sphere(faces: int, device: torch.device) -> Scene:
    """A sphere of about `faces` faces: an icosahedron whose faces are cut into n^2 each (20 n^2 in all)."""
    cuts = max(1, round(math.sqrt(faces / 20)))
    corners, triangles = _icosahedron()
    # Points of the barycentric lattice of one face, and the small triangles between them.
    lattice = [(i, j) for i in range(cuts + 1) for j in range(cuts + 1 - i)]
    index = {point: number for number, point in enumerate(lattice)}
    weights = torch.tensor([(cuts - i - j, i, j) for i, j in lattice], dtype=torch.float64) / cuts
    upward = [(index[i, j], index[i + 1, j], index[i, j + 1]) for i, j in lattice if i + j < cuts]
    downward = [(index[i + 1, j], index[i + 1, j + 1], index[i, j + 1]) for i, j in lattice if i + j < cuts - 1]
    small = torch.tensor(upward + downward)
    points = torch.einsum("lk,fkc->flc", weights, corners[triangles]).reshape(-1, 3)
    split = (small + len(lattice) * torch.arange(len(triangles))[:, None, None]).reshape(-1, 3)
    # Neighboring faces share the lattice points of their common side.
    _, welded = torch.unique((points * 1e6).round(), dim=0, return_inverse=True)
    vertices = torch.zeros(int(welded.max()) + 1, 3, dtype=torch.float64).index_copy(0, welded, points)
    vertices = (RADIUS * torch.nn.functional.normalize(vertices, dim=1)).float().to(device)
    finished = welded[split].int().to(device)
    return Scene(vertices, finished, 0.5 * vertices + 0.5, build_topology(finished))


def orbit(views: int, device: torch.device) -> Cameras:
    """Cameras evenly around the sphere, a little above it."""
    return Cameras.orbit(torch.arange(views) * (360.0 / views), 20.0).to(device)


def _icosahedron() -> tuple[Tensor, Tensor]:
    """Corners [12, 3] and faces [20, 3], wound to face outward."""
    golden = (1.0 + math.sqrt(5.0)) / 2.0
    signs = itertools.product((-1.0, 1.0), (-golden, golden))
    points = torch.tensor(
        [turned for a, b in signs for turned in ((0, a, b), (a, b, 0), (b, 0, a))], dtype=torch.float64
    )
    # Its faces are the triples of points that are all one edge (2) apart.
    near = (torch.cdist(points, points) - 2.0).abs() < 1e-6
    triples = [
        t for t in itertools.combinations(range(12), 3) if all(near[i, j] for i, j in itertools.combinations(t, 2))
    ]
    return points, torch.tensor([t if torch.linalg.det(points[list(t)]) > 0 else t[::-1] for t in triples])
