"""Depth of a surface with gradients: what `Rendered.depth` is, without antialiasing and differentiable in the vertices."""

from __future__ import annotations

import torch
from torch import Tensor

from backend.rendering.operators import interpolate, rasterize
from backend.rendering.render import ViewCameras, to_clip_space


def surface_depth(vertices: Tensor, faces: Tensor, cameras: ViewCameras, resolution: int) -> Tensor:
    """Distance along the viewing axis to the nearest surface at pixel centers, [N, R, R]; infinite on the background.

    `vertices` [V, 3] and `faces` [F, 3] as in `render_mesh`. The gradient is that of the point which a pixel's ray meets:
    of the plane through the face's vertices. Which face is seen has none, so silhouettes are moved by other losses.

    Raises:
        InputError: shapes or types do not fit.
    """
    clip = to_clip_space(vertices, cameras.clip_matrix())
    fragments = rasterize(clip, faces, resolution, resolution)
    along = interpolate(clip[..., 3:], fragments, faces)[..., 0]  # w of a clip position is its distance along the axis
    return torch.where(fragments.face_id >= 0, along, torch.inf)
