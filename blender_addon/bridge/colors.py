"""Between colors as displayed (sRGB, what the wire carries) and linear ones (what Blender's float colors hold).

IEC 61966-2-1's transfer curve, as Blender's own `color_srgb` has it.
"""

from __future__ import annotations

import numpy as np

GRAY = 0.8
"""What has no color of its own, on the wire: the gray that jobs begin with."""


def to_linear(displayed: np.ndarray) -> np.ndarray:
    """Displayed values in [0, 1] -> linear, of the same shape, float32."""
    displayed = np.asarray(displayed, dtype=np.float32)
    return np.where(displayed <= 0.04045, displayed / 12.92, ((displayed + 0.055) / 1.055) ** 2.4).astype(np.float32)


def to_displayed(linear: np.ndarray) -> np.ndarray:
    """Linear values -> displayed ones in [0, 1], of the same shape, float32; what is brighter than white becomes white."""
    linear = np.nan_to_num(np.asarray(linear, dtype=np.float32), nan=0.0).clip(0.0, 1.0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055).clip(0.0, 1.0).astype(np.float32)
