"""Grids of known shapes become meshes that keep their parts, lose their dust, and are sound."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.representations.convert import adaptive_surface, grid_to_mesh
from backend.representations.density_grid import DensityGrid
from backend.representations.soundness import soundness
from protocol.settings import GridStage

SLOPE = 40.0
"""Logits per unit of distance: density rises from nothing to opaque within about a voxel."""


def grid_of(distance: Callable[[Tensor, Tensor, Tensor], Tensor]) -> DensityGrid:
    """A grid whose logits are -SLOPE * signed distance, clipped as an optimized grid's are."""
    grid = DensityGrid(GridStage(steps=1))
    axis = torch.linspace(-1.0, 1.0, 32)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    with torch.no_grad():
        grid.density_logits.copy_((-SLOPE * distance(x, y, z)).clamp(-10.0, 10.0))
        grid.color_logits[...] = torch.logit(torch.stack([0.5 + 0.3 * x.sign(), torch.full_like(x, 0.2), 0.5 + 0.3 * y], -1))
    return grid


def ball(x: Tensor, y: Tensor, z: Tensor, radius: float) -> Tensor:
    return (x * x + y * y + z * z).sqrt() - radius


def box(x: Tensor, y: Tensor, z: Tensor, a: float, b: float, c: float) -> Tensor:
    return torch.maximum(torch.maximum(x.abs() - a, y.abs() - b), z.abs() - c)


def ring(x: Tensor, y: Tensor, z: Tensor, major: float, minor: float) -> Tensor:
    return (((x * x + y * y).sqrt() - major) ** 2 + z * z).sqrt() - minor


def test_ball_has_its_size_and_the_colors_seen_on_it():
    grid = grid_of(lambda x, y, z: ball(x, y, z, 0.6))
    mesh = grid_to_mesh(grid, 800)
    facts = soundness(mesh)
    assert facts.sound and facts.components == 1 and facts.euler == 2
    assert 680 < len(mesh.positions) < 920
    radius = np.linalg.norm(mesh.positions, axis=1)
    assert radius.std() < 0.01
    # The silhouette of a body stands where opacity is one half, a little outside of logit 0.
    assert 0.6 < radius.mean() < 0.68
    assert mesh.positions.dtype == np.float32 and mesh.faces.dtype == np.int32 and mesh.colors.dtype == np.float32
    x, y = mesh.positions[:, 0], mesh.positions[:, 1]
    off_seam = np.abs(x) > 0.15
    assert np.abs(mesh.colors[off_seam, 0] - (0.5 + 0.3 * np.sign(x[off_seam]))).max() < 0.05
    assert np.abs(mesh.colors[:, 2] - (0.5 + 0.3 * y)).max() < 0.06


def test_mug_keeps_a_handle_that_is_still_faint():
    def mug(x, y, z):
        body = torch.maximum((x * x + z * z).sqrt() - 0.45, y.abs() - 0.5)
        handle = torch.where(x > 0.3, ring(x - 0.45, y, z, 0.3, 0.07), torch.ones_like(x))
        # Where the body is not, the handle reaches a logit of only -1.2: a thin veil of opacity about one half.
        return torch.minimum(body, handle.clamp_min(1.2 / SLOPE))

    mesh = grid_to_mesh(grid_of(mug), 1500)
    facts = soundness(mesh)
    assert facts.sound and facts.components == 1
    assert facts.euler == 0  # one loop
    assert mesh.positions[:, 0].max() > 0.75


def test_thin_legs_stay_on_a_table():
    def table(x, y, z):
        top = box(x, y - 0.3, z, 0.6, 0.07, 0.6)
        legs = box(x.abs() - 0.5, y + 0.1, z.abs() - 0.5, 0.06, 0.4, 0.06)
        return torch.minimum(top, legs)

    mesh = grid_to_mesh(grid_of(table), 2000)
    facts = soundness(mesh)
    assert facts.sound and facts.components == 1 and facts.euler == 2
    feet = mesh.positions[mesh.positions[:, 1] < -0.4]
    assert {(bool(x > 0), bool(z > 0)) for x, _, z in feet} == {(a, b) for a in (True, False) for b in (True, False)}
    between = np.abs(feet[:, [0, 2]]).min(axis=0)
    assert (between > 0.3).all()  # nothing grew between the legs


def test_dust_and_cavities_go_but_a_second_part_stays():
    def shapes(x, y, z):
        hollow = ball(x + 0.35, y, z, 0.4).maximum(-ball(x + 0.35, y, z, 0.2))
        second = ball(x - 0.6, y, z, 0.2)
        speck = ball(x - 0.032, y - 0.677, z - 0.032, 0.03)  # one voxel
        return torch.minimum(torch.minimum(hollow, second), speck)

    mesh = grid_to_mesh(grid_of(shapes), 1200)
    facts = soundness(mesh)
    assert facts.sound
    assert (facts.components, facts.euler) == (2, 4)
    assert mesh.positions[:, 1].max() < 0.55


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cracked_shell_becomes_a_solid(seed):
    """A faint wall of 1.3 voxels with as much noise as logits of density: at any level it is full of holes."""
    noise = torch.randn(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(seed))
    noise = torch.nn.functional.interpolate(noise, size=(32, 32, 32), mode="trilinear")[0, 0]
    grid = grid_of(lambda x, y, z: ball(x, y, z, 0.6).abs())
    with torch.no_grad():
        grid.density_logits.copy_((noise - 0.5 - 6.0 * (-grid.density_logits / SLOPE / 0.042 - 0.5).clamp_min(0.0)).clamp_min(-9.0))
    facts = soundness(grid_to_mesh(grid, 1500))
    assert facts.sound and facts.components == 1 and facts.euler == 2
    assert facts.volume > 0.85 * 4.0 / 3.0 * np.pi * 0.6**3


def test_a_bowl_stays_open():
    def bowl(x, y, z):
        return torch.maximum(ball(x, y, z, 0.6).abs() - 0.07, y - 0.2)

    facts = soundness(grid_to_mesh(grid_of(bowl), 1500))
    assert facts.sound and facts.euler == 2
    assert facts.volume < 0.75  # .42 where logits are 0, .65 where opacity is one half; .90 and more if it were filled


@pytest.mark.parametrize("faintness", [0.0, 4.0, 30.0])
def test_preview_is_never_empty_and_draws_nothing_random(faintness):
    grid = grid_of(lambda x, y, z: ball(x, y, z, 0.5))
    with torch.no_grad():
        grid.density_logits.sub_(faintness)
    before = {name: value.clone() for name, value in grid.state_dict().items()}
    generator_state = torch.get_rng_state()
    first, second = adaptive_surface(grid), grid.to_mesh()
    assert torch.equal(generator_state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in grid.state_dict().items())
    np.testing.assert_array_equal(first.positions, second.positions)
    np.testing.assert_array_equal(first.colors, second.colors)
    facts = soundness(first)
    assert facts.sound and facts.components == 1
    assert 0.2 < np.linalg.norm(first.positions, axis=1).mean() < 0.75


def test_a_uniform_fog_becomes_the_sphere_it_fills():
    grid = grid_of(lambda x, y, z: torch.zeros_like(x))
    mesh = adaptive_surface(grid)
    assert soundness(mesh).sound
    assert np.linalg.norm(mesh.positions, axis=1).max() < 1.01


def test_conversion_is_deterministic_and_leaves_the_grid_alone():
    grid = grid_of(lambda x, y, z: ring(x, y, z, 0.5, 0.2))
    before = grid.density_logits.detach().clone()
    first, second = grid_to_mesh(grid, 500), grid_to_mesh(grid, 500)
    assert torch.equal(before, grid.density_logits.detach())
    for name in ("positions", "faces", "colors"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert soundness(first).euler == 0
