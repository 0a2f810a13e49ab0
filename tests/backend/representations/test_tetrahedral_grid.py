"""The tetrahedral grid learns from pictures, comes back from nothing, stays inside the unit sphere, and survives its state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from backend.cameras import Cameras
from backend.representations.marching_tetrahedra import CLOSEST, LARGEST_OFFSET
from backend.representations.primitives import icosphere
from backend.representations.soundness import soundness
from backend.representations.tetrahedral_grid import SHARES, START_RADIUS, TetrahedralGrid, _bounded
from backend.rendering import Rendered, render_mesh
from protocol.settings import TetrahedraStage

VIEWS = Cameras.orbit([0.0, 90.0, 180.0, 270.0], 20.0)


def small_grid(resolution: int = 10, **changes: object) -> TetrahedralGrid:
    return TetrahedralGrid(TetrahedraStage(steps=1, resolution=resolution, supersample=1, **changes))


def scrambled(grid: TetrahedralGrid, seed: int = 0) -> TetrahedralGrid:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for group, size in zip(grid.parameter_groups(), (0.2, 0.4, 0.6)):
            for parameter in group["params"]:
                parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return grid


def parameters(grid: TetrahedralGrid, name: str) -> list[torch.Tensor]:
    (group,) = [group for group in grid.parameter_groups() if group["name"] == name]
    return group["params"]


def adam(grid: TetrahedralGrid, rate: float) -> torch.optim.Adam:
    return torch.optim.Adam(grid.parameter_groups(), lr=rate, betas=(0.9, 0.99))


def picture_of_ball(radius: float, size: int) -> Rendered:
    ball = icosphere(3, radius)
    return render_mesh(torch.from_numpy(ball.positions), torch.from_numpy(ball.faces), None, VIEWS, size)


def test_starts_as_a_gray_sphere():
    mesh = small_grid(24).to_mesh()
    facts = soundness(mesh)
    assert facts.sound and facts.euler == 2
    np.testing.assert_allclose(np.linalg.norm(mesh.positions, axis=1), START_RADIUS, atol=2e-3)
    np.testing.assert_allclose(mesh.colors, 0.5, atol=1e-6)
    assert (mesh.positions.dtype, mesh.faces.dtype, mesh.colors.dtype) == (np.float32, np.int32, np.float32)


def test_any_state_is_a_closed_manifold_inside_the_unit_sphere():
    for seed in range(5):
        grid = scrambled(small_grid(8), seed)
        with torch.no_grad():
            parameters(grid, "distances")[1].sub_(0.3)  # also beyond the sphere and the cube
            parameters(grid, "offsets")[0].mul_(100.0)
        mesh = grid.to_mesh()
        facts = soundness(mesh)
        assert facts.watertight and facts.manifold and facts.oriented
        # Vertices are kept off the ends of their edges, which are up to 1.5 cells long here.
        assert np.linalg.norm(mesh.positions, axis=1).max() < 1.0 + CLOSEST * 1.5 * grid.lattice.cell
        moved = (grid._points() - grid.lattice.points).norm(dim=1)
        assert 0.9 * LARGEST_OFFSET * grid.lattice.cell < moved.max() <= LARGEST_OFFSET * grid.lattice.cell


def test_points_of_the_border_stay_outside_however_they_are_pulled():
    """The lattice has points on the unit sphere; pulled inward they would count as inside, with tetrahedra missing."""
    grid = small_grid(8)
    grid.set_values(torch.full((grid.lattice.count,), -1.0))
    with torch.no_grad():
        parameters(grid, "offsets")[0].copy_(-100.0 * grid.lattice.points)
    facts = soundness(grid.to_mesh())
    assert facts.sound and facts.components == 1 and facts.euler == 2


def test_colors_do_not_move_the_surface():
    grid = scrambled(small_grid(8), seed=3)
    shape = [*parameters(grid, "distances"), *parameters(grid, "offsets")]
    pulls = torch.autograd.grad(grid.surface().colors.square().sum(), shape, allow_unused=True)
    assert all(pull is None or not pull.any() for pull in pulls)


def test_gradients_of_the_surface_match_finite_differences_in_every_parameter():
    """Along a random direction in each, of a sum over the vertices."""
    grid = scrambled(small_grid(6), seed=2)
    generator = torch.Generator().manual_seed(4)
    pull = torch.randn(len(grid.surface().vertices), 3, generator=generator)

    def value() -> torch.Tensor:
        return (grid.surface().vertices.double() * pull).sum()

    with torch.no_grad():
        # Close to 0 a vertex is kept off the end of its edge, with the gradient it would have there, on purpose.
        smooth = (grid.distances().abs() > 0.02) & (grid.lattice.points.norm(dim=1) < 0.8)
        first, second = grid._topology(_bounded(grid.distances(), grid._points(), grid.lattice.border))[0].edges.T
        usable = (smooth[first] & smooth[second])[:, None]
    pull.mul_(usable)
    value().backward()
    for parameter in (*parameters(grid, "distances"), *parameters(grid, "offsets")):
        direction, step = torch.randn(parameter.shape, generator=generator), 1e-3
        with torch.no_grad():
            start = parameter.clone()
            parameter.copy_(start + step * direction)
            ahead = value()
            parameter.copy_(start - step * direction)
            behind = value()
            parameter.copy_(start)
        measured = ((ahead - behind) / (2 * step)).item()
        assert measured == pytest.approx((parameter.grad * direction).sum().item(), rel=0.02)


def test_colors_lie_on_the_surface_where_they_were_put():
    grid = small_grid(20)
    wanted = 0.5 + 0.4 * grid.lattice.points.clamp(-1.0, 1.0)
    grid.set_values(grid.distances(), wanted)
    mesh = grid.to_mesh()
    np.testing.assert_allclose(mesh.colors, 0.5 + 0.4 * mesh.positions, atol=0.005)


def test_coarse_parts_are_interpolated_and_added():
    """Against torch's own trilinear sampling; values of the points beyond the cube are those on its border."""
    grid = scrambled(small_grid(17))
    own, *coarse = parameters(grid, "distances")
    where = grid.lattice.points.clamp(-1.0, 1.0)[None, None, None]
    expected = SHARES[0] * own + sum(
        share * torch.nn.functional.grid_sample(each[None, None], where, align_corners=True, padding_mode="border").view(-1)
        for share, each in zip(SHARES[1:], coarse, strict=True)
    )
    assert sum(SHARES) == 1.0
    torch.testing.assert_close(grid.distances(), expected, atol=1e-5, rtol=0)
    assert [each.shape[0] for each in coarse] == [9, 5, 3]


def test_learns_a_ball_of_another_size_and_color_from_pictures():
    """Silhouettes lead the shape, and shading the colors: the target is a lighter gray than the start."""
    target = picture_of_ball(0.4, 24)
    grid = small_grid(12)
    optimizer = adam(grid, 0.02)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        rendered = grid.render(VIEWS, 24)
        loss = (rendered.alpha - target.alpha).square().mean() + (rendered.rgb - target.rgb).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.03 * losses[0]
    mesh = grid.to_mesh()
    assert soundness(mesh).sound
    # Views from 20 degrees above see no more than a hull of the ball from below: the equator tells.
    equator = np.abs(mesh.positions[:, 1]) < 0.1
    assert np.linalg.norm(mesh.positions[equator], axis=1).mean() == pytest.approx(0.4, abs=0.03)
    assert np.abs(mesh.colors - 0.5).max() > 0.1


def test_grows_back_from_nothing():
    """Nothing inside shows a seed, which is enough for silhouettes to bring the ball back."""
    grid = small_grid(12)
    grid.set_values(torch.full((grid.lattice.count,), 0.05))
    seed = grid.to_mesh()
    facts = soundness(seed)
    assert facts.sound and facts.components == 1
    assert np.linalg.norm(seed.positions, axis=1).max() < 1.5 * grid.lattice.cell  # in the middle
    target = picture_of_ball(0.5, 24).alpha
    optimizer = adam(grid, 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (grid.render(VIEWS, 24).alpha - target).square().mean().backward()
        optimizer.step()
    final = (grid.render(VIEWS, 24).alpha - target).square().mean().item()
    assert final < 0.02 * target.square().mean().item()


def test_sign_changes_has_its_closed_form_and_removes_what_nothing_holds():
    grid = small_grid(10)
    steps = torch.where(grid.lattice.points.norm(dim=1) < 0.5, -1.0, 1.0) * grid.lattice.cell
    grid.set_values(steps)
    expected = 2.0 * np.log1p(np.exp(1.0))  # both ends one cell on the wrong side of the other
    assert grid.regularization()["sign_changes"].item() == pytest.approx(expected, rel=1e-5)
    # A speck beside the ball: silhouettes hold neither, so both shrink, and the speck is gone first.
    speck = (grid.lattice.points - torch.tensor([0.8, 0.0, 0.0])).norm(dim=1) < 0.5 * grid.lattice.cell
    grid.set_values(torch.where(speck, -0.2 * grid.lattice.cell, steps))
    assert soundness(grid.to_mesh()).components == 2
    optimizer = adam(grid, 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        grid.regularization()["sign_changes"].backward()
        optimizer.step()
    facts = soundness(grid.to_mesh())
    assert facts.components == 1 and facts.volume > 0.3


def test_laplacian_smooths():
    grid = scrambled(small_grid(10), seed=1)
    optimizer = adam(grid, 0.01)
    before = grid.regularization()["laplacian"].item()
    for _ in range(30):
        optimizer.zero_grad()
        terms = grid.regularization()
        assert set(terms) == {"sign_changes", "laplacian"}
        terms["laplacian"].backward()
        optimizer.step()
    assert grid.regularization()["laplacian"].item() < 0.7 * before
    assert all(torch.isfinite(each).all() for group in grid.parameter_groups() for each in group["params"])


def test_looking_changes_nothing_and_the_state_brings_back_every_bit():
    grid = scrambled(small_grid(9))
    before = grid.state_dict()
    random_state = torch.get_rng_state()
    first = grid.to_mesh()
    grid.render(VIEWS, 16)
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in grid.state_dict().items())
    other = small_grid(9)
    other.to_mesh()  # what it keeps of its own signs must not outlive the new state
    other.load_state_dict(before)
    second = other.to_mesh()
    for name in ("positions", "faces", "colors"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    gradients = []
    for each in (grid, other):
        each.render(VIEWS, 16).rgb.sum().backward()
        gradients.append([parameter.grad for group in each.parameter_groups() for parameter in group["params"]])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
