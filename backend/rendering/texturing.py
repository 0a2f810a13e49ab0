"""Looking up textures, with the checks: nearest, bilinear and trilinear filtering, and which mip maps keep seams apart."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.implementation import implementation

Filter = Literal["nearest", "linear", "trilinear"]
Wrap = Literal["repeat", "clamp", "mirror"]

LARGEST_TEXTURE = 16384
MOST_NUMBERS = 2**31


def texture(
    image: Tensor,
    uv: Tensor,
    derivatives: Tensor | None = None,
    *,
    filter: Filter = "linear",
    wrap: Wrap = "repeat",
    highest_level: int | None = None,
) -> Tensor:
    """The texture's value at each pixel, `[N, H, W, C]`; differentiable in `image` and `uv` (`nearest`: in `image`).

    Texel (row i, column j) has its center at u = (j + 1/2) / Wt, v = 1 - (i + 1/2) / Ht: row 0 is on top, v grows
    upward. A coordinate that is not finite reads as 0 and has no gradient.

    Trilinear filtering blends two mip maps, each half as large as the one before (rounded down; texels are averages over
    equal shares, so for odd sizes over up to 3 x 3 texels). The level is log2 of the length in texels of the longer axis
    of the ellipse that a pixel covers (the larger singular value of `derivatives` scaled by the texture's size); no
    gradient flows through the level (Williams 1983; as in Laine et al. 2020).

    Args:
        image: `[Ht, Wt, C]` float32 for all views, or `[N, Ht, Wt, C]`.
        uv: `[N, H, W, 2]` float32.
        derivatives: `[N, H, W, 2, 2]`, change of (u, v) from pixel to pixel, to the right and downward; for "trilinear",
            as `screen_derivatives` gives them.
        filter: "nearest", "linear" or "trilinear".
        wrap: what lies outside [0, 1]: "repeat", "clamp" or "mirror".
        highest_level: no smaller mip map than this is read, so that charts of different colors with little room between
            them do not blend; `highest_safe_level` computes it. All levels if it is not given.

    Raises:
        InputError: shapes, types or devices do not fit, a word is not one of those above, derivatives are missing, or
            there are more than 2^31 numbers.
    """
    _check(image, uv, filter, wrap)
    if filter != "trilinear":
        return implementation.texture(image, uv, None, filter, wrap, 0)
    if derivatives is None or derivatives.shape != (*uv.shape, 2) or derivatives.dtype != torch.float32:
        given = "nothing" if derivatives is None else f"{derivatives.dtype} {list(derivatives.shape)}"
        raise InputError(f"trilinear filtering needs derivatives as float32 of shape {[*uv.shape, 2]}, not {given}.")
    if highest_level is not None and highest_level < 0:
        raise InputError(f"highest_level is {highest_level}; give 0 (the full texture) or more.")
    last = max(image.shape[-3:-1]).bit_length() - 1
    highest = last if highest_level is None else min(highest_level, last)
    return implementation.texture(image, uv, derivatives.detach(), filter, wrap, highest)


def highest_safe_level(height: int, width: int, margin: float) -> int:
    """The smallest mip map of a `height` x `width` texture that can be read inside a chart without reading another one.

    A bilinear lookup reaches less than 1.5 texels of its level in each direction, which is 1.5 `size` / `level size`
    texels of the texture; `margin` texels around each chart must hold its own color (half the room between charts).
    """
    level, sizes = 0, (height, width)
    while sizes != (1, 1):
        sizes = (max(1, sizes[0] // 2), max(1, sizes[1] // 2))
        if 1.5 * max(height / sizes[0], width / sizes[1]) > margin:
            break
        level += 1
    return level


def _check(image: Tensor, uv: Tensor, filter: str, wrap: str) -> None:
    if filter not in get_args(Filter):
        raise InputError(f'filter is "{filter}"; use "nearest", "linear" or "trilinear".')
    if wrap not in get_args(Wrap):
        raise InputError(f'wrap is "{wrap}"; use "repeat", "clamp" or "mirror".')
    if uv.dim() != 4 or uv.shape[3] != 2 or uv.dtype != torch.float32:
        raise InputError(f"uv must be float32 of shape [N, H, W, 2], not {uv.dtype} {list(uv.shape)}.")
    if image.dim() not in (3, 4) or image.dtype != torch.float32:
        raise InputError(
            f"A texture must be float32 of shape [Ht, Wt, C] or [N, Ht, Wt, C], not {image.dtype} {list(image.shape)}."
        )
    height, width, channels = image.shape[-3:]
    if not (1 <= height <= LARGEST_TEXTURE and 1 <= width <= LARGEST_TEXTURE and channels >= 1):
        raise InputError(
            f"The texture has {height} x {width} texels of {channels} channels; use 1 to {LARGEST_TEXTURE} a side."
        )
    if image.dim() == 4 and image.shape[0] != uv.shape[0]:
        raise InputError(f"There are {image.shape[0]} textures for {uv.shape[0]} views; give one, or one for each view.")
    if image.device != uv.device:
        raise InputError(f"The texture is on {image.device}, but uv is on {uv.device}; move them to one device.")
    if image.numel() >= MOST_NUMBERS or math.prod(uv.shape[:3]) * channels >= MOST_NUMBERS:
        raise InputError("The texture or the picture has more than 2^31 numbers; use smaller ones or fewer channels.")
