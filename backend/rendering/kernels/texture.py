"""Texture lookup (nearest, bilinear, trilinear) and its gradient. Backward adds with atomics: pixels share texels."""

import torch
import warp as wp
from torch import Tensor

from backend.rendering.kernels.mip_maps import build_pyramid, level_sizes, pyramid_backward
from backend.rendering.kernels.runtime import kernel_module, launch, rows

module = kernel_module("texture")

NEAREST = wp.constant(0)
LINEAR = wp.constant(1)
TRILINEAR = wp.constant(2)
REPEAT = wp.constant(0)
CLAMP = wp.constant(1)
MIRROR = wp.constant(2)

FILTERS = {"nearest": NEAREST, "linear": LINEAR, "trilinear": TRILINEAR}
WRAPS = {"repeat": REPEAT, "clamp": CLAMP, "mirror": MIRROR}


@wp.func
def fold(coordinate: float, wrap: int):
    """The coordinate inside [0, 1] that shows the same, and its slope; 0 with slope 0 for one that is not finite."""
    if not wp.isfinite(coordinate):
        return 0.0, 0.0
    if wrap == REPEAT:
        return coordinate - wp.floor(coordinate), 1.0
    if wrap == MIRROR:
        turned = coordinate - 2.0 * wp.floor(coordinate * 0.5)
        if turned > 1.0:
            return 2.0 - turned, -1.0
        return turned, 1.0
    return wp.clamp(coordinate, 0.0, 1.0), 1.0


@wp.func
def neighbors(coordinate: float, size: int, wrap: int):
    """The two texels whose centers enclose a folded coordinate, and how far it is from the first to the second."""
    place = coordinate * float(size) - 0.5
    floor = wp.floor(place)
    first = int(floor)
    second = first + 1
    if wrap == REPEAT:
        if first < 0:
            first = size - 1
        if second >= size:
            second = 0
    else:
        first = wp.max(first, 0)
        second = wp.min(second, size - 1)
    return first, second, place - floor


@wp.func
def mip_level(change: wp.vec4, height: int, width: int, highest: int):
    """log2 of the longer axis, in texels, of the ellipse that a pixel covers: the larger singular value."""
    a = change[0] * float(width)
    b = change[1] * float(width)
    c = change[2] * float(height)
    d = change[3] * float(height)
    e = a + d
    f = a - d
    g = c + b
    h = c - b
    longest = 0.5 * (wp.sqrt(e * e + h * h) + wp.sqrt(f * f + g * g))
    if longest > 1.0:  # false for NaN
        return wp.min(wp.log2(longest), float(highest))
    return 0.0


@wp.func
def corners(row: float, column: float, first: int, height: int, width: int, channels: int, wrap: int):
    """Where the four texels around a folded place begin (left to right, upper row first), and the place between them."""
    left, right, s = neighbors(column, width, wrap)
    top, bottom, t = neighbors(row, height, wrap)
    upper = first + top * width * channels
    lower = first + bottom * width * channels
    index = wp.vec4i(upper + left * channels, upper + right * channels, lower + left * channels, lower + right * channels)
    return index, s, t


@wp.func
def blended(texels: wp.array(dtype=float), index: wp.vec4i, s: float, t: float, c: int):
    upper = texels[index[0] + c] * (1.0 - s) + texels[index[1] + c] * s
    lower = texels[index[2] + c] * (1.0 - s) + texels[index[3] + c] * s
    return upper * (1.0 - t) + lower * t


@wp.func
def nearest(row: float, column: float, first: int, height: int, width: int, channels: int):
    i = wp.min(int(row * float(height)), height - 1)
    j = wp.min(int(column * float(width)), width - 1)
    return first + (i * width + j) * channels


@wp.kernel(module=module)
def texture_forward(
    image: wp.array(dtype=float),
    pyramid: wp.array(dtype=float),
    levels: wp.array(dtype=wp.vec3i),
    uv: wp.array(dtype=wp.vec2),
    derivatives: wp.array(dtype=wp.vec4),
    channels: int,
    pixels_per_view: int,
    image_per_view: int,
    pyramid_per_view: int,
    highest: int,
    mode: int,
    wrap: int,
    out: wp.array(dtype=float),
):
    pixel = wp.tid()
    view = pixel // pixels_per_view
    place = uv[pixel]
    column, column_slope = fold(place[0], wrap)
    row, row_slope = fold(1.0 - place[1], wrap)
    target = pixel * channels
    first = view * image_per_view
    full = levels[0]
    if mode == NEAREST:
        source = nearest(row, column, first, full[1], full[2], channels)
        for c in range(channels):
            out[target + c] = image[source + c]
        return
    level = float(0.0)
    if mode == TRILINEAR:
        level = mip_level(derivatives[pixel], full[1], full[2], highest)
    lower = int(level)
    blend = level - float(lower)
    if lower == 0:
        index, s, t = corners(row, column, first, full[1], full[2], channels, wrap)
        for c in range(channels):
            out[target + c] = (1.0 - blend) * blended(image, index, s, t, c)
    else:
        size = levels[lower]
        start = view * pyramid_per_view + size[0] * channels
        index, s, t = corners(row, column, start, size[1], size[2], channels, wrap)
        for c in range(channels):
            out[target + c] = (1.0 - blend) * blended(pyramid, index, s, t, c)
    if blend > 0.0:
        size = levels[lower + 1]
        start = view * pyramid_per_view + size[0] * channels
        index, s, t = corners(row, column, start, size[1], size[2], channels, wrap)
        for c in range(channels):
            out[target + c] += blend * blended(pyramid, index, s, t, c)


@wp.func
def pull_texels(
    texels: wp.array(dtype=float), grad_out: wp.array(dtype=float), source: int, channels: int, index: wp.vec4i
):
    """For each of four texels: the sum over channels of its value times the pixel's gradient."""
    pulled = wp.vec4(0.0)
    for c in range(channels):
        g = grad_out[source + c]
        pulled += g * wp.vec4(texels[index[0] + c], texels[index[1] + c], texels[index[2] + c], texels[index[3] + c])
    return pulled


@wp.func
def push_texels(
    grad: wp.array(dtype=float),
    grad_out: wp.array(dtype=float),
    source: int,
    channels: int,
    index: wp.vec4i,
    weights: wp.vec4,
):
    for c in range(channels):
        g = grad_out[source + c]
        for corner in range(4):
            wp.atomic_add(grad, index[corner] + c, weights[corner] * g)


@wp.kernel(module=module)
def texture_backward(
    grad_out: wp.array(dtype=float),
    image: wp.array(dtype=float),
    pyramid: wp.array(dtype=float),
    levels: wp.array(dtype=wp.vec3i),
    uv: wp.array(dtype=wp.vec2),
    derivatives: wp.array(dtype=wp.vec4),
    channels: int,
    pixels_per_view: int,
    image_per_view: int,
    pyramid_per_view: int,
    highest: int,
    mode: int,
    wrap: int,
    with_image: int,
    with_uv: int,
    grad_image: wp.array(dtype=float),
    grad_pyramid: wp.array(dtype=float),
    grad_uv: wp.array(dtype=wp.vec2),
):
    pixel = wp.tid()
    source = pixel * channels
    largest = float(0.0)
    for c in range(channels):
        largest = wp.max(largest, wp.abs(grad_out[source + c]))
    if largest == 0.0:
        return
    view = pixel // pixels_per_view
    place = uv[pixel]
    column, column_slope = fold(place[0], wrap)
    row, row_slope = fold(1.0 - place[1], wrap)
    full = levels[0]
    if mode == NEAREST:
        target = nearest(row, column, view * image_per_view, full[1], full[2], channels)
        if with_image != 0:
            for c in range(channels):
                wp.atomic_add(grad_image, target + c, grad_out[source + c])
        return
    level = float(0.0)
    if mode == TRILINEAR:
        level = mip_level(derivatives[pixel], full[1], full[2], highest)
    lower = int(level)
    blend = level - float(lower)
    grad = wp.vec2(0.0)
    for k in range(2):
        weight = 1.0 - blend
        if k == 1:
            weight = blend
        if weight > 0.0:
            size = levels[wp.min(lower + k, highest)]
            first = view * image_per_view
            if lower + k > 0:
                first = view * pyramid_per_view + size[0] * channels
            index, s, t = corners(row, column, first, size[1], size[2], channels, wrap)
            if with_image != 0:
                weights = weight * wp.vec4((1.0 - s) * (1.0 - t), s * (1.0 - t), (1.0 - s) * t, s * t)
                if lower + k == 0:
                    push_texels(grad_image, grad_out, source, channels, index, weights)
                else:
                    push_texels(grad_pyramid, grad_out, source, channels, index, weights)
            if with_uv != 0:
                pulled = wp.vec4(0.0)
                if lower + k == 0:
                    pulled = pull_texels(image, grad_out, source, channels, index)
                else:
                    pulled = pull_texels(pyramid, grad_out, source, channels, index)
                along_x = (1.0 - t) * (pulled[1] - pulled[0]) + t * (pulled[3] - pulled[2])
                along_y = (1.0 - s) * (pulled[2] - pulled[0]) + s * (pulled[3] - pulled[1])
                grad += weight * wp.vec2(
                    column_slope * float(size[2]) * along_x, -row_slope * float(size[1]) * along_y
                )
    if with_uv != 0:
        grad_uv[pixel] = grad


class _Texture(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image: Tensor, uv: Tensor, derivatives: Tensor | None, mode: int, wrap: int, highest: int) -> Tensor:
        image, uv = image.contiguous(), uv.contiguous()
        sizes = level_sizes(image.shape[-3], image.shape[-2], highest)
        pyramid, levels = build_pyramid(image, sizes)
        derivatives = uv.new_zeros(1, 4) if derivatives is None else derivatives.reshape(-1, 4).contiguous()
        channels = image.shape[-1]
        out = torch.zeros((*uv.shape[:-1], channels), device=uv.device)
        numbers = [
            channels,
            uv.shape[1] * uv.shape[2],
            image[0].numel() if image.dim() == 4 else 0,
            pyramid.shape[1] if image.dim() == 4 else 0,
            len(sizes) - 1,
            mode,
            wrap,
        ]
        launch(
            texture_forward,
            uv.numel() // 2,
            [image, pyramid, rows(levels), rows(uv), rows(derivatives), *numbers, out],
        )
        ctx.save_for_backward(image, pyramid, levels, uv, derivatives)
        ctx.sizes, ctx.numbers = sizes, numbers
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        image, pyramid, levels, uv, derivatives = ctx.saved_tensors
        with_image, with_uv = ctx.needs_input_grad[:2]
        grad_image = torch.zeros_like(image) if with_image else image.new_zeros(1)
        grad_pyramid = torch.zeros_like(pyramid) if with_image else image.new_zeros(1)
        grad_uv = torch.zeros_like(uv) if with_uv else uv.new_zeros(1, 2)
        launch(
            texture_backward,
            uv.numel() // 2,
            [grad_out.contiguous(), image, pyramid, rows(levels), rows(uv), rows(derivatives), *ctx.numbers]
            + [int(with_image), int(with_uv), grad_image, grad_pyramid, rows(grad_uv)],
        )
        if with_image:
            pyramid_backward(grad_pyramid, grad_image, ctx.sizes)
        return grad_image if with_image else None, grad_uv if with_uv else None, None, None, None, None


def texture(image: Tensor, uv: Tensor, derivatives: Tensor | None, filter: str, wrap: str, highest: int) -> Tensor:
    """`[N, H, W, C]`; see `backend.rendering.texture`. Levels above `highest` are not used."""
    return _Texture.apply(image, uv, derivatives, int(FILTERS[filter]), int(WRAPS[wrap]), highest)
