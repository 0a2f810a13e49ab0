"""The reference picture of a prior that looks at pictures: checked, square, cut out or on white."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.errors import InputError
from backend.priors.images import resize
from backend.priors.prior import ReferenceView

SMALLEST_SIDE = 16


def reference_picture(image: Tensor) -> Tensor:
    """`image` [H, W, 4], straight RGBA in [0, 1], over white: [1, 3, S, S] in [0, 1], float32.

    Raises:
        InputError: as `cut_out_picture`.
    """
    premultiplied = cut_out_picture(image)
    return premultiplied[:, :3] + 1 - premultiplied[:, 3:]


def cut_out_picture(image: Tensor) -> Tensor:
    """`image` [H, W, 4], straight RGBA in [0, 1], as [1, 4, S, S], premultiplied, float32.

    A picture that is not square gets transparent bands on both sides of its shorter dimension. No model moves or scales the
    object: it should fill most of the picture and be seen whole.

    Raises:
        InputError: it is no such picture, too small, or shows nothing.
    """
    if image.dim() != 3 or image.shape[-1] != 4 or min(image.shape[:2]) < SMALLEST_SIDE:
        raise InputError(
            f"The reference picture has the shape {list(image.shape)}; expected [height, width, 4] with red, green, blue and "
            f"alpha, of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels. Save it as a PNG with transparency."
        )
    image = image.float()
    if not bool(((image >= 0) & (image <= 1)).all()):
        raise InputError("The reference picture has values outside [0, 1] or that are no numbers. Divide 8-bit values by 255.")
    if not bool((image[..., 3] > 0.5).any()):
        raise InputError("The reference picture shows nothing: its alpha is below one half everywhere. Choose another picture.")
    height, width = image.shape[:2]
    side = max(height, width)
    above, left = (side - height) // 2, (side - width) // 2
    square = F.pad(image, (0, 0, left, side - width - left, above, side - height - above))
    return torch.cat([square[..., :3] * square[..., 3:], square[..., 3:]], -1).permute(2, 0, 1)[None]


def picture_latents_input(picture: Tensor, size: int) -> Tensor:
    """[1, 3, S, S] in [0, 1] -> [1, 3, size, size] in [-1, 1], as autoencoders want it."""
    return resize(picture, size) * 2 - 1


def needs_reference(name: str) -> InputError:
    """What an image-conditioned prior raises when it is asked before it has a picture."""
    return InputError(
        f"The prior {name!r} makes views of an object in a picture and has none yet. Give it a reference picture first."
    )


def only_reference(name: str, references: Sequence[ReferenceView]) -> ReferenceView:
    """The one picture that a prior of this kind can look at.

    Raises:
        InputError: there is not exactly one.
    """
    if len(references) != 1:
        raise InputError(
            f"The prior {name!r} looks at exactly one reference picture and was given {len(references)}. Leave one, or choose a "
            "prior that looks at several, such as toybox."
        )
    return references[0]
