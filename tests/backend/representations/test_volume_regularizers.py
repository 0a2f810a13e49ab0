"""Each term against its closed form or the sum in its paper."""

from __future__ import annotations

import math

import pytest
import torch

from backend.representations.volume_regularizers import distortion, opacity_entropy, orientation


def test_entropy_of_a_half_is_log_two_and_of_certainty_almost_nothing():
    assert opacity_entropy(torch.full((4,), 0.5)).item() == pytest.approx(math.log(2.0))
    p = 0.2
    assert opacity_entropy(torch.tensor([p])).item() == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    assert opacity_entropy(torch.tensor([0.0, 1.0])).item() < 0.01
    opacity = torch.tensor([0.3, 0.7, 0.0, 1.0], requires_grad=True)
    opacity_entropy(opacity).backward()
    assert opacity.grad[0] > 0.0 > opacity.grad[1] and torch.isfinite(opacity.grad).all()


def test_orientation_counts_the_squared_cosine_of_what_faces_away():
    directions = torch.tensor([[0.0, 0.0, -1.0]]).expand(4, 3)
    tilt = math.radians(30.0)
    normals = torch.tensor(
        [[0.0, 0.0, 1.0], [0.0, 0.0, -1.0], [math.sin(tilt), 0.0, -math.cos(tilt)], [1.0, 0.0, 0.0]], requires_grad=True
    )
    weights = torch.tensor([0.5, 0.25, 0.4, 0.1], requires_grad=True)
    rays = torch.tensor([0, 0, 2, 2])
    seen = orientation(weights, normals, directions, rays, 3)
    torch.testing.assert_close(seen, torch.tensor([0.25, 0.0, 0.4 * math.cos(tilt) ** 2]))
    seen.sum().backward()
    assert weights.grad is None  # no hiding of samples
    assert (normals.grad[0] == 0.0).all() and normals.grad[2, 2] < 0.0  # descent turns it toward the camera


def test_distortion_is_the_double_sum_of_the_paper():
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(5, 9, dtype=torch.float64, generator=generator).requires_grad_()
    step = torch.rand(5, dtype=torch.float64, generator=generator) * 0.2
    borders = torch.arange(10.0, dtype=torch.float64) * step[:, None] / 2.0
    middles = 0.5 * (borders[:, 1:] + borders[:, :-1])
    pairs = weights[:, :, None] * weights[:, None, :] * (middles[:, :, None] - middles[:, None, :]).abs()
    expected = pairs.sum((1, 2)) + (weights.square() * borders.diff(dim=1)).sum(1) / 3.0
    torch.testing.assert_close(distortion(weights, step), expected)
    assert torch.autograd.gradcheck(lambda w: distortion(w, step), (weights,))


def test_distortion_of_two_spikes_and_of_one_surface():
    weights = torch.zeros(2, 40)
    weights[0, [5, 25]] = 0.5
    weights[1, 10] = 1.0
    step = torch.full((2,), 0.05)
    # Two halves .5 of a diameter apart: 2 * 1/4 * .5; and a third of the squared weights times the interval of .025.
    expected = [0.25 + 0.5 * 0.025 / 3.0, 0.025 / 3.0]
    torch.testing.assert_close(distortion(weights, step), torch.tensor(expected))
