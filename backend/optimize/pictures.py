"""Pictures of a mesh for people: even light, transparent background, none of the job's random numbers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import Light, Rendered, build_topology, render_material, render_mesh
from backend.rendering.lighting import Shading
from backend.rendering.material import Material
from backend.representations.material_tensors import to_tensors
from backend.representations.mesh_data import MeshData

AMBIENT = 0.55
GRAY = 0.6


class ShownMesh:
    """A finished mesh on a device, to be rendered often; gray where it has no colors."""

    def __init__(self, mesh: MeshData, device: torch.device | str = "cpu") -> None:
        self._surface = _tensor(mesh.positions, device), _tensor(mesh.faces, device)
        self._topology = build_topology(self._surface[1])
        self._textured: tuple[Tensor, Tensor, Material] | None = None
        if mesh.material is not None and mesh.uvs is not None:
            self._textured = _tensor(mesh.uvs, device), _tensor(mesh.uv_faces, device), to_tensors(mesh.material, device)
        else:
            self._colors = _tensor(np.full_like(mesh.positions, GRAY) if mesh.colors is None else mesh.colors, device)

    @torch.no_grad()
    def render(self, cameras: Cameras, size: int, light: Light, shading: Shading = "lit", supersample: int = 2) -> Rendered:
        how = {"shading": shading, "topology": self._topology, "supersample": supersample}
        if self._textured is not None:
            return render_material(*self._surface, *self._textured, cameras, size, illumination=light, **how)
        return render_mesh(*self._surface, self._colors, cameras, size, light=light, **how)


@torch.no_grad()
def render_views(mesh: MeshData, azimuths: list[float], elevation: float, size: int) -> np.ndarray:
    """[N, size, size, 4] u8, straight (not premultiplied) alpha; lit from above the camera's left shoulder."""
    cameras = Cameras.orbit(azimuths, elevation)
    rendered = ShownMesh(mesh).render(cameras, size, even_light(cameras))
    straight = rendered.rgb / rendered.alpha.clamp_min(1e-4)
    rgba = torch.cat([straight, rendered.alpha], -1).clamp(0, 1)
    return (rgba * 255).round().to(torch.uint8).numpy()


def even_light(cameras: Cameras) -> Light:
    """A lamp above each camera's left shoulder, and much ambient light."""
    shoulder = torch.tensor([-0.35, 0.5, 1.0], device=cameras.azimuth.device)
    rotation = cameras.camera_to_world()[:, :3, :3]
    direction = torch.nn.functional.normalize(rotation @ shoulder, dim=-1)
    return Light(direction, torch.full_like(direction[:, 0], AMBIENT))


def _tensor(values: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device)
