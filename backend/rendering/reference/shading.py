"""Lambert shading of interpolated colors and normals, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.constants import SMALLEST_LENGTH
from backend.rendering.reference.interpolation import interpolate


def shade(
    colors: Tensor,
    normals: Tensor,
    barycentrics: Tensor,
    face_ids: Tensor,
    faces: Tensor,
    light: Tensor,
    ambient: Tensor,
    shading: str,
) -> Tensor:
    """`[N, H, W, 4]` premultiplied color and coverage; see `backend.rendering.shade`."""
    covered = (face_ids >= 0)[..., None].to(colors.dtype)
    rgb = covered.expand(-1, -1, -1, 3)
    if shading in ("lit", "albedo"):
        rgb = interpolate(colors, barycentrics, face_ids, faces)
    if shading != "albedo":
        seen = interpolate(normals, barycentrics, face_ids, faces)
        seen = torch.nn.functional.normalize(seen, dim=-1, eps=SMALLEST_LENGTH)
        if shading == "normal":
            rgb = (0.5 * seen + 0.5) * covered
        else:
            cosine = (seen * light[:, None, None, :]).sum(dim=-1, keepdim=True).clamp_min(0)
            share = ambient[:, None, None, None]
            rgb = rgb * (share + (1 - share) * cosine)
    return torch.cat([rgb, covered], dim=-1)
