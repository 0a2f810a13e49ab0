"""The radiance field against closed forms, meshes and finite differences, and its promises."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from backend.cameras import Cameras
from backend.errors import InputError
from backend.rendering import Light, render_mesh
from backend.rendering.volume import unit_sphere_chords
from backend.representations import radiance_field
from backend.representations.convert import field_to_mesh
from backend.representations.implicit_field import DENSITY_SCALE, make_field
from backend.representations.primitives import icosphere
from backend.representations.radiance_field import RadianceField
from backend.representations.soundness import soundness
from protocol.settings import FieldStage

ENCODINGS = ("hash grid", "tri-plane", "mlp")


def small(encoding: str = "hash grid", **settings) -> RadianceField:
    """A field that is no longer quite the ball it began as."""
    field = RadianceField(FieldStage(steps=1, encoding=encoding, resolution=16, samples_per_ray=24, **settings))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in field.field.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator) * parameter.abs().mean().clamp_min(0.05))
    return field


class BallField(nn.Module):
    """A ball with an opaque border, red above, bluer to the right."""

    def __init__(self, radius: float) -> None:
        super().__init__()
        self.radius = nn.Parameter(torch.tensor(radius))

    def density_logit(self, points: Tensor) -> Tensor:
        return 200.0 * (self.radius - points.norm(dim=1))

    def density(self, points: Tensor) -> Tensor:
        return DENSITY_SCALE * nn.functional.softplus(self.density_logit(points))

    def forward(self, points: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.density(points), ball_colors(points)


def ball_colors(points: Tensor) -> Tensor:
    return torch.stack([0.2 + 0.6 * (points[:, 1] > 0), torch.full_like(points[:, 0], 0.5), 0.5 + 0.4 * points[:, 0]], 1)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_start_is_a_soft_gray_ball_that_no_random_number_was_drawn_for(encoding):
    state = torch.get_rng_state()
    field = RadianceField(FieldStage(steps=1, encoding=encoding))
    assert torch.equal(state, torch.get_rng_state())
    points = 1.6 * torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.8
    density, color = field.field(points)
    expected = DENSITY_SCALE * np.log1p(np.exp(10.0 * (0.5 - points.double().norm(dim=1).numpy())))
    np.testing.assert_allclose(density.detach().numpy(), expected, rtol=0.9 if encoding == "mlp" else 0.05)
    assert (color - 0.5).abs().max() < (0.2 if encoding == "mlp" else 0.02)
    other = RadianceField(FieldStage(steps=1, encoding=encoding))
    for one, two in zip(field.field.parameters(), other.field.parameters(), strict=True):
        assert torch.equal(one, two)


def test_looks_like_the_mesh_of_the_same_ball(monkeypatch):
    field = RadianceField(FieldStage(steps=1, samples_per_ray=128))
    monkeypatch.setattr(field, "field", BallField(0.6))
    ball = icosphere(4, 0.6)
    vertices = torch.as_tensor(ball.positions)
    cameras = Cameras.orbit([20.0, 200.0], 15.0)
    light = Light(torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, 1.0]]), dim=1).expand(2, 3), torch.full((2,), 0.5))
    for shading in ("lit", "albedo", "textureless", "normal"):
        of_field = field.render(cameras, 48, light, shading)
        of_mesh = render_mesh(
            vertices, torch.as_tensor(ball.faces), ball_colors(vertices), cameras, 48, light=light, shading=shading
        )
        assert (of_field.alpha - of_mesh.alpha).abs().mean() < 0.01
        assert (of_field.rgb - of_mesh.rgb).abs().mean() < 0.01
    assert 0.02 < field.occupancy.occupied().float().mean() < 0.4  # and most of space was not asked for
    both = torch.isfinite(of_field.depth) & torch.isfinite(of_mesh.depth)
    assert both.sum() > 200
    assert (of_field.depth - of_mesh.depth)[both].abs().mean() < 0.035


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_gradients_match_finite_differences(encoding):
    field = small(encoding, view_dependent=True, orientation=0.1, distortion=0.1)
    field.field.double()
    origins, directions = (value.double().reshape(-1, 3) for value in Cameras.orbit([30.0], 10.0).rays(5, 5))
    chords = unit_sphere_chords(origins, directions, 24)
    occupied = torch.ones(25, 24, dtype=torch.bool)
    generator = torch.Generator().manual_seed(1)
    pulls = [torch.randn(25, *shape, generator=generator).double() for shape in ((), (3,), (3,), (), ())]

    def loss() -> Tensor:
        # orientation: a test of its own
        opacity, color, normal, distance, _, spread = field._composite_part(chords, occupied, True)
        return sum((pull * value).sum() for pull, value in zip(pulls, (opacity, color, normal, spread, distance)))

    parameters = list(field.field.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss(), parameters), strict=True):
        way = torch.randn(parameter.shape, generator=generator).double()
        values = []
        for offset in (1e-8, -2e-8):
            parameter.data.add_(offset * way)
            values.append(float(loss().detach()))
        parameter.data.add_(1e-8 * way)
        slope = (values[0] - values[1]) / 2e-8
        assert abs(slope) > 1e-4
        assert float((gradient * way).sum()) == pytest.approx(slope, rel=1e-3)


def test_depth_has_a_gradient_where_there_is_a_surface_and_none_elsewhere():
    field = small()
    depth = field.render(Cameras.orbit([0.0], 10.0), 16).depth
    covered = torch.isfinite(depth)
    assert 20 < covered.sum() < 200
    depth[~covered].sum().backward(retain_graph=True)
    assert all(parameter.grad.count_nonzero() == 0 for parameter in field.field.parameters())
    depth[covered].sum().backward()
    for parameter in field.field.parameters():
        assert torch.isfinite(parameter.grad).all()
    assert any(parameter.grad.count_nonzero() > 0 for parameter in field.field.parameters())


def test_leaving_out_empty_cells_and_what_is_hidden_leaves_the_picture(monkeypatch):
    field = small()
    cameras = Cameras.orbit([0.0, 120.0], 10.0)
    field.occupancy.update(field.density_at)
    with torch.no_grad():
        quick = field.render(cameras, 24)
        monkeypatch.setattr(radiance_field, "OPAQUE", float("inf"))
        monkeypatch.setattr(field.occupancy, "bits", torch.full_like(field.occupancy.bits, -1))
        whole = field.render(cameras, 24)
    # A ray through thin cells alone may lose EMPTY_DENSITY along its way.
    assert (quick.alpha - whole.alpha).abs().max() < 0.1
    assert (quick.alpha - whole.alpha).abs().mean() < 0.01
    assert (quick.rgb - whole.rgb).abs().mean() < 0.01


def test_many_samples_are_rendered_in_parts_with_the_same_result(monkeypatch):
    field = small(view_dependent=True, orientation=0.1, distortion=0.1)
    cameras = Cameras.orbit([0.0, 120.0], 10.0)
    results = []
    for at_once in (2**20, 700):
        monkeypatch.setattr(radiance_field, "SAMPLES_AT_ONCE", at_once)
        field.field.zero_grad()
        seen = field.render(cameras, 12)
        numbers = field.regularization()
        (seen.rgb.square().sum() + seen.alpha.sum() + sum(numbers.values())).backward()
        results.append([seen.rgb, seen.alpha, *numbers.values(), *(p.grad for p in field.field.parameters())])
        field.load_state_dict(field.state_dict() | {"renders": torch.tensor(1)})  # the cells stay as they are
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5 * max(1.0, float(one.detach().abs().max())), rtol=0.0)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_goes_on_from_its_state_bit_for_bit(encoding):
    cameras = Cameras.orbit([10.0, 190.0], 5.0)

    def learn(field: RadianceField, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            seen = field.render(cameras, 10)
            (seen.rgb.square().mean() + 0.1 * field.regularization()["orientation"]).backward()
            optimizer.step()

    first = small(encoding, orientation=1.0)
    optimizer = torch.optim.Adam(first.parameter_groups(), lr=0.01)
    learn(first, optimizer, 3)
    second = RadianceField(first.settings)
    second.load_state_dict(first.state_dict())
    resumed = torch.optim.Adam(second.parameter_groups(), lr=0.01)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    learn(first, optimizer, 3)
    learn(second, resumed, 3)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    with torch.no_grad():
        assert torch.equal(first.render(cameras, 10).rgb, second.render(cameras, 10).rgb)


def test_previews_change_nothing_and_draw_nothing_random():
    field = small()
    field.render(Cameras.orbit([0.0], 0.0), 8)
    before, random = field.state_dict(), torch.get_rng_state()
    regularized = {name: value.item() for name, value in field.regularization().items()}
    with torch.no_grad():
        field.render(Cameras.orbit([90.0], 30.0), 8)
    one, other = field.to_mesh(), field.to_mesh()
    assert len(one.faces) > 100
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.colors, other.colors)
    assert torch.equal(random, torch.get_rng_state())
    assert {name: value.item() for name, value in field.regularization().items()} == regularized
    assert all(torch.equal(before[name], value) for name, value in field.state_dict().items())


def test_becomes_a_sound_mesh_of_its_size_and_colors(monkeypatch):
    field = RadianceField(FieldStage(steps=1))
    monkeypatch.setattr(field, "field", BallField(0.6))
    mesh = field_to_mesh(field.density_at, field.color_at, 600, resolution=48)
    assert soundness(mesh).sound and len(mesh.positions) == pytest.approx(600, rel=0.2)
    radius = np.linalg.norm(mesh.positions, axis=1)
    assert radius.std() < 0.01 and 0.58 < radius.mean() < 0.66
    away = np.abs(mesh.positions[:, 1]) > 0.1
    expected = ball_colors(torch.as_tensor(mesh.positions)).numpy()
    assert np.abs(mesh.colors - expected)[away].max() < 0.06


def test_color_without_a_view_is_the_mean_over_all_views():
    field = make_field("hash grid", 16, view_dependent=True)
    with torch.no_grad():
        field.layers[-1].weight.mul_(0.0)
        field.layers[-1].bias.copy_(torch.randn(28, generator=torch.Generator().manual_seed(0)))
    directions = torch.nn.functional.normalize(torch.randn(20000, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    point = torch.zeros(1, 3)
    seen = field(point.expand(20000, 3), directions)[1]
    assert seen.std(dim=0).min() > 0.05
    torch.testing.assert_close(torch.logit(seen).mean(dim=0), torch.logit(field(point)[1][0]), atol=0.02, rtol=0.0)


class BallOfLearnedColors(BallField):
    """Only colors are learned: otherwise a highlight hides in fog that looks alike from everywhere it was seen from."""

    def __init__(self, view_dependent: bool) -> None:
        super().__init__(0.6)
        self.radius.requires_grad_(False)
        self.colors = make_field("hash grid", 16, view_dependent)

    def forward(self, points: Tensor, directions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.density(points), self.colors(points, directions)[1]


def gloss(cameras: Cameras, size: int) -> Tensor:
    """Pictures of a dark red ball with the broad highlight of a lamp that stays where it is; over black."""
    ball = icosphere(3, 0.6)
    vertices, faces = torch.as_tensor(ball.positions), torch.as_tensor(ball.faces)
    lamp = torch.nn.functional.normalize(torch.tensor([0.3, 0.5, 1.0]), dim=0)
    views = []
    for view in range(len(cameras)):
        toward = torch.nn.functional.normalize(cameras[view].position() - vertices, dim=1)
        halfway = torch.nn.functional.normalize(toward + lamp, dim=1)
        shine = 0.7 * (vertices / 0.6 * halfway).sum(dim=1, keepdim=True).clamp_min(0.0) ** 20
        colors = (torch.tensor([0.3, 0.05, 0.05]) + shine).clamp(0.0, 1.0)
        views.append(render_mesh(vertices, faces, colors, cameras[view], size, shading="albedo", supersample=2).rgb)
    return torch.cat(views)


def test_a_highlight_needs_a_color_that_depends_on_the_view(monkeypatch):
    cameras = Cameras.orbit(torch.arange(10) * 36.0 - 180.0, [0.0, 30.0, 10.0, -10.0, 20.0] * 2)
    unseen = Cameras.orbit([-25.0, 25.0, 70.0], [15.0, 20.0, 0.0])
    target, hidden = gloss(cameras, 12), gloss(unseen, 12)
    inside = hidden.sum(dim=3) > 0.3
    errors, meshes = {}, {}
    for view_dependent in (False, True):
        field = RadianceField(FieldStage(steps=1, samples_per_ray=32, view_dependent=view_dependent))
        monkeypatch.setattr(field, "field", BallOfLearnedColors(view_dependent))
        optimizer = torch.optim.Adam(field.field.colors.parameters(), lr=0.03)
        for _ in range(30):
            optimizer.zero_grad()
            (field.render(cameras, 12, None, "albedo").rgb - target).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            seen = field.render(unseen, 12, None, "albedo").rgb
        errors[view_dependent] = float((seen - hidden)[inside].square().mean())
        meshes[view_dependent] = field.to_mesh()
    assert errors[True] < 0.5 * errors[False]
    # The mesh is given the mean over all views, which shows less of the highlight than the view in which it shines.
    front = meshes[True].colors[meshes[True].positions[:, 2] > 0.3]
    assert front[:, 2].max() < 0.8 * float(hidden[..., 2].max())


def test_terms_are_zero_before_a_render_and_press_toward_surfaces_after_it():
    field = small(orientation=1.0, distortion=1.0)
    zero = field.regularization()
    assert set(zero) == {"opacity_entropy", "orientation", "distortion", "sparsity"}
    assert all(float(value) == 0.0 for value in zero.values())
    field.render(Cameras.orbit([0.0, 90.0], 10.0), 12)
    terms = field.regularization()
    for name, value in terms.items():
        assert value > 0.0, name
        gradients = torch.autograd.grad(value, list(field.field.parameters()), retain_graph=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)
        assert gradients[0].abs().max() > 0.0
    assert [group["name"] for group in field.parameter_groups()] == ["field"]


def test_numbers_that_are_not_finite_are_refused():
    field = small()
    with pytest.raises(InputError, match="camera"):
        field.render(Cameras.orbit([float("nan")], 0.0), 8)
    with pytest.raises(InputError, match="finite"):
        field.density_at(torch.tensor([[0.0, float("nan"), 0.0]]))
    with pytest.raises(InputError, match="shading"):
        field.render(Cameras.orbit([0.0], 0.0), 8, None, "shiny")


@pytest.mark.parametrize(("encoding", "rate"), [("hash grid", 0.03), ("tri-plane", 0.03), ("mlp", 0.003)])
def test_can_be_fitted_to_pictures(encoding, rate):
    """Silhouettes of two balls come out of the start ball."""
    two = [icosphere(2, 0.3), icosphere(2, 0.3)]
    vertices = torch.cat([torch.as_tensor(ball.positions) + torch.tensor([side, 0.0, 0.0]) for ball, side in zip(two, (-0.5, 0.5))])
    faces = torch.cat([torch.as_tensor(two[0].faces), torch.as_tensor(two[1].faces) + len(two[0].positions)])
    cameras = Cameras.orbit([0.0, 60.0, 120.0, 210.0], 10.0)
    target = render_mesh(vertices, faces, None, cameras, 12, supersample=4).alpha
    field = RadianceField(FieldStage(steps=1, encoding=encoding, resolution=16, samples_per_ray=24))
    optimizer = torch.optim.Adam(field.parameter_groups(), lr=rate)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (field.render(cameras, 12, None, "albedo").alpha - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
