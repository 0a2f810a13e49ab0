"""Rendering meshes with materials: textures, normal maps, back faces, displayed light, and gradients to all of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.errors import InputError
from backend.rendering import (
    EnvironmentMap,
    Light,
    Material,
    SphericalHarmonics,
    metal_rough,
    operators,
    reference,
    render_material,
    render_mesh,
    tangent_corners,
    texturing,
)
from backend.rendering.color import to_display, to_linear
from backend.rendering.material import bend_normals, vertex_tangents

CAMERAS = Cameras.orbit([15.0, 140.0], [20.0, -10.0])


def soft_light() -> SphericalHarmonics:
    coefficients = 0.3 * torch.randn(9, 3, generator=torch.Generator().manual_seed(3))
    coefficients[0] += 2.5
    return SphericalHarmonics(coefficients)


@pytest.fixture
def quad() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A square that faces +z, with the texture upright on it: vertices, faces, uvs, uv_faces."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    vertices = torch.cat([0.8 * corners, torch.zeros(4, 1)], dim=1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    return vertices, faces, 0.5 * corners + 0.5, faces


def with_uvs(scene) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Texture coordinates of their own for each corner."""
    corners = scene.vertices[scene.faces.long()]
    uvs = (corners[..., :2] @ torch.tensor([[0.6, 0.2], [-0.1, 0.7]]) + 0.5).reshape(-1, 2)
    return scene.vertices, scene.faces, uvs, torch.arange(len(uvs), dtype=torch.int32).view(-1, 3)


def textures(size: int = 16, seed: int = 0) -> Material:
    generator = torch.Generator().manual_seed(seed)
    color, metallic, roughness = (torch.rand(size, size, c, generator=generator) for c in (3, 1, 1))
    bumps = torch.randn(size, size, 3, generator=generator) * 0.2 + torch.tensor([0.0, 0.0, 1.0])
    emission = 0.3 * torch.rand(size, size, 3, generator=generator)
    return Material(color, metallic, 0.3 + 0.7 * roughness, torch.nn.functional.normalize(bumps, dim=-1), emission)


def test_one_value_one_a_vertex_and_a_texture_show_the_same(solids) -> None:
    scene = solids["torus"]
    mesh = with_uvs(scene)
    plain = Material.plain((0.7, 0.4, 0.2), metallic=0.3, roughness=0.6)
    given = (plain.base_color, plain.metallic, plain.roughness)
    per_vertex = Material(*(value.expand(len(mesh[0]), -1) for value in given))
    textured = Material(*(value.expand(8, 8, -1) for value in given))
    pictures = [
        render_material(*mesh, material, scene.cameras, 24, illumination=soft_light())
        for material in (plain, per_vertex, textured)
    ]
    without_uvs = render_material(mesh[0], mesh[1], None, None, plain, scene.cameras, 24, illumination=soft_light())
    for other in (*pictures[1:], without_uvs):
        torch.testing.assert_close(other.rgb, pictures[0].rgb, atol=2e-6, rtol=0.0)
        assert torch.equal(other.alpha, pictures[0].alpha)
    assert float(pictures[0].rgb.max()) > 0.3


@pytest.mark.parametrize("shading", ["lit", "textureless", "normal", "albedo"])
def test_plain_pictures_are_those_of_render_mesh(solids, shading: str) -> None:
    scene = solids["torus"]
    light = Light(torch.nn.functional.normalize(torch.randn(4, 3), dim=1), torch.full((4,), 0.3))
    material = Material(scene.colors, torch.zeros(1), torch.ones(1))
    options = {"shading": shading, "supersample": 2}
    mesh = (scene.vertices, scene.faces, None, None)
    seen = render_material(*mesh, material, scene.cameras, 16, illumination=light, **options)
    expected = render_mesh(scene.vertices, scene.faces, scene.colors, scene.cameras, 16, light=light, **options)
    torch.testing.assert_close(seen.rgb, expected.rgb, atol=2e-6, rtol=0.0)
    assert torch.equal(seen.alpha, expected.alpha) and torch.equal(seen.depth, expected.depth)


def test_a_texture_lies_on_the_mesh_as_its_coordinates_say(quad) -> None:
    image = torch.zeros(4, 4, 3)
    image[:2, :2] = torch.tensor([1.0, 0.0, 0.0])  # top left: v near 1, u near 0
    image[2:, 2:] = torch.tensor([0.0, 0.0, 1.0])
    material = Material(image, torch.zeros(1), torch.ones(1))
    rgb = render_material(*quad, material, Cameras.orbit([0.0], 0.0), 32, shading="albedo").rgb[0]
    assert torch.allclose(rgb[9, 9], image[0, 0]) and torch.allclose(rgb[22, 22], image[3, 3])
    assert torch.allclose(rgb[9, 22], image[0, 3])


def test_shading_is_linear_and_pictures_are_displayed(quad) -> None:
    """Under uniform light of 1 a dielectric of base color c, seen head-on, shows c, less what its coat takes."""
    color = torch.tensor([0.5, 0.8, 0.2])
    material = Material(color, torch.zeros(1), torch.ones(1))
    eye = Cameras.orbit([0.0], 0.0)
    picture = render_material(*quad, material, eye, 16, illumination=SphericalHarmonics.uniform(1.0))
    seen = to_linear(picture.rgb[0, 8, 8])
    linear = ((color + 0.055) / 1.055) ** 2.4
    share = (seen - linear) / (1.0 - linear)  # the coat's albedo, the same for all channels
    assert float(share.std()) < 1e-3 and 0.012 < float(share.mean()) < 0.015


def test_emission_is_added_in_linear_light(quad) -> None:
    dark = Material.plain((0.0, 0.0, 0.0), roughness=1.0)
    shining = Material(dark.base_color, dark.metallic, dark.roughness, emission=torch.tensor([0.6, 0.3, 0.0]))
    eye, light = Cameras.orbit([0.0], 0.0), SphericalHarmonics.uniform(0.2)
    one, other = (
        to_linear(render_material(*quad, m, eye, 16, illumination=light).rgb[0, 8, 8]) for m in (dark, shining)
    )
    expected = torch.tensor([((0.6 + 0.055) / 1.055) ** 2.4, ((0.3 + 0.055) / 1.055) ** 2.4, 0.0])
    torch.testing.assert_close(other - one, expected, atol=1e-5, rtol=0.0)


def test_the_display_transfer_and_its_inverse() -> None:
    values = torch.linspace(0.0, 1.0, 101)
    torch.testing.assert_close(to_display(to_linear(values)), values, atol=2e-6, rtol=0.0)
    assert abs(float(to_linear(torch.tensor(0.5))) - 0.21404) < 1e-5
    assert abs(float(to_display(torch.tensor(7.0))) - 1.0) < 1e-6 and float(to_display(torch.tensor(-1.0))) == 0.0
    linear = torch.tensor([0.0, 0.001, 0.2], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(to_display, [linear[1:].detach().requires_grad_()])
    to_display(linear).sum().backward()
    assert linear.grad.isfinite().all()


def test_faces_seen_from_behind_are_lit_from_behind(quad) -> None:
    vertices, faces, uvs, _ = quad
    coefficients = torch.zeros(9, 3)
    coefficients[0], coefficients[2] = 2.0, -1.5  # brighter toward -z
    light, eye = SphericalHarmonics(coefficients), Cameras.orbit([170.0], 10.0)
    material = Material.plain((0.8, 0.8, 0.8), roughness=0.4)

    def picture(faces: Tensor, eye: Cameras) -> Tensor:
        return render_material(vertices, faces, None, None, material, eye, 24, illumination=light).rgb

    behind, turned, front = picture(faces, eye), picture(faces.flip(1), eye), picture(faces, Cameras.orbit([0.0], 0.0))
    torch.testing.assert_close(behind, turned, atol=1e-5, rtol=0.0)
    assert float(behind.max()) > 1.2 * float(front.max())


def test_a_flat_normal_map_changes_nothing(solids) -> None:
    scene = solids["sphere"]
    mesh = with_uvs(scene)
    flat = torch.tensor([0.0, 0.0, 1.0]).expand(4, 4, 3)
    materials = [replace(textures(), normal=normal) for normal in (None, flat)]
    pictures = [render_material(*mesh, material, CAMERAS, 24, shading="normal") for material in materials]
    torch.testing.assert_close(pictures[1].rgb, pictures[0].rgb, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_normal_map_bends_along_u_and_v(quad, mirrored: bool) -> None:
    vertices, faces, uvs, _ = quad
    uvs = torch.stack([1.0 - uvs[:, 0], uvs[:, 1]], dim=1) if mirrored else uvs
    bent = {(0.6, 0.0, 0.8): (-0.6 if mirrored else 0.6, 0.0, 0.8), (0.0, 0.6, 0.8): (0.0, 0.6, 0.8)}
    for mapped, expected in bent.items():
        material = replace(Material.plain((1.0, 1.0, 1.0)), normal=torch.tensor(mapped).expand(4, 4, 3))
        picture = render_material(vertices, faces, uvs, faces, material, Cameras.orbit([0.0], 0.0), 16, shading="normal")
        seen = 2.0 * picture.rgb[0, 8, 8] - 1.0
        torch.testing.assert_close(seen, torch.tensor(expected), atol=1e-5, rtol=0.0)


def test_tangents_of_a_sphere_follow_its_circles_of_latitude() -> None:
    """u grows with longitude: away from the poles the tangent points east, and the bitangent north."""
    rows, columns = 12, 24
    steps = (torch.linspace(0.1, 0.9, rows).double(), torch.linspace(0.0, 1.0, columns + 1).double())
    v, u = torch.meshgrid(*steps, indexing="ij")
    latitude, longitude = (v - 0.5) * math.pi, u * 2.0 * math.pi
    points = torch.stack([latitude.cos() * longitude.sin(), latitude.sin(), latitude.cos() * longitude.cos()], dim=-1)
    grid = torch.arange(rows * (columns + 1)).view(rows, columns + 1)
    a, b, c, d = (each.reshape(-1) for each in (grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]))
    faces = torch.cat([torch.stack([a, b, c], dim=1), torch.stack([a, c, d], dim=1)]).int()
    uvs, points = torch.stack([u, v], dim=-1).reshape(-1, 2), points.reshape(-1, 3)
    groups = tangent_corners(faces, uvs, faces)
    tangents = vertex_tangents(points, faces, points, uvs, faces, groups)
    east = torch.stack([longitude.cos(), torch.zeros_like(u), -longitude.sin()], dim=-1).reshape(-1, 3)[faces.long()]
    inner = ((v > 0.15) & (v < 0.85) & (u > 0.01) & (u < 0.99)).reshape(-1)[faces.long()]
    agreement = (tangents[groups.long()][..., :3] * east).sum(dim=-1)[inner]
    assert float(agreement.min()) > 0.999
    assert (tangents[:, 3] == 1.0).all()
    torch.testing.assert_close(tangents[:, :3].norm(dim=1), torch.ones(len(tangents), dtype=torch.float64))


def test_mirrored_charts_keep_tangents_of_their_own() -> None:
    """Two triangles that share an edge in space and in the texture, where u turns back."""
    vertices = torch.tensor([[0.0, 0, 0], [0.0, 1, 0], [1.0, 0, 0], [-1.0, 0, 0]], dtype=torch.float64)
    faces = torch.tensor([[0, 2, 1], [0, 1, 3]], dtype=torch.int32)
    uvs = torch.tensor([[0.0, 0], [0.0, 1], [1.0, 0], [1.0, 0]], dtype=torch.float64)
    groups = tangent_corners(faces, uvs, faces)
    assert len(groups.unique()) == 6
    normals = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(4, 3)
    tangents = vertex_tangents(vertices, faces, normals, uvs, faces, groups)[groups.long()]
    right = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(tangents[0, :, :3], right.expand(3, 3))
    torch.testing.assert_close(tangents[1, :, :3], -right.expand(3, 3))
    assert (tangents[0, :, 3] == 1.0).all() and (tangents[1, :, 3] == -1.0).all()


def test_gradcheck_of_tangent_frames() -> None:
    generator = torch.Generator().manual_seed(0)
    vertices = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 4], [5, 2, 1]], dtype=torch.int32)
    uvs = torch.rand(6, 2, generator=generator, dtype=torch.float64)
    groups = tangent_corners(faces, uvs, faces)
    mapped = torch.randn(int(groups.max()) + 1, 3, generator=generator, dtype=torch.float64)

    def bent(vertices: Tensor, mapped: Tensor) -> Tensor:
        normals = reference.vertex_normals(vertices, faces)
        tangents = vertex_tangents(vertices, faces, normals, uvs, faces, groups)
        return bend_normals(normals[:1].expand(len(tangents), 3), tangents, mapped)

    assert torch.autograd.gradcheck(bent, [vertices.requires_grad_(), mapped.requires_grad_()], fast_mode=True)


def test_gradients_reach_everything_and_are_those_of_the_reference(solids, monkeypatch) -> None:
    kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")
    scene = solids["torus"]
    vertices, faces, uvs, uv_faces = with_uvs(scene)
    results = []
    for room in (kernels, reference):
        for module in (operators, metal_rough, texturing):
            monkeypatch.setattr(module, "implementation", room)
        given = (vertices, *vars(textures(seed=4)).values(), soft_light().coefficients)
        tensors = [each.clone().requires_grad_() for each in given]
        mesh, material, light = (tensors[0], faces, uvs, uv_faces), Material(*tensors[1:6]), SphericalHarmonics(tensors[6])
        picture = render_material(*mesh, material, CAMERAS, 20, illumination=light)
        weight = torch.randn(picture.rgb.shape, generator=torch.Generator().manual_seed(1))
        grads = torch.autograd.grad((picture.rgb * weight).sum(), tensors)
        results.append([picture.rgb.detach(), *grads])
    for actual, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        assert scale > 0.0 and expected.isfinite().all()
        torch.testing.assert_close(actual, expected, atol=2e-4 * scale, rtol=0.0)


def test_gradients_of_textures_are_finite_differences(quad) -> None:
    generator = torch.Generator().manual_seed(2)
    material = textures(size=6, seed=5)
    eye, light = Cameras.orbit([25.0], 20.0), EnvironmentMap(0.6 * torch.rand(16, 32, 3, generator=generator))
    weight = torch.randn(24, 24, 3, generator=generator)

    def value(values: list[Tensor]) -> Tensor:
        picture = render_material(*quad, Material(*values), eye, 24, illumination=light).rgb[0]
        return (picture.double() * weight).sum()

    values = [each.clone().requires_grad_() for each in vars(material).values()]
    grads = torch.autograd.grad(value(values), values)
    for index, grad in enumerate(grads):
        direction = torch.randn(grad.shape, generator=generator)
        step = 2e-3
        ahead, behind = (
            value([each.detach() + (sign * step * direction if i == index else 0.0) for i, each in enumerate(values)])
            for sign in (1.0, -1.0)
        )
        measured, predicted = float(ahead - behind) / (2.0 * step), float((grad * direction).sum())
        assert abs(predicted - measured) < 0.02 * max(abs(measured), float(grad.norm())), (index, predicted, measured)


def test_a_material_is_recovered_from_pictures(solids) -> None:
    scene = solids["sphere"]
    light = EnvironmentMap(torch.rand(16, 32, 3, generator=torch.Generator().manual_seed(1)) ** 4 * 3.0)

    def picture(raw: Tensor) -> Tensor:
        values = torch.sigmoid(raw)
        material = Material(values[:3], values[3:4], values[4:])
        return render_material(scene.vertices, scene.faces, None, None, material, CAMERAS, 24, illumination=light).rgb

    truth = torch.logit(torch.tensor([0.8, 0.5, 0.3, 0.9, 0.35]))
    with torch.no_grad():
        target = picture(truth)
    raw = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.Adam([raw], lr=0.2)
    for _ in range(70):
        optimizer.zero_grad()
        (picture(raw) - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(torch.sigmoid(raw.detach()), torch.sigmoid(truth), atol=0.02, rtol=0.0)


def test_images_are_premultiplied_and_averaged_down(solids) -> None:
    scene = solids["cube"]
    options = {"illumination": SphericalHarmonics.uniform(0.5)}
    white = Material.plain((1.0, 1.0, 1.0), metallic=1.0)
    fine = render_material(scene.vertices, scene.faces, None, None, white, CAMERAS, 32, **options)
    small = render_material(scene.vertices, scene.faces, None, None, white, CAMERAS, 16, supersample=2, **options)
    shown = float(to_display(torch.tensor(0.5)))
    torch.testing.assert_close(fine.rgb, shown * fine.alpha.expand(-1, -1, -1, 3), atol=1e-4, rtol=0.0)
    torch.testing.assert_close(small.rgb, fine.rgb.view(2, 16, 2, 16, 2, 3).mean(dim=(2, 4)), atol=1e-6, rtol=0.0)


def test_a_mesh_without_faces_and_one_without_area_are_rendered() -> None:
    material, light = Material.plain((0.5, 0.5, 0.5)), SphericalHarmonics.uniform()
    none = torch.zeros((0, 3), dtype=torch.int32)
    picture = render_material(torch.rand(3, 3), none, None, None, material, CAMERAS, 8, illumination=light)
    assert (picture.rgb == 0.0).all() and (picture.alpha == 0.0).all()
    vertices = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [1.0, 0, 0]], requires_grad=True)
    faces, uvs = torch.tensor([[0, 1, 2], [0, 0, 1]], dtype=torch.int32), torch.zeros(3, 2)
    picture = render_material(vertices, faces, uvs, faces, textures(), CAMERAS, 8, illumination=light)
    picture.rgb.sum().backward()
    assert picture.rgb.isfinite().all() and vertices.grad.isfinite().all()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_vertex_that_is_nowhere_spoils_nothing_else(solids, broken: float) -> None:
    scene = solids["sphere"]
    vertices, faces, uvs, uv_faces = with_uvs(scene)
    vertices = vertices.clone()
    vertices[5] = broken
    vertices.requires_grad_()
    light = EnvironmentMap(torch.rand(8, 16, 3))
    picture = render_material(vertices, faces, uvs, uv_faces, textures(), CAMERAS, 24, illumination=light)
    picture.rgb.sum().backward()
    assert picture.rgb.isfinite().all() and vertices.grad.isfinite().all()
    assert vertices.grad.abs().max() > 0.0


def test_what_does_not_fit_is_refused(quad) -> None:
    vertices, faces, uvs, uv_faces = quad
    plain = Material.plain((0.5, 0.5, 0.5))

    def render(mesh=quad, material=plain, **options) -> None:
        render_material(*mesh, material, CAMERAS, 8, **options)

    outside = (vertices, faces + torch.tensor([0, 3, 3], dtype=torch.int32), uvs, uv_faces)
    for message, arguments in {
        'shading is "shiny"; use one of material': {"shading": "shiny"},
        '"lit" needs a Light, not SphericalHarmonics': {"shading": "lit", "illumination": SphericalHarmonics.uniform()},
        "uvs and uv_faces belong together": {"mesh": (vertices, faces, uvs, None)},
        "has textures, but the mesh has no uvs": {"mesh": (vertices, faces, None, None), "material": textures()},
        r"uvs must be float32 of shape \[T, 2\]": {"mesh": (vertices, faces, vertices, uv_faces)},
        "uv_faces has 1 faces, but the mesh has 2": {"mesh": (vertices, faces, uvs, uv_faces[:1])},
        "uv_faces refers to rows 0 to 6 of uvs, which has 4": {"mesh": (vertices, faces, uvs, uv_faces + uv_faces)},
        "The faces refer to 7 vertices, but there are 4": {"mesh": outside},
        "highest_level is -1; give 0": {"highest_level": -1},
        "base_color has values for 3 vertices": {"material": Material(torch.rand(3, 3), torch.zeros(1), torch.ones(1))},
    }.items():
        with pytest.raises(InputError, match=message):
            render(**arguments)
    with pytest.raises(InputError, match=r"roughness must be float32 of shape \[H, W, 1\], \[V, 1\] or \[1\]"):
        Material(torch.rand(3), torch.zeros(1), torch.rand(4, 4, 3))
    with pytest.raises(InputError, match="metallic must be a tensor"):
        Material(torch.rand(3), 0.5, torch.ones(1))


def test_fine_textures_are_averaged_where_mip_maps_are_allowed(quad) -> None:
    checkers = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    material = Material(checkers[..., None].expand(64, 64, 3).float(), torch.zeros(1), torch.ones(1))
    eye = Cameras.orbit([0.0], 0.0)
    inner = slice(4, 12)
    sharp, level_one, soft = (
        render_material(*quad, material, eye, 16, shading="albedo", highest_level=level).rgb[0, inner, inner]
        for level in (None, 0, 6)
    )
    assert torch.equal(sharp, level_one)
    assert float(sharp.std()) > 0.1 and float((soft - 0.5).abs().max()) < 1e-3


def test_tangents_are_averaged_by_angle() -> None:
    """At a corner of 90 degrees with u along x, and one of 30 degrees with u turned by 40 degrees."""

    def polar(degrees: float) -> list[float]:
        return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]

    flat = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], polar(180.0), polar(210.0)], dtype=torch.float64)
    turned = torch.tensor([polar(40.0), polar(130.0)], dtype=torch.float64)
    uvs = torch.cat([flat[:3], flat[3:] @ turned.T])
    vertices = torch.cat([flat, torch.zeros(5, 1, dtype=torch.float64)], dim=1)
    faces = torch.tensor([[0, 1, 2], [0, 3, 4]], dtype=torch.int32)
    normals = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(5, 3)
    groups = tangent_corners(faces, uvs, faces)
    tangent = vertex_tangents(vertices, faces, normals, uvs, faces, groups)[groups[0, 0].long(), :2]
    expected = 90.0 * torch.tensor(polar(0.0)).double() + 30.0 * torch.tensor(polar(40.0)).double()
    torch.testing.assert_close(tangent, expected / expected.norm(), atol=1e-6, rtol=0.0)
