"""Gradients of the reference against finite differences in float64, and of whole renders against supersampled ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import build_topology, reference, render_mesh, to_clip_space

SIZE = 10


@pytest.fixture
def small_scene() -> tuple[Tensor, Tensor, Tensor]:
    """A tetrahedron in float64: clip positions `[1, 4, 4]`, faces, and the same vertices in world space."""
    vertices = torch.tensor([[0.7, -0.45, 0.3], [-0.65, -0.5, 0.4], [0.05, 0.72, 0.1], [0.1, -0.2, -0.8]]).double()
    faces = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], dtype=torch.int32)
    clip = to_clip_space(vertices, Cameras.orbit([25.0], 15.0).clip_matrix().double())
    return clip, faces, vertices


def test_gradcheck_of_barycentrics_depth_and_w(small_scene) -> None:
    clip, faces, _ = small_scene

    def visible(clip: Tensor) -> tuple[Tensor, ...]:
        face_id, barycentrics, depth, w = reference.rasterize(clip, faces, SIZE, SIZE)
        covered = face_id >= 0
        assert 15 < covered.sum() < SIZE * SIZE
        return barycentrics[covered], depth[covered], w[covered]

    assert torch.autograd.gradcheck(visible, [clip.requires_grad_()], fast_mode=True)


@pytest.mark.parametrize("shading", ["lit", "normal", "textureless", "albedo"])
def test_gradcheck_of_shading_through_barycentrics(small_scene, shading) -> None:
    clip, faces, vertices = small_scene
    light, ambient = torch.tensor([[0.0, 0.6, 0.8]]).double(), torch.tensor([0.3]).double()

    def shaded(clip: Tensor, colors: Tensor, vertices: Tensor) -> Tensor:
        face_id, barycentrics, _, _ = reference.rasterize(clip, faces, SIZE, SIZE)
        normals = reference.vertex_normals(vertices, faces)
        return reference.shade(colors, normals, barycentrics, face_id, faces, light, ambient, shading)

    colors = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)).double()
    inputs = [value.detach().requires_grad_() for value in (clip, colors, vertices)]
    assert torch.autograd.gradcheck(shaded, inputs, fast_mode=True)


def test_gradcheck_of_antialiasing(small_scene) -> None:
    clip, faces, _ = small_scene
    topology = build_topology(faces)
    face_id, _, _, w = reference.rasterize(clip, faces, SIZE, SIZE)
    # One color on the solid: where colors change inside it, the gradient follows the color at the crossing, not the value.
    image = torch.rand(1, SIZE, SIZE, 2, generator=torch.Generator().manual_seed(0)).double()
    image[face_id >= 0] = torch.tensor([0.3, 0.9]).double()

    def smooth(image: Tensor, clip: Tensor) -> Tensor:
        return reference.antialias(image, clip, face_id, w, topology.edges, topology.opposite)

    assert (smooth(image, clip) != image).sum() > 10
    assert torch.autograd.gradcheck(smooth, [image.requires_grad_(), clip.requires_grad_()], fast_mode=True)


@pytest.mark.parametrize(("name", "tolerance"), [("sphere", 0.05), ("torus", 0.10), ("cube", 0.16)])
def test_vertex_gradients_agree_with_a_supersampled_render(solids, name, tolerance) -> None:
    """Least-squares slope over smooth displacements, 1 is right, for linear functionals of the image.

    Coverage alone is held to 4 %. With colors the silhouette's share is biased upward, since the color beside an edge
    is taken at the pixel's center, up to a pixel inside the lit surface (measured: sphere 1.03, torus 1.07, cube
    1.09 to 1.13).
    """
    scene, size, step = solids[name], 32, 3e-3
    topology = build_topology(scene.faces)
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    waves = torch.randn(3, 4, 1, 1, 4, generator=generator)
    weights = torch.sin(1.5 * waves[0] * x[..., None] + 1.5 * waves[1] * y[..., None] + 3.0 * waves[2])

    def image(vertices: Tensor, supersample: int) -> Tensor:
        options = {"topology": topology, "supersample": supersample}
        rendered = render_mesh(vertices, scene.faces, scene.colors, scene.cameras, size, **options)
        return torch.cat([rendered.rgb, rendered.alpha], dim=-1)

    for channels, allowed in (([0.0, 0, 0, 1], 0.04), ([1.0, 1, 1, 1], tolerance)):
        functional = weights * torch.tensor(channels)
        vertices = scene.vertices.clone().requires_grad_()
        (image(vertices, 2) * functional).sum().backward()
        predicted, measured = [], []
        for _ in range(6):
            linear, waves, phase = (torch.randn(3, n, generator=generator).squeeze(1) for n in (3, 3, 1))
            direction = 0.5 * scene.vertices @ linear + torch.sin(1.5 * scene.vertices @ waves + phase)
            ahead, behind = (image(scene.vertices + sign * step * direction, 6) for sign in (1, -1))
            measured.append(float(((ahead - behind) * functional).double().sum() / (2 * step)))
            predicted.append(float((vertices.grad * direction).double().sum()))
        predicted, measured = torch.tensor(predicted), torch.tensor(measured)
        slope = float((predicted * measured).sum() / (measured * measured).sum())
        cosine = float(torch.nn.functional.cosine_similarity(predicted, measured, dim=0))
        assert abs(slope - 1.0) < allowed, (channels, slope)
        assert cosine > 0.99, (channels, cosine)


def test_gradient_descent_moves_a_sphere_onto_a_silhouette(solids) -> None:
    """Translation and scale are recovered from coverage alone: the gradients point the right way from afar."""
    scene = solids["sphere"]
    topology = build_topology(scene.faces)

    def coverage(offset: Tensor, scale: Tensor) -> Tensor:
        moved = scene.vertices * scale + offset
        return render_mesh(moved, scene.faces, None, scene.cameras, 32, shading="albedo", topology=topology).alpha

    with torch.no_grad():
        target = coverage(torch.tensor([0.15, -0.1, 0.05]), torch.tensor(0.8))
    offset, scale = torch.zeros(3, requires_grad=True), torch.tensor(1.1, requires_grad=True)
    optimizer = torch.optim.Adam([offset, scale], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (coverage(offset, scale) - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(offset.detach(), torch.tensor([0.15, -0.1, 0.05]), atol=0.01, rtol=0)
    assert abs(float(scale.detach()) - 0.8) < 0.01


def test_supersampling_averages_the_larger_image(solids) -> None:
    scene = solids["cube"]
    fine = render_mesh(scene.vertices, scene.faces, scene.colors, scene.cameras, 48)
    averaged = render_mesh(scene.vertices, scene.faces, scene.colors, scene.cameras, 16, supersample=3)
    blocks = torch.cat([fine.rgb, fine.alpha], dim=-1).view(4, 16, 3, 16, 3, 4).mean(dim=(2, 4))
    torch.testing.assert_close(torch.cat([averaged.rgb, averaged.alpha], dim=-1), blocks)
    assert torch.equal(averaged.depth, fine.depth.view(4, 16, 3, 16, 3).amin(dim=(2, 4)))
