"""Lambert shading of vertex colors under one lamp, fused with interpolation, with its checks."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.errors import InputError
from backend.rendering.fragments import Fragments
from backend.rendering.implementation import implementation
from backend.rendering.lighting import Light, Shading


def shade(
    colors: Tensor, normals: Tensor, fragments: Fragments, faces: Tensor, light: Light, shading: Shading
) -> Tensor:
    """Premultiplied color and coverage `[N, H, W, 4]` of each fragment, before antialiasing.

    Interpolates vertex `colors` and unit `normals` (both `[V, 3]`) and shades them under `light`: "lit" (color times
    light), "albedo" (color), "textureless" (light on white) or "normal" (`n / 2 + 1/2`). The gradient flows to colors,
    normals and barycentrics, not to the light.

    Raises:
        InputError: colors or normals have another shape or type, or are not equally many.
    """
    for name, values in (("colors", colors), ("normals", normals)):
        if values.dim() != 2 or values.shape[1] != 3 or values.dtype != torch.float32:
            raise InputError(f"{name} must be float32 of shape [V, 3], not {values.dtype} {list(values.shape)}.")
    if len(colors) != len(normals):
        raise InputError(f"There are {len(colors)} colors and {len(normals)} normals; give one of each for every vertex.")
    args = (colors, normals, fragments.barycentrics, fragments.face_id, faces, light.direction, light.ambient)
    return implementation.shade(*args, shading)
