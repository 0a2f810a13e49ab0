"""Edge gradients and soft rasterization: kernels against twins, gradients against finite differences, closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering import (
    Softness,
    edge_gradient,
    rasterize,
    reference,
    render_mesh,
    soft_rasterize,
    to_clip_space,
)

SIZE = 24


def fragments_of(scene) -> tuple[Tensor, object]:
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    return clip, rasterize(clip, scene.faces, SIZE, SIZE + 8)


@pytest.mark.parametrize("name", ["sphere", "torus", "soup"])
def test_edge_gradient_equals_its_twin(solids, triangle_soup, name) -> None:
    kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")
    scene = triangle_soup(4) if name == "soup" else solids[name]
    clip, fragments = fragments_of(scene)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(*fragments.face_id.shape, 3, generator=generator, requires_grad=True)
    weight = torch.randn(image.shape, generator=generator)
    results = []
    for room in (kernels, reference):
        place = clip.clone().requires_grad_()
        hard = (fragments.face_id, fragments.barycentrics, fragments.w)
        same = room.edge_gradient(image, place, *hard, scene.faces)
        assert torch.equal(same, image)
        results.append(torch.autograd.grad((same * weight).sum(), [image, place]))
    assert torch.equal(results[0][0], weight)
    scale = float(results[1][1].abs().max())
    assert scale > 0
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5 * scale, rtol=0)


def test_edge_gradient_moves_a_rectangle_by_the_difference_of_its_sides() -> None:
    """Moving it right gains a column of weight on its right side and loses one on its left, both at pixels' edges."""
    corners = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    clip = torch.cat([corners, torch.zeros(4, 1), torch.ones(4, 1)], dim=1)[None].requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    fragments = rasterize(clip, faces, 16, 16)
    mask = (fragments.face_id >= 0).float()[..., None]
    weight = torch.arange(16.0).square().expand(16, 16)[None, ..., None]
    (edge_gradient(mask, fragments, clip, faces) * weight).sum().backward()
    right, left = (11**2 + 12**2) / 2, (3**2 + 4**2) / 2
    assert float(clip.grad[0, :, 0].sum()) == pytest.approx(8 * (right - left) * 8)
    assert float(clip.grad[0, :, 1].sum()) == pytest.approx(0, abs=1e-3)


def test_edge_gradient_leaves_a_continuous_surface_alone(solids) -> None:
    """On a sphere that fills the image there is no edge, however many faces a pixel has."""
    scene = solids["sphere"]
    clip = to_clip_space(2.2 * scene.vertices, scene.cameras.clip_matrix()).requires_grad_()
    fragments = rasterize(clip, scene.faces, SIZE, SIZE)
    assert (fragments.face_id >= 0).all() and fragments.face_id.unique().numel() > 100
    image = torch.rand(4, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    edge_gradient(image, fragments, clip, scene.faces).sum().backward()
    assert float(clip.grad.abs().max()) == 0.0


@pytest.mark.parametrize("name", ["cube", "soup"])
def test_soft_rasterization_equals_its_twin(solids, triangle_soup, name) -> None:
    kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")
    scene = triangle_soup(4) if name == "soup" else solids[name]
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())[:2]
    generator = torch.Generator().manual_seed(0)
    attributes = torch.rand(2, clip.shape[1], 3, generator=generator)
    results = []
    for room, number in ((kernels, torch.float32), (reference, torch.float64)):
        inputs = [value.to(number).requires_grad_() for value in (clip, attributes)]
        outputs = room.soft_rasterize(*inputs, scene.faces, SIZE, SIZE + 8, 1e-3, 0.05)
        near = outputs[1].isfinite()
        assert 0.1 < near.float().mean() <= 1.0
        outputs = [value[near] for value in outputs]
        weights = torch.Generator().manual_seed(1)
        total = sum((value * torch.randn(value.shape, generator=weights).to(number)).sum() for value in outputs)
        results.append([*outputs, *torch.autograd.grad(total, inputs)])
    for actual, expected in zip(*results):
        scale = float(expected.detach().abs().max())
        # The twin runs in float64; sums over many faces in float32 differ by up to 5.3e-5 (clip gradients of the soup).
        torch.testing.assert_close(actual.double(), expected, atol=1e-4 * scale, rtol=0)


def test_gradcheck_of_soft_rasterization() -> None:
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(1, 6, 4, generator=generator).double() * 0.6
    clip[..., 3] = 1.5 + 0.3 * torch.rand(1, 6, generator=generator).double()
    attributes = torch.rand(1, 6, 2, generator=generator).double()
    faces = torch.tensor([[0, 1, 2], [3, 4, 5], [0, 4, 2]], dtype=torch.int32)

    def soft(clip: Tensor, attributes: Tensor) -> tuple[Tensor, ...]:
        coverage, depth, mixed = reference.soft_rasterize(clip, attributes, faces, 7, 7, 0.05, 0.3)
        return coverage, depth[depth.isfinite()], mixed

    assert torch.autograd.gradcheck(soft, [clip.requires_grad_(), attributes.requires_grad_()], fast_mode=True)


def test_soft_coverage_of_a_half_plane_is_the_sigmoid_of_its_distance() -> None:
    corners = torch.tensor([[0.1, -40.0], [40.0, 0.0], [0.1, 40.0]])
    clip = torch.cat([corners, torch.zeros(3, 1), torch.ones(3, 1)], dim=1)[None]
    soft = soft_rasterize(clip, torch.tensor([[0, 1, 2]], dtype=torch.int32), 8, 8, sigma=0.1, gamma=1.0)
    x = (torch.arange(8) + 0.5) / 4 - 1 - 0.1
    torch.testing.assert_close(soft.coverage[0], torch.sigmoid(x * x.abs() / 0.1).expand(8, 8), atol=2e-4, rtol=0)


@pytest.mark.parametrize("shading", ["lit", "albedo", "normal", "textureless"])
def test_soft_silhouettes_become_hard_ones_as_the_temperatures_fall(solids, shading) -> None:
    scene = solids["torus"]
    options = {"shading": shading, "supersample": 2}
    hard = render_mesh(scene.vertices, scene.faces, scene.colors, scene.cameras, 32, **options)
    errors = []
    for sigma, gamma in ((1e-2, 1e-1), (1e-4, 1e-2), (1e-6, 1e-3)):
        soft = render_mesh(
            scene.vertices, scene.faces, scene.colors, scene.cameras, 32, **options, silhouettes="soft",
            softness=Softness(sigma, gamma),
        )  # fmt: skip
        assert bool((soft.rgb <= soft.alpha + 1e-5).all())
        errors.append(float((soft.alpha - hard.alpha).abs().mean() + (soft.rgb - hard.rgb).abs().mean()))
    assert errors[0] > 4 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.015


def test_edge_gradient_silhouettes_have_hard_values_and_gradients(solids) -> None:
    scene = solids["cube"]
    vertices = scene.vertices.clone().requires_grad_()
    rendered = render_mesh(vertices, scene.faces, None, scene.cameras, 32, silhouettes="edge-gradient")
    assert set(rendered.alpha.unique().tolist()) == {0.0, 1.0}
    rendered.alpha.sum().backward()
    assert float((vertices.grad * scene.vertices).sum()) > 0  # growing covers more


def test_what_soft_rasterization_refuses() -> None:
    clip, faces = torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.int32)
    for sigma, gamma in ((0.0, 1.0), (1.0, -1.0), (math.nan, 1.0)):
        with pytest.raises(InputError, match="above 0"):
            soft_rasterize(clip, faces, 4, 4, sigma=sigma, gamma=gamma)
    with pytest.raises(InputError, match="attributes must be"):
        soft_rasterize(clip, faces, 4, 4, sigma=1.0, gamma=1.0, attributes=torch.zeros(4, 3))
    with pytest.raises(InputError, match="silhouettes is"):
        render_mesh(torch.zeros(3, 3), faces, None, None, 8, silhouettes="hard")


def test_soft_rasterization_survives_broken_meshes() -> None:
    clip = torch.tensor([[[0.0, 0, 0, 1], [1, 0, 0, 1], [0, 1, 0, 1], [math.nan, 0, 0, 1], [0, 0, 0, -1.0]]])
    clip.requires_grad_()
    faces = torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4], [0, 0, 1], [0, 1, 9]], dtype=torch.int32)
    soft = soft_rasterize(clip, faces, 8, 8, sigma=1e-2, gamma=0.1, attributes=torch.ones(5, 2))
    (soft.coverage.sum() + soft.attributes.sum()).backward()
    assert bool(clip.grad.isfinite().all())
    assert 0 < float(soft.coverage.detach().sum()) < 64
