"""The grid against closed forms, its kernels against plain torch in double precision, and its promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.rendering import Light, render_mesh
from backend.rendering.implementation import implementation
from backend.rendering.volume import mean_depth, render_volume, unit_sphere_chords
from backend.representations.density_grid import DENSITY_SCALE, DensityGrid
from backend.representations.primitives import icosphere
from protocol.settings import GridStage


def small_grid(seed: int = 0) -> DensityGrid:
    grid = DensityGrid(GridStage(steps=1, resolution=9, samples_per_ray=16))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        grid.density_logits.add_(torch.randn(9, 9, 9, generator=generator))
        grid.color_logits.add_(torch.randn(9, 9, 9, 3, generator=generator))
    return grid


def random_rays(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origins = 2.5 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    aims = 1.2 * (torch.rand(count, 3, generator=generator) - 0.5)
    return origins, torch.nn.functional.normalize(aims - origins, dim=1)


def test_constant_density_has_the_closed_form_opacity_and_distance():
    grid = DensityGrid(GridStage(steps=1, samples_per_ray=400))
    with torch.no_grad():
        grid.density_logits.fill_(-1.5)
        grid.color_logits[...] = torch.tensor([1.0, 0.0, -2.0])
    origins, directions = random_rays(200, seed=1)
    image = grid.composite(unit_sphere_chords(origins, directions, 400))
    sigma = DENSITY_SCALE * np.log1p(np.exp(-1.5))
    o, d = origins.double().numpy(), directions.double().numpy()
    along = -(o * d).sum(1)
    half = np.sqrt(np.clip(1.0 - ((o * o).sum(1) - along**2), 0.0, None))
    opacity = 1.0 - np.exp(-sigma * 2.0 * half)
    np.testing.assert_allclose(image.opacity.detach().numpy(), opacity, atol=2e-5)
    color = 1.0 / (1.0 + np.exp(-np.array([1.0, 0.0, -2.0])))
    np.testing.assert_allclose(image.color.detach().numpy(), opacity[:, None] * color, atol=2e-5)
    # Mean of the depth t under the density sigma exp(-sigma t) on [0, L], times the opacity.
    length = 2.0 * half
    travelled = (1.0 - np.exp(-sigma * length)) / sigma - length * np.exp(-sigma * length)
    expected = (along - half) * opacity + travelled
    np.testing.assert_allclose(image.distance.detach().numpy(), expected, atol=2e-3)


def test_rays_that_miss_or_look_away_see_nothing():
    origins = torch.tensor([[0.0, 1.5, 2.0], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    directions = torch.tensor([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    chords = unit_sphere_chords(origins, directions, 10)
    assert chords.step.tolist() == pytest.approx([0.0, 0.0, 0.1])  # from inside: only the part in front
    image = small_grid().composite(chords)
    assert image.opacity[:2].tolist() == [0.0, 0.0]
    assert image.opacity[2] > 0.1


@pytest.mark.skipif(implementation.__name__.endswith("reference"), reason="Warp is not available on this platform")
def test_kernels_agree_with_plain_torch_in_double_precision():
    grid = small_grid()
    origins, directions = random_rays(300, seed=2)
    chords = unit_sphere_chords(origins, directions, 24)
    exact = unit_sphere_chords(origins.double(), directions.double(), 24)
    normals = torch.randn(9, 9, 9, 3, generator=torch.Generator().manual_seed(3))
    pull = torch.randn(300, 8, generator=torch.Generator().manual_seed(4))

    def values_and_gradients(dtype, chords):
        inputs = [grid.density_logits, normals, torch.sigmoid(grid.color_logits)]
        inputs = [each.detach().to(dtype).requires_grad_() for each in inputs]
        image = render_volume(*inputs, chords, scale=7.0, sharpness=1.7)
        flat = torch.cat([image.opacity[:, None], image.normal, image.color, image.distance[:, None]], dim=1)
        return flat, torch.autograd.grad((flat * pull.to(dtype)).sum(), inputs)

    fast, fast_gradients = values_and_gradients(torch.float32, chords)
    slow, slow_gradients = values_and_gradients(torch.float64, exact)
    torch.testing.assert_close(fast.double(), slow, atol=2e-5, rtol=1e-5)
    for one, other in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(one.double(), other, atol=3e-5 * float(other.abs().max()), rtol=1e-3)


def test_gradients_match_finite_differences():
    logits = small_grid().density_logits.detach().double()[:5, :5, :5].clone().requires_grad_()
    colors = torch.rand(5, 5, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).requires_grad_()
    normals = torch.rand(5, 5, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6)).requires_grad_()
    origins, directions = random_rays(3, seed=7)
    chords = unit_sphere_chords(origins.double(), directions.double(), 8)

    def seen(logits, normals, colors):
        image = render_volume(logits, normals, colors, chords, scale=2.0, sharpness=1.0)
        return image.opacity, image.normal, image.color, image.distance

    assert torch.autograd.gradcheck(seen, (logits, normals, colors), fast_mode=True)


def test_depth_is_measured_along_the_viewing_axis_and_follows_finite_differences():
    cameras = Cameras.orbit([0.0, 70.0], [10.0, -20.0])
    _, directions = cameras.rays(4, 4)
    axis = -cameras.camera_to_world()[:, :3, 2]
    wall = 2.5 / torch.einsum("nhwc,nc->nhw", directions, axis).double()  # along the ray to a wall at a depth of 2.5
    generator = torch.Generator().manual_seed(8)
    opacity = (0.2 + 0.8 * torch.rand(2, 4, 4, dtype=torch.float64, generator=generator)).requires_grad_()
    stopped = opacity.detach() >= 0.5
    assert 5 < stopped.sum() < 30
    depth = mean_depth(wall * opacity.detach(), opacity.detach(), cameras, directions)
    torch.testing.assert_close(depth[stopped], torch.full_like(depth[stopped], 2.5), atol=1e-6, rtol=0.0)
    assert torch.isinf(depth[~stopped]).all()
    distance = (wall * opacity.detach()).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda distance, opacity: mean_depth(distance, opacity, cameras, directions)[stopped], (distance, opacity)
    )


def test_empty_rays_leave_the_gradient_of_depth_finite():
    grid = small_grid()
    with torch.no_grad():
        grid.density_logits[:, :, :4] = -1000.0
    depth = grid.render(Cameras.orbit([0.0], 10.0), 16).depth
    depth[torch.isfinite(depth)].sum().backward()
    assert torch.isfinite(grid.density_logits.grad).all() and grid.density_logits.grad.count_nonzero() > 0


def test_looks_like_the_mesh_of_the_same_ball():
    radius = 0.6
    grid = DensityGrid(GridStage(steps=1, resolution=48, samples_per_ray=96))
    axis = torch.linspace(-1, 1, 48)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    with torch.no_grad():
        grid.density_logits.copy_(200.0 * (radius - (x * x + y * y + z * z).sqrt()))
        grid.color_logits[...] = torch.logit(torch.stack([0.2 + 0.6 * (y > 0), 0.5 * torch.ones_like(x), 0.5 + 0.4 * x], -1))
    ball = icosphere(4, radius)
    vertices = torch.as_tensor(ball.positions)
    colors = torch.stack([0.2 + 0.6 * (vertices[:, 1] > 0), torch.full((len(vertices),), 0.5), 0.5 + 0.4 * vertices[:, 0]], 1)
    cameras = Cameras.orbit([20.0, 200.0], 15.0)
    light = Light(torch.nn.functional.normalize(torch.tensor([[1.0, 2.0, 1.0]]), dim=1).expand(2, 3), torch.full((2,), 0.5))
    for shading in ("lit", "albedo", "textureless", "normal"):
        of_grid = grid.render(cameras, 48, light, shading)
        of_mesh = render_mesh(vertices, torch.as_tensor(ball.faces), colors, cameras, 48, light=light, shading=shading)
        assert (of_grid.alpha - of_mesh.alpha).abs().mean() < 0.01
        assert (of_grid.rgb - of_mesh.rgb).abs().mean() < 0.01
    both = torch.isfinite(of_grid.depth) & torch.isfinite(of_mesh.depth)
    assert both.sum() > 500
    # Light gets in as deep as sqrt(2 / (density's slope of 2000 per unit)) = .032 before a ray is stopped.
    assert (of_grid.depth - of_mesh.depth)[both].abs().mean() < 0.035


def test_start_is_a_soft_gray_ball_with_gradients_everywhere_in_it():
    grid = DensityGrid(GridStage(steps=1))
    image = grid.render(Cameras.orbit([0.0, 90.0], 0.0), 32, None, "albedo")
    alpha = image.alpha[0, ..., 0]
    assert alpha[16, 16] > 0.99 and alpha[0, 16] < 0.2
    torch.testing.assert_close(image.rgb, 0.5 * image.alpha.expand_as(image.rgb), atol=1e-4, rtol=0)
    image.alpha.sum().backward()
    axis = torch.linspace(-1, 1, 32)
    radius = torch.cartesian_prod(axis, axis, axis).norm(dim=1).view(32, 32, 32)
    rim = (radius > 0.5) & (radius < 0.85)
    assert (grid.density_logits.grad[rim] > 0).float().mean() > 0.95


def test_regularization_presses_toward_opaque_or_empty_and_smooth():
    grid = small_grid()
    assert grid.regularization()["opacity_entropy"] == 0.0  # nothing was rendered yet
    cameras = Cameras.orbit([0.0, 120.0], 10.0)
    grid.render(cameras, 12, None)
    numbers = grid.regularization()
    assert set(numbers) == {"opacity_entropy", "total_variation", "sparsity"}
    foggy = numbers["opacity_entropy"].item()
    sum(numbers.values()).backward()
    assert torch.isfinite(grid.density_logits.grad).all() and torch.isfinite(grid.color_logits.grad).all()
    with torch.no_grad():
        grid.render(cameras, 4, None)  # a preview must not replace what is regularized
    assert grid.regularization()["opacity_entropy"].item() == pytest.approx(foggy)
    grid.sharpness = 8.0
    grid.render(cameras, 12, None)
    assert grid.regularization()["opacity_entropy"].item() < foggy
    with torch.no_grad():
        grid.density_logits.fill_(0.3)
        grid.color_logits.fill_(0.1)
    assert grid.regularization()["total_variation"].item() == 0.0


def test_same_grid_renders_the_same_bits_and_survives_its_state():
    grid = small_grid()
    grid.sharpness = 2.5
    other = DensityGrid(GridStage(steps=1, resolution=9, samples_per_ray=16))
    other.load_state_dict(grid.state_dict())
    results = []
    for each in (grid, grid, other):
        each.density_logits.grad = None
        image = each.render(Cameras.orbit([10.0], 5.0), 16, None)
        image.rgb.sum().backward()
        results.append((image.rgb.detach(), each.density_logits.grad))
    for rgb, gradient in results[1:]:
        assert torch.equal(rgb, results[0][0]) and torch.equal(gradient, results[0][1])


def test_can_be_fitted_to_pictures():
    """Forty steps of Adam bring the silhouette of two balls out of the start ball."""
    grid = DensityGrid(GridStage(steps=1, resolution=16, samples_per_ray=24))
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 10.0)
    with torch.no_grad():
        goal = DensityGrid(GridStage(steps=1, resolution=16, samples_per_ray=24))
        axis = torch.linspace(-1, 1, 16)
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        left, right = (((x - side) ** 2 + y * y + z * z).sqrt() for side in (-0.5, 0.5))
        goal.density_logits.copy_(40.0 * (0.3 - torch.minimum(left, right)))
        target = goal.render(cameras, 16, None).alpha
    optimizer = torch.optim.Adam(grid.parameter_groups(), lr=0.2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = (grid.render(cameras, 16, None).alpha - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
