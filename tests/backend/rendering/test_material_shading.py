"""Shading of materials against integrals over the hemisphere, closed forms, finite differences and its twin."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering import EnvironmentMap, Light, SphericalHarmonics, reference, shade_material
from backend.rendering.illumination import harmonics, map_directions, split_map
from backend.rendering.reflectance import reflectance_table

CPU = torch.device("cpu")
KINDS = ("lamp", "harmonics", "map")


def fragments(count: int, seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Albedo, metallic, roughness, normal and direction to the viewer; some are seen a little from behind."""
    generator = torch.Generator().manual_seed(seed)
    normal, viewer = (torch.randn(count, 3, generator=generator, dtype=dtype) for _ in range(2))
    behind = torch.nn.functional.cosine_similarity(normal, viewer, dim=1) < -0.1
    viewer = torch.where(behind[:, None], -viewer, viewer)
    color, metallic, roughness = (torch.rand(count, c, generator=generator, dtype=dtype) for c in (3, 1, 1))
    return [color, metallic, 0.1 + 0.9 * roughness, normal, viewer]


def light_tensors(kind: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor | None]:
    """The last four arguments of the twins."""
    generator = torch.Generator().manual_seed(5)
    given = dict.fromkeys(("polynomial", "residual", "light", "ambient"))
    if kind == "lamp":
        direction = torch.randn(2, 3, generator=generator, dtype=dtype)
        given["light"] = torch.nn.functional.normalize(direction, dim=1)
        given["ambient"] = torch.tensor([0.2, 0.6], dtype=dtype)
    else:
        polynomial, residual = split_map(torch.rand(8, 16, 3, generator=generator, dtype=dtype))
        given |= {"polynomial": polynomial} | ({"residual": residual} if kind == "map" else {})
    return given


def shade_with(room, surface: list[Tensor], light: dict[str, Tensor | None]) -> Tensor:
    color, metallic, roughness, normal, viewer = surface
    table = reflectance_table(color.device, color.dtype)
    return room.shade_material(color, metallic[:, 0], roughness[:, 0], normal, viewer, table, *light.values())


@pytest.mark.parametrize("kind", KINDS)
def test_kernel_equals_twin_in_values_and_gradients(kind: str) -> None:
    kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")
    generator = torch.Generator().manual_seed(2)
    surface = fragments(300, seed=1)
    surface[3][::10] = 0.0  # background
    weight = torch.randn(300, 3, generator=generator)
    results = []
    for room, dtype in ((kernels, torch.float32), (reference, torch.float64)):
        inputs = [each.to(dtype).requires_grad_() for each in surface]
        light = {name: None if each is None else each.to(dtype) for name, each in light_tensors(kind).items()}
        learned = [light[name].requires_grad_() for name in ("polynomial", "residual") if light[name] is not None]
        radiance = shade_with(room, inputs, light)
        grads = torch.autograd.grad((radiance * weight.to(dtype)).sum(), [*inputs, *learned])
        results.append([radiance.detach(), *grads])
    assert (results[0][0][::10] == 0.0).all()
    for actual, expected in zip(*results, strict=True):
        scale = float(expected.abs().max())
        assert scale > 0.0
        torch.testing.assert_close(actual.double(), expected, atol=1e-5 * scale, rtol=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck_of_the_twin(kind: str) -> None:
    surface = [each.requires_grad_() for each in fragments(8, seed=3, dtype=torch.float64)]
    light = light_tensors(kind, torch.float64)
    names = [name for name in ("polynomial", "residual") if light[name] is not None]

    def shaded(*inputs: Tensor) -> Tensor:
        return shade_with(reference, list(inputs[:5]), light | dict(zip(names, inputs[5:])))

    learned = [light[name].detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(shaded, [*surface, *learned], fast_mode=True)


def lobe_over_hemisphere(roughness: float, cosine: float, steps: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Directions `[3, S]` around the normal z, and GGX times cosine times solid angle without and with Schlick's share."""
    z = (np.arange(steps) + 0.5)[:, None] / steps
    angle = (np.arange(2 * steps) + 0.5) * (math.pi / steps)
    flat = np.sqrt(1.0 - z * z)
    light = np.stack([flat * np.cos(angle), flat * np.sin(angle), z + 0.0 * angle]).reshape(3, -1)
    viewer = np.array([math.sqrt(1.0 - cosine**2), 0.0, cosine])[:, None]
    half = light + viewer
    half /= np.linalg.norm(half, axis=0)
    squared = roughness**4
    density = squared / (math.pi * (half[2] ** 2 * (squared - 1.0) + 1.0) ** 2)
    masks = [np.sqrt(squared + (1.0 - squared) * each**2) for each in (light[2], cosine)]
    lobe = density * 0.5 / (light[2] * masks[1] + cosine * masks[0]) * light[2] * (math.pi / steps / steps)
    share = (1.0 - (half * viewer).sum(axis=0)) ** 5
    return light, lobe * (1.0 - share), lobe * share


def integrated(
    albedo: np.ndarray, metallic: float, roughness: float, cosine: float, incoming: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """The radiance toward the viewer by a sum over the hemisphere; `incoming` maps directions `[3, S]` to `[S, 3]`."""
    light, with_f0, beside = lobe_over_hemisphere(roughness, cosine)
    radiance = incoming(light)
    part_a, part_b = with_f0 @ radiance, beside @ radiance
    a, b = with_f0.sum(), beside.sum()
    cosines = np.linspace(0.02, 1.0, 30)
    all_albedos = np.array([sum(lobe.sum() for lobe in lobe_over_hemisphere(roughness, c, 100)[1:]) for c in cosines])
    mean = np.trapezoid(all_albedos * cosines, cosines) / np.trapezoid(cosines, cosines)

    def compensated(f0: np.ndarray) -> np.ndarray:
        fresnel = f0 + (1.0 - f0) / 21.0
        return 1.0 + (1.0 / (a + b) - 1.0) * fresnel * mean / (1.0 - fresnel * (1.0 - mean))

    diffuse = (light[2] / light.shape[1] * 2.0) @ radiance
    plain = np.full(3, 0.04)
    dielectric = (1.0 - (plain * a + b) * compensated(plain)) * albedo * diffuse
    dielectric = dielectric + compensated(plain) * (plain * part_a + part_b)
    return (1.0 - metallic) * dielectric + metallic * compensated(albedo) * (albedo * part_a + part_b)


@pytest.mark.parametrize("roughness", [0.3, 0.55, 0.9])
@pytest.mark.parametrize("cosine", [0.25, 0.8])
def test_harmonics_are_integrated_as_a_sum_over_the_hemisphere_is(roughness: float, cosine: float) -> None:
    coefficients = torch.randn(9, 3, generator=torch.Generator().manual_seed(4))
    light = SphericalHarmonics(coefficients)

    def incoming(directions: np.ndarray) -> np.ndarray:
        return (harmonics(torch.from_numpy(directions.T)) @ coefficients.double()).numpy()

    viewer = torch.tensor([[math.sqrt(1.0 - cosine**2), 0.0, cosine]])
    albedo = np.array([0.9, 0.4, 0.1])
    for metallic in (0.0, 0.6):
        arguments = (torch.tensor(albedo, dtype=torch.float32), torch.tensor([metallic]), torch.tensor([roughness]))
        shaded = shade_material(*arguments, torch.tensor([[0.0, 0.0, 1.0]]), viewer, light)
        expected = integrated(albedo, metallic, roughness, cosine, incoming)
        np.testing.assert_allclose(shaded[0].numpy(), expected, atol=3e-3)


def test_a_lamp_is_a_small_bright_spot() -> None:
    """Under a lamp the sum over the hemisphere has one term; a spot of 3 degrees is close to it."""
    toward = torch.nn.functional.normalize(torch.tensor([[-0.5, 0.3, 0.8]]), dim=1)
    viewer, normal = torch.tensor([[0.6, 0.0, 0.8]]), torch.tensor([[0.0, 0.0, 1.0]])
    albedo = np.array([0.9, 0.4, 0.1])
    ambient = 0.3

    def incoming(directions: np.ndarray) -> np.ndarray:
        spot = toward[0].double().numpy() @ directions > math.cos(math.radians(3.0))
        brightness = (1.0 - ambient) * math.pi / (2.0 * math.pi * (1.0 - math.cos(math.radians(3.0))))
        return np.repeat((ambient + brightness * spot)[:, None], 3, axis=1)

    for metallic, roughness in ((0.0, 0.5), (1.0, 0.5), (1.0, 0.8)):
        surface = (torch.tensor(albedo, dtype=torch.float32), torch.tensor([metallic]), torch.tensor([roughness]))
        shaded = shade_material(*surface, normal, viewer, Light(toward, torch.tensor([ambient])))
        np.testing.assert_allclose(shaded[0].numpy(), integrated(albedo, metallic, roughness, 0.8, incoming), rtol=0.01)


@pytest.mark.parametrize("metallic", [0.0, 0.5, 1.0])
def test_nothing_is_lost_in_a_white_furnace(metallic: float) -> None:
    surface = fragments(200, seed=7)
    surface[0] = torch.ones(200, 3)
    surface[1] = torch.full((200, 1), metallic)
    lights = (SphericalHarmonics.uniform(0.7), EnvironmentMap(torch.full((16, 32, 3), 0.7)))
    for light in lights:
        shaded = shade_material(*surface, light)
        torch.testing.assert_close(shaded, torch.full_like(shaded, 0.7), atol=1e-5, rtol=0.0)


def test_white_lambert_surfaces_show_the_light_of_a_lamp() -> None:
    """Where the coat reflects nothing of the lamp, what is left is Lambert's law under the coat."""
    normal = torch.tensor([[0.0, 0.0, 1.0]])
    light = Light(torch.tensor([[0.0, 0.6, 0.8]]), torch.tensor([0.0]))
    shaded = shade_material(torch.ones(3), torch.zeros(1), torch.ones(1), normal, torch.tensor([[0.0, 0.0, 1.0]]), light)
    assert 0.95 * 0.8 < float(shaded.mean()) < 1.02 * 0.8


def test_a_map_of_harmonics_lights_as_the_harmonics_do() -> None:
    coefficients = torch.randn(9, 3, generator=torch.Generator().manual_seed(6))
    light = SphericalHarmonics(coefficients)
    surface = fragments(200, seed=8)
    one, other = shade_material(*surface, light), shade_material(*surface, EnvironmentMap(light.to_image(64)))
    torch.testing.assert_close(other, one, atol=2e-5, rtol=0.0)


def test_maps_are_blurred_by_the_lobes() -> None:
    """A lobe around a direction scales a zonal harmonic by one number, its own integral (Funk and Hecke)."""

    def legendre(x):
        return (35.0 * x**4 - 30.0 * x**2 + 3.0) / 8.0

    directions = map_directions(64, 128, CPU, torch.float64)
    zonal = legendre(directions[..., 1:2]).expand(-1, -1, 3)
    polynomial, copies = split_map(zonal)
    assert polynomial.abs().max() < 1e-2  # it has nothing of degree 2 or less
    cosine = np.linspace(0.0, 1.0, 20001)
    for level in (4, 5, 6, 7, 8):
        squared = (min(level, 7) / 7.0) ** 4
        half = 0.5 * (1.0 + cosine)  # squared cosine of the half vector's angle
        lobe = cosine if level == 8 else cosine / (half * (squared - 1.0) + 1.0) ** 2
        factor = np.trapezoid(lobe * legendre(cosine), cosine) / np.trapezoid(lobe, cosine)
        torch.testing.assert_close(copies[level], factor * zonal, atol=5e-3, rtol=0.0)
    assert abs(factor + 1.0 / 24.0) < 1e-6  # Lambert's, as Ramamoorthi & Hanrahan have it


def test_maps_are_laid_out_as_blender_shows_them() -> None:
    """Blender's equirectangular: u = 1/2 - atan2(y, x) / 2 pi in its z-up space, where ours (x, y, z) is (x, -z, y)."""
    directions = map_directions(32, 64, CPU, torch.float64).reshape(-1, 3)
    x, y, z = directions[:, 0], -directions[:, 2], directions[:, 1]
    u, v = 0.5 - torch.atan2(y, x) / (2.0 * math.pi), 0.5 + torch.asin(z) / math.pi
    column, row = torch.meshgrid(torch.arange(64).double(), torch.arange(32).double(), indexing="xy")
    torch.testing.assert_close(u, (column.reshape(-1) + 0.5) / 64)
    torch.testing.assert_close(v, 1.0 - (row.reshape(-1) + 0.5) / 32)


def test_a_smooth_metal_mirrors_the_map_and_a_rough_one_blurs_it() -> None:
    image = torch.full((64, 128, 3), 0.1)
    image[10:16, 90:98] = 4.0
    light = EnvironmentMap(image)
    toward = map_directions(64, 128, CPU, torch.float32)[12, 93]
    viewer = torch.nn.functional.normalize(torch.tensor([0.2, 0.5, 0.9]), dim=0)
    normal = (toward + viewer)[None]
    shaded = [
        float(shade_material(torch.ones(3), torch.ones(1), torch.tensor([r]), normal, viewer[None], light).mean())
        for r in (0.05, 0.3, 0.6)
    ]
    assert shaded[0] > 3.0 and 0.2 < shaded[2] < shaded[1] < 0.7 * shaded[0]


def test_light_is_optimized_from_pictures_of_a_known_surface() -> None:
    surface = fragments(400, seed=9)
    target = shade_material(*surface, SphericalHarmonics(torch.randn(9, 3, generator=torch.Generator().manual_seed(1))))
    coefficients = torch.zeros(9, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([coefficients], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = (shade_material(*surface, SphericalHarmonics(coefficients)) - target).square().mean()
        value.backward()
        return value

    optimizer.step(loss)
    expected = torch.randn(9, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(coefficients.detach(), expected, atol=2e-2, rtol=0.0)


def test_the_gradient_of_a_map_is_its_share_of_the_picture() -> None:
    """Radiance is linear in the light: the gradient times the map is the radiance itself."""
    image = torch.rand(16, 32, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    shaded = shade_material(*fragments(100, seed=2), EnvironmentMap(image))
    (grad,) = torch.autograd.grad(shaded.sum(), image)
    torch.testing.assert_close((grad * image).sum(), shaded.sum(), rtol=1e-4, atol=0.0)
    assert (grad.abs() > 0).float().mean() > 0.9


def test_a_map_that_does_not_change_is_blurred_once() -> None:
    light = EnvironmentMap(torch.rand(8, 16, 3))
    assert light.split()[1] is light.split()[1]
    learned = EnvironmentMap(torch.rand(8, 16, 3, requires_grad=True))
    assert learned.split()[1] is not learned.split()[1]


def test_what_cannot_be_shaded_is_refused() -> None:
    color, metallic, roughness, normal, viewer = fragments(4, seed=0)
    light = SphericalHarmonics.uniform()
    with pytest.raises(InputError, match=r"metallic must be float32 of shape \[4, 1\], not .* \[4, 2\]"):
        shade_material(color, metallic.expand(4, 2), roughness, normal, viewer, light)
    with pytest.raises(InputError, match="albedo must be float32"):
        shade_material(color.double(), metallic, roughness, normal, viewer, light)
    with pytest.raises(InputError, match="A light of 3 views cannot light"):
        shade_material(color, metallic, roughness, normal, viewer, Light(torch.ones(3, 3), torch.ones(3)))
    with pytest.raises(InputError, match=r"coefficients must be float32 of shape \[9, 3\]"):
        SphericalHarmonics(torch.zeros(4, 3))
    with pytest.raises(InputError, match="4 x 8 pixels or more"):
        EnvironmentMap(torch.zeros(2, 4, 3))
