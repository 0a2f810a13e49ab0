"""Silhouettes and pictures of a mesh against those of fresh true objects, from fixed unseen cameras."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor

from backend.cameras import Cameras
from backend.evaluation.judge_data import SEED_SPACE, true_mesh
from backend.rendering import render_mesh
from backend.representations.mesh_data import MeshData
from backend.toybox.kind import Kind
from backend.toybox.objects import KINDS, ObjectSpec

RESOLUTION = 48
INSTANCES = 5
GRAY = 0.5


def silhouette_cameras() -> Cameras:
    """Eight azimuths, none of them a multiple of 45 degrees, at four elevations."""
    return Cameras.orbit([17.0 + 45.0 * k for k in range(8)], torch.tensor([5.0, 25.0, -5.0, 40.0] * 2))


def silhouettes(mesh: MeshData) -> Tensor:
    """Coverage [8, 48, 48] of `mesh` in all silhouette cameras."""
    return _rgba(mesh)[..., 3]


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Soft intersection over union of coverages [..., H, W], averaged over views: sum of minima over sum of maxima."""
    both, either = torch.minimum(a, b).sum((-1, -2)), torch.maximum(a, b).sum((-1, -2))
    return (both / either.clamp_min(1e-6)).mean(-1)


def overlap_with_kinds(mesh: MeshData, size: str) -> dict[str, float]:
    """For every kind the mean IoU of the mesh with `INSTANCES` fresh true objects of that kind and size word."""
    seen = silhouettes(mesh)
    return {kind.name: overlap(seen, _true_silhouettes(kind, size)).mean().item() for kind in KINDS}


def yaw_picture_errors(mesh: MeshData, spec: ObjectSpec) -> list[float]:
    """Mean absolute difference of unlit pictures (on gray) to true objects, if the front is at yaw 0, 90, 180, 270.

    The smallest over `INSTANCES` true objects with the colors of `spec`: a second opinion on the judge's yaw.
    """
    rng = np.random.default_rng([SEED_SPACE, 11])
    instances = [true_mesh(spec, rng) for _ in range(INSTANCES)]
    errors = []
    for yaw in (0.0, 90.0, 180.0, 270.0):
        seen = _on_gray(_rgba(mesh, yaw))
        errors.append(min((seen - _on_gray(_rgba(true))).abs().mean().item() for true in instances))
    return errors


@cache
def _true_silhouettes(kind: Kind, size: str) -> Tensor:
    """[INSTANCES, 8, 48, 48], from seeds that nothing else uses."""
    rng = np.random.default_rng([SEED_SPACE, 10, KINDS.index(kind)])
    spec = ObjectSpec(kind, "gray", "white", size)
    return torch.stack([silhouettes(true_mesh(spec, rng)) for _ in range(INSTANCES)])


@torch.no_grad()
def _rgba(mesh: MeshData, yaw: float = 0.0) -> Tensor:
    """Unlit premultiplied RGBA [8, 48, 48, 4]; all cameras are turned by `yaw` degrees around the mesh."""
    base = silhouette_cameras()
    cameras = Cameras(base.azimuth + yaw, base.elevation, base.distance, base.fov)
    colors = None if mesh.colors is None else torch.from_numpy(mesh.colors)
    rendered = render_mesh(
        torch.from_numpy(mesh.positions), torch.from_numpy(mesh.faces), colors, cameras, RESOLUTION, shading="albedo"
    )
    return torch.cat([rendered.rgb, rendered.alpha], -1)


def _on_gray(rgba: Tensor) -> Tensor:
    return rgba[..., :3] + GRAY * (1.0 - rgba[..., 3:])
