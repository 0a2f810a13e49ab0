"""Scenes of materials for our renderer and for Cycles: the same arrays for both, and the difference of what they show."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import torch
import trimesh
from torch import Tensor

from backend.cameras import Cameras
from backend.rendering import EnvironmentMap, Illumination, Light, SphericalHarmonics, render_material, vertex_normals
from backend.rendering.illumination import harmonics, map_directions
from backend.representations.material_tensors import to_tensors
from backend.representations.mesh_data import MaterialData, MeshData

@dataclass(frozen=True)
class Shot:
    """Objects that do not see each other, under one light, through one camera."""

    name: str
    objects: list[MeshData]
    illumination: Illumination
    cameras: Cameras
    resolution: int


def sky() -> Tensor:
    """A bright environment `[64, 128, 3]`: blue above, brown below, a broad sun and a small red lamp on the left."""
    directions = map_directions(64, 128, torch.device("cpu"), torch.float32)
    up = directions[..., 1:2]
    above, below = torch.tensor([0.24, 0.36, 0.6]), torch.tensor([0.21, 0.15, 0.09])
    light = above * up.clamp_min(0.0) + 0.5 * above + below * (up < 0.0)
    for toward, sharpness, color in (
        ([0.6, 0.6, 0.7], 20.0, [8.0, 7.5, 7.0]),
        ([-0.9, 0.1, 0.2], 40.0, [6.0, 2.0, 1.0]),
    ):
        toward = torch.nn.functional.normalize(torch.tensor(toward), dim=0)
        light = light + torch.exp((directions @ toward - 1.0) * sharpness)[..., None] * torch.tensor(color)
    return 0.75 * light


def soft_sky() -> SphericalHarmonics:
    """What harmonics of degree 2 keep of `sky`, with enough of the first one that it is positive everywhere."""
    light = sky()
    height, width = light.shape[:2]
    directions = map_directions(height, width, torch.device("cpu"), torch.float32)
    solid_angle = directions[..., 1].square().neg().add(1.0).sqrt() * (math.pi / height) * (2.0 * math.pi / width)
    coefficients = torch.einsum("hwk,hw,hwc->kc", harmonics(directions), solid_angle, light)
    lowest = SphericalHarmonics(coefficients).to_image(height).amin(dim=(0, 1))
    coefficients[0] += lowest.clamp_max(0.0).neg() * math.sqrt(4.0 * math.pi)
    return SphericalHarmonics(coefficients)


def sun() -> Light:
    """A distant lamp from the upper right, and dim light from everywhere."""
    return Light(torch.nn.functional.normalize(torch.tensor([[0.6, 0.6, 0.7]]), dim=1), torch.tensor([0.3]))


LIGHTS = {"sun": sun, "harmonics": soft_sky, "map": lambda: EnvironmentMap(sky())}


def sphere_grid(name: str, illumination: Illumination, materials: list[MaterialData], resolution: int = 96) -> Shot:
    """Nine spheres side by side."""
    assert len(materials) == 9
    cameras = Cameras.orbit([20.0], 15.0, fov=38.0)
    right, up, _ = cameras.camera_to_world()[0, :3, :3].T.numpy()
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.31)
    objects = []
    for index, material in enumerate(materials):
        place = 0.66 * (index % 3 - 1) * right + 0.66 * (1 - index // 3) * up
        objects.append(MeshData((ball.vertices + place).astype(np.float32), ball.faces.astype(np.int32), material=material))
    return Shot(name, objects, illumination, cameras, resolution)


def bumpy_egg(name: str, illumination: Illumination, resolution: int = 96) -> Shot:
    """An egg with textures of all properties; a seam, sheared texture coordinates, and one half mirrored."""
    rows, columns = 24, 48
    v, u = np.meshgrid(np.linspace(0.0, 1.0, rows + 1), np.linspace(0.0, 1.0, columns + 1), indexing="ij")
    latitude, longitude = (v - 0.5) * math.pi, u * 2.0 * math.pi
    around = np.cos(latitude)
    shape = np.stack([around * np.sin(longitude), 1.25 * np.sin(latitude), around * np.cos(longitude)], axis=2)
    grid = np.arange((rows + 1) * (columns + 1)).reshape(rows + 1, columns + 1)
    a, b, c, d = grid[:-1, :-1], grid[:-1, 1:], grid[1:, 1:], grid[1:, :-1]
    lower, upper = np.stack([a, b, c], axis=2)[1:], np.stack([a, c, d], axis=2)[:-1]
    corners = np.concatenate([lower.reshape(-1, 3), upper.reshape(-1, 3)])
    place = np.round(0.7 * shape.reshape(-1, 3), 9) + 0.0
    positions, index = np.unique(place, axis=0, return_inverse=True)
    uvs = 2.0 * np.stack([1.0 - np.abs(1.0 - 2.0 * u) + 0.35 * v, v], axis=2).reshape(-1, 2)
    mesh = MeshData(
        positions.astype(np.float32),
        index.reshape(-1)[corners].astype(np.int32),
        uvs=uvs.astype(np.float32),
        uv_faces=corners.astype(np.int32),
        material=bumpy_material(),
    )
    return Shot(name, [mesh], illumination, Cameras.orbit([-10.0], 20.0, fov=40.0), resolution)


def bumpy_material() -> MaterialData:
    """Textures with values that 8 bits can hold: tiles and bumps that go on across the texture's borders."""
    size = 64
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size * 2.0 * math.pi
    tiles = (np.sin(2.0 * x) * np.sin(2.0 * y) > 0.0).astype(np.float64)
    color = np.stack([0.85 - 0.5 * tiles, 0.3 + 0.25 * np.sin(x) ** 2, 0.2 + 0.6 * tiles], axis=2)
    # height sin(3x) sin(2y) / 8 with y downward in the picture: slopes along u and v
    slope_u, slope_v = 0.375 * np.cos(3.0 * x) * np.sin(2.0 * y), -0.25 * np.sin(3.0 * x) * np.cos(2.0 * y)
    normal = np.stack([-slope_u, -slope_v, np.ones_like(x)], axis=2)
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    roughness = _in_bytes(0.55 + 0.25 * np.sin(x + y))
    return MaterialData(_in_bytes(color), _in_bytes(tiles), roughness, 2.0 * _in_bytes(0.5 * normal + 0.5) - 1.0)


def _in_bytes(values: np.ndarray) -> np.ndarray:
    return (np.round(values.clip(0.0, 1.0) * 255.0) / 255.0).astype(np.float32)


def write(shot: Shot, folder: Path) -> None:
    """The arrays that `cycles_pictures.py` reads."""
    arrays: dict[str, np.ndarray | float] = {
        "camera_to_world": shot.cameras.camera_to_world()[0].numpy(),
        "fov": float(shot.cameras.fov[0]),
        "resolution": shot.resolution,
    }
    light = shot.illumination
    if isinstance(light, Light):
        share = float(light.ambient[0])
        arrays |= {"environment": np.full(3, share), "sun": light.direction[0].numpy()}
        arrays["sun_strength"] = math.pi * (1.0 - share)
    else:
        arrays["environment"] = (light.to_image(64) if isinstance(light, SphericalHarmonics) else light.image).numpy()
    for index, mesh in enumerate(shot.objects):
        positions, faces = torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces)
        part = {"positions": mesh.positions, "faces": mesh.faces, "normals": vertex_normals(positions, faces).numpy()}
        if mesh.uvs is not None:
            part["uvs"] = mesh.uvs[mesh.uv_faces]
        for name in ("base_color", "metallic", "roughness", "emission"):
            values = getattr(mesh.material, name)
            if values is not None:
                part[name] = np.repeat(values[..., None], 3, axis=2) if np.ndim(values) == 2 else values
        if mesh.material.normal is not None:
            part["normal"] = 0.5 * mesh.material.normal + 0.5
        arrays |= {f"{index}.{name}": values for name, values in part.items()}
    np.savez(folder / f"{shot.name}.npz", **arrays)


def ours(shot: Shot) -> tuple[Tensor, Tensor]:
    """Linear radiance `[R, R, 3]` of `render_material`, and which object is seen, `[R, R]`, -1 for none and at edges."""
    picture, seen = torch.zeros(shot.resolution, shot.resolution, 3), torch.full((shot.resolution,) * 2, -1)
    for index, mesh in enumerate(shot.objects):
        arrays = (mesh.positions, mesh.faces, mesh.uvs, mesh.uv_faces)
        tensors = (None if each is None else torch.from_numpy(each) for each in arrays)
        with mock.patch("backend.rendering.material_render.to_display", lambda radiance: radiance):
            rendered = render_material(
                *tensors, to_tensors(mesh.material), shot.cameras, shot.resolution, illumination=shot.illumination
            )
        inside = rendered.alpha[0, ..., 0] >= 1.0
        picture[inside], seen[inside] = rendered.rgb[0][inside], index
    return picture, seen


def cycles(shot: Shot, folder: Path) -> Tensor:
    """What `cycles_pictures.py` has rendered, `[R, R, 4]`."""
    return torch.from_numpy(np.load(folder / f"{shot.name}.npy").copy())


def differences(shot: Shot, folder: Path) -> list[float]:
    """The mean absolute difference to Cycles of each object, over the pixels that both cover entirely."""
    (picture, seen), theirs = ours(shot), cycles(shot, folder)
    both = torch.where(theirs[..., 3] > 0.999, seen, -1)
    return [float((picture - theirs[..., :3])[both == index].abs().mean()) for index in range(len(shot.objects))]
