"""Lambert shading in closed form, and how lights are drawn."""

from __future__ import annotations

import math

import pytest
import torch

from backend.cameras import Cameras
from backend.rendering import Light, render_mesh, sample_light
from protocol.settings import LightSettings


@pytest.fixture
def tilted_square() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A square that fills the image, turned upward by 30 degrees: vertices, faces, normal."""
    angle = math.radians(30.0)
    corners = torch.tensor([[-3.0, -3.0], [3.0, -3.0], [3.0, 3.0], [-3.0, 3.0]])
    x, along = corners.unbind(dim=1)
    vertices = torch.stack([x, along * math.cos(angle) * 0.6, -along * math.sin(angle) * 0.6], dim=1)
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    return vertices, faces, torch.tensor([0.0, math.sin(angle), math.cos(angle)])


def test_lambert_shading_in_closed_form(tilted_square) -> None:
    vertices, faces, normal = tilted_square
    toward = torch.nn.functional.normalize(torch.tensor([0.5, 0.2, 0.7]), dim=0)
    color = torch.tensor([0.9, 0.4, 0.1])
    light = Light(torch.stack([toward, -toward]), torch.tensor([0.25, 0.6]))
    cameras = Cameras.orbit([0.0, 0.0], 0.0, fov=20.0)
    options = {"light": light, "topology": None}
    colors = color.expand(4, 3).contiguous()
    cosine = float(normal @ toward)
    expected = {
        "lit": (color * (0.25 + 0.75 * cosine), color * 0.6),
        "textureless": (torch.full((3,), 0.25 + 0.75 * cosine), torch.full((3,), 0.6)),
        "albedo": (color, color),
        "normal": (0.5 * normal + 0.5, 0.5 * normal + 0.5),
    }
    for shading, values in expected.items():
        rendered = render_mesh(vertices, faces, colors, cameras, 8, shading=shading, **options)
        assert (rendered.alpha == 1.0).all()
        for view in range(2):
            torch.testing.assert_close(rendered.rgb[view], values[view].expand(8, 8, 3), atol=2e-6, rtol=0.0)


def test_images_are_premultiplied_and_composite(tilted_square) -> None:
    vertices, faces, _ = tilted_square
    rendered = render_mesh(0.2 * vertices, faces, torch.ones(4, 3), Cameras.orbit([20.0], 0.0), 24, shading="albedo")
    torch.testing.assert_close(rendered.rgb, rendered.alpha.expand(-1, -1, -1, 3))
    assert ((rendered.alpha > 0.05) & (rendered.alpha < 0.95)).any()
    over = rendered.composite(torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(over[0, 0, 0], torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(over[..., 2], torch.ones_like(over[..., 2]))


def test_every_view_is_lit_alike_from_its_own_camera() -> None:
    cameras = Cameras.orbit([0.0, 75.0, 300.0], [20.0, -10.0, 60.0])
    light = sample_light(LightSettings(), cameras, torch.Generator().manual_seed(1))
    in_camera = torch.einsum("nij,nj->ni", cameras.view_matrix()[:, :3, :3], light.direction)
    torch.testing.assert_close(in_camera, in_camera[:1].expand(3, 3), atol=1e-6, rtol=0.0)
    assert in_camera[0, 2] > 0.5 and (light.ambient == light.ambient[0]).all()


def test_lights_are_drawn_around_the_camera() -> None:
    cameras = Cameras.orbit([90.0, 180.0], 0.0)
    generator = torch.Generator().manual_seed(0)
    lights = [sample_light(LightSettings(), cameras, generator) for _ in range(300)]
    directions = torch.stack([light.direction[0] for light in lights])
    torch.testing.assert_close(directions.norm(dim=1), torch.ones(300))
    mean = directions.mean(dim=0)
    assert mean[0] > 0.7 and 0.2 < mean[1] < 0.6 and abs(mean[2]) < 0.1  # the first camera is at +x; lifted
    ambient = torch.stack([light.ambient[0] for light in lights])
    assert 0.45 <= ambient.min() < 0.47 and 0.63 < ambient.max() <= 0.65
    still = sample_light(LightSettings(spread=0.0, lift=0.0), cameras, generator)
    torch.testing.assert_close(still.direction[0], torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0.0)


def test_drawing_a_light_depends_on_its_generator_alone() -> None:
    cameras = Cameras.orbit([10.0], 0.0)
    first = sample_light(LightSettings(), cameras, torch.Generator().manual_seed(7))
    torch.manual_seed(123)
    second = sample_light(LightSettings(), cameras, torch.Generator().manual_seed(7))
    assert torch.equal(first.direction, second.direction) and torch.equal(first.ambient, second.ambient)
