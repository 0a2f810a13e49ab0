"""The sRGB transfer function (IEC 61966-2-1): between linear light and values as displayed, Blender's "Standard" view."""

from __future__ import annotations

import torch
from torch import Tensor


def to_display(linear: Tensor) -> Tensor:
    """Linear light as displayed, in [0, 1]: what is brighter than white is white and has no gradient."""
    linear = linear.clamp(0.0, 1.0)
    curve = 1.055 * linear.clamp_min(0.0031308) ** (1.0 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curve)


def to_linear(displayed: Tensor) -> Tensor:
    """Displayed values as linear light; values outside [0, 1] count as the nearest in it."""
    displayed = displayed.clamp(0.0, 1.0)
    curve = ((displayed.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4
    return torch.where(displayed <= 0.04045, displayed / 12.92, curve)
