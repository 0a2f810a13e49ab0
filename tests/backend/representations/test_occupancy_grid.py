"""Cells that hold something are known, whatever the order of bits; samples elsewhere are left out, and only those."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.rendering import reference
from backend.rendering.implementation import implementation
from backend.rendering.volume import occupied_samples, unit_sphere_chords, visibility_weights
from backend.representations.occupancy_grid import OccupancyGrid, pack_bits


def ball(points: Tensor) -> Tensor:
    """Density 20 within .4 of a center off the middle."""
    return 20.0 * ((points - torch.tensor([0.2, -0.1, 0.3])).norm(dim=1) < 0.4)


def rays(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    origins = 2.5 * torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    aims = 1.4 * (torch.rand(count, 3, generator=generator) - 0.5)
    return origins, torch.nn.functional.normalize(aims - origins, dim=1)


@pytest.mark.parametrize("resolution", [3, 16])
def test_bits_are_the_cells(resolution):
    occupied = torch.rand(resolution, resolution, resolution, generator=torch.Generator().manual_seed(0)) < 0.3
    bits = pack_bits(occupied)
    expected = np.packbits(np.pad(occupied.numpy().ravel(), (0, -(resolution**3) % 32)), bitorder="little").view("<i4")
    np.testing.assert_array_equal(bits.numpy(), expected)


def test_samples_are_those_in_occupied_cells():
    occupied = torch.rand(8, 8, 8, generator=torch.Generator().manual_seed(1)) < 0.4
    bits = pack_bits(occupied)
    origins, directions = rays(300)
    directions[:5] *= -1.0  # look away
    chords = unit_sphere_chords(origins, directions, 23)
    seen = occupied_samples(chords, bits, 8)
    cells = np.floor((chords.points().double().numpy() + 1.0) * 4.0).astype(int).clip(0, 7)
    expected = occupied.numpy()[cells[..., 2], cells[..., 1], cells[..., 0]] & (chords.step > 0.0).numpy()[:, None]
    assert not seen[:5].any() and 0.2 < seen.float().mean() < 0.6
    assert (seen.numpy() != expected).mean() < 1e-3  # a sample on a border may be rounded to either side
    if implementation is not reference:
        twin = reference.occupied_samples(chords, bits, 8)
        assert (seen != twin).float().mean() < 1e-3


def test_everything_counts_as_occupied_before_the_first_look_and_only_the_ball_after_it():
    grid = OccupancyGrid(24, threshold=1.0)
    origins, directions = rays(400)
    chords = unit_sphere_chords(origins, directions, 40)
    assert torch.equal(grid.samples(chords), (chords.step > 0.0)[:, None].expand(-1, 40))
    for _ in range(3):
        grid.update(ball)
    seen = grid.samples(chords)
    density = ball(chords.points().reshape(-1, 3)).view(-1, 40)
    assert seen[density > 0.0].all()  # nothing of the ball is lost: the same picture
    assert seen.float().mean() < 0.35
    whole, part = visibility_weights(density, chords), visibility_weights(density * seen, chords)
    assert torch.equal(whole, part)


def test_what_is_gone_is_forgotten_and_what_comes_is_found():
    grid = OccupancyGrid(16, threshold=1.0, decay=0.5)
    grid.update(ball)
    before = grid.occupied()
    moved = lambda points: ball(-points)  # noqa: E731
    grid.update(moved)
    assert (grid.occupied() & before).sum() == before.sum()  # remembered for now
    for _ in range(5):
        grid.update(moved)
    # 20 * .5^6 is below the threshold.
    fresh = OccupancyGrid(16, threshold=1.0, decay=0.5)
    for _ in range(6):
        fresh.update(moved)
    assert (grid.occupied() != fresh.occupied()).float().mean() < 0.01
    assert not torch.equal(grid.occupied(), before)


def test_looks_walk_evenly_through_each_cell_and_draw_nothing_random():
    state = torch.get_rng_state()
    places = []

    def remember(points: Tensor) -> Tensor:
        places.append((points[0] + 1.0) * 5.0)  # in units of cells of a grid of ten
        return torch.zeros(len(points))

    grid = OccupancyGrid(10, threshold=1.0)
    for _ in range(256):
        grid.update(remember)
    assert torch.equal(state, torch.get_rng_state())
    found = torch.stack(places)
    assert (found > 0.0).all() and (found < 1.0).all()
    torch.testing.assert_close(found[0], torch.full((3,), 0.5), atol=1e-5, rtol=0.0)
    octants = (found > 0.5).int() @ torch.tensor([1, 2, 4], dtype=torch.int32)
    assert torch.bincount(octants, minlength=8).min() >= 24  # 32 each if they were perfect


def test_a_grid_goes_on_from_its_state():
    grid, other = OccupancyGrid(12, threshold=1.0), OccupancyGrid(12, threshold=1.0)
    for _ in range(2):
        grid.update(ball)
    other.load_state_dict(grid.state_dict())
    assert torch.equal(grid.bits, other.bits)
    grid.update(ball)
    other.update(ball)
    assert torch.equal(grid.density, other.density) and torch.equal(grid.bits, other.bits)
    other.load_state_dict(OccupancyGrid(12, threshold=1.0).state_dict())
    assert (other.occupied().numel() == 12**3) and torch.equal(other.bits, OccupancyGrid(12, threshold=1.0).bits)
