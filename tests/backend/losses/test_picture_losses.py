"""Losses toward a picture: nothing where the render shows it, the closed form elsewhere, gradients by finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backend.losses.picture import SHALLOW, color_difference, depth_difference, normal_difference, silhouette_difference

SIZE = (2, 5, 4)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def picture(seed: int) -> tuple[Tensor, Tensor]:
    """Premultiplied color and coverage."""
    alpha = drawn(seed, *SIZE, 1)
    return alpha * drawn(seed + 1, *SIZE, 3), alpha


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_color_is_what_compositing_shows(norm: str) -> None:
    (rgb, alpha), (target, target_alpha), background = picture(1), picture(3), drawn(5, 3)
    over = rgb + (1 - alpha) * background, target + (1 - target_alpha) * background
    difference = (over[0] - over[1]).abs() if norm == "l1" else (over[0] - over[1]).square()
    expected = difference.sum() / 3 / target_alpha.sum()
    assert color_difference(rgb, alpha, target, target_alpha, background, norm).isclose(expected)
    assert color_difference(target, target_alpha, target, target_alpha, background, norm) == 0


def test_empty_margins_do_not_dilute_colors() -> None:
    (rgb, alpha), (target, target_alpha), background = picture(1), picture(3), drawn(5, 3)
    wide = [torch.nn.functional.pad(each, (0, 0, 3, 3, 2, 2)) for each in (rgb, alpha, target, target_alpha)]
    assert color_difference(*wide, background).isclose(color_difference(rgb, alpha, target, target_alpha, background))


def test_silhouettes_of_hard_masks_are_one_minus_their_iou() -> None:
    first, second = (drawn(seed, *SIZE, 1).round() for seed in (1, 2))
    expected = 1 - (first * second).sum() / ((first + second) > 0).sum()
    assert silhouette_difference(first, second).isclose(expected)
    soft = drawn(3, *SIZE, 1)
    assert silhouette_difference(soft, soft) == 0, "soft edges that agree differ by nothing"


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.01, 5.0), (300.0, -2.0)])
def test_depth_is_compared_up_to_scale_and_shift(scale: float, shift: float) -> None:
    depth, weight = 3 + drawn(1, *SIZE), drawn(2, *SIZE)
    assert depth_difference(depth, scale * depth + shift, weight).abs() < 1e-9
    other = drawn(3, *SIZE)
    known = depth_difference(depth, other, weight)
    assert depth_difference(depth, scale * other + shift, weight).isclose(known)


def test_depth_is_what_least_squares_leaves() -> None:
    target, weight = drawn(2, *SIZE), drawn(3, *SIZE)
    depth = 3 + 0.2 * drawn(1, *SIZE) + 0.3 * target
    rows = weight.flatten().sqrt()[:, None]
    columns = torch.stack([target.flatten(), torch.ones(target.numel(), dtype=torch.float64)], dim=1)
    fitted = columns @ torch.linalg.lstsq(rows * columns, rows * depth.flatten()[:, None]).solution
    left = (weight.flatten() * (depth.flatten() - fitted[:, 0]).square()).sum() / weight.sum()
    mean = (weight * depth).sum() / weight.sum()
    spread = (weight * (depth - mean).square()).sum() / weight.sum()
    assert depth_difference(depth, target, weight).isclose(left / (spread + SHALLOW**2))


def test_a_relief_turned_inside_out_does_not_fit() -> None:
    depth, weight = 3 + drawn(1, *SIZE), torch.ones(*SIZE, dtype=torch.float64)
    assert depth_difference(depth, -depth, weight) > 0.99
    flat = torch.full(SIZE, 3.0, dtype=torch.float64, requires_grad=True)
    loss = depth_difference(flat, depth, weight)
    loss.backward()
    assert loss == 0 and flat.grad.isfinite().all()
    assert depth_difference(depth, depth, 0 * weight) == 0


def test_normals_are_compared_by_their_angle() -> None:
    normals, weight = drawn(1, *SIZE, 3) - 0.5, drawn(2, *SIZE)
    assert normal_difference(3 * normals, normals, weight).abs() < 1e-12
    assert normal_difference(-normals, normals, weight).isclose(torch.tensor(1.0, dtype=torch.float64))
    across = torch.linalg.cross(normals, drawn(3, *SIZE, 3))
    assert normal_difference(across, normals, weight).isclose(torch.tensor(0.5, dtype=torch.float64))


def test_gradients_are_those_of_finite_differences() -> None:
    rgb, alpha = (each.requires_grad_() for each in picture(1))
    target, target_alpha = picture(3)
    background, weight = drawn(5, 3), drawn(6, *SIZE)
    for norm in ("l1", "l2"):
        assert torch.autograd.gradcheck(lambda c, a: color_difference(c, a, target, target_alpha, background, norm), (rgb, alpha))
    assert torch.autograd.gradcheck(lambda a: silhouette_difference(a, target_alpha), (alpha,))
    depth = (3 + drawn(7, *SIZE)).requires_grad_()
    assert torch.autograd.gradcheck(lambda d: depth_difference(d, drawn(8, *SIZE), weight), (depth,))
    normals = (drawn(9, *SIZE, 3) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda n: normal_difference(n, drawn(10, *SIZE, 3) - 0.5, weight), (normals,))
