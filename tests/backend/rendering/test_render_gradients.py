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


@pytest.mark.parametrize("name", ["sphere", "torus", "cube"])
def test_vertex_gradients_agree_with_a_supersampled_render(solids, name) -> None:
    """Least-squares slope over 12 smooth displacements, 1 is right, for linear functionals of the image.

    Each displacement has views of its own: a plain render takes one sample a pixel, and with colors one set of four
    views alone scatters by some .03. `benchmarks/silhouette_gradients.py` measures more meshes, and more exactly.
    """
    scene, size, step = solids[name], 48, 2e-3
    topology = build_topology(scene.faces)
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    losses = torch.tensor([[0.0, 0, 0, 1], [1.0, 1, 1, 0]])
    predicted, measured = [], []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        azimuths, elevations = torch.rand(2, 4, generator=generator)
        cameras = Cameras.orbit(360.0 * azimuths, 90.0 * elevations - 30.0)
        waves = torch.randn(3, 4, 1, 1, 4, generator=generator)
        weights = torch.sin(1.5 * waves[0] * x[..., None] + 1.5 * waves[1] * y[..., None] + 3.0 * waves[2])
        linear, waves, phase = (torch.randn(3, n, generator=generator).squeeze(1) for n in (3, 3, 1))
        direction = 0.5 * scene.vertices @ linear + torch.sin(1.5 * scene.vertices @ waves + phase)

        def totals(vertices: Tensor, supersample: int) -> Tensor:
            options = {"topology": topology, "supersample": supersample}
            rendered = render_mesh(vertices, scene.faces, scene.colors, cameras, size, **options)
            image = torch.cat([rendered.rgb, rendered.alpha], dim=-1)
            return (losses[:, None, None, None] * weights * image).double().sum(dim=(1, 2, 3, 4))

        vertices = scene.vertices.clone().requires_grad_()
        gradients = [torch.autograd.grad(total, vertices, retain_graph=True)[0] for total in totals(vertices, 1)]
        predicted.append(torch.stack([(gradient * direction).double().sum() for gradient in gradients]))
        with torch.no_grad():
            ahead, behind = (totals(scene.vertices + sign * step * direction, 6) for sign in (1, -1))
        measured.append((ahead - behind) / (2 * step))
    predicted, measured = torch.stack(predicted), torch.stack(measured)
    slopes = (predicted * measured).sum(0) / measured.square().sum(0)
    cosines = torch.nn.functional.cosine_similarity(predicted, measured, dim=0)
    assert abs(float(slopes[0]) - 1.0) < 0.02, slopes
    assert abs(float(slopes[1]) - 1.0) < 0.05, slopes
    assert float(cosines.min()) > 0.99, cosines


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
