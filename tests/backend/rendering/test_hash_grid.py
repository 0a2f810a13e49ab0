"""The hash encoding against a loop over corners written from the paper, its kernel against its twin, and its borders."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering import reference
from backend.rendering.hash_grid import HashGridLevels, encode_hash_grid, hash_grid_levels

LEVELS = hash_grid_levels(4, 50, 4, 2**11)
"""Dense at 4 and 9 cells, hashed at 22 and 50."""


def table_of(levels: HashGridLevels, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(levels.rows, 4, generator=torch.Generator().manual_seed(seed)).to(dtype)


def points_everywhere(count: int) -> Tensor:
    """Inside and outside of the cube, on its border, and exactly on the borders of cells."""
    points = 2.6 * torch.rand(count, 3, generator=torch.Generator().manual_seed(1)) - 1.3
    points[:3] = torch.tensor([[1.0, 1.0, 1.0], [-1.0, -1.0, -1.0], [0.0, 1.0, -1.0]])
    points[3:40] = torch.randint(-2, 3, (37, 3), generator=torch.Generator().manual_seed(2)) / 2.0
    return points


def encoded_by_hand(point: list[float], table: Tensor, levels: HashGridLevels) -> list[float]:
    """Python integers of any length, one corner after the other."""
    features = []
    for cells, first, hashed_rows in levels.layout.tolist():
        at = [min(max((value + 1.0) / 2.0 * cells, 0.0), float(cells)) for value in point]
        corner = [min(math.floor(value), cells - 1) for value in at]
        total = torch.zeros(4, dtype=torch.float64)
        for offset in itertools.product((0, 1), repeat=3):
            x, y, z = (c + o for c, o in zip(corner, offset))
            weight = math.prod(a - c if o else 1.0 - (a - c) for a, c, o in zip(at, corner, offset))
            if hashed_rows:
                row = (x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)) % hashed_rows
            else:
                row = x + (cells + 1) * (y + (cells + 1) * z)
            total += weight * table[first + row].double()
        features += total.tolist()
    return features


def test_levels_grow_geometrically_and_are_hashed_where_they_do_not_fit():
    cells, first, hashed = (column.tolist() for column in LEVELS.layout.unbind(dim=1))
    assert cells == [4, 9, 22, 50]
    assert hashed == [0, 0, 2048, 2048]
    assert first == [0, 125, 1125, 3173] and LEVELS.rows == 5221


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_those_of_the_paper(dtype):
    table, points = table_of(LEVELS, dtype=dtype), points_everywhere(60).to(dtype)
    expected = torch.tensor([encoded_by_hand(point, table, LEVELS) for point in points.tolist()])
    torch.testing.assert_close(encode_hash_grid(points, table, LEVELS).float(), expected, atol=1e-5, rtol=0.0)


def test_kernel_equals_its_twin_in_double_precision():
    kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")
    points = points_everywhere(2000)
    # On the border of two cells the slope has two values; either is right, and rounding chooses.
    cells = LEVELS.layout[:, 0].double()
    places = (points.double().clamp(-1.0, 1.0)[..., None] + 1.0) * 0.5 * cells
    smooth = ((places - places.round()).abs() > 1e-4).all(dim=2) | (points.abs() > 1.001)
    pull = torch.randn(2000, 16, generator=torch.Generator().manual_seed(3))
    results = []
    for room, dtype in ((kernels, torch.float32), (reference, torch.float64)):
        at, table = points.to(dtype).requires_grad_(), table_of(LEVELS).to(dtype).requires_grad_()
        features = room.encode_hash_grid(at, table, LEVELS.layout)
        results.append([features, *torch.autograd.grad((features * pull).sum(), (at, table))])
    (features, of_points, of_table), (exact, of_exact_points, of_exact_table) = results
    torch.testing.assert_close(features.double(), exact, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(of_table.double(), of_exact_table, atol=1e-5 * float(of_exact_table.abs().max()), rtol=0.0)
    everywhere = smooth.all(dim=1)
    assert everywhere.sum() > 1500
    scale = float(of_exact_points.abs().max())
    torch.testing.assert_close(of_points[everywhere].double(), of_exact_points[everywhere], atol=1e-5 * scale, rtol=0.0)
    assert (of_points[(points.abs() > 1.001)] == 0.0).all()


def test_gradients_of_the_twin_match_finite_differences():
    levels = hash_grid_levels(2, 7, 2, 64)
    table = table_of(levels, dtype=torch.float64).requires_grad_()
    points = (1.9 * torch.rand(6, 3, generator=torch.Generator().manual_seed(4)) - 0.95).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, t: encode_hash_grid(p, t, levels), (points, table))
    assert torch.autograd.gradgradcheck(lambda p, t: encode_hash_grid(p, t, levels), (points, table))


def test_collisions_share_a_row_and_add_up_their_gradients():
    levels = hash_grid_levels(40, 40, 1, 8)  # 68,921 vertices in 8 rows
    table = torch.zeros(8, 4, requires_grad=True)
    points = points_everywhere(500)
    encode_hash_grid(points, table, levels).sum().backward()
    # Weights of the eight corners add up to one, wherever their rows are.
    torch.testing.assert_close(table.grad.sum(dim=0), torch.full((4,), 500.0), atol=1e-3, rtol=0.0)
    assert (table.grad > 20.0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_points_outside_read_the_border_and_broken_points_read_nothing(dtype):
    table = table_of(LEVELS, dtype=dtype).requires_grad_()
    outside = torch.tensor([[7.0, 0.2, -3.0], [1e30, -1e30, 0.1]], dtype=dtype)
    seen = encode_hash_grid(outside, table, LEVELS)
    assert torch.equal(seen, encode_hash_grid(outside.clamp(-1.0, 1.0), table, LEVELS))
    broken = torch.tensor([[float("nan"), 0.0, 0.0], [0.0, float("inf"), 0.0], [0.1, 0.2, 0.3]], dtype=dtype, requires_grad=True)
    seen = encode_hash_grid(broken, table, LEVELS)
    assert (seen[:2] == 0.0).all() and (seen[2] != 0.0).all()
    alone = table.detach().clone().requires_grad_()
    encode_hash_grid(broken[2:].detach(), alone, LEVELS).sum().backward()
    seen.sum().backward()
    assert torch.equal(table.grad, alone.grad)
    assert (broken.grad[:2] == 0.0).all() and torch.isfinite(broken.grad).all()
    assert encode_hash_grid(broken[:0], table, LEVELS).shape == (0, 16)


def test_what_does_not_fit_is_refused():
    table, points = table_of(LEVELS), torch.zeros(5, 3)
    for wrong in (
        lambda: encode_hash_grid(torch.zeros(5, 2), table, LEVELS),
        lambda: encode_hash_grid(points.half(), table, LEVELS),
        lambda: encode_hash_grid(points, table[:-1], LEVELS),
        lambda: encode_hash_grid(points, table.double(), LEVELS),
        lambda: hash_grid_levels(16, 8, 4, 2**14),
        lambda: hash_grid_levels(8, 16, 4, 1000),
        lambda: hash_grid_levels(8, 16, 0, 1024),
    ):
        with pytest.raises(InputError):
            wrong()
