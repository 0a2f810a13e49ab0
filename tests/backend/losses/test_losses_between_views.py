"""Losses between views against closed forms of balls and walls, against loops over pixels, and by finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from backend.cameras import Cameras
from backend.losses.reprojection import SURFACE, correspond, project, unproject
from backend.losses.view_agreement import depth_agreement, normal_agreement
from backend.losses.view_interpolation import view_interpolation
from tests.backend.losses.analytic_views import aside, ball_depth, wall

FRONT = Cameras.orbit([0.0], 0.0)


def cameras(*azimuths: float, elevation: float = 10.0) -> Cameras:
    return Cameras.orbit(list(azimuths), elevation)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def colors_of_points(points: Tensor) -> Tensor:
    return 0.5 + 0.5 * torch.sin(points * torch.tensor([9.0, 7.0, 5.0], dtype=points.dtype))


# ---- where a pixel is found


def test_a_point_is_found_in_its_own_view_where_it_was() -> None:
    odd = Cameras(*(torch.tensor(each) for each in ([20.0, 250.0], [50.0, -30.0], [3.0, 2.2], [40.0, 65.0])), target=torch.rand(2, 3))
    depth = 1.0 + random(2, 5, 5)
    places, distance = project(unproject(depth, odd), odd)
    centers = (torch.arange(5) + 0.5) * 0.4 - 1.0
    torch.testing.assert_close(distance, depth, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(places[..., 0], centers.double().expand(2, 5, 5), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(places[..., 1], -centers.double()[:, None].expand(2, 5, 5), atol=1e-5, rtol=0.0)


def test_points_lie_on_the_rays_of_the_cameras() -> None:
    views = cameras(30.0, 200.0)
    points = unproject(ball_depth(views, 16), views)
    shown = points.isfinite().all(-1)
    assert shown.sum() > 100
    torch.testing.assert_close(points[shown].norm(dim=1), torch.full((int(shown.sum()),), 0.8, dtype=torch.float64), atol=1e-5, rtol=0)


def test_agrees_with_a_loop_over_pixels() -> None:
    one, other = cameras(0.0, 100.0), cameras(25.0, 90.0)
    near = (0.4, 0.1, 0.7)  # a small ball that hides a part of the large one
    depth, other_depth = (torch.minimum(ball_depth(each, 20), ball_depth(each, 20, 0.2, near)) for each in (one, other))
    found = correspond(depth, one, other_depth, other)
    image = random(2, 20, 20, 2, seed=1)
    looked_up = found.look_up(image)
    counts = {"seen": 0, "hidden": 0, "background": 0}
    for view in range(2):
        to_world, to_other = one.camera_to_world()[view].double().numpy(), other.view_matrix()[view].double().numpy()
        for row in range(20):
            for column in range(20):
                z = float(depth[view, row, column])
                if not math.isfinite(z):
                    assert not found.within[view, row, column] and not found.seen[view, row, column]
                    counts["background"] += 1
                    continue
                slope = math.tan(math.radians(20.0))
                x, y = (2 * (column + 0.5) / 20 - 1) * slope * z, (1 - 2 * (row + 0.5) / 20) * slope * z
                x, y, minus_z, _ = to_other @ (to_world @ np.array([x, y, -z, 1.0]))
                assert float(found.expected[view, row, column]) == pytest.approx(-minus_z, abs=1e-6)
                right, down = (x / -minus_z / slope + 1) * 10 - 0.5, (1 - y / -minus_z / slope) * 10 - 0.5
                left, top = math.floor(right), math.floor(down)
                shares = {
                    (top + i, left + j): (1 - abs(down - top - i)) * (1 - abs(right - left - j)) for i in (0, 1) for j in (0, 1)
                }
                around = [float(other_depth[view, r, c]) for r, c in shares]
                surface = all(math.isfinite(each) for each in around) and max(around) - min(around) < SURFACE
                mean = sum(share * float(other_depth[view, r, c]) for (r, c), share in shares.items()) if surface else math.inf
                seen = surface and -minus_z < mean + SURFACE
                assert bool(found.seen[view, row, column]) == seen
                expected = sum(share * image[view, r, c] for (r, c), share in shares.items())
                torch.testing.assert_close(looked_up[view, row, column], expected, atol=1e-6, rtol=0.0)
                if surface:
                    assert float(found.found[view, row, column]) == pytest.approx(mean, abs=1e-6)
                counts["seen" if seen else "hidden"] += 1
    assert min(counts.values()) > 30


def test_what_is_hidden_is_left_out_and_what_is_looked_through_is_not() -> None:
    here, there = wall(2.5, 8), wall(2.5, 8)
    hidden = correspond(here, FRONT, there - 0.5, FRONT)  # something stands before the wall in the second view
    assert hidden.within.all() and not hidden.seen.any()
    assert float(depth_agreement(hidden)) == 0.0
    through = correspond(here - 0.5, FRONT, there, FRONT)  # the second view sees through what the first one sees
    assert through.seen.all()
    assert float(depth_agreement(through)) == pytest.approx(0.5 / 4.5, rel=1e-6)


def test_what_lies_outside_of_the_second_picture_is_left_out() -> None:
    found = correspond(wall(2.5, 10), FRONT, wall(2.5, 10), aside(2.5 * math.tan(math.radians(20.0))))
    assert found.within[0, :, 5:].all() and not found.within[0, :, :5].any()
    behind = correspond(wall(2.5, 4), FRONT, wall(2.5, 4), Cameras.orbit([0.0], 0.0, distance=0.2))
    assert behind.within.sum() == 0


# ---- agreement


def test_two_views_of_a_ball_agree() -> None:
    one, other = cameras(0.0, 120.0), cameras(30.0, 100.0)
    depth, other_depth = ball_depth(one, 64), ball_depth(other, 64)
    found = correspond(depth, one, other_depth, other)
    assert found.seen.float().mean() > 0.2
    assert float(depth_agreement(found)) < 2e-4
    normals, other_normals = (
        normalize(torch.nan_to_num(unproject(each, views)), dim=-1) for each, views in ((depth, one), (other_depth, other))
    )
    assert float(normal_agreement(normals, other_normals, found)) < 2e-4


@pytest.mark.parametrize("wrong", [-0.2, 0.04])
def test_a_wrong_depth_is_the_predicted_error(wrong: float) -> None:
    found = correspond(wall(2.5 + wrong, 12), FRONT, wall(2.5, 12), aside(0.3))
    assert found.seen.sum() > 80
    assert float(depth_agreement(found)) == pytest.approx(abs(wrong) / (5.0 + wrong), rel=1e-5)


def test_normals_that_are_turned_are_the_predicted_error_whatever_their_length() -> None:
    found = correspond(wall(2.5, 6), FRONT, wall(2.5, 6), FRONT)
    ahead, turned = torch.tensor([0.0, 0.0, 1.0]).double(), torch.tensor([math.sin(0.7), 0.0, math.cos(0.7)]).double()
    value = normal_agreement(0.3 * ahead.expand(1, 6, 6, 3), 2.0 * turned.expand(1, 6, 6, 3), found)
    assert float(value) == pytest.approx((1.0 - math.cos(0.7)) / 2.0, rel=1e-6)


# ---- a few degrees apart


def test_correct_parallax_is_punished_by_the_plain_difference_and_not_by_ours() -> None:
    one, other = cameras(10.0), cameras(13.0)
    depth, other_depth = ball_depth(one, 64), ball_depth(other, 64)
    found = correspond(depth, one, other_depth, other)
    image, other_image = (
        colors_of_points(torch.nan_to_num(unproject(each, views), posinf=0.0, neginf=0.0))
        for each, views in ((depth, one), (other_depth, other))
    )
    plain = (image - other_image).abs().mean(-1)[found.seen].mean()
    ours = view_interpolation(image, other_image, found)
    assert float(plain) > 0.04
    assert float(ours) < 0.05 * float(plain)
    # What turns with the camera costs the plain difference nothing, and is what this loss is for.
    assert float(view_interpolation(image, image, found)) > 0.04


# ---- gradients


def smooth_depths() -> tuple[Tensor, Tensor]:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 6), torch.linspace(-1, 1, 6), indexing="ij")
    one = 2.4 + 0.02 * torch.sin(2.0 * x + y)
    other = 2.47 + 0.015 * torch.cos(x - 2.0 * y)
    return one.double()[None].requires_grad_(), other.double()[None].requires_grad_()


def test_depth_agreement_follows_finite_differences_in_both_depths() -> None:
    here, there = cameras(0.0), cameras(4.0)

    def loss(depth: Tensor, other_depth: Tensor) -> Tensor:
        return depth_agreement(correspond(depth, here, other_depth, there))

    depths = smooth_depths()
    assert correspond(depths[0], here, depths[1], there).seen.sum() > 15
    assert torch.autograd.gradcheck(loss, depths)


def test_images_follow_finite_differences() -> None:
    here, there = cameras(0.0), cameras(4.0)
    found = correspond(smooth_depths()[0].detach(), here, smooth_depths()[1].detach(), there)
    images = random(1, 6, 6, 3, seed=2).requires_grad_(), random(1, 6, 6, 3, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda *each: normal_agreement(*each, found), images)
    assert torch.autograd.gradcheck(lambda *each: view_interpolation(*each, found), images)


def test_pictures_do_not_move_the_places_where_they_are_compared() -> None:
    depth, other_depth = smooth_depths()
    found = correspond(depth, cameras(0.0), other_depth, cameras(4.0))
    images = random(1, 6, 6, 3, seed=2), random(1, 6, 6, 3, seed=3)
    assert not (view_interpolation(*images, found) + normal_agreement(*images, found)).requires_grad


def test_at_the_ideal_there_is_no_gradient() -> None:
    depth, other_depth = (wall(2.5, 6).requires_grad_() for _ in range(2))
    found = correspond(depth, FRONT, other_depth, FRONT)
    normals = torch.tensor([0.0, 0.6, 0.8]).double().expand(1, 6, 6, 3).clone().requires_grad_()
    image = torch.full((1, 6, 6, 3), 0.3, dtype=torch.float64, requires_grad=True)
    total = depth_agreement(found) + normal_agreement(normals, normals.detach(), found)
    total = total + view_interpolation(image, image.detach(), found)
    total.backward()
    assert float(total.detach()) == pytest.approx(0.0, abs=1e-7)
    for each in (depth, other_depth, normals, image):
        assert each.grad is None or each.grad.abs().max() < 1e-7
