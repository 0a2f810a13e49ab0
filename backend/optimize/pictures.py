"""Pictures of a mesh for people: even light, transparent background, none of the job's random numbers."""

from __future__ import annotations

import numpy as np
import torch

from backend.cameras import Cameras
from backend.rendering import Light, render_mesh
from backend.representations.mesh_data import MeshData

AMBIENT = 0.55
GRAY = 0.6


@torch.no_grad()
def render_views(mesh: MeshData, azimuths: list[float], elevation: float, size: int) -> np.ndarray:
    """[N, size, size, 4] u8, straight (not premultiplied) alpha; lit from above the camera's left shoulder."""
    cameras = Cameras.orbit(azimuths, elevation)
    shoulder = torch.tensor([-0.35, 0.5, 1.0])
    rotation = cameras.camera_to_world()[:, :3, :3]
    direction = torch.nn.functional.normalize(rotation @ shoulder, dim=-1)
    positions = torch.from_numpy(np.ascontiguousarray(mesh.positions, np.float32))
    colors = np.full_like(mesh.positions, GRAY) if mesh.colors is None else mesh.colors
    rendered = render_mesh(
        positions,
        torch.from_numpy(np.ascontiguousarray(mesh.faces, np.int32)),
        torch.from_numpy(np.ascontiguousarray(colors, np.float32)),
        cameras,
        size,
        light=Light(direction, torch.full((len(cameras),), AMBIENT)),
        supersample=2,
    )
    straight = rendered.rgb / rendered.alpha.clamp_min(1e-4)
    rgba = torch.cat([straight, rendered.alpha], -1).clamp(0, 1)
    return (rgba * 255).round().to(torch.uint8).numpy()
