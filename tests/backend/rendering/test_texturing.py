"""Texture lookup against its twin, finite differences and closed forms; hostile coordinates; mip maps that keep seams apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering import reference
from backend.rendering.implementation import implementation
from backend.rendering.texturing import highest_safe_level, texture

FILTERS = ("nearest", "linear", "trilinear")
WRAPS = ("repeat", "clamp", "mirror")


def scene(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A random texture, coordinates in [-2, 3] and derivatives from far below a texel to the whole texture."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(shape, generator=generator)
    uv = torch.rand(2, 11, 13, 2, generator=generator) * 5.0 - 2.0
    spread = torch.rand(2, 11, 13, 1, 1, generator=generator) ** 4
    return image, uv, torch.randn(2, 11, 13, 2, 2, generator=generator) * spread


def everywhere(height: int, width: int, margin: float = 0.3) -> Tensor:
    """Coordinates [1, height, width, 2] over the unit square and `margin` around it, row 0 on top."""
    v, u = torch.meshgrid(
        torch.linspace(1.0 + margin, -margin, height), torch.linspace(-margin, 1.0 + margin, width), indexing="ij"
    )
    return torch.stack([u, v], -1)[None]


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize("shape", [(16, 16, 3), (17, 9, 2), (2, 5, 7, 4), (1, 1, 3), (33, 1, 1)])
def test_kernel_equals_its_twin_in_values_and_gradients(shape, filter, wrap) -> None:
    kernels = pytest.importorskip("backend.rendering.kernels", reason="Warp has no build for this platform")
    image, uv, derivatives = scene(shape)
    weight = torch.randn(2, 11, 13, shape[-1], generator=torch.Generator().manual_seed(1))
    results = []
    for room in (kernels, reference):
        inputs = image.clone().requires_grad_(), uv.clone().requires_grad_()
        out = room.texture(*inputs, derivatives, filter, wrap, 10)
        image_grad, uv_grad = torch.autograd.grad((out * weight).sum(), inputs, allow_unused=True)
        results.append([out, image_grad, torch.zeros_like(uv) if uv_grad is None else uv_grad])
    for actual, expected in zip(*results):
        scale = max(1.0, float(expected.detach().abs().max()))
        torch.testing.assert_close(actual, expected, atol=1e-5 * scale, rtol=0.0)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("filter", ["linear", "trilinear"])
@pytest.mark.parametrize("shape", [(6, 6, 2), (2, 5, 7, 2)])
def test_gradients_of_the_twin_match_finite_differences(shape, filter, wrap) -> None:
    image, uv, derivatives = scene(shape, 3)
    image, uv, derivatives = image.double(), uv[:, :3, :3].double(), derivatives[:, :3, :3].double()

    def look_up(image: Tensor, uv: Tensor) -> Tensor:
        return reference.texture(image, uv, derivatives, filter, wrap, 10)

    assert torch.autograd.gradcheck(look_up, (image.requires_grad_(), uv.requires_grad_()), eps=1e-7, atol=1e-5)


def test_a_texel_shows_at_its_center_and_row_0_is_on_top() -> None:
    image = torch.rand(4, 8, 3)
    v, u = torch.meshgrid(1.0 - (torch.arange(4) + 0.5) / 4, (torch.arange(8) + 0.5) / 8, indexing="ij")
    for filter in ("nearest", "linear"):
        assert torch.equal(texture(image, torch.stack([u, v], -1)[None], filter=filter)[0], image)


def test_a_linear_ramp_is_reproduced_exactly() -> None:
    v, u = torch.meshgrid(1.0 - (torch.arange(16) + 0.5) / 16, (torch.arange(32) + 0.5) / 32, indexing="ij")
    uv = everywhere(37, 41, margin=-0.05).requires_grad_()
    out = texture(torch.stack([u, v, 2 * u - v], -1), uv)
    torch.testing.assert_close(out[..., :2], uv.detach(), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(out[..., 2], 2 * uv[..., 0].detach() - uv[..., 1].detach(), atol=2e-6, rtol=0.0)
    (slope,) = torch.autograd.grad(out[..., 2].sum(), uv)
    torch.testing.assert_close(slope, torch.tensor([2.0, -1.0]).expand_as(slope), atol=1e-4, rtol=0.0)


def test_wrapping_continues_the_texture_as_its_name_says() -> None:
    image = torch.rand(9, 12, 2)
    inside, flipped = everywhere(21, 21, margin=-0.01), torch.tensor([-1.0, 1.0])
    # Whole turns are exact in float32 up to the rounding of the coordinate itself.
    near = {"atol": 2e-5, "rtol": 0.0}
    expected = texture(image, inside, wrap="repeat")
    torch.testing.assert_close(texture(image, inside + torch.tensor([2.0, -1.0]), wrap="repeat"), expected, **near)
    expected = texture(image, inside, wrap="mirror")
    torch.testing.assert_close(texture(image, inside * flipped, wrap="mirror"), expected, **near)
    torch.testing.assert_close(texture(image, inside + 2.0, wrap="mirror"), expected, **near)
    outside = everywhere(33, 33, margin=0.5)
    expected = texture(image, outside.clamp(0.0, 1.0), wrap="clamp")
    torch.testing.assert_close(texture(image, outside, wrap="clamp"), expected, **near)


@pytest.mark.parametrize("wrap", WRAPS)
def test_nothing_jumps_where_the_texture_wraps(wrap) -> None:
    image = torch.rand(8, 8, 3)
    steps = torch.linspace(-1.2, 2.2, 20001)
    for axis in (0, 1):
        uv = torch.full((1, 1, 20001, 2), 0.37)
        uv[..., axis] = steps
        jumps = texture(image, uv, wrap=wrap).diff(dim=2).abs().max()
        assert jumps < 1.7e-4 * 8 * 1.01  # a step's length times the steepest slope between texels


def test_small_mip_maps_of_a_checkerboard_are_gray_and_large_ones_are_not() -> None:
    row, column = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    board = ((row + column) % 2).float()[..., None]
    uv = everywhere(32, 32, margin=-1 / 64)
    for pixel, expected in ((1.0 / 32, 1.0), (2.0 / 32, 0.0), (0.7, 0.0)):
        derivatives = torch.eye(2).mul(pixel).expand(1, 32, 32, 2, 2)
        contrast = (texture(board, uv, derivatives, filter="trilinear") - 0.5).abs().max() * 2.0
        assert contrast == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (13, 1), (255, 31)])
def test_every_mip_map_has_the_mean_of_the_texture(size) -> None:
    image = torch.rand(*size, 2, generator=torch.Generator().manual_seed(0))
    whole = torch.full((1, 1, 1, 2, 2), 0.0)
    whole[..., 0, 0] = whole[..., 1, 1] = 1e6
    out = texture(image, torch.full((1, 1, 1, 2), 0.3), whole, filter="trilinear")
    torch.testing.assert_close(out[0, 0, 0], image.mean(dim=(0, 1)), atol=1e-6, rtol=0.0)


def test_the_level_follows_the_longer_axis_of_the_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    stripes = torch.zeros(64, 64, 1)
    stripes[:, ::2] = 1.0  # level 0: full contrast; from level 1 on: gray
    uv = torch.tensor([[[[0.5 / 64 + 20 / 64, 0.5]]]])  # on the center of an even column
    for turn in torch.rand(20, generator=generator) * math.pi:
        axis = torch.stack([turn.cos(), turn.sin()])
        for length in (0.5, 1.2, 1.7, 2.0):
            longest = torch.outer(axis, torch.tensor([0.6, 0.8])) * length / 64
            shorter = torch.outer(axis.flip(0) * torch.tensor([-1.0, 1.0]), torch.tensor([-0.8, 0.6])) * 0.2 / 64
            derivatives = (longest + shorter).view(1, 1, 1, 2, 2)
            level = max(0.0, math.log2(length))
            expected = (1.0 - level) * 1.0 + level * 0.5
            assert texture(stripes, uv, derivatives, filter="trilinear").item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("filter", FILTERS)
def test_hostile_coordinates_stay_finite_and_in_range(filter, wrap) -> None:
    image = (0.25 + 0.5 * torch.rand(7, 12, 3)).requires_grad_()
    hostile = torch.tensor([math.nan, math.inf, -math.inf, 1e30, -1e30, 3e38, 1e-45, -1e-10, 1.0, 0.0, -0.0, 0.99999997])
    uv = torch.cartesian_prod(hostile, hostile).view(1, 12, 12, 2).requires_grad_()
    derivatives = hostile.repeat(48).view(1, 12, 12, 2, 2)
    out = texture(image, uv, derivatives, filter=filter, wrap=wrap)
    assert (out >= 0.25).all() and (out <= 0.75 + 1e-6).all()
    grads = torch.autograd.grad(out.sum(), (image, uv), allow_unused=True)
    assert all(grad is None or torch.isfinite(grad).all() for grad in grads)
    assert grads[0].sum().item() == pytest.approx(out.numel(), rel=1e-5)
    twin = reference.texture(image, uv, derivatives, filter, wrap, 3)
    assert torch.isfinite(twin).all() and (twin >= 0.25).all() and (twin <= 0.75 + 1e-6).all()


@pytest.mark.parametrize("size", [(64, 64), (100, 37), (1024, 1024)])
@pytest.mark.parametrize("margin", [0.5, 1.5, 2.9, 3.0, 6.5, 12.0])
def test_levels_up_to_the_safe_one_do_not_reach_beyond_the_margin(size, margin) -> None:
    """Texels `margin` or more outside a chart have another color; inside the chart nothing of it may show."""
    height, width = size
    level = highest_safe_level(height, width, margin)
    border = width // 2
    image = torch.zeros(height, width, 1)
    image[:, border + math.floor(margin) :] = 1.0
    uv = torch.full((1, 1, 50, 2), 0.5)
    uv[..., 0] = torch.linspace(border - 3.0, border, 50) / width
    derivatives = torch.full((1, 1, 50, 2, 2), 1e9)
    seen = texture(image, uv, derivatives, filter="trilinear", highest_level=level, wrap="clamp")
    assert margin < 1.5 or seen.max() <= 1e-6
    if margin >= 3.0 and width > 64:  # it is not careful for nothing: some levels further up it does blend
        beyond = texture(image, uv, derivatives, filter="trilinear", highest_level=level + 2, wrap="clamp")
        assert beyond.max() > 0.01


def test_the_gradient_reaches_the_full_texture_through_the_mip_maps() -> None:
    image = torch.rand(11, 14, 2, requires_grad=True)
    uv = everywhere(40, 40, margin=0.0)
    derivatives = torch.eye(2).mul(0.3).expand(1, 40, 40, 2, 2)
    (grad,) = torch.autograd.grad(texture(image, uv, derivatives, filter="trilinear").sum(), image)
    assert (grad > 0.0).all()
    assert grad.sum().item() == pytest.approx(2 * 1600, rel=1e-5)


def test_the_same_lookup_gives_the_same_bits() -> None:
    def once() -> list[Tensor]:
        image, uv, derivatives = scene((33, 20, 3))
        inputs = image.requires_grad_(), uv.requires_grad_()
        out = texture(*inputs, derivatives, filter="trilinear")
        return [out.detach(), *torch.autograd.grad(out.square().sum(), inputs)]

    assert all(torch.equal(one, other) for one, other in zip(once(), once()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"filter": "cubic"}, "filter is"),
        ({"wrap": "border"}, "wrap is"),
        ({"image": torch.rand(4, 4)}, "A texture must be"),
        ({"image": torch.rand(4, 0, 3)}, "4 x 0 texels"),
        ({"image": torch.rand(4, 4, 3).double()}, "float32"),
        ({"image": torch.rand(3, 4, 4, 3)}, "3 textures for 1 views"),
        ({"uv": torch.rand(1, 5, 5, 3)}, "uv must be"),
        ({"filter": "trilinear"}, "needs derivatives"),
        ({"filter": "trilinear", "derivatives": torch.rand(1, 5, 5, 2)}, "needs derivatives"),
        ({"filter": "trilinear", "derivatives": torch.rand(1, 5, 5, 2, 2), "highest_level": -1}, "highest_level"),
    ],
)
def test_what_cannot_be_looked_up_is_refused_in_a_sentence(change, words) -> None:
    arguments = {"image": torch.rand(4, 4, 3), "uv": torch.rand(1, 5, 5, 2)} | change
    with pytest.raises(InputError, match=words):
        texture(**arguments)


def test_no_pixels_are_no_trouble() -> None:
    out = texture(torch.rand(4, 4, 3, requires_grad=True), torch.zeros(0, 5, 5, 2))
    assert out.shape == (0, 5, 5, 3)
    out.sum().backward()
    assert implementation.texture(torch.rand(4, 4, 3), torch.zeros(1, 0, 5, 2), None, "linear", "repeat", 0).numel() == 0
