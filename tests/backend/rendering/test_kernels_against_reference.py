"""Each Warp kernel against its plain-torch twin: values and gradients on random scenes, and exact repetition."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.rendering import (
    build_topology,
    operators,
    rasterize,
    reference,
    render_mesh,
    to_clip_space,
    vertex_normals,
)

kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")

SIZE = 40


def gradients(outputs: list[Tensor], weights: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    total = sum((output * weight).sum() for output, weight in zip(outputs, weights))
    return list(torch.autograd.grad(total, inputs))


def assert_near(actual: Tensor, expected: Tensor, relative: float = 1e-5) -> None:
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


def crossing_soup(seed: int, views: int = 3) -> tuple[Tensor, Tensor]:
    """Clip positions `[N, V, 4]` and faces that share vertices, cross the near plane and reach behind the camera."""
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(views, 70, 4, generator=generator)
    clip[..., 2] *= 0.5
    clip[..., 3] = clip[..., 3] * 0.6 + 0.4
    return clip, torch.randint(70, (40, 3), generator=generator, dtype=torch.int32)


@pytest.mark.parametrize("seed", range(3))
def test_rasterize_across_the_near_plane(seed) -> None:
    clip, faces = crossing_soup(seed)
    clip.requires_grad_()
    seen, expected = (room.rasterize(clip, faces, SIZE, SIZE + 9) for room in (kernels, reference))
    covered = seen[0] >= 0
    assert torch.equal(seen[0], expected[0]) and 0.3 < covered.float().mean()
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(value[covered].shape, generator=generator) for value in seen[1:]]
    for one, other in zip(seen[1:], expected[1:]):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)
    for chosen in ([0, 1, 2], [0], [1], [2]):  # the gradient of one output alone takes another way through the kernel
        grads = [
            torch.autograd.grad(
                [result[1 + i][covered] for i in chosen], clip, [weights[i] for i in chosen], retain_graph=True
            )[0]
            for result in (seen, expected)
        ]
        assert_near(*grads, 1e-5)


def test_several_meshes_in_one_batch() -> None:
    # Each view draws its own part of the faces: values and gradients are those of drawing the meshes one by one.
    clip, faces = crossing_soup(7)
    parts = [(0, 15), (15, 25), (20, 0)]
    clip.requires_grad_()
    together = rasterize(clip, faces, SIZE, SIZE, ranges=torch.tensor(parts, dtype=torch.int32))
    twin = reference.rasterize(clip, faces, SIZE, SIZE, parts)
    total = together.barycentrics.square().sum() + together.depth.sum()
    (grad,) = torch.autograd.grad(total, clip)
    for view, (first, count) in enumerate(parts):
        one = clip[view : view + 1].detach().requires_grad_()
        alone = rasterize(one, faces[first : first + count].contiguous(), SIZE, SIZE)
        assert torch.equal(torch.where(alone.face_id[0] < 0, -1, alone.face_id[0] + first), together.face_id[view])
        assert torch.equal(alone.barycentrics[0], together.barycentrics[view])
        (expected,) = torch.autograd.grad(alone.barycentrics.square().sum() + alone.depth.sum(), one)
        assert torch.equal(grad[view], expected[0])
        assert (alone.face_id >= 0).any() == (count > 0)
    assert torch.equal(twin[0], together.face_id)


@pytest.mark.parametrize("per_view", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 16, 35])
def test_interpolate(triangle_soup, per_view, channels) -> None:
    scene = triangle_soup(3)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    face_id, barycentrics = (value.detach() for value in kernels.rasterize(clip, scene.faces, SIZE, SIZE)[:2])
    generator = torch.Generator().manual_seed(0)
    attributes = torch.randn((3, 180, channels) if per_view else (180, channels), generator=generator)
    attributes.requires_grad_()
    barycentrics.requires_grad_()
    weight = torch.randn(3, SIZE, SIZE, channels, generator=generator)
    results = []
    for room in (kernels, reference):
        image = room.interpolate(attributes, barycentrics, face_id, scene.faces)
        results.append([image, *gradients([image], [weight], [attributes, barycentrics])])
    for actual, expected in zip(*results):
        assert_near(actual, expected, 1e-5)
    # Each alone, as where only colors or only positions are optimized.
    image = kernels.interpolate(attributes, barycentrics.detach(), face_id, scene.faces)
    assert torch.equal(gradients([image], [weight], [attributes])[0], results[0][1])
    image = kernels.interpolate(attributes.detach(), barycentrics, face_id, scene.faces)
    assert torch.equal(gradients([image], [weight], [barycentrics])[0], results[0][2])


def test_interpolate_with_its_own_faces(triangle_soup) -> None:
    # As texture coordinates are: other indices, and some rows missing or pointing nowhere.
    scene = triangle_soup(3)
    clip = to_clip_space(scene.vertices, scene.cameras.clip_matrix())
    fragments = rasterize(clip, scene.faces, SIZE, SIZE)
    generator = torch.Generator().manual_seed(0)
    uvs = torch.rand(11, 2, generator=generator) + 0.1
    uv_faces = torch.randint(11, (60, 3), generator=generator, dtype=torch.int32)
    uv_faces[7, 1], uv_faces[21, 0] = 11, -1
    uv_faces = uv_faces[:50].contiguous()
    uvs.requires_grad_()
    results = []
    for room in (kernels, reference):
        image = room.interpolate(uvs, fragments.barycentrics.detach(), fragments.face_id, uv_faces)
        results.append([image, *gradients([image], [torch.ones_like(image)], [uvs])])
    for actual, expected in zip(*results):
        assert_near(actual, expected, 1e-5)
    shown = (fragments.face_id >= 0) & (fragments.face_id < 50) & (fragments.face_id != 7) & (fragments.face_id != 21)
    assert torch.equal((results[0][0] > 0).all(dim=-1), shown)
    assert (fragments.face_id == 7).any() and (fragments.face_id >= 50).any()


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
            actual, expected, atol=1e-5 * max(1.0, float(expected.detach().abs().max())), rtol=0.0
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
    torch.testing.assert_close(smooth[0], smooth[1], atol=1e-5, rtol=0.0)


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


def test_gradients_of_the_twin_across_the_near_plane() -> None:
    clip, faces = crossing_soup(4, views=1)
    clip, faces = clip[:, :18], faces[:14] % 18
    face_id = reference.rasterize(clip.double(), faces, 7, 6)[0]
    covered = face_id >= 0
    crossed = (clip[..., 3] < 0)[covered.nonzero()[:, :1], faces.long()[face_id[covered].long()]]
    assert crossed.any(dim=1).sum() > 5  # faces with vertices behind the camera are among those seen

    def seen(positions: Tensor) -> tuple[Tensor, ...]:
        result = reference.rasterize(positions, faces, 7, 6)
        assert torch.equal(result[0], face_id)
        return tuple(value[covered] for value in result[1:])

    assert torch.autograd.gradcheck(seen, clip.double().requires_grad_(), eps=1e-7, atol=1e-4)


def test_gradients_of_the_twin_of_interpolate() -> None:
    clip, faces = crossing_soup(5, views=2)
    clip, faces = clip[:, :12], faces[:10] % 12
    face_id, barycentrics = reference.rasterize(clip.double(), faces, 5, 4)[:2]
    generator = torch.Generator().manual_seed(0)
    for shape in ((12, 2), (2, 12, 1)):
        attributes = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(
            lambda a, b: reference.interpolate(a, b, face_id, faces), (attributes, barycentrics.requires_grad_())
        )
