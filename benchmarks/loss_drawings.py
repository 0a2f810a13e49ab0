"""How results that losses are shown on are drawn: two views [2, SIZE, SIZE, 3] of a mesh on white."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.optimize.pictures import even_light
from backend.rendering import rasterize, render_mesh
from backend.rendering.lighting import Shading
from backend.representations.mesh_data import MeshData

SIZE = 176
FOV = 30.0
AZIMUTHS = [25.0, 145.0]
ELEVATION = 15.0
LINE = 0.06
"""Width of a drawn edge as a share of the height of its triangle."""


def colors(mesh: MeshData) -> np.ndarray:
    """As it looks: lit."""
    return _drawn(mesh, "lit")


def unlit(mesh: MeshData) -> np.ndarray:
    """Its colors alone."""
    return _drawn(mesh, "albedo")


def normals(mesh: MeshData) -> np.ndarray:
    """Its shape alone: gray, every face lit by its own normal, so that no bend is smoothed over."""
    flat = _split(mesh)
    return _drawn(flat, "textureless")


def wires(mesh: MeshData) -> np.ndarray:
    """Its shape alone, with its edges."""
    images = _drawn(mesh, "textureless").copy()
    cameras = Cameras.orbit(AZIMUTHS, ELEVATION, fov=FOV)
    positions = torch.from_numpy(mesh.positions)
    homogeneous = torch.cat([positions, torch.ones(len(positions), 1)], dim=1)
    clip = homogeneous @ cameras.clip_matrix().transpose(1, 2)
    fragments = rasterize(clip, torch.from_numpy(mesh.faces), SIZE, SIZE)
    edge = (fragments.face_id >= 0) & (fragments.barycentrics.amin(-1) < LINE)
    images[edge.numpy()] = images[edge.numpy()] // 3
    return images


@torch.no_grad()
def _drawn(mesh: MeshData, shading: Shading) -> np.ndarray:
    cameras = Cameras.orbit(AZIMUTHS, ELEVATION, fov=FOV)
    tensors = [torch.from_numpy(np.ascontiguousarray(each)) for each in (mesh.positions, mesh.faces, _colors(mesh))]
    rendered = render_mesh(*tensors, cameras, SIZE, light=even_light(cameras), shading=shading, supersample=2)
    return _on_white(rendered.rgb, rendered.alpha)


def _on_white(rgb: Tensor, alpha: Tensor) -> np.ndarray:
    return ((rgb + 1.0 - alpha).clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()


def _colors(mesh: MeshData) -> np.ndarray:
    return np.full_like(mesh.positions, 0.5) if mesh.colors is None else mesh.colors


def _split(mesh: MeshData) -> MeshData:
    """The same triangles, no two of which share a vertex."""
    corners = mesh.faces.reshape(-1)
    faces = np.arange(len(corners), dtype=np.int32).reshape(-1, 3)
    return MeshData(mesh.positions[corners], faces, _colors(mesh)[corners])
