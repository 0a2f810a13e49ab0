"""One directional light plus ambient light, drawn around the camera (DreamFusion, Poole et al. 2023, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:  # the operators need no more than torch and Warp
    from protocol.settings import LightSettings

Shading = Literal["lit", "albedo", "textureless", "normal"]


class CameraPositions(Protocol):
    """What lighting needs of the cameras."""

    def position(self) -> Tensor: ...

    def camera_to_world(self) -> Tensor: ...


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
    """One random lamp fixed to the camera rig: every view of a group is lit from the same side of its own camera.

    DreamFusion draws the light around the camera of its single view. Shared by a group in world space, such a light
    leaves the far views with ambient light alone, where orange is brown and white is gray; carried along, each view is
    lit as DreamFusion lights one. Draws three normal numbers and one uniform number from `generator`.
    """
    rotation = cameras.camera_to_world()[:, :3, :3]
    noise = torch.randn(3, generator=generator, device=generator.device)
    share = torch.rand(1, generator=generator, device=generator.device)
    in_camera = settings.spread * noise + torch.tensor([0.0, settings.lift, 1.0], device=generator.device)
    direction = rotation @ torch.nn.functional.normalize(in_camera, dim=0).to(rotation.device)
    ambient = settings.ambient_min + (settings.ambient_max - settings.ambient_min) * share.to(rotation.device)
    return Light(direction, ambient.expand(len(direction)))


def headlight(cameras: CameraPositions, ambient: float = 0.5) -> Light:
    """A light at each camera: what a render without a given light uses. Nothing is random."""
    direction = torch.nn.functional.normalize(cameras.position(), dim=-1)
    return Light(direction, torch.full_like(direction[:, 0], ambient))
