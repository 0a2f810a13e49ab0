"""From renders to the square images a prior looks at: composited, channels first, in the prior's size."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from backend.priors.prior import RenderedViews


def composite(rendered: RenderedViews, background: Tensor) -> Tensor:
    """`rgb + (1 - alpha) background` as [N, 3, H, W]; `rgb` is premultiplied, `background` is [N, 3] in [0, 1]."""
    image = rendered.rgb + (1 - rendered.alpha) * background[:, None, None, :]
    return image.permute(0, 3, 1, 2)


def resize(images: Tensor, size: int) -> Tensor:
    """[N, c, H, W] -> [N, c, size, size], bilinear and antialiased; the same tensor if it already has that size."""
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
