"""One directional light plus ambient light, drawn around the camera (DreamFusion, Poole et al. 2023, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from protocol.settings import LightSettings


class CameraPositions(Protocol):
    """What lighting needs of the cameras."""

    def position(self) -> Tensor: ...


@dataclass(frozen=True)
class Light:
    """Lambert shading is `color * (ambient + (1 - ambient) * max(0, n . direction))`.

    Attributes:
        direction: unit vectors toward the light, `[N, 3]`, one per view.
        ambient: the ambient share in [0, 1], `[N]`.
    """

    direction: Tensor
    ambient: Tensor


def sample_light(settings: LightSettings, cameras: CameraPositions, generator: torch.Generator) -> Light:
    """One light for a group of cameras, shared by its views: around the direction to the first camera, lifted upward.

    Draws three normal numbers and one uniform number from `generator`.
    """
    positions = cameras.position()
    noise = torch.randn(3, generator=generator, device=generator.device)
    share = torch.rand(1, generator=generator, device=generator.device)
    offset = settings.spread * noise
    offset[1] += settings.lift
    toward = torch.nn.functional.normalize(positions[0], dim=0) + offset.to(positions.device)
    ambient = settings.ambient_min + (settings.ambient_max - settings.ambient_min) * share.to(positions.device)
    views = positions.shape[0]
    return Light(torch.nn.functional.normalize(toward, dim=0).expand(views, 3), ambient.expand(views))


def headlight(cameras: CameraPositions, ambient: float = 0.5) -> Light:
    """A light at each camera: what a render without a given light uses. Nothing is random."""
    direction = torch.nn.functional.normalize(cameras.position(), dim=-1)
    return Light(direction, torch.full_like(direction[:, 0], ambient))


def lambert(normals: Tensor, light: Light) -> Tensor:
    """The shading factor `[N, H, W, 1]` of unit normals `[N, H, W, 3]`."""
    cosine = torch.linalg.vecdot(normals, light.direction[:, None, None, :]).clamp_min(0.0)
    ambient = light.ambient[:, None, None]
    return (ambient + (1.0 - ambient) * cosine)[..., None]
