"""Scenes that the rendering tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import trimesh
from torch import Tensor

from backend.cameras import Cameras


@dataclass(frozen=True)
class Scene:
    vertices: Tensor
    faces: Tensor
    colors: Tensor
    cameras: Cameras


@pytest.fixture
def triangle_soup() -> Callable[[int], Scene]:
    """Random triangles of mixed sizes that intersect and hide each other, seen from three sides."""

    def make(seed: int) -> Scene:
        generator = torch.Generator().manual_seed(seed)
        centers = torch.rand(60, 1, 3, generator=generator) * 1.4 - 0.7
        sizes = torch.rand(60, 1, 1, generator=generator) ** 3 + 0.05
        vertices = (centers + sizes * torch.randn(60, 3, 3, generator=generator) * 0.5).reshape(-1, 3)
        faces = torch.arange(180, dtype=torch.int32).view(60, 3)
        colors = torch.rand(180, 3, generator=generator)
        return Scene(vertices, faces, colors, Cameras.orbit([10.0, 130.0, 260.0], 15.0))

    return make


@pytest.fixture
def solids() -> dict[str, Scene]:
    """Closed surfaces: convex and fine, with a hole, and coarse with creases."""
    meshes = {
        "sphere": trimesh.creation.icosphere(subdivisions=3),
        "torus": trimesh.creation.torus(0.6, 0.25, major_sections=32, minor_sections=16),
        "cube": trimesh.creation.box((1.0, 1.0, 1.0)).subdivide().subdivide(),
    }
    scenes = {}
    for name, mesh in meshes.items():
        vertices = torch.tensor(mesh.vertices, dtype=torch.float32)
        vertices = vertices * (0.8 / vertices.norm(dim=1).max())
        colors = torch.sin(4.0 * vertices) * 0.5 + 0.5
        faces = torch.tensor(mesh.faces, dtype=torch.int32)
        scenes[name] = Scene(vertices, faces, colors, Cameras.orbit([10.0, 100.0, 200.0, 290.0], 20.0))
    return scenes
