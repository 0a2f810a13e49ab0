"""Each Warp kernel against its plain-torch twin: values and gradients on random scenes, and exact repetition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.rendering import build_topology, operators, reference, render_mesh, to_clip_space, vertex_normals

kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")

SIZE = 40


def gradients(outputs: list[Tensor], weights: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    total = sum((output * weight).sum() for output, weight in zip(outputs, weights))
    return list(torch.autograd.grad(total, inputs))


def assert_near(actual: Tensor, expected: Tensor, relative: float = 1e-4) -> None:
    """Equal within `relative` of the largest expected number: sums of many terms of mixed sign have no better scale."""
    scale = float(expected.detach().abs().max())
    assert scale > 0.0
    torch.testing.assert_close(actual, expected, atol=relative * scale, rtol=0.0)


@pytest.mark.parametrize("seed", range(3))
def test_rasterize(triangle_soup, seed) -> None:
    scene = triangle_soup(seed)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix()).requires_grad_()
    seen = kernels.rasterize(clip, scene.faces, SIZE, SIZE + 8)
    expected = reference.rasterize(clip, scene.faces, SIZE, SIZE + 8)
    assert torch.equal(seen[0], expected[0])
    covered = seen[0] >= 0
    for one, other in zip(seen[1:], expected[1:]):
        torch.testing.assert_close(one[covered], other[covered], atol=2e-5, rtol=1e-5)
        assert torch.equal(one[~covered], other[~covered])
    weights = [torch.randn(value[covered].shape, generator=torch.Generator().manual_seed(seed)) for value in seen[1:]]
    # In float64 the truth is known better than by either of the two in float32.
    exact_clip = clip.detach().double().requires_grad_()
    exact = reference.rasterize(exact_clip, scene.faces, SIZE, SIZE + 8)
    same = (exact[0] == seen[0])[covered]
    assert same.float().mean() > 0.999
    weights = [weight * (same if weight.dim() == 1 else same[:, None]) for weight in weights]
    (actual,) = gradients([value[covered] for value in seen[1:]], weights, [clip])
    (truth,) = gradients([value[covered] for value in exact[1:]], [weight.double() for weight in weights], [exact_clip])
    assert_near(actual.double(), truth, 1e-3)


@pytest.mark.parametrize("per_view", [False, True])
@pytest.mark.parametrize("channels", [1, 5])
def test_interpolate(triangle_soup, per_view, channels) -> None:
    scene = triangle_soup(3)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    face_id, barycentrics = (value.detach() for value in kernels.rasterize(clip, scene.faces, SIZE, SIZE)[:2])
    generator = torch.Generator().manual_seed(0)
    shape = (3, 180, channels) if per_view else (180, channels)
    attributes = torch.randn(shape, generator=generator, requires_grad=True)
    barycentrics.requires_grad_()
    weight = torch.randn(3, SIZE, SIZE, channels, generator=generator)
    results = []
    for room in (kernels, reference):
        image = room.interpolate(attributes, barycentrics, face_id, scene.faces)
        results.append([image, *gradients([image], [weight], [attributes, barycentrics])])
    for actual, expected in zip(*results):
        assert_near(actual, expected, 1e-5)


@pytest.mark.parametrize("shading", ["lit", "albedo", "textureless", "normal"])
def test_shade(solids, shading) -> None:
    scene = solids["torus"]
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    face_id, barycentrics = (value.detach() for value in kernels.rasterize(clip, scene.faces, SIZE, SIZE)[:2])
    colors = scene.colors.clone().requires_grad_()
    normals = vertex_normals(scene.vertices, scene.faces).requires_grad_()
    barycentrics.requires_grad_()
    generator = torch.Generator().manual_seed(1)
    light = torch.nn.functional.normalize(torch.randn(4, 3, generator=generator), dim=1)
    ambient = torch.rand(4, generator=generator)
    weight = torch.randn(4, SIZE, SIZE, 4, generator=generator)
    results = []
    for room in (kernels, reference):
        image = room.shade(colors, normals, barycentrics, face_id, scene.faces, light, ambient, shading)
        inputs = [colors, normals, barycentrics]
        grads = torch.autograd.grad((image * weight).sum(), inputs, allow_unused=True)
        results.append([image, *(torch.zeros_like(i) if g is None else g for i, g in zip(inputs, grads))])
    for actual, expected in zip(*results):
        torch.testing.assert_close(
            actual, expected, atol=1e-4 * max(1.0, float(expected.detach().abs().max())), rtol=0.0
        )
    assert results[0][3].abs().max() > 0


def test_vertex_normals(solids) -> None:
    scene = solids["torus"]
    weight = torch.randn(scene.vertices.shape, generator=torch.Generator().manual_seed(0))
    results = []
    for room in (kernels, reference):
        vertices = scene.vertices.clone().requires_grad_()
        normals = room.vertex_normals(vertices, scene.faces)
        results.append([normals, *gradients([normals], [weight], [vertices])])
    for actual, expected in zip(*results):
        assert_near(actual, expected)


@pytest.mark.parametrize("name", ["sphere", "torus", "cube"])
def test_antialias(solids, name) -> None:
    scene = solids[name]
    topology = build_topology(scene.faces)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix()).requires_grad_()
    face_id, _, _, w = (value.detach() for value in kernels.rasterize(clip, scene.faces, SIZE, SIZE))
    generator = torch.Generator().manual_seed(2)
    image = torch.rand(4, SIZE, SIZE, 3, generator=generator, requires_grad=True)
    weight = torch.randn(4, SIZE, SIZE, 3, generator=generator)
    results = []
    for room in (kernels, reference):
        smooth = room.antialias(image, clip, face_id, w, topology.edges, topology.opposite)
        results.append([smooth, *gradients([smooth], [weight], [image, clip])])
    changed = (results[0][0] != image).any(dim=-1).float().mean()
    assert 0.02 < changed < 0.3
    for actual, expected in zip(*results):
        assert_near(actual, expected)


def test_antialias_on_intersecting_triangles(triangle_soup) -> None:
    scene = triangle_soup(5)
    topology = build_topology(scene.faces)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    face_id, _, _, w = kernels.rasterize(clip, scene.faces, SIZE, SIZE)
    image = torch.rand(3, SIZE, SIZE, 4, generator=torch.Generator().manual_seed(2))
    smooth = [
        room.antialias(image, clip, face_id, w, topology.edges, topology.opposite) for room in (kernels, reference)
    ]
    torch.testing.assert_close(smooth[0], smooth[1], atol=1e-4, rtol=0.0)


def test_a_render_is_the_same_where_warp_has_no_build(solids, monkeypatch) -> None:
    scene = solids["torus"]
    results = []
    for room in (kernels, reference):
        monkeypatch.setattr(operators, "implementation", room)
        vertices, colors = scene.vertices.clone().requires_grad_(), scene.colors.clone().requires_grad_()
        rendered = render_mesh(vertices, scene.faces, colors, scene.cameras, 32, supersample=2)
        (rendered.rgb.square().sum() + rendered.alpha.square().sum()).backward()
        results.append([rendered.rgb, rendered.alpha, vertices.grad, colors.grad])
    for actual, expected in zip(*results):
        assert_near(actual, expected)


def test_a_render_repeats_bit_for_bit(solids) -> None:
    scene = solids["torus"]

    def once() -> list[Tensor]:
        vertices, colors = scene.vertices.clone().requires_grad_(), scene.colors.clone().requires_grad_()
        rendered = render_mesh(vertices, scene.faces, colors, scene.cameras, 32, supersample=2)
        (rendered.rgb.square().sum() + rendered.alpha.square().sum()).backward()
        return [rendered.rgb.detach(), rendered.alpha.detach(), rendered.depth, vertices.grad, colors.grad]

    first = once()
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(once(), first))


def test_order_of_faces_does_not_change_the_image(solids) -> None:
    scene = solids["cube"]
    order = torch.randperm(len(scene.faces), generator=torch.Generator().manual_seed(0))
    for shading in ("albedo", "lit"):
        one = render_mesh(scene.vertices, scene.faces, scene.colors, scene.cameras, 48, shading=shading)
        other = render_mesh(scene.vertices, scene.faces[order], scene.colors, scene.cameras, 48, shading=shading)
        torch.testing.assert_close(one.rgb, other.rgb, atol=1e-5, rtol=0.0)
        torch.testing.assert_close(one.alpha, other.alpha, atol=1e-5, rtol=0.0)
