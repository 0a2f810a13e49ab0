"""Depth with gradients: the depth that renders have, and slopes that finite differences confirm."""

from __future__ import annotations

import torch

from backend.cameras import Cameras
from backend.rendering import render_mesh
from backend.rendering.depth import surface_depth
from backend.representations.primitives import icosphere

CAMERAS = Cameras.orbit([0.0, 75.0], 20.0)


def ball() -> tuple[torch.Tensor, torch.Tensor]:
    mesh = icosphere(1)
    return torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces)


def test_it_is_the_depth_that_a_render_has() -> None:
    vertices, faces = ball()
    rendered = render_mesh(vertices, faces, None, CAMERAS, 24).depth
    own = surface_depth(vertices, faces, CAMERAS, 24)
    assert own.isfinite().any() and torch.equal(own.isfinite(), rendered.isfinite())
    assert torch.allclose(own[own.isfinite()], rendered[own.isfinite()], atol=1e-5)


def test_its_gradient_is_that_of_finite_differences() -> None:
    vertices, faces = ball()
    inside = surface_depth(0.8 * vertices, faces, CAMERAS, 24).isfinite()  # far from the outline, which steps
    weight = torch.rand(inside.shape, generator=torch.Generator().manual_seed(1)) * inside

    def total(moved: torch.Tensor) -> torch.Tensor:
        depth = surface_depth(moved, faces, CAMERAS, 24)
        return (weight * torch.where(inside, depth, 0.0)).double().sum()

    vertices.requires_grad_()
    (gradient,) = torch.autograd.grad(total(vertices), vertices)
    for seed in range(4):
        way = torch.randn(vertices.shape, generator=torch.Generator().manual_seed(seed))
        step = 1e-3
        with torch.no_grad():
            slope = (total(vertices + step * way) - total(vertices - step * way)) / (2 * step)
        assert abs(float(slope) - float((gradient * way).sum())) < 0.02 * float(gradient.norm())
