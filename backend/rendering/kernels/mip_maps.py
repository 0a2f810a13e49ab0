"""Mip maps of a texture: each half as large as the one before, texels averaged over equal shares, and the gradient back.

The levels 1 and up lie one after the other in one buffer, the pyramid; level 0 is the image itself and is not copied.
"""

import torch
import warp as wp
from torch import Tensor

from backend.rendering.kernels.runtime import kernel_module, launch

module = kernel_module("mip_maps")


@wp.func
def overlap(fine: int, coarse: int, fine_size: int, coarse_size: int):
    """The share of a coarse texel, along one axis, that a fine texel covers."""
    low = wp.max(fine * coarse_size, coarse * fine_size)
    high = wp.min((fine + 1) * coarse_size, (coarse + 1) * fine_size)
    return float(wp.max(high - low, 0)) / float(fine_size)


@wp.kernel(module=module)
def shrink_forward(
    fine: wp.array(dtype=float),
    fine_first: int,
    fine_per_view: int,
    fine_height: int,
    fine_width: int,
    coarse_first: int,
    coarse_per_view: int,
    coarse_height: int,
    coarse_width: int,
    channels: int,
    coarse: wp.array(dtype=float),
):
    texel = wp.tid()
    column = texel % coarse_width
    row = (texel // coarse_width) % coarse_height
    view = texel // (coarse_width * coarse_height)
    target = view * coarse_per_view + coarse_first + (row * coarse_width + column) * channels
    first = view * fine_per_view + fine_first
    if fine_height == 2 * coarse_height and fine_width == 2 * coarse_width:
        upper = first + 2 * (row * fine_width + column) * channels
        lower = upper + fine_width * channels
        for c in range(channels):
            pair = fine[upper + c] + fine[upper + channels + c]
            coarse[target + c] = 0.25 * (pair + fine[lower + c] + fine[lower + channels + c])
        return
    top = row * fine_height // coarse_height
    bottom = ((row + 1) * fine_height - 1) // coarse_height + 1
    left = column * fine_width // coarse_width
    right = ((column + 1) * fine_width - 1) // coarse_width + 1
    for y in range(top, bottom):
        share = overlap(y, row, fine_height, coarse_height)
        for x in range(left, right):
            weight = share * overlap(x, column, fine_width, coarse_width)
            source = first + (y * fine_width + x) * channels
            for c in range(channels):
                coarse[target + c] += weight * fine[source + c]


@wp.kernel(module=module)
def shrink_backward(
    grad_coarse: wp.array(dtype=float),
    fine_first: int,
    fine_per_view: int,
    fine_height: int,
    fine_width: int,
    coarse_first: int,
    coarse_per_view: int,
    coarse_height: int,
    coarse_width: int,
    channels: int,
    grad_fine: wp.array(dtype=float),
):
    texel = wp.tid()
    column = texel % fine_width
    row = (texel // fine_width) % fine_height
    view = texel // (fine_width * fine_height)
    target = view * fine_per_view + fine_first + (row * fine_width + column) * channels
    first = view * coarse_per_view + coarse_first
    if fine_height == 2 * coarse_height and fine_width == 2 * coarse_width:
        source = first + ((row // 2) * coarse_width + column // 2) * channels
        for c in range(channels):
            grad_fine[target + c] += 0.25 * grad_coarse[source + c]
        return
    top = row * coarse_height // fine_height
    bottom = ((row + 1) * coarse_height - 1) // fine_height + 1
    left = column * coarse_width // fine_width
    right = ((column + 1) * coarse_width - 1) // fine_width + 1
    for y in range(top, bottom):
        share = overlap(row, y, fine_height, coarse_height)
        for x in range(left, right):
            weight = share * overlap(column, x, fine_width, coarse_width)
            source = first + (y * coarse_width + x) * channels
            for c in range(channels):
                grad_fine[target + c] += weight * grad_coarse[source + c]


def level_sizes(height: int, width: int, highest: int) -> list[tuple[int, int]]:
    """Height and width of the levels 0 to `highest`: halved and rounded down, until both are 1."""
    sizes = [(height, width)]
    while len(sizes) <= highest and sizes[-1] != (1, 1):
        sizes.append((max(1, sizes[-1][0] // 2), max(1, sizes[-1][1] // 2)))
    return sizes


def build_pyramid(image: Tensor, sizes: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Levels 1 and up, `[N or 1, numbers]`, and where each level lies: offset in texels, height, width, `[L, 3]`."""
    offsets = _offsets(sizes)
    table = [(offset, *size) for offset, size in zip(offsets, sizes)]
    levels = torch.tensor(table, dtype=torch.int32).to(image.device)
    views, channels = image.shape[0] if image.dim() == 4 else 1, image.shape[-1]
    pyramid = image.new_zeros(views, sum(height * width for height, width in sizes[1:]) * channels)
    for level in range(1, len(sizes)):
        coarse = sizes[level][0] * sizes[level][1]
        fine = image if level == 1 else pyramid
        launch(shrink_forward, views * coarse, [fine, *_between(level, sizes, offsets, image, pyramid), pyramid])
    return pyramid, levels


def pyramid_backward(grad_pyramid: Tensor, grad_image: Tensor, sizes: list[tuple[int, int]]) -> None:
    """Add the gradient of every level to the level below it, down to the image."""
    offsets = _offsets(sizes)
    for level in range(len(sizes) - 1, 0, -1):
        fine = sizes[level - 1][0] * sizes[level - 1][1]
        target = grad_image if level == 1 else grad_pyramid
        numbers = _between(level, sizes, offsets, grad_image, grad_pyramid)
        launch(shrink_backward, grad_pyramid.shape[0] * fine, [grad_pyramid, *numbers, target])


def _offsets(sizes: list[tuple[int, int]]) -> list[int]:
    """Texels of the pyramid before each level; level 0 is not part of it."""
    offsets = [0, 0]
    for height, width in sizes[1:]:
        offsets.append(offsets[-1] + height * width)
    return offsets[: len(sizes)]


def _between(
    level: int, sizes: list[tuple[int, int]], offsets: list[int], image: Tensor, pyramid: Tensor
) -> list[int]:
    """What the shrink kernels ask for of `level` and the finer one below it: first number, numbers a view, size."""
    channels = image.shape[-1]
    fine_per_view = image.shape[-3] * image.shape[-2] * channels if level == 1 else pyramid.shape[1]
    return [
        *(offsets[level - 1] * channels, fine_per_view, *sizes[level - 1]),
        *(offsets[level] * channels, pyramid.shape[1], *sizes[level]),
        channels,
    ]
