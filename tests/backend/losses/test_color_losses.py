"""Losses of colors and of light against plain loops, at their ideals, and by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from backend.losses.albedo import SMALL_CHANGE, albedo_changes
from backend.losses.saturation import color_saturation, colorfulness
from backend.losses.whiteness import light_color
from backend.representations.texel_map import TexelMap


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_albedo_changes_are_a_rounded_l1_norm_of_distances_between_colors() -> None:
    colors, neighbors = random(30, 3), (random(50, 2, seed=1) * 30).long()
    total = 0.0
    for first, second in neighbors.tolist():
        distance = float(np.linalg.norm(colors[first].numpy() - colors[second].numpy()))
        total += (distance**2 + SMALL_CHANGE**2) ** 0.5 - SMALL_CHANGE
    assert albedo_changes(colors, neighbors).item() == pytest.approx(total / 50)


def test_one_color_costs_nothing_and_one_step_less_than_many_small_ones() -> None:
    """A line of 41 vertices from black to white: at once, in 40 steps, and up and down."""
    line = torch.stack([torch.arange(40), torch.arange(1, 41)], dim=1)
    plain = torch.full((41, 3), 0.3, dtype=torch.float64, requires_grad=True)
    loss = albedo_changes(plain, line)
    loss.backward()
    assert loss.item() == 0.0 and plain.grad.abs().max() == 0.0
    at_once = (torch.arange(41) > 20).double()[:, None].expand(41, 3)
    noisy = at_once + 0.1 * (torch.arange(41) % 2)[:, None]
    # A step of length 1 in each channel costs its length, whatever it costs more elsewhere.
    assert albedo_changes(at_once, line).item() == pytest.approx((3.0**0.5 - SMALL_CHANGE) / 40, rel=1e-3)
    assert albedo_changes(noisy, line).item() > 3.0 * albedo_changes(at_once, line).item()
    assert albedo_changes(2.0 * at_once, line).item() < 2.1 * albedo_changes(at_once, line).item()


def test_a_change_far_below_noise_keeps_its_digits() -> None:
    colors = torch.zeros(2, 3)
    colors[1, 0] = 1e-6
    assert albedo_changes(colors, torch.tensor([[0, 1]])).item() == pytest.approx(1e-12 / (2 * SMALL_CHANGE), rel=1e-4)


def test_texels_side_by_side_are_neighbors_within_a_chart_only() -> None:
    """Charts that touch, and faces of one chart that do."""
    rng = np.random.default_rng(0)
    face = rng.integers(-1, 6, (9, 12)).astype(np.int32)
    chart = np.array([0, 0, 1, 1, 1, 2], dtype=np.int32)
    flat, pairs = TexelMap(face, np.zeros((9, 12, 3), dtype=np.float32), chart).side_by_side()
    owner = [[None if shown < 0 else chart[shown] for shown in row] for row in face]
    expected = set()
    for row in range(9):
        for column in range(12):
            for down, right in ((0, 1), (1, 0)):
                inside = row + down < 9 and column + right < 12 and owner[row][column] is not None
                if inside and owner[row][column] == owner[row + down][column + right]:
                    expected.add((row * 12 + column, (row + down) * 12 + column + right))
    assert {(int(flat[a]), int(flat[b])) for a, b in pairs} == expected and len(pairs) == len(expected) > 30
    assert flat.tolist() == np.flatnonzero(face.reshape(-1) >= 0).tolist()


def test_gray_is_not_colorful_and_pure_colors_are_entirely() -> None:
    gray = random(20, 1).expand(20, 3).clone().requires_grad_()
    loss = color_saturation(gray)
    loss.backward()
    assert loss.item() < 1e-30 and gray.grad.abs().max() < 1e-15
    pure = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [0, 1, 1], [1, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(colorfulness(pure), torch.ones(6, dtype=torch.float64))
    colors = random(50, 3)
    np.testing.assert_allclose(colorfulness(colors).numpy(), 4.5 * colors.numpy().var(axis=1))
    assert float(colorfulness(colors).max()) <= 1.0
    tinted = gray.detach().clone()
    tinted[4, 0] += 0.1
    assert color_saturation(tinted).item() > 1e-4


def test_weighted_saturation_is_that_of_what_weighs() -> None:
    colors, weight = random(6, 4, 4, 3), random(6, 4, 4, seed=1)
    total = sum(float(w) * 4.5 * c.numpy().var() for c, w in zip(colors.reshape(-1, 3), weight.reshape(-1)))
    assert color_saturation(colors, weight).item() == pytest.approx(total / float(weight.sum()))
    nothing = colors.clone().requires_grad_()
    loss = color_saturation(nothing, torch.zeros_like(weight))
    loss.backward()
    assert loss.item() == 0.0 and nothing.grad.abs().max() == 0.0


@pytest.mark.parametrize("shape", [(9, 3), (8, 16, 3)], ids=["spherical harmonics", "environment map"])
def test_gray_light_is_free_however_uneven_it_is(shape: tuple[int, ...]) -> None:
    gray = (random(*shape[:-1], 1) - 0.3).expand(shape).clone().requires_grad_()
    loss = light_color(gray)
    loss.backward()
    assert loss.item() < 1e-28 and gray.grad.abs().max() < 1e-14
    tinted = gray.detach().clone()
    tinted.reshape(-1, 3)[0, 2] += 0.2
    assert light_color(tinted).item() > 1e-5


def test_light_color_is_relative_to_the_gray_and_the_same_at_every_exposure() -> None:
    light = random(9, 3) - 0.2
    off = sum(float(((row - row.mean()) ** 2).sum()) for row in light.numpy())
    gray = sum(3.0 * float(row.mean()) ** 2 for row in light.numpy())
    assert light_color(light).item() == pytest.approx(off / gray)
    assert light_color(1000.0 * light).item() == pytest.approx(light_color(light).item())
    dark = torch.zeros(9, 3, requires_grad=True)
    light_color(dark).backward()
    assert dark.grad.abs().max() == 0.0


def test_gradients_of_color_losses_match_finite_differences() -> None:
    colors = random(8, 3).requires_grad_()
    neighbors = (random(12, 2, seed=1) * 8).long()
    weight = random(8, seed=2)
    assert torch.autograd.gradcheck(lambda c: albedo_changes(c, neighbors), (colors,))
    assert torch.autograd.gradcheck(color_saturation, (colors,))
    assert torch.autograd.gradcheck(lambda c: color_saturation(c, weight), (colors,))
    assert torch.autograd.gradcheck(light_color, ((random(9, 3) - 0.2).requires_grad_(),))
